//! The guides, compiled so that every snippet in them is tested.

/// What every stack promises: the laws, by name.
pub mod semantics {
    #![doc = include_str!("../docs/semantics.md")]
}

/// How to write a store, with a checklist of files.
pub mod writing_a_store {
    #![doc = include_str!("../docs/writing-a-store.md")]
}

/// How to write an adapter, with a checklist of files.
pub mod writing_an_adapter {
    #![doc = include_str!("../docs/writing-an-adapter.md")]
}

/// How to change larder: habits, tests, commits.
pub mod contributing {
    #![doc = include_str!("../docs/contributing.md")]
}

/// The byte form of an entry, for whoever reads or writes it elsewhere.
pub mod wire_format {
    #![doc = include_str!("../docs/wire-format.md")]
}

/// Why larder is built as it is.
pub mod design {
    #![doc = include_str!("../docs/design.md")]
}

/// A map of the code by name.
pub mod architecture {
    #![doc = include_str!("../docs/architecture.md")]
}

/// What each layer costs, as ratios, and how to measure them.
pub mod performance {
    #![doc = include_str!("../docs/performance.md")]
}
