//! Values as postcard.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, corrupt, unfit};
use crate::error::Result;

/// [Postcard](https://postcard.jamesmunns.com/wire-format): small and fast, not self-describing.
///
/// Bytes after the value are refused. Before the input runs out, decoding reserves no more than 1 MiB.
/// A type that nests in itself (a tree) is decoded by recursion, as deep as the bytes say: hostile bytes
/// may overflow the stack. See [`Codec`].
///
/// **Byte fields**: serde takes a plain `Vec<u8>` one byte at a time. At 64 KiB that costs about 240 us to
/// encode and 305 us to decode, where a [`Bytes`] under [`Raw`](super::Raw) costs nothing and a field of
/// the crate `serde_bytes` about a microsecond.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<V: Serialize + DeserializeOwned> Codec<V> for Postcard {
    fn encode(&self, value: &V) -> Result<Bytes> {
        match postcard::to_stdvec(value) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(unfit("postcard").with_source(error)),
        }
    }

    fn decode(&self, bytes: &Bytes) -> Result<V> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => {
                Err(corrupt("postcard").with_message(format!("{} bytes follow the value", rest.len())))
            }
            Err(error) => Err(corrupt("postcard").with_source(error)),
        }
    }

    fn name(&self) -> &'static str {
        "postcard"
    }
}
