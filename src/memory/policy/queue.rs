//! A doubly linked queue of slots, its links kept in the slots.

use super::{Policy, Slots};

/// No slot, in 31 bits: the last bit is the flag's.
const NONE: u32 = u32::MAX >> 1;
const FLAG: u32 = 1 << 31;

/// The neighbours of a slot in its queue, and a flag: in which of two queues it is.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    newer: u32,
    /// And the flag, so that a mark is eight bytes.
    older: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { newer: NONE, older: NONE }
    }
}

impl Links {
    pub(super) const fn flag(self) -> bool {
        self.older & FLAG != 0
    }

    const fn older(self) -> u32 {
        self.older & !FLAG
    }

    const fn set_older(&mut self, older: u32) {
        self.older = self.older & FLAG | older;
    }
}

/// First in, first out, and removal from the middle; every operation takes constant time.
#[derive(Debug)]
pub(super) struct Queue {
    newest: u32,
    oldest: u32,
    len: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { newest: NONE, oldest: NONE, len: 0 }
    }
}

impl Queue {
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// The entry that is one newer than `slot`, which is in this queue.
    pub(super) fn newer<P: Policy<Mark = Links>>(slots: &impl Slots<P>, slot: u32) -> Option<u32> {
        let newer = slots.mark(slot).newer;
        (newer != NONE).then_some(newer)
    }

    /// Puts `slot` at the new end; `flag` says later which queue that was.
    pub(super) fn push<P: Policy<Mark = Links>>(&mut self, slots: &mut impl Slots<P>, slot: u32, flag: bool) {
        let flag = if flag { FLAG } else { 0 };
        *slots.mark_mut(slot) = Links { newer: NONE, older: self.newest | flag };
        match self.newest {
            NONE => self.oldest = slot,
            newest => slots.mark_mut(newest).newer = slot,
        }
        self.newest = slot;
        self.len += 1;
    }

    pub(super) fn remove<P: Policy<Mark = Links>>(&mut self, slots: &mut impl Slots<P>, slot: u32) {
        let links = *slots.mark(slot);
        let (newer, older) = (links.newer, links.older());
        match newer {
            NONE => self.newest = older,
            newer => slots.mark_mut(newer).set_older(older),
        }
        match older {
            NONE => self.oldest = newer,
            older => slots.mark_mut(older).newer = newer,
        }
        self.len -= 1;
    }
}
