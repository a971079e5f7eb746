//! Convolutions as products: 3×3 by reading pixels in the order of the kernel, 2×2 transposed by spreading the product.

use super::activation::Finish;
use super::gemm::{After, Columns, DEPTH, Out, PITCH, PackColumns, Row, Rows, Strided, Tile, TileSize, pack_rows};
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

/// Fewest rows of input that a task of [`deconv2x2`] is made for: as many as the GEMM's.
const ROWS: usize = 144;

/// [`crate::ops::Ops::deconv2x2`]: each input pixel becomes two pixels of an upper and two of a lower line, so that the
/// product is two, of `2·cout` columns each, whose rows lie one after the other in every second line of `y`. They are
/// made there: a product `[h·w, 4·cout]` to be spread afterwards would be as large as `y`.
pub fn deconv2x2(
    pool: &Pool,
    isa: Isa,
    x: Strided<'_>,
    weights: &impl Columns,
    (h, w, cin, cout): (usize, usize, usize, usize),
    after: After<'_>,
    y: &mut [f32],
) {
    assert_eq!(y.len(), h * w * 4 * cout);
    assert!(cin > 0, "a product over nothing");
    if y.is_empty() {
        return;
    }
    let (mr, nr) = isa.run(TileSize);
    let padded = w.next_multiple_of(mr);
    let lines = h.div_ceil(4 * pool.threads()).min(ROWS.div_ceil(w));
    let pair = 2 * cout;
    let panels = pair.div_ceil(nr);
    let mut packed = pool.scratch(2 * panels * nr * DEPTH.min(cin));
    for at in (0..cin).step_by(DEPTH) {
        let depth = DEPTH.min(cin - at);
        let packed = &mut packed[..2 * panels * nr * depth];
        pool.for_each(packed.chunks_exact_mut(depth * nr).enumerate(), |(i, panel)| {
            let (dy, column) = (i / panels, i % panels * nr);
            let (first, count) = (dy * pair + column, nr.min(pair - column));
            isa.run(PackColumns { columns: weights, first, count, at, depth, panel });
        });
        let (packed, last) = (&*packed, at + depth == cin);
        let tasks = y.chunks_mut(lines * 4 * w * cout).enumerate();
        pool.for_each_with(lines * padded * PITCH, tasks, |scratch, (i, y)| {
            let (first, count) = (i * lines, y.len() / (4 * w * cout));
            let rows = &mut scratch.as_chunks_mut().0[..count * padded];
            for (line, rows) in (first..).zip(rows.chunks_exact_mut(padded)) {
                pack_rows(&x, line * w, w, at, depth, rows);
            }
            let after = last.then_some(after);
            isa.run(Lines { rows, columns: packed, first, w, cout, depth, accumulate: at > 0, after, y });
        });
    }
}

/// Some lines of input by all packed columns.
struct Lines<'a> {
    /// Packed rows, each line padded to whole tiles.
    rows: &'a [Row],
    /// `[2][panel][depth][NR]`
    columns: &'a [f32],
    /// Number of the first line.
    first: usize,
    w: usize,
    cout: usize,
    depth: usize,
    /// Whether `y` holds the sums over earlier elements.
    accumulate: bool,
    /// What follows, if these are the last elements.
    after: Option<After<'a>>,
    /// `[lines, 2, w, 2, cout]`
    y: &'a mut [f32],
}

impl Kernel for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { rows, columns, first, w, cout, depth, accumulate, after, y } = self;
        let (nr, pair) = (S::Tile::NR, 2 * cout);
        let padded = w.next_multiple_of(S::Tile::MR);
        let panels = pair.div_ceil(nr);
        for (i, panel) in columns.chunks_exact(depth * nr).enumerate() {
            let (dy, column) = (i / panels, i % panels * nr);
            let outputs = y.chunks_exact_mut(w * pair).skip(dy).step_by(2);
            for (rows, to) in rows.chunks_exact(padded).zip(outputs) {
                let to = &mut to[column..];
                let out = Out { to, pitch: pair, cols: nr.min(pair - column), rows: w, accumulate };
                S::Tile::column_panel(s, rows, panel, depth, out);
            }
        }
        let Some(after) = after else { return };
        // Two neighbours at a time, where what is added to them is contiguous as they are.
        let piece = if after.add.is_none_or(|a| a.stride == cout) { pair } else { cout };
        for (line, y) in (2 * first..).zip(y.chunks_exact_mut(w * pair)) {
            for (j, y) in y.chunks_exact_mut(piece).enumerate() {
                let pixel = line * 2 * w + j * piece / cout;
                let bias = after.bias.map(|b| &b[line % 2 * pair + j * piece % pair..][..piece]);
                let add = after.add.map(|a| a.row(pixel, piece));
                Finish { bias, add, act: after.act }.apply(s, y);
            }
        }
    }
}

/// [`crate::ops::Ops::patches`]
pub fn patches(pool: &Pool, x: &[f32], (h, w, c, p): (usize, usize, usize, usize), y: &mut [f32]) {
    assert!(p > 0 && h.is_multiple_of(p) && w.is_multiple_of(p), "{h} x {w} pixels in patches of {p}");
    // A task is a line of patches.
    pool.for_each(y.chunks_mut(w * c * p).enumerate(), |(line, y)| {
        for (i, y) in y.chunks_exact_mut(c * p * p).enumerate() {
            for (channel, y) in y.chunks_exact_mut(p * p).enumerate() {
                for (dy, y) in y.chunks_exact_mut(p).enumerate() {
                    let pixels = &x[((line * p + dy) * w + i * p) * c..][..p * c];
                    for (y, pixel) in y.iter_mut().zip(pixels.chunks_exact(c)) {
                        *y = pixel[channel];
                    }
                }
            }
        }
    });
}
