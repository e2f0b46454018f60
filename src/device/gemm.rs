//! The safe face of the GEMM crate: strided matrices over slices, bounds checked here.

use crate::dtype::Real;

/// A read-only matrix over a slice: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    /// Storage.
    pub data: &'a [T],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A row-major matrix whose rows are `row_stride` elements apart.
    pub fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// How many threads one product may use. The result has the same bits either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread only: for products inside a parallel loop.
    One,
    /// The rayon pool.
    Pool,
}

/// out = beta · out + alpha · a · b, with `out` row-major and its rows `out_stride` apart.
///
/// `beta` 0 overwrites without reading, so `out` may hold anything, NaN included.
/// Panics if the dimensions disagree or a matrix reaches beyond its slice.
#[allow(unsafe_code)]
pub fn gemm<T: Real>(
    out: &mut [T],
    out_stride: usize,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    alpha: T,
    beta: T,
    threads: Threads,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(a.cols, b.rows, "gemm: inner dimensions differ");
    if m == 0 || n == 0 {
        return;
    }
    let last = |rows: usize, cols: usize, rs: usize, cs: usize| (rows - 1) * rs + (cols - 1) * cs;
    assert!(n <= out_stride || m == 1, "gemm: rows of the output overlap");
    assert!(last(m, n, out_stride, 1) < out.len(), "gemm: output too small");
    if k > 0 {
        assert!(last(m, k, a.row_stride, a.col_stride) < a.data.len(), "gemm: left too small");
        assert!(last(k, n, b.row_stride, b.col_stride) < b.data.len(), "gemm: right too small");
    }
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::Pool => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: the three assertions above bound every index the product forms; `out` is borrowed
    // mutably, so it aliases neither input; its rows do not overlap; `T` is f32 or f64, both of
    // which the crate implements.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            beta != T::ZERO,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
