//! What the benches measure against: products by the `gemm` crate, and attention put together from them.

use std::hint::black_box;

/// A matrix in somebody's memory: where it begins, and the steps from row to row and from column to column.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl Matrix<'_> {
    /// Whether `rows` by `columns` elements lie within the data.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// `out[m, n] = scale · a[m, k] · b[k, n]`, rows of `out` being `stride` apart. `threads` of 1 are the caller's own.
#[allow(unsafe_code)]
pub fn product(
    threads: usize,
    (m, n, k): (usize, usize, usize),
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    out: &mut [f32],
    stride: usize,
) {
    assert!(m > 0 && n > 0 && k > 0 && a.holds(m, k) && b.holds(k, n) && (m - 1) * stride + n <= out.len());
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    // SAFETY: the pointers and strides stay within these slices, as was just checked; nothing aliases `out`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            false,
            black_box(a.data.as_ptr()),
            a.column as isize,
            a.row as isize,
            black_box(b.data.as_ptr()),
            b.column as isize,
            b.row as isize,
            0.0f32,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}
