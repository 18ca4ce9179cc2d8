//! What the computation of a batch answers: a value for each key, or why there is none.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;

use crate::cache::computed::Computed;
use crate::error::{Error, ErrorKind, Operation, Result};

/// The answers of a computation that was asked for several keys.
///
/// Collected from pairs of key and value, or made of a map, a vector or an array of them; a value is a plain one or a
/// [`Computed`]. The order is of no matter. The last word on a key counts. A key without an answer is absent; an answer
/// for a key that was not asked for is ignored, with an [event](crate::EventKind::Unasked).
///
/// ```
/// use larder::{Answers, Computed};
///
/// let rows = vec![(1, "Ada"), (2, "Grace")];
/// let mut answers: Answers<u64, String> = rows.into_iter().map(|(id, name)| (id, name.to_owned())).collect();
/// answers.insert(3, Computed::new("Edsger".to_owned()).version("v1"));
/// answers.fail(4, std::io::Error::other("the shard of 4 is down"));
/// answers.absent(&2);
/// assert_eq!(answers.len(), 3);
/// ```
#[must_use = "answers that are not returned are not cached"]
pub struct Answers<O, V> {
    answers: HashMap<O, Result<Computed<V>>, RandomState>,
}

impl<O: Hash + Eq, V> Answers<O, V> {
    /// No answer yet: every key is absent.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `key`.
    pub fn insert(&mut self, key: O, value: impl Into<Computed<V>>) {
        self.answers.insert(key, Ok(value.into()));
    }

    /// The value of `key` could not be computed. The others do not suffer (E15). The error becomes the source of one of
    /// kind [`Computation`](ErrorKind::Computation); where the cache serves stale entries on error, it does so for
    /// this key (E8).
    pub fn fail(&mut self, key: O, error: impl Into<Box<dyn StdError + Send + Sync>>) {
        self.answers.insert(key, Err(failed(error)));
    }

    /// There is no value of `key`: the same as to say nothing of it.
    pub fn absent<Q>(&mut self, key: &Q)
    where
        O: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.answers.remove(key);
    }

    /// For how many keys there is a value or an error.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether there is no value and no error.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    pub(crate) fn take<Q>(&mut self, key: &Q) -> Option<Result<Computed<V>>>
    where
        O: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.answers.remove(key)
    }
}

/// The error of a computation in the engine's words.
pub(crate) fn failed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Computation, "cache", Operation::Compute).with_source(error)
}

impl<O, V> Default for Answers<O, V> {
    fn default() -> Self {
        Self { answers: HashMap::default() }
    }
}

impl<O: Hash + Eq, V, C: Into<Computed<V>>> FromIterator<(O, C)> for Answers<O, V> {
    fn from_iter<I: IntoIterator<Item = (O, C)>>(pairs: I) -> Self {
        let answers = pairs.into_iter().map(|(key, value)| (key, Ok(value.into()))).collect();
        Self { answers }
    }
}

impl<O: Hash + Eq, V, C: Into<Computed<V>>> Extend<(O, C)> for Answers<O, V> {
    fn extend<I: IntoIterator<Item = (O, C)>>(&mut self, pairs: I) {
        self.answers.extend(pairs.into_iter().map(|(key, value)| (key, Ok(value.into()))));
    }
}

impl<O: Hash + Eq, V, C: Into<Computed<V>>, H: BuildHasher> From<HashMap<O, C, H>> for Answers<O, V> {
    fn from(pairs: HashMap<O, C, H>) -> Self {
        pairs.into_iter().collect()
    }
}

impl<O: Hash + Eq, V, C: Into<Computed<V>>> From<BTreeMap<O, C>> for Answers<O, V> {
    fn from(pairs: BTreeMap<O, C>) -> Self {
        pairs.into_iter().collect()
    }
}

impl<O: Hash + Eq, V, C: Into<Computed<V>>> From<Vec<(O, C)>> for Answers<O, V> {
    fn from(pairs: Vec<(O, C)>) -> Self {
        pairs.into_iter().collect()
    }
}

impl<O: Hash + Eq, V, C: Into<Computed<V>>, const N: usize> From<[(O, C); N]> for Answers<O, V> {
    fn from(pairs: [(O, C); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<O: Clone, V: Clone> Clone for Answers<O, V> {
    fn clone(&self) -> Self {
        Self { answers: self.answers.clone() }
    }
}

impl<O: fmt::Debug, V: fmt::Debug> fmt::Debug for Answers<O, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.answers).finish()
    }
}
