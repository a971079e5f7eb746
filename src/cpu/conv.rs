//! Convolutions as products: 3×3 by reading pixels in the order of the kernel, 2×2 transposed by spreading the product.

use rayon::prelude::*;

use super::activation::Finish;
use super::gemm::{After, Columns, Rows, Strided, gemm};
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{Kernel, Simd};

/// The pixels under a 3×3 kernel as rows of a matrix `[h·w, 9·channels]` that is never stored: row `y·w + x` holds the
/// nine neighbours of `(y, x)` in the order `(ky, kx)`, zero outside.
pub struct Neighbours<'a> {
    /// `[height·width, channels]`.
    pub x: &'a [f32],
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Rows for Neighbours<'_> {
    fn read(&self, row: usize, mut at: usize, mut to: &mut [f32]) {
        let (y, x) = (row / self.width, row % self.width);
        while !to.is_empty() {
            let (tap, channel) = (at / self.channels, at % self.channels);
            let (piece, rest) = to.split_at_mut(to.len().min(self.channels - channel));
            // One row and one column of zeros lie before the picture.
            let (ny, nx) = (y + tap / 3, x + tap % 3);
            if (1..=self.height).contains(&ny) && (1..=self.width).contains(&nx) {
                let pixel = ((ny - 1) * self.width + nx - 1) * self.channels + channel;
                piece.copy_from_slice(&self.x[pixel..][..piece.len()]);
            } else {
                piece.fill(0.0);
            }
            at += piece.len();
            to = rest;
        }
    }
}

/// [`crate::ops::Ops::deconv2x2`]: the product `[h·w, 4·cout]`, whose rows hold the four pixels each input pixel becomes,
/// is spread over the picture, where the epilogue's rows are.
pub fn deconv2x2(
    pool: &Pool,
    isa: Isa,
    x: Strided<'_>,
    weights: &impl Columns,
    (h, w, cin, cout): (usize, usize, usize, usize),
    after: After<'_>,
    y: &mut [f32],
) {
    let mut product = pool.scratch(h * w * 4 * cout);
    let sums = After { bias: after.bias, ..After::NOTHING };
    gemm(pool, isa, &x, weights, (h * w, 4 * cout, cin), sums, &mut product);
    pool.install(|| {
        // Two lines of output come from one of input.
        let lines = y.par_chunks_mut(4 * w * cout).zip(product.par_chunks(4 * w * cout));
        lines.enumerate().for_each(|(line, (y, product))| isa.run(Spread { line, w, cout, product, after, y }));
    });
}

struct Spread<'a> {
    line: usize,
    w: usize,
    cout: usize,
    /// `[w, 2, 2, cout]`
    product: &'a [f32],
    after: After<'a>,
    /// `[2, w, 2, cout]`
    y: &'a mut [f32],
}

impl Kernel for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cout = self.cout;
        for (i, y) in self.y.chunks_exact_mut(cout).enumerate() {
            let (dy, x, dx) = (i / (2 * self.w), i / 2 % self.w, i % 2);
            y.copy_from_slice(&self.product[(x * 4 + dy * 2 + dx) * cout..][..cout]);
            let add = self.after.add.map(|a| a.row(self.line * 4 * self.w + i, cout));
            Finish { bias: None, add, act: self.after.act }.apply(s, y);
        }
    }
}

/// [`crate::ops::Ops::patches`]
pub fn patches(pool: &Pool, x: &[f32], (h, w, c, p): (usize, usize, usize, usize), y: &mut [f32]) {
    assert!(p > 0 && h.is_multiple_of(p) && w.is_multiple_of(p), "{h} x {w} pixels in patches of {p}");
    pool.install(|| {
        y.par_chunks_mut(c * p * p).enumerate().for_each(|(i, y)| {
            let (top, left) = (i / (w / p) * p, i % (w / p) * p);
            for (channel, y) in y.chunks_exact_mut(p * p).enumerate() {
                for (dy, y) in y.chunks_exact_mut(p).enumerate() {
                    let line = &x[((top + dy) * w + left) * c..][..p * c];
                    for (y, pixel) in y.iter_mut().zip(line.chunks_exact(c)) {
                        *y = pixel[channel];
                    }
                }
            }
        });
    });
}
