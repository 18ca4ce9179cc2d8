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
/// or numbers. Input that nests deeper than 128 levels is refused.
///
/// # What it cannot carry
///
/// JSON has one `null` for everything that is absent, so these do not come back:
///
/// | value | comes back as |
/// | --- | --- |
/// | a float that is not finite | an error of kind [`Corrupt`](crate::ErrorKind::Corrupt) |
/// | `Some` of a float that is not finite | `None` |
/// | `Some(None)`, `Some(())`, `Some` of a unit struct | `None` |
///
/// Nothing tells when that happens. [`Postcard`](super::Postcard) carries them all.
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn there_and_back<V: Serialize + DeserializeOwned>(value: &V) -> Result<V> {
        Json.decode(&Json.encode(value).unwrap())
    }

    proptest! {
        /// S1, to the last bit.
        #[test]
        fn finite_floats_come_back(float in any::<f64>(), single in any::<f32>()) {
            prop_assert_eq!(there_and_back(&float)?.to_bits(), float.to_bits());
            prop_assert_eq!(there_and_back(&single)?.to_bits(), single.to_bits());
        }
    }

    /// The table on the page of [`Json`], line by line.
    #[test]
    fn what_json_cannot_carry_is_what_its_page_says() {
        fn becomes_none<V: Serialize + DeserializeOwned + PartialEq + Debug>(value: V) {
            assert_eq!(there_and_back(&Some(value)).unwrap(), None);
        }
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Unit;
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(there_and_back(&float).unwrap_err().kind(), ErrorKind::Corrupt);
            becomes_none(float);
        }
        becomes_none(None::<u8>);
        becomes_none(());
        becomes_none(Unit);
    }

    #[derive(Debug, Serialize, serde::Deserialize)]
    struct Nested(Vec<Nested>);

    /// S7.
    #[test]
    fn deep_nesting_is_corrupt() {
        let bytes = |levels| Bytes::from("[".repeat(levels) + &"]".repeat(levels));
        let nested: Result<Nested> = Json.decode(&bytes(100));
        assert!(nested.is_ok());
        for levels in [129, 1_000_000] {
            let nested: Result<Nested> = Json.decode(&bytes(levels));
            assert_eq!(nested.unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
