//! Shapes: rank up to four, row-major, contiguous. There are no strides.

use std::fmt;

/// Dimensions of a tensor. Holding one proves that the element count fits `usize`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// Returns the shape, or `None` for more than four dimensions or an overflowing product.
    pub fn new(dims: &[usize]) -> Option<Self> {
        if dims.len() > 4 {
            return None;
        }
        dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let mut padded = [1; 4];
        padded[..dims.len()].copy_from_slice(dims);
        Some(Self { dims: padded, rank: dims.len() })
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of elements; 1 for a scalar.
    pub fn num_elems(&self) -> usize {
        self.dims().iter().product()
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    /// For shapes that the program itself makes; panics on overflow or rank above four.
    fn from(dims: [usize; R]) -> Self {
        match Self::new(&dims) {
            Some(shape) => shape,
            None => panic!("shape {dims:?} has rank above 4 or overflows"),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.dims().iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_elements_and_refuses_overflow() {
        assert_eq!(Shape::from([2, 3, 5]).num_elems(), 30);
        assert_eq!(Shape::new(&[]).unwrap().num_elems(), 1);
        assert!(Shape::new(&[usize::MAX, 2]).is_none());
        assert!(Shape::new(&[1, 1, 1, 1, 1]).is_none());
        assert_eq!(Shape::from([2, 3]).to_string(), "[2, 3]");
    }
}
