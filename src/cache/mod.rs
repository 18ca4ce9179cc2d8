//! The engine: the only place that judges freshness.
