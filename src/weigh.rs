//! How many bytes a value takes, its heap included.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::mem::size_of;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::Key;

/// Counts the heap that a value holds on to.
///
/// A value's weight is its own size plus [`Weigh::heap`]. What is shared (`Arc`, `Bytes`) is counted in
/// full by everyone who holds it: nobody can know when the last one lets go. Where this trait does not
/// reach, give the tier a [`Weigher`] made of a closure.
///
/// ```
/// use larder::Weigh;
///
/// struct User { name: String, roles: Vec<String> }
///
/// impl Weigh for User {
///     fn heap(&self) -> u64 {
///         self.name.heap() + self.roles.heap()
///     }
/// }
/// # let user = User { name: "ada".into(), roles: vec!["admin".into()] };
/// # assert_eq!(user.heap(), 3 + 24 + 5);
/// ```
#[diagnostic::on_unimplemented(
    message = "larder does not know how much heap a `{Self}` holds",
    note = "implement `larder::Weigh` for it (one method), or give the tier a weigher made of a closure"
)]
pub trait Weigh {
    /// Bytes outside the value itself. For an unsized value (`str`, `[T]`): all of its bytes.
    fn heap(&self) -> u64;
}

fn bytes(count: usize) -> u64 {
    count as u64
}

macro_rules! no_heap {
    ($($ty:ty),*) => { $(
        impl Weigh for $ty {
            fn heap(&self) -> u64 { 0 }
        }
    )* };
}

no_heap!(
    (),
    bool,
    char,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    f32,
    f64,
    std::time::Duration,
    std::net::IpAddr,
    std::net::SocketAddr
);

impl Weigh for str {
    fn heap(&self) -> u64 {
        bytes(self.len())
    }
}

impl Weigh for String {
    fn heap(&self) -> u64 {
        bytes(self.capacity())
    }
}

impl Weigh for &'static str {
    fn heap(&self) -> u64 {
        0
    }
}

impl Weigh for Bytes {
    fn heap(&self) -> u64 {
        bytes(self.len())
    }
}

impl<T: Weigh> Weigh for [T] {
    fn heap(&self) -> u64 {
        bytes(size_of_val(self)) + self.iter().map(Weigh::heap).sum::<u64>()
    }
}

impl<T: Weigh, const N: usize> Weigh for [T; N] {
    fn heap(&self) -> u64 {
        self.iter().map(Weigh::heap).sum()
    }
}

impl<T: Weigh> Weigh for Vec<T> {
    fn heap(&self) -> u64 {
        bytes(self.capacity() * size_of::<T>()) + self.iter().map(Weigh::heap).sum::<u64>()
    }
}

impl<T: Weigh> Weigh for VecDeque<T> {
    fn heap(&self) -> u64 {
        bytes(self.capacity() * size_of::<T>()) + self.iter().map(Weigh::heap).sum::<u64>()
    }
}

impl<T: Weigh> Weigh for Option<T> {
    fn heap(&self) -> u64 {
        self.as_ref().map_or(0, Weigh::heap)
    }
}

impl<T: Weigh, E: Weigh> Weigh for Result<T, E> {
    fn heap(&self) -> u64 {
        match self {
            Ok(value) => value.heap(),
            Err(error) => error.heap(),
        }
    }
}

/// What stands behind a pointer: a sized value's own size and heap, an unsized one's bytes.
fn pointee<T: Weigh + ?Sized>(value: &T) -> u64 {
    // An unsized value reports its own bytes as heap; a sized one does not.
    if size_of::<&T>() == size_of::<usize>() {
        bytes(size_of_val(value)) + value.heap()
    } else {
        value.heap()
    }
}

impl<T: Weigh + ?Sized> Weigh for Box<T> {
    fn heap(&self) -> u64 {
        pointee(&**self)
    }
}

/// The two counters in front of a shared value.
const COUNTERS: usize = 2 * size_of::<usize>();

impl<T: Weigh + ?Sized> Weigh for Arc<T> {
    fn heap(&self) -> u64 {
        bytes(COUNTERS) + pointee(&**self)
    }
}

impl<T: Weigh + ?Sized> Weigh for Rc<T> {
    fn heap(&self) -> u64 {
        bytes(COUNTERS) + pointee(&**self)
    }
}

/// Bytes of a swiss table for this capacity: its power of two of buckets, a control byte each.
fn table(capacity: usize, item: usize) -> u64 {
    if capacity == 0 {
        return 0;
    }
    let buckets = if capacity < 8 {
        (capacity + 1).next_power_of_two()
    } else {
        (capacity * 8 / 7).next_power_of_two()
    };
    bytes(buckets * (item + 1) + 16)
}

impl<K: Weigh, V: Weigh, S> Weigh for HashMap<K, V, S> {
    fn heap(&self) -> u64 {
        table(self.capacity(), size_of::<(K, V)>())
            + self.iter().map(|(key, value)| key.heap() + value.heap()).sum::<u64>()
    }
}

impl<T: Weigh, S> Weigh for HashSet<T, S> {
    fn heap(&self) -> u64 {
        table(self.capacity(), size_of::<T>()) + self.iter().map(Weigh::heap).sum::<u64>()
    }
}

/// Nodes of a B-tree hold eleven items and are about two thirds full, with a header of two words.
fn tree(len: usize, item: usize) -> u64 {
    bytes(len * item * 3 / 2 + len.div_ceil(7) * 2 * size_of::<usize>())
}

impl<K: Weigh, V: Weigh> Weigh for BTreeMap<K, V> {
    fn heap(&self) -> u64 {
        tree(self.len(), size_of::<(K, V)>())
            + self.iter().map(|(key, value)| key.heap() + value.heap()).sum::<u64>()
    }
}

impl<T: Weigh> Weigh for BTreeSet<T> {
    fn heap(&self) -> u64 {
        tree(self.len(), size_of::<T>()) + self.iter().map(Weigh::heap).sum::<u64>()
    }
}

macro_rules! tuples {
    ($(($($name:ident),+))*) => { $(
        impl<$($name: Weigh),+> Weigh for ($($name,)+) {
            #[expect(non_snake_case, reason = "a type parameter names its field")]
            fn heap(&self) -> u64 {
                let ($($name,)+) = self;
                0 $(+ $name.heap())+
            }
        }
    )* };
}

tuples! { (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) (A, B, C, D, E, F, G) }

/// How a tier weighs an entry by its key and value.
///
/// A tier adds its own overhead of an entry if the weigher counts bytes, which [`Weigher::of_type`] does;
/// a closure may count in a unit of its own, and what it says is the weight.
pub struct Weigher<K: ?Sized, V> {
    weigh: Arc<WeighFn<K, V>>,
    counts_bytes: bool,
}

type WeighFn<K, V> = dyn Fn(&K, &V) -> u64 + Send + Sync;

impl<K: Key + ?Sized, V: 'static> Weigher<K, V> {
    /// Weighs by a closure. It must answer the same for equal entries; if it panics, the entry is not
    /// stored and the tier stays within its bound.
    pub fn new(weigh: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        Self { weigh: Arc::new(weigh), counts_bytes: false }
    }

    /// Weighs by [`Weigh`]: the sizes of key and value and their heap.
    pub fn of_type() -> Self
    where
        K: Weigh,
        V: Weigh,
    {
        let weigh = |key: &K, value: &V| {
            bytes(size_of::<K::Owned>() + size_of::<V>())
                .saturating_add(key.heap())
                .saturating_add(value.heap())
        };
        Self { counts_bytes: true, ..Self::new(weigh) }
    }
}

impl<K: ?Sized, V> Weigher<K, V> {
    /// The weight of an entry with this key and value.
    pub fn weigh(&self, key: &K, value: &V) -> u64 {
        (self.weigh)(key, value)
    }

    /// Whether the weights are bytes of memory, so that a tier may add what it needs itself.
    pub fn counts_bytes(&self) -> bool {
        self.counts_bytes
    }
}

impl<K: ?Sized, V> Clone for Weigher<K, V> {
    fn clone(&self) -> Self {
        Self { weigh: Arc::clone(&self.weigh), counts_bytes: self.counts_bytes }
    }
}

impl<K: ?Sized, V> fmt::Debug for Weigher<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Weigher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_is_counted_and_not_only_size_of() {
        assert_eq!("abc".to_owned().heap(), 3);
        assert_eq!(vec![1u32, 2].heap(), 8);
        assert_eq!(vec!["ab".to_owned()].heap(), 24 + 2);
        assert_eq!(Arc::<str>::from("abcd").heap(), 16 + 4);
        assert_eq!(Arc::new(7u64).heap(), 16 + 8);
        assert_eq!(Box::new("ab".to_owned()).heap(), 24 + 2);
        assert_eq!(Some("ab".to_owned()).heap(), 2);
        assert_eq!(None::<String>.heap(), 0);
        assert_eq!((1u8, "abc".to_owned()).heap(), 3);
        assert_eq!(Bytes::from_static(b"abcd").heap(), 4);
        assert_eq!(HashMap::<u8, u8>::new().heap(), 0);
        assert!(HashMap::from([(1u64, "x".repeat(100))]).heap() > 132);
    }

    #[test]
    fn a_key_weighs_as_its_owned_form() {
        let weigher = Weigher::<str, u64>::of_type();
        assert_eq!(weigher.weigh("abc", &1), 24 + 3 + 8);
    }
}
