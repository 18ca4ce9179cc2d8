//! Values and keys as bytes and text, and back.
//!
//! [`encoded`](crate::StoreExt::encoded) makes a typed store of a store of bytes. A [`Codec`] turns values
//! into bytes: [`Postcard`] (small and fast, the usual choice), `Json` (readable, feature
//! `json`), [`Raw`] (bytes as they are), or two closures ([`from_fns`]). A [`KeyCodec`] turns keys into
//! text: [`Verbatim`] for `str` (the default), [`Readable`] for whatever serde can serialize, [`Hex`] for
//! byte slices, or a closure.

#[cfg(feature = "json")]
mod json;
mod keys;
mod postcard;
mod raw;
mod readable;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

#[cfg(feature = "json")]
pub use self::json::Json;
pub use self::keys::{Hex, KeyCodec, Verbatim};
pub use self::postcard::Postcard;
pub use self::raw::Raw;
pub use self::readable::Readable;
use crate::error::{Error, ErrorKind, Operation, Result};

/// Turns values into bytes and back.
///
/// # Contract
///
/// `decode(&encode(v)?)` equals `v`. Bytes that `encode` did not write, cut and trailing bytes among them,
/// give an error of kind [`Corrupt`](ErrorKind::Corrupt): never a panic, and never memory out of
/// proportion to the input (law S7).
///
/// Two exceptions, each of a format and not of the trait:
///
/// - `Json` turns a few values into others without a word: its own page lists them.
/// - A type that nests in itself (a tree, a list of boxes) is decoded by recursion. [`Postcard`] recurses as
///   deep as the bytes say, so hostile bytes may overflow the stack, which ends the process; `Json` stops at
///   128 levels. Where bytes are not trusted, take `Json` or a type that does not nest in itself.
///
/// # For callers
///
/// The codec is not stored beside the bytes. Change it, or a type that it encodes, and what was stored
/// before may fail to decode; [`encoded`](crate::StoreExt::encoded) counts that as a miss. It may also
/// decode to something else (two fields of one type that changed places), so put a version into the
/// prefix of the keys when a type changes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not encode `{V}`",
    note = "`Postcard` and `Json` encode what is `serde::Serialize + serde::de::DeserializeOwned`, `Raw` encodes `bytes::Bytes`"
)]
pub trait Codec<V>: Send + Sync {
    /// The bytes of `value`. An error of kind [`InvalidInput`](ErrorKind::InvalidInput) if it has none.
    fn encode(&self, value: &V) -> Result<Bytes>;

    /// The value of which these are the bytes.
    fn decode(&self, bytes: &Bytes) -> Result<V>;

    /// What [`describe`](crate::Store::describe) calls it, in lower case.
    fn name(&self) -> &'static str {
        "codec"
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => { $(
        impl<V, C: Codec<V> + ?Sized> Codec<V> for $pointer {
            fn encode(&self, value: &V) -> Result<Bytes> {
                (**self).encode(value)
            }

            fn decode(&self, bytes: &Bytes) -> Result<V> {
                (**self).decode(bytes)
            }

            fn name(&self) -> &'static str {
                (**self).name()
            }
        }
    )* };
}

forward!(&C, Box<C>, Arc<C>);

/// A codec made of two closures. An error of theirs, of any type, becomes the source of one of kind
/// [`InvalidInput`](ErrorKind::InvalidInput) (`encode`) or [`Corrupt`](ErrorKind::Corrupt) (`decode`).
///
/// ```
/// use larder::codec::{self, Codec};
/// use larder::ErrorKind;
///
/// let decimal = codec::from_fns(
///     |number: &u64| Ok::<_, std::fmt::Error>(number.to_string().into()),
///     |bytes| String::from_utf8_lossy(bytes).parse::<u64>(),
/// );
/// assert_eq!(decimal.encode(&42)?, "42");
/// assert_eq!(decimal.decode(&"42".into())?, 42);
/// assert_eq!(decimal.decode(&"4x".into()).unwrap_err().kind(), ErrorKind::Corrupt);
/// # Ok::<(), larder::Error>(())
/// ```
pub fn from_fns<V, E, D, X, Y>(encode: E, decode: D) -> impl Codec<V>
where
    E: Fn(&V) -> Result<Bytes, X> + Send + Sync,
    D: Fn(&Bytes) -> Result<V, Y> + Send + Sync,
    X: Into<Box<dyn StdError + Send + Sync>>,
    Y: Into<Box<dyn StdError + Send + Sync>>,
{
    FromFns {
        encode: move |value: &V| encode(value).map_err(|error| unfit("codec").with_source(error)),
        decode: move |bytes: &Bytes| decode(bytes).map_err(|error| corrupt("codec").with_source(error)),
    }
}

struct FromFns<E, D> {
    encode: E,
    decode: D,
}

impl<V, E, D> Codec<V> for FromFns<E, D>
where
    E: Fn(&V) -> Result<Bytes> + Send + Sync,
    D: Fn(&Bytes) -> Result<V> + Send + Sync,
{
    fn encode(&self, value: &V) -> Result<Bytes> {
        (self.encode)(value)
    }

    fn decode(&self, bytes: &Bytes) -> Result<V> {
        (self.decode)(bytes)
    }
}

impl<E, D> fmt::Debug for FromFns<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFns")
    }
}

/// A value or key that this codec has no bytes for.
fn unfit(codec: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, codec, Operation::Set)
}

/// Bytes that this codec did not write.
fn corrupt(codec: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, codec, Operation::Get)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct User {
        id: u64,
        name: String,
        roles: Vec<Role>,
        notes: BTreeMap<String, Option<i32>>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Role {
        Guest,
        Member(String),
        Admin { since: u32 },
    }

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![
            Just(Role::Guest),
            any::<String>().prop_map(Role::Member),
            any::<u32>().prop_map(|since| Role::Admin { since }),
        ]
    }

    fn user() -> impl Strategy<Value = User> {
        (
            any::<u64>(),
            any::<String>(),
            prop::collection::vec(role(), 0..4),
            prop::collection::btree_map(any::<String>(), any::<Option<i32>>(), 0..3),
        )
            .prop_map(|(id, name, roles, notes)| User { id, name, roles, notes })
    }

    fn keeps_its_promises<V: Clone + Debug + PartialEq>(
        codec: &impl Codec<V>,
        value: &V,
        cut: usize,
        flip: usize,
    ) {
        let bytes = codec.encode(value).unwrap();
        assert_eq!(&codec.decode(&bytes).unwrap(), value);
        let longer = Bytes::from([&bytes[..], b"x"].concat());
        assert_eq!(codec.decode(&longer).unwrap_err().kind(), ErrorKind::Corrupt, "trailing byte");
        if !bytes.is_empty() {
            let shorter = bytes.slice(..cut % bytes.len());
            assert_eq!(codec.decode(&shorter).unwrap_err().kind(), ErrorKind::Corrupt, "cut");
            let mut flipped = bytes.to_vec();
            let at = flip % (bytes.len() * 8);
            flipped[at / 8] ^= 1 << (at % 8);
            // A codec without a checksum may read another value, but nothing else may happen.
            if let Err(error) = codec.decode(&flipped.into()) {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
    }

    proptest! {
        /// S1, S7.
        #[test]
        fn values_come_back_and_cut_or_longer_bytes_are_refused(
            user in user(), cut in any::<usize>(), flip in any::<usize>()
        ) {
            keeps_its_promises(&Postcard, &user, cut, flip);
            #[cfg(feature = "json")]
            keeps_its_promises(&Json, &user, cut, flip);
        }

        /// S7.
        #[test]
        fn hostile_bytes_are_an_error_or_a_value_and_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            let bytes = Bytes::from(bytes);
            let postcard: &dyn Codec<User> = &Postcard;
            if let Err(error) = postcard.decode(&bytes) {
                prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
            #[cfg(feature = "json")]
            if let Err(error) = Codec::<User>::decode(&Json, &bytes) {
                prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
            prop_assert_eq!(Raw.decode(&bytes).unwrap(), bytes);
        }
    }

    /// S7: a length that the bytes cannot hold reserves no memory for it.
    #[test]
    fn a_length_out_of_proportion_is_corrupt() {
        let length = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, b'x']);
        let texts: Result<Vec<String>> = Postcard.decode(&length);
        assert_eq!(texts.unwrap_err().kind(), ErrorKind::Corrupt);
        let map: Result<BTreeMap<String, u8>> = Postcard.decode(&length);
        assert_eq!(map.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn raw_bytes_are_not_copied() {
        let bytes = Bytes::from(vec![1, 2, 3]);
        assert_eq!(Raw.encode(&bytes).unwrap().as_ptr(), bytes.as_ptr());
        assert_eq!(Raw.decode(&bytes).unwrap().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn closures_make_a_codec_and_their_errors_become_sources() {
        let codec = from_fns(
            |value: &u8| if *value > 9 { Err(std::fmt::Error) } else { Ok(Bytes::from(vec![b'0' + value])) },
            |bytes| std::str::from_utf8(bytes).map(|text| text.parse().unwrap_or(0)),
        );
        assert_eq!(codec.encode(&7).unwrap(), "7");
        let error = codec.encode(&10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.source_as::<std::fmt::Error>().is_some());
        let error = codec.decode(&Bytes::from_static(&[0xff])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.source_as::<std::str::Utf8Error>().is_some());
    }
}
