//! The guides, compiled so that every snippet in them is tested.

/// What every stack promises: the laws, by name.
pub mod semantics {
    #![doc = include_str!("../docs/semantics.md")]
}
