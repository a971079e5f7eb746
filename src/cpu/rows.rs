//! Adding, copying, gathering and averaging rows.

use super::gemm::{Columns, Strided};
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{Kernel, Simd};
use crate::weights::Dtype;

/// Elements of a task: work of some tens of microseconds, memory-bound.
const ELEMENTS: usize = 1 << 15;

/// Rows of a task, of `width` each.
fn rows_of_task(width: usize) -> usize {
    (ELEMENTS / width).max(1)
}

/// `y = a + b`
pub struct Sum<'a> {
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub y: &'a mut [f32],
}

impl Kernel for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for i in (0..self.y.len()).step_by(S::LANES) {
            s.store_head(s.add(s.load_head(&self.a[i..]), s.load_head(&self.b[i..])), &mut self.y[i..]);
        }
    }
}

/// [`crate::ops::Ops::add`]
pub fn add(pool: &Pool, isa: Isa, a: Strided<'_>, b: Strided<'_>, b_rows: usize, width: usize, y: &mut [f32]) {
    let rows = rows_of_task(width);
    pool.for_each(y.chunks_mut(rows * width).enumerate(), |(i, y)| {
        for (r, y) in (i * rows..).zip(y.chunks_exact_mut(width)) {
            isa.run(Sum { a: a.row(r, width), b: b.row(r % b_rows, width), y });
        }
    });
}

/// [`crate::ops::Ops::copy`], to exactly `[rows, width]`.
pub fn copy(pool: &Pool, x: Strided<'_>, width: usize, y: &mut [f32]) {
    let rows = rows_of_task(width);
    pool.for_each(y.chunks_mut(rows * width).enumerate(), |(i, y)| {
        for (r, y) in (i * rows..).zip(y.chunks_exact_mut(width)) {
            y.copy_from_slice(x.row(r, width));
        }
    });
}

/// [`crate::ops::Ops::gather`]. Serial: a prompt has a few dozen tokens.
pub fn gather(table: &impl Columns, ids: &[u32], width: usize, y: &mut [f32]) {
    for (&id, y) in ids.iter().zip(y.chunks_exact_mut(width)) {
        let row = table.column(id as usize);
        match row.dtype {
            Dtype::F32 => {
                for (y, b) in y.iter_mut().zip(row.bytes.as_chunks().0) {
                    *y = f32::from_le_bytes(*b);
                }
            }
            Dtype::F16 => {
                for (y, b) in y.iter_mut().zip(row.bytes.as_chunks().0) {
                    *y = half::f16::from_le_bytes(*b).to_f32();
                }
            }
            Dtype::Bf16 => {
                for (y, b) in y.iter_mut().zip(row.bytes.as_chunks().0) {
                    *y = half::bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }
}

/// [`crate::ops::Ops::mean_rows`], summed in f64, a few columns at a time.
pub fn mean_rows(x: Strided<'_>, rows: usize, y: &mut [f32]) {
    let width = y.len();
    for (i, y) in y.chunks_mut(32).enumerate() {
        let mut sums = [0.0f64; 32];
        for r in 0..rows {
            sums.iter_mut().zip(&x.row(r, width)[i * 32..]).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        y.iter_mut().zip(sums).for_each(|(y, sum)| *y = (sum / rows as f64) as f32);
    }
}
