//! A doubly linked queue of slots, its links kept in the slots.

use super::Slots;
use crate::memory::slab::NONE;

/// The neighbours of a slot in its queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    newer: u32,
    older: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { newer: NONE, older: NONE }
    }
}

/// A mark that has room for links.
pub(super) trait Linked {
    fn links(&mut self) -> &mut Links;
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

    pub(super) fn push<M: Linked>(&mut self, slots: &mut impl Slots<M>, slot: u32) {
        *slots.mark_mut(slot).links() = Links { newer: NONE, older: self.newest };
        match self.newest {
            NONE => self.oldest = slot,
            newest => slots.mark_mut(newest).links().newer = slot,
        }
        self.newest = slot;
        self.len += 1;
    }

    pub(super) fn remove<M: Linked>(&mut self, slots: &mut impl Slots<M>, slot: u32) {
        let Links { newer, older } = *slots.mark_mut(slot).links();
        match newer {
            NONE => self.newest = older,
            newer => slots.mark_mut(newer).links().older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => slots.mark_mut(older).links().newer = newer,
        }
        self.len -= 1;
    }
}
