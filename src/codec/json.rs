//! Values as JSON.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, corrupt, unfit};
use crate::error::Result;

/// JSON: readable in the store, tolerant of added fields, several times larger and slower than
/// [`Postcard`](super::Postcard).
///
/// A `Vec<u8>` or `Bytes` becomes an array of numbers, 3.4 times its size. Maps need keys that are text
/// or numbers, and a float that is not finite becomes `null`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<V: Serialize + DeserializeOwned> Codec<V> for Json {
    fn encode(&self, value: &V) -> Result<Bytes> {
        match serde_json::to_vec(value) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(unfit("json").with_source(error)),
        }
    }

    fn decode(&self, bytes: &Bytes) -> Result<V> {
        serde_json::from_slice(bytes).map_err(|error| corrupt("json").with_source(error))
    }

    fn name(&self) -> &'static str {
        "json"
    }
}
