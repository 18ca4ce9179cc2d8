//! Tiers in this process's memory.
