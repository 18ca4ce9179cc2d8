//! Values and keys as bytes and text, and back.
