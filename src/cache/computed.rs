//! What a computation may answer: a value, and now and then a lifetime of its own.

use std::sync::Arc;
use std::time::Duration;

/// The answer of a computation. A plain value is one, by `Into`: it lives as long as the cache says.
///
/// ```
/// use std::time::Duration;
/// use larder::Computed;
///
/// let page = Computed::new("<html>".to_owned())
///     .ttl(Duration::from_secs(10))
///     .stale(Duration::from_secs(60))
///     .version("\"33a64df5\"")
///     .tags(["home", "de"]);
/// # let _ = page;
/// ```
#[derive(Clone, Debug)]
#[must_use = "an answer that is not returned is not cached"]
pub struct Computed<V> {
    /// `None` when the entry that the computation was given still holds.
    pub(crate) value: Option<V>,
    /// Rare, so that an answer is as cheap to hand on as its value.
    terms: Option<Box<Terms>>,
}

/// What an answer says for itself; what it leaves out the cache decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) ttl: Option<Ttl>,
    pub(crate) stale: Option<Duration>,
    pub(crate) keep: Option<Keep>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) tags: Option<Vec<Arc<str>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    For(Duration),
    Never,
}

/// How long past the end of its freshness an entry is kept for the case that a computation fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Keep {
    #[default]
    No,
    For(Duration),
    Forever,
}

impl<V> Computed<V> {
    /// This value.
    pub fn new(value: V) -> Self {
        Self { value: Some(value), terms: None }
    }

    /// The value of the entry that the computation was given still holds: its life begins anew, with its
    /// version and tags unless this answer has its own. An answer to HTTP's `304 Not Modified` (RFC 9111,
    /// section 4.3). Without such an entry it is an error of kind [`InvalidInput`](crate::ErrorKind). An entry is
    /// given as long as it is kept: with a ttl alone it is dead when its ttl has passed, so such a cache needs a
    /// stale window or [`keep_stale_on_error`](crate::CacheBuilder::keep_stale_on_error).
    ///
    /// A computation of many keys is given keys only. Its answer stands for the entry that was found, which is then written
    /// whole, with the others of the batch.
    pub fn unchanged() -> Self {
        Self { value: None, terms: None }
    }

    /// Fresh for this long, counted from the end of the computation, instead of the cache's ttl. Zero is
    /// allowed here: the value is stored, and fresh at that one instant.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.terms_mut().ttl = Some(Ttl::For(ttl));
        self
    }

    /// Fresh for ever.
    pub fn no_expiration(mut self) -> Self {
        self.terms_mut().ttl = Some(Ttl::Never);
        self
    }

    /// Served stale for this long after the end of freshness, instead of the cache's window.
    pub fn stale(mut self, window: Duration) -> Self {
        self.terms_mut().stale = Some(window);
        self
    }

    /// Kept for this long after the end of freshness for the case that a computation fails.
    pub fn keep_stale_on_error(mut self, age: Duration) -> Self {
        self.terms_mut().keep = Some(Keep::For(age));
        self
    }

    /// A validator to be had from the entry next time, such as an ETag; opaque to larder.
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.terms_mut().version = Some(version.into());
        self
    }

    /// The tags of the entry, in this order.
    pub fn tags<T: Into<Arc<str>>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.terms_mut().tags = Some(tags.into_iter().map(Into::into).collect());
        self
    }

    /// The value, and what the answer says for itself.
    pub(crate) fn into_parts(self) -> (Option<V>, Option<Box<Terms>>) {
        (self.value, self.terms)
    }

    fn terms_mut(&mut self) -> &mut Terms {
        self.terms.get_or_insert_default()
    }
}

impl<V> From<V> for Computed<V> {
    fn from(value: V) -> Self {
        Self::new(value)
    }
}
