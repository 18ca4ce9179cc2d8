//! Stores made of stores: one decorator a file, named like its method in [`StoreExt`](crate::StoreExt).
