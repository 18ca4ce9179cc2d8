//! The laws of `docs/semantics.md`, over every store and stack of this crate.
