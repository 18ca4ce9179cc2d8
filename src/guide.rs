//! The guides, compiled so that every snippet in them is tested.

/// What every stack promises: the laws, by name.
pub mod semantics {
    #![doc = include_str!("../docs/semantics.md")]
}

/// The byte form of an entry, for whoever reads or writes it elsewhere.
pub mod wire_format {
    #![doc = include_str!("../docs/wire-format.md")]
}
