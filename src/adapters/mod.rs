//! Stores made of stores: one adapter a file, named like its method in [`StoreExt`](crate::StoreExt).
//! `Sharded`, which multiplies a store instead of wrapping one, is made by a constructor. `Null` is no
//! adapter but a store; it stands here because it takes the place of other stores in a stack.

mod byte_limited;
mod chain;
mod encoded;
mod fresh_for_at_most;
mod inspect;
mod null;
mod prefixed;
mod sharded;
mod tagged;
#[cfg(test)]
pub(crate) mod testing;

pub use self::byte_limited::ByteLimited;
pub use self::chain::{Chain, ChainStats};
pub use self::encoded::Encoded;
pub use self::fresh_for_at_most::FreshForAtMost;
pub use self::inspect::{Access, AccessKind, AccessOutcome, Inspect};
pub use self::null::Null;
pub use self::prefixed::Prefixed;
pub use self::sharded::{Sharded, Share};
pub use self::tagged::{Tagged, TaggedStats};

use crate::error::{Error, ErrorKind, Operation, Result};

/// The next result of a bulk call to the store inside. One that answers for fewer keys than it was asked
/// breaks its contract; then the caller gets an error, not somebody else's answer.
fn next_answer<T>(
    answers: &mut impl Iterator<Item = Result<T>>,
    layer: &'static str,
    operation: Operation,
) -> Result<T> {
    answers.next().unwrap_or_else(|| {
        Err(Error::new(ErrorKind::Other, layer, operation)
            .with_message("the store inside answered for fewer keys than it was asked"))
    })
}
