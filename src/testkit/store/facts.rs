//! What a store is said to be, as far as the laws need to know.

/// In which order a full store gives up entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The one that was not read or written for the longest time goes first.
    LeastRecentlyUsed,
    /// The one that was not written for the longest time goes first.
    OldestWritten,
}

/// Promises, hooks and what the types allow.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a promise or a hook of its own")]
pub(crate) struct Facts {
    /// How many keys the corpus has.
    pub(crate) keys: usize,
    /// The keys as text, for ranges of them.
    pub(crate) texts: Vec<String>,
    pub(crate) max_entries: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) largest: Option<u64>,
    pub(crate) order: Option<Order>,
    pub(crate) forgets: bool,
    pub(crate) peeks: bool,
    pub(crate) counts: bool,
    pub(crate) weighs: bool,
    pub(crate) expires: bool,
    pub(crate) reopens: bool,
    pub(crate) second: bool,
    pub(crate) corrupts: bool,
    pub(crate) outages: bool,
    pub(crate) evicts: bool,
    pub(crate) clears_prefixes: bool,
    pub(crate) sized: bool,
    pub(crate) numbered: bool,
    pub(crate) witnessed: bool,
}

impl Facts {
    /// Whether the store may forget none of so many keys.
    pub(crate) fn retains(&self, keys: u64) -> bool {
        let room = self.max_entries.is_none_or(|max| max >= keys);
        // A small value with everything that is counted for it takes less than 1 KiB.
        !self.forgets && room && self.max_bytes.is_none_or(|max| max >= keys * 1_024)
    }

    /// So many keys, or as many as fit.
    pub(crate) fn fitting(&self, keys: u8) -> u8 {
        let room =
            self.max_entries.unwrap_or(u64::MAX).min(self.max_bytes.map_or(u64::MAX, |max| max / 1_024));
        let known = u8::try_from(self.keys).unwrap_or(u8::MAX);
        keys.min(u8::try_from(room).unwrap_or(u8::MAX)).min(known).max(1)
    }
}
