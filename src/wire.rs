//! The byte form of an entry: versioned, checksummed.
