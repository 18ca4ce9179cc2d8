//! What can be a key, and what can be a value.

use std::borrow::Borrow;
use std::hash::Hash;

/// A key, in the form in which it is looked up: `str`, `[u8]`, `u64`, a tuple, a struct of yours.
///
/// A blanket trait: whatever is hashable, comparable and can be owned is a key. A `Memory<str, V>` is
/// read with a `&str`; only storing an entry makes the owned form. Keys are compared, never trusted to
/// their hash (law E14).
pub trait Key:
    Hash + Eq + ToOwned<Owned: Borrow<Self> + Hash + Eq + Clone + Send + Sync + 'static> + Send + Sync + 'static
{
}

impl<K> Key for K
where
    K: ?Sized + Hash + Eq + ToOwned + Send + Sync + 'static,
    K::Owned: Borrow<K> + Hash + Eq + Clone + Send + Sync + 'static,
{
}

/// A value. A blanket trait: a hit clones the value, so wrap a large one in an `Arc`.
pub trait Value: Clone + Send + Sync + 'static {}

impl<V: Clone + Send + Sync + 'static> Value for V {}
