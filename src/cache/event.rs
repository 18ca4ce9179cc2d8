//! What a cache tells whoever listens.

use std::fmt;
use std::time::Duration;

use crate::entry::Lifetime;
use crate::error::{Error, Operation};
use crate::store::{Refusal, Store};

/// Something that happened to a key, told where it happened: see
/// [`CacheBuilder::events`](crate::CacheBuilder::events).
#[derive(Debug)]
pub struct Event<'a, K: ?Sized> {
    /// The key, unless it happened to all of them, or to those with a tag.
    pub key: Option<&'a K>,
    /// What happened.
    pub kind: EventKind<'a>,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// A fresh entry was served.
    Hit(Lifetime),
    /// A stale entry was served, within its window.
    StaleHit(Lifetime),
    /// Nothing servable was found.
    Miss,
    /// A caller waits for a computation that another one began.
    Joined,
    /// A computation began because someone waits for it.
    LoadStarted,
    /// It ended well, after this time by the cache's clock.
    LoadSucceeded(Duration),
    /// It failed, ran out of time (perhaps while it waited for a place, before it began), or was cut off by a shutdown.
    LoadFailed(&'a Error),
    /// It did not begin: as many loads ran and waited as may (E21).
    LoadRejected,
    /// It was dropped: the last caller who waited for it had lost patience (E20).
    LoadDropped,
    /// None was begun, because the last one failed a moment ago: it counts as failed again, with this error (E17).
    ErrorRemembered(&'a Error),
    /// A caller who had waited for the soft timeout was served an expired entry; the load goes on (E20).
    SoftTimeout(Lifetime),
    /// A caller who had waited for the hard timeout got an error (E20).
    HardTimeout,
    /// It panicked. The panic goes on in the caller that began it, if it still waits.
    LoadPanicked,
    /// A computation began because a stale entry was served, or a fresh one that was due.
    RefreshStarted,
    /// It ended well, after this time by the cache's clock.
    RefreshSucceeded(Duration),
    /// It failed, ran out of time, or was cut off; the entry that was served stays.
    RefreshFailed(&'a Error),
    /// It panicked; the entry that was served stays.
    RefreshPanicked,
    /// It did not begin: as many refreshes as allowed were running or had begun lately, the last computation failed a
    /// moment ago (E17), or the cache is shut down.
    RefreshSkipped,
    /// The result of a computation was not stored, because the key was written or removed meanwhile, or one of its
    /// tags removed (E4).
    Overtaken,
    /// The computation of a batch answered for this many keys that it was not asked for. They were ignored (E15).
    Unasked(usize),
    /// A computation failed and the last entry was served in its place (E8).
    StaleOnError(&'a Error),
    /// A caller set the value.
    Set,
    /// The store did not take an entry.
    Refused(Refusal),
    /// A caller removed the entry.
    Removed,
    /// A caller removed everything that carries one of these tags.
    TagsRemoved(&'a [&'a str]),
    /// A caller ended the freshness of everything that carries one of these tags.
    TagsExpired(&'a [&'a str]),
    /// A caller cleared the cache.
    Cleared,
    /// The store failed in this operation. What the caller got is another event.
    StoreFailed(Operation, &'a Error),
}

#[cfg(any(test, feature = "testkit"))]
impl EventKind<'_> {
    /// The name of the variant.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hit(_) => "Hit",
            Self::StaleHit(_) => "StaleHit",
            Self::Miss => "Miss",
            Self::Joined => "Joined",
            Self::LoadStarted => "LoadStarted",
            Self::LoadSucceeded(_) => "LoadSucceeded",
            Self::LoadFailed(_) => "LoadFailed",
            Self::LoadRejected => "LoadRejected",
            Self::LoadDropped => "LoadDropped",
            Self::ErrorRemembered(_) => "ErrorRemembered",
            Self::SoftTimeout(_) => "SoftTimeout",
            Self::HardTimeout => "HardTimeout",
            Self::LoadPanicked => "LoadPanicked",
            Self::RefreshStarted => "RefreshStarted",
            Self::RefreshSucceeded(_) => "RefreshSucceeded",
            Self::RefreshFailed(_) => "RefreshFailed",
            Self::RefreshPanicked => "RefreshPanicked",
            Self::RefreshSkipped => "RefreshSkipped",
            Self::Overtaken => "Overtaken",
            Self::Unasked(_) => "Unasked",
            Self::StaleOnError(_) => "StaleOnError",
            Self::Set => "Set",
            Self::Refused(_) => "Refused",
            Self::Removed => "Removed",
            Self::TagsRemoved(_) => "TagsRemoved",
            Self::TagsExpired(_) => "TagsExpired",
            Self::Cleared => "Cleared",
            Self::StoreFailed(..) => "StoreFailed",
        }
    }
}

/// Whoever listens, or nobody.
pub(crate) struct Listener<S: Store>(Option<Box<Listen<S>>>);

type Listen<S> = dyn Fn(&Event<'_, <S as Store>::Key>) + Send + Sync;

impl<S: Store> Listener<S> {
    pub(crate) fn new(listen: impl Fn(&Event<'_, S::Key>) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(listen)))
    }

    #[inline]
    pub(crate) const fn is_there(&self) -> bool {
        self.0.is_some()
    }

    #[inline]
    pub(crate) fn tell(&self, key: &S::Key, kind: EventKind<'_>) {
        if let Some(listen) = &self.0 {
            listen(&Event { key: Some(key), kind });
        }
    }

    pub(crate) fn tell_of_all(&self, kind: EventKind<'_>) {
        if let Some(listen) = &self.0 {
            listen(&Event { key: None, kind });
        }
    }
}

impl<S: Store> Default for Listener<S> {
    fn default() -> Self {
        Self(None)
    }
}

impl<S: Store> fmt::Debug for Listener<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Listener" } else { "nobody" })
    }
}
