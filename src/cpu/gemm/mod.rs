//! Dense products: `y[m, n] = epilogue(a[m, k] · b[n, k]ᵀ)`.
//!
//! The five loops of BLIS (Van Zee & van de Geijn, 2015), around the register tile of [`tile`]:
//!
//! ```text
//! for each NC columns:
//!   for each DEPTH of the inner dimension:
//!     pack b[NC, DEPTH]                           all threads, one panel each; all of them stay in L3
//!   for each block of rows:                       all threads, each its own rows of y
//!     for each DEPTH of the inner dimension:      the block's sums stay in L2
//!       pack a[rows, DEPTH]                       L2
//!       for each panel of NR columns:             L1
//!         for each MR rows: tile                  registers
//!     epilogue, sums to y
//! ```
//!
//! Columns are packed from the stored weights at every call, widened exactly to f32: at one conversion per `m`
//! multiply-adds that is about a hundredth of the work, and weights stay where they were mapped. Rows are only copied,
//! not turned: the tile broadcasts its elements from memory, so any source that can copy a piece of a row, such as the
//! pixels under a 3×3 kernel, multiplies without being laid out as a matrix first.
//!
//! Few rows go another way, [`dots`]: packing would cost more than multiplying.

mod dots;
mod pack;
#[cfg(test)]
mod tests;
mod tile;

pub use pack::{Activations, Bf16, Columns, Element, F16, F32, PackColumns, Rows, Stored, Strided, pack_rows};
pub use tile::{DEPTH, Out, PITCH, Row, Shape, Tile};

use super::activation::Finish;
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{Kernel, Simd};
use crate::ops::Activation;

/// Most rows a thread packs at a time: 76 KiB, a part of L2. Twelve tiles of the smallest kind, so that a panel of columns
/// that comes to L1 is used twelve times.
const ROWS: usize = 72;

/// Most sums of a block of rows: 192 KiB, which stay in L2. With all [`ROWS`] that is 682 columns at a time, and as often are
/// rows packed again. They lie panel after panel, not in place, where rows that are a power of two apart meet in the same
/// few sets of a cache.
const SUMS: usize = 48 << 10;

/// Most elements of packed columns, 10 MiB, to stay in a shared L3 of 16 MiB and more.
const PACKED: usize = 10 << 18;

/// Fewest rows that are worth packing columns for. Packing widens, turns and stores each weight, which costs about as
/// much as the multiply-adds of 20 rows: on Zen 5, 32 rows run at half of peak either way.
const FEW: usize = 40;

/// What follows the sums.
#[derive(Clone, Copy)]
pub struct After<'a> {
    /// `[n]`.
    pub bias: Option<&'a [f32]>,
    /// `[m, n]`, added before the activation.
    pub add: Option<Strided<'a>>,
    /// Applied to each element.
    pub act: Activation,
    /// Applied last.
    pub turn: Option<Turn<'a>>,
}

impl After<'_> {
    /// The sums as they are.
    pub const NOTHING: Self = Self { bias: None, add: None, act: Activation::None, turn: None };
}

/// [`crate::ops::Turn`] by its values.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// `[m, head_dim]`.
    pub angles: &'a [f32],
    pub head_dim: usize,
    /// How many of the first columns turn.
    pub columns: usize,
}

impl Turn<'_> {
    /// Turns the elements `column ..` of row `row`, in place; `column` is even.
    #[inline(always)]
    fn row(&self, row: usize, mut column: usize, y: &mut [f32]) {
        let angles = &self.angles[row * self.head_dim..][..self.head_dim];
        let count = self.columns.saturating_sub(column).min(y.len());
        let mut y = &mut y[..count];
        while !y.is_empty() {
            let angles = &angles[column % self.head_dim..];
            let (head, rest) = y.split_at_mut(angles.len().min(y.len()));
            for (pair, angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles.as_chunks::<2>().0) {
                let ([a, b], [cos, sin]) = (*pair, *angle);
                *pair = [a * cos - b * sin, b * cos + a * sin];
            }
            column += head.len();
            y = rest;
        }
    }
}

/// `y[m, n] = after(a[m, k] · b[n, k]ᵀ)`. `y` is exactly `[m, n]`.
pub fn gemm(
    pool: &Pool,
    isa: Isa,
    a: &impl Rows,
    b: &impl Columns,
    (m, n, k): (usize, usize, usize),
    after: After<'_>,
    y: &mut [f32],
) {
    assert_eq!(y.len(), m * n);
    assert!(k > 0, "a product over nothing");
    if m == 0 || n == 0 {
        return;
    }
    if m < FEW {
        return dots::dots(pool, isa, a, b, (m, n, k), after, y);
    }
    let (mr, nr) = isa.run(TileSize);
    assert!(nr.is_multiple_of(2), "a panel holds whole pairs of columns");
    // Four tasks a thread even out what other processes take from some; whole tiles each.
    let rows = m.div_ceil(4 * pool.threads()).min(ROWS).next_multiple_of(mr);
    let columns = n.min(SUMS / rows).min(PACKED / k).max(1).next_multiple_of(nr);
    let mut packed = pool.scratch(columns * k);
    for first in (0..n).step_by(columns) {
        let cols = columns.min(n - first);
        let line = cols.div_ceil(nr) * nr;
        for at in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - at);
            let panels = packed[line * at..][..line * depth].chunks_exact_mut(depth * nr);
            pool.for_each(panels.enumerate(), |(i, panel)| {
                let count = nr.min(cols - i * nr);
                isa.run(PackColumns { columns: b, first: first + i * nr, count, at, depth, panel });
            });
        }
        let packed = &*packed;
        pool.for_each_with(rows * (PITCH + line), y.chunks_mut(rows * n).enumerate(), |scratch, (i, y)| {
            let count = y.len() / n;
            let (panels, sums) = scratch.split_at_mut(rows * PITCH);
            let panels = &mut panels.as_chunks_mut().0[..count.next_multiple_of(mr)];
            for at in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - at);
                pack_rows(a, i * rows, count, at, depth, panels);
                isa.run(Block {
                    rows: panels,
                    columns: &packed[line * at..],
                    first_row: i * rows,
                    count,
                    first,
                    cols,
                    depth,
                    accumulate: at > 0,
                    sums: &mut *sums,
                    finish: (at + depth == k).then_some((after, &mut *y)),
                    n,
                });
            }
        });
    }
}

/// `(MR, NR)` of an instruction set.
pub struct TileSize;

impl Kernel for TileSize {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) -> (usize, usize) {
        (S::Tile::MR, S::Tile::NR)
    }
}

/// A block of packed rows by all packed columns.
struct Block<'a> {
    /// Packed rows, whole tiles.
    rows: &'a [Row],
    /// Packed columns, `[panel][depth][NR]`.
    columns: &'a [f32],
    /// Which row of the product is the first.
    first_row: usize,
    /// How many of the rows there are.
    count: usize,
    /// Which column of the product is the first.
    first: usize,
    /// How many of the columns there are.
    cols: usize,
    /// Elements of the inner dimension.
    depth: usize,
    /// Whether `sums` holds those over earlier elements.
    accumulate: bool,
    /// `[panel][row][NR]`.
    sums: &'a mut [f32],
    /// If these are the last elements: what follows, and the product's rows, `[count, n]`.
    finish: Option<(After<'a>, &'a mut [f32])>,
    /// Columns of the product.
    n: usize,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (nr, rows) = (S::Tile::NR, self.rows.len());
        let panels = self.columns.chunks_exact(self.depth * nr).take(self.cols.div_ceil(nr));
        for (i, (panel, sums)) in panels.zip(self.sums.chunks_exact_mut(rows * nr)).enumerate() {
            let out = Out { to: &mut *sums, pitch: nr, cols: nr, rows, accumulate: self.accumulate };
            S::Tile::column_panel(s, self.rows, panel, self.depth, out);
            // The panel's sums were just written: the epilogue finds them in L1.
            if let Some((after, y)) = &mut self.finish {
                let (column, cols) = (self.first + i * nr, nr.min(self.cols - i * nr));
                for (r, sums) in sums.chunks_exact_mut(nr).take(self.count).enumerate() {
                    let sums = &mut sums[..cols];
                    after.row(s, self.first_row + r, column, sums);
                    y[r * self.n + column..][..cols].copy_from_slice(sums);
                }
            }
        }
    }
}

impl After<'_> {
    /// Finishes the elements `column ..` of row `row`, in place.
    #[inline(always)]
    pub fn row<S: Simd>(&self, s: S, row: usize, column: usize, y: &mut [f32]) {
        let width = y.len();
        let bias = self.bias.map(|b| &b[column..][..width]);
        let add = self.add.map(|a| &a.row(row, column + width)[column..]);
        Finish { bias, add, act: self.act }.apply(s, y);
        if let Some(turn) = &self.turn {
            turn.row(row, column, y);
        }
    }
}
