//! Keys and values that the kit makes up.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::key::{Key, Value};

/// A type of keys of which the kit knows a corpus: harmless ones first, then those that stores mix up.
///
/// For a type of yours either implement it, or give the corpus to [`check_with`](crate::testkit::check_with).
#[diagnostic::on_unimplemented(
    message = "the kit has no keys of type `{Self}`",
    note = "implement `larder::testkit::SampleKey` for it, or call `testkit::check_with(name, keys, value, store)`"
)]
pub trait SampleKey: Key {
    /// Different keys, at least eight, the first three of them harmless.
    fn corpus() -> Vec<Self::Owned>;

    /// The key of this number among any number of harmless ones, none of them in the corpus.
    fn numbered(number: u32) -> Self::Owned;
}

/// A type of values that the kit can make from a number.
#[diagnostic::on_unimplemented(
    message = "the kit cannot make values of type `{Self}`",
    note = "implement `larder::testkit::SampleValue` for it, or call `testkit::check_with(name, keys, value, store)`"
)]
pub trait SampleValue: Value {
    /// A value for this number; different numbers have different values, unless the type is too small for it.
    fn sample(number: u32) -> Self;

    /// The same of exactly so many bytes, if values of this type have a length.
    fn sized(number: u32, bytes: usize) -> Option<Self> {
        let _ = (number, bytes);
        None
    }

    /// The same, and a witness that tells whether a copy of it is still held, if the type can have one.
    fn witnessed(number: u32) -> Option<(Self, Witness)> {
        let _ = number;
        None
    }
}

/// Tells whether a value is still held by anyone.
#[derive(Clone, Debug)]
pub struct Witness(Weak<Vec<u8>>);

impl Witness {
    /// Whether any copy of the value is left.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

fn hostile() -> Vec<String> {
    let plain = [
        "k",
        "l",
        "m",
        "",
        " ",
        "K",
        "kk",
        "k ",
        " k",
        "k:",
        ":k",
        "k:l",
        ":",
        "k/l",
        "/k",
        "k/",
        "../k",
        ".",
        "..",
        "k.",
        "k\\l",
        "k\0",
        "\0",
        "k\0l",
        "*",
        "k*",
        "?",
        "[k]",
        "[a-z]",
        "%",
        "k%2Fl",
        "k%",
        "_",
        "k_l",
        "-",
        "--k",
        "k\n",
        "\r\n",
        "k\t",
        "~",
        "$k",
        "{k}",
        "'k'",
        "\"k\"",
        "k;l",
        "k,l",
        "k=l",
        "k|l",
        "k#l",
        "con",
        "nul.txt",
        "0",
        "00",
        "ü",
        "u\u{308}",
        "Ü",
        "ß",
        "ss",
        "\u{212a}",
        "\u{202e}k",
        "\u{feff}k",
        "😀",
        "ﬁ",
        "fi",
        "İ",
        "i\u{307}",
    ];
    let mut keys: Vec<String> = plain.map(str::to_owned).into();
    // Around the limits of file names, of objects' names, and of what a length in 16 bits can say.
    for length in [100, 250, 255, 256, 1_024, 1_025, 4_097, 65_535, 65_536] {
        keys.push("x".repeat(length));
    }
    keys.push(format!("{}y", "x".repeat(65_535)));
    keys
}

impl SampleKey for str {
    fn corpus() -> Vec<String> {
        hostile()
    }

    fn numbered(number: u32) -> String {
        format!("page-{number:06}")
    }
}

impl SampleKey for String {
    fn corpus() -> Vec<String> {
        hostile()
    }

    fn numbered(number: u32) -> String {
        format!("page-{number:06}")
    }
}

fn hostile_bytes() -> Vec<Vec<u8>> {
    let more: [&[u8]; 9] = [
        &[0xff],
        &[0xff, 0xfe],
        &[0x80],
        &[0xc0, 0x80],
        &[0xed, 0xa0, 0x80],
        &[0, 0],
        &[0, 0, 0],
        &[0xc1, b'l'],
        &[b'k', 0x80],
    ];
    hostile().into_iter().map(String::into_bytes).chain(more.map(<[u8]>::to_vec)).collect()
}

impl SampleKey for [u8] {
    fn corpus() -> Vec<Vec<u8>> {
        hostile_bytes()
    }

    fn numbered(number: u32) -> Vec<u8> {
        format!("page-{number:06}").into_bytes()
    }
}

impl SampleKey for Vec<u8> {
    fn corpus() -> Vec<Vec<u8>> {
        hostile_bytes()
    }

    fn numbered(number: u32) -> Vec<u8> {
        format!("page-{number:06}").into_bytes()
    }
}

macro_rules! integer_keys {
    ($($ty:ty),*) => { $(
        impl SampleKey for $ty {
            fn corpus() -> Vec<$ty> {
                let mut keys = vec![1, 2, 3, 0, 10, 11, 16, 100, 127, <$ty>::MAX, <$ty>::MAX - 1, <$ty>::MIN, <$ty>::MIN + 1];
                // Numbers that are alike in some of their digits.
                keys.extend((1..<$ty>::BITS - 1).map(|bit| (1 as $ty) << bit));
                let mut seen = std::collections::HashSet::new();
                keys.retain(|key| seen.insert(*key));
                keys
            }

            fn numbered(number: u32) -> $ty {
                // Past the powers of two up to there, and odd.
                <$ty>::try_from(number).map_or(<$ty>::MAX, |number| number.saturating_mul(2).saturating_add(1_000_001))
            }
        }
    )* };
}

integer_keys!(u32, u64, u128, usize, i32, i64, i128, isize);

impl<A, B> SampleKey for (A, B)
where
    A: SampleKey + Clone + ToOwned<Owned = A>,
    B: SampleKey + Clone + ToOwned<Owned = B>,
{
    fn corpus() -> Vec<(A, B)> {
        let (first, second) = (A::corpus(), B::corpus());
        let mut keys = Vec::new();
        // Crosswise, so that what is concatenated without care meets: ("ab", "c") and ("a", "bc").
        for (index, one) in first.iter().enumerate().take(12) {
            for other in second.iter().cycle().skip(index).take(second.len().min(12)) {
                keys.push((one.clone(), other.clone()));
            }
        }
        keys
    }

    fn numbered(number: u32) -> (A, B) {
        (A::numbered(number), B::numbered(number / 2))
    }
}

/// Text or bytes of a number, padded to a length: the number is always told apart.
fn padded(number: u32, bytes: usize) -> Vec<u8> {
    let text = format!("{number}.");
    let mut all: Vec<u8> = text.bytes().cycle().take(bytes).collect();
    // Short ones keep the last digits.
    if bytes < text.len() {
        all = text.bytes().take(text.len() - 1).rev().take(bytes).collect();
    }
    all
}

fn text(number: u32, bytes: usize) -> String {
    String::from_utf8_lossy(&padded(number, bytes)).into_owned()
}

impl SampleValue for String {
    fn sample(number: u32) -> Self {
        format!("value {number}")
    }

    fn sized(number: u32, bytes: usize) -> Option<Self> {
        Some(text(number, bytes))
    }
}

impl SampleValue for Arc<str> {
    fn sample(number: u32) -> Self {
        format!("value {number}").into()
    }

    fn sized(number: u32, bytes: usize) -> Option<Self> {
        Some(text(number, bytes).into())
    }
}

impl SampleValue for Vec<u8> {
    fn sample(number: u32) -> Self {
        format!("value {number}").into_bytes()
    }

    fn sized(number: u32, bytes: usize) -> Option<Self> {
        Some(padded(number, bytes))
    }
}

/// Bytes whose owner a witness can watch.
struct Owned(Arc<Vec<u8>>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl SampleValue for Bytes {
    fn sample(number: u32) -> Self {
        format!("value {number}").into()
    }

    fn sized(number: u32, bytes: usize) -> Option<Self> {
        Some(padded(number, bytes).into())
    }

    fn witnessed(number: u32) -> Option<(Self, Witness)> {
        let held = Arc::new(format!("value {number}").into_bytes());
        let witness = Witness(Arc::downgrade(&held));
        Some((Self::from_owner(Owned(held)), witness))
    }
}

macro_rules! integer_values {
    ($($ty:ty),*) => { $(
        impl SampleValue for $ty {
            fn sample(number: u32) -> Self {
                Self::try_from(number).unwrap_or_default()
            }
        }
    )* };
}

integer_values!(u32, u64, u128, usize, i32, i64, i128, isize);

impl<A: SampleValue, B: SampleValue> SampleValue for (A, B) {
    fn sample(number: u32) -> Self {
        (A::sample(number), B::sample(number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Debug;

    use super::*;

    fn distinct<K: SampleKey<Owned: Debug> + ?Sized>() {
        let corpus = K::corpus();
        assert!(corpus.len() >= 8);
        let mut all: HashSet<K::Owned> = HashSet::new();
        for key in corpus.into_iter().chain((0..3_000).map(K::numbered)) {
            let text = format!("{key:?}");
            assert!(all.insert(key), "twice: {text}");
        }
    }

    #[test]
    fn every_corpus_has_each_key_once_and_apart_from_the_numbered_ones() {
        distinct::<str>();
        distinct::<[u8]>();
        distinct::<u32>();
        distinct::<u64>();
        distinct::<i64>();
        distinct::<(String, u64)>();
        distinct::<(String, String)>();
        let pairs: Vec<String> =
            <(String, String)>::corpus().into_iter().map(|(one, other)| one + &other).collect();
        let meeting: HashSet<&String> = pairs.iter().collect();
        assert!(meeting.len() < pairs.len(), "none would meet when they are concatenated");
    }

    #[test]
    fn a_sized_value_has_its_size_and_a_witness_sees_the_last_copy_go() {
        for bytes in [0, 1, 2, 7, 65_536] {
            assert_eq!(<Vec<u8>>::sized(123_456, bytes).map(|value| value.len()), Some(bytes));
        }
        assert_ne!(String::sized(1, 1), String::sized(2, 1));
        let (value, witness) = Bytes::witnessed(3).unwrap();
        let copy = value.slice(1..);
        drop(value);
        assert!(witness.is_held());
        drop(copy);
        assert!(!witness.is_held());
    }
}
