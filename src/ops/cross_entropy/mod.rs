//! To be filled.

/// A target that is not trained: loss 0, gradient row 0.
pub const IGNORE: i32 = -1;
