//! Values that are bytes already.

use bytes::Bytes;

use super::Codec;
use crate::error::Result;

/// Bytes as they are, without a copy: the same buffer goes in and comes out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes> {
        Ok(bytes.clone())
    }

    fn name(&self) -> &'static str {
        "raw"
    }
}
