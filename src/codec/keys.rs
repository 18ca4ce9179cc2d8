//! Keys as text.

use std::borrow::Cow;
use std::fmt::Write;

use crate::error::Result;

/// Turns keys into the text under which a store of bytes knows them.
///
/// # Contract
///
/// Injective: different keys have different texts (law S6), and equal keys have equal texts. One way
/// only, so a key may be any text, and nothing has to be parsed.
///
/// A closure `Fn(&K) -> String` is a key codec; that it is injective is then your promise. Mind the
/// separator: `format!("{a}{b}")` makes one text of `("ab", "c")` and `("a", "bc")`.
///
/// ```
/// use larder::codec::KeyCodec;
///
/// struct UserId { tenant: u32, number: u64 }
///
/// let ids = |id: &UserId| format!("{}:{}", id.tenant, id.number);
/// assert_eq!(ids.encode(&UserId { tenant: 3, number: 7 })?, "3:7");
/// # Ok::<(), larder::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not turn keys of type `{K}` into text",
    note = "`Verbatim` takes `str`, `Readable` takes what is `serde::Serialize`, `Hex` takes `[u8]`; a closure `|key: &{K}| -> String` takes anything"
)]
pub trait KeyCodec<K: ?Sized>: Send + Sync {
    /// The text of `key`. An error of kind [`InvalidInput`](crate::ErrorKind::InvalidInput) if it has none.
    fn encode<'k>(&self, key: &'k K) -> Result<Cow<'k, str>>;
}

/// Text keys as they are: nothing is copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verbatim;

impl KeyCodec<str> for Verbatim {
    fn encode<'k>(&self, key: &'k str) -> Result<Cow<'k, str>> {
        Ok(Cow::Borrowed(key))
    }
}

/// Byte slices in lower-case hexadecimal, two digits a byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hex;

impl KeyCodec<[u8]> for Hex {
    fn encode<'k>(&self, key: &'k [u8]) -> Result<Cow<'k, str>> {
        let mut text = String::with_capacity(key.len().saturating_mul(2));
        write_hex(&mut text, key);
        Ok(Cow::Owned(text))
    }
}

impl<K: ?Sized, F: Fn(&K) -> String + Send + Sync> KeyCodec<K> for F {
    fn encode<'k>(&self, key: &'k K) -> Result<Cow<'k, str>> {
        Ok(Cow::Owned(self(key)))
    }
}

pub(super) fn write_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// S6.
        #[test]
        fn text_is_borrowed_and_bytes_never_meet(a: String, x: Vec<u8>, y: Vec<u8>) {
            prop_assert!(matches!(Verbatim.encode(&a), Ok(Cow::Borrowed(text)) if text == a));
            prop_assert_eq!(x == y, Hex.encode(&x).unwrap() == Hex.encode(&y).unwrap());
            prop_assert_eq!(Hex.encode(&x).unwrap().len(), 2 * x.len());
        }
    }
}
