//! Dense products: `y[m, n] = epilogue(a[m, k] · b[n, k]ᵀ)`.
//!
//! The five loops of BLIS (Van Zee & van de Geijn, 2015), around the register tile of [`tile`]:
//!
//! ```text
//! for each NC columns:
//!   for each DEPTH of the inner dimension:
//!     pack b[NC, DEPTH]                           all threads, one panel each; all of them stay in L3
//!   for each block of rows:                       all threads, each its own rows of y
//!     for each DEPTH of the inner dimension:      these columns of its rows of y stay in L2
//!       pack a[rows, DEPTH]                       L2
//!       for each panel of NR columns:             L1
//!         for each MR rows: tile                  registers
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

/// Most rows a thread packs at a time: 104 KiB, a part of L2.
const ROWS: usize = 96;

/// Columns at a time of a block of [`ROWS`] rows, as many more of smaller blocks: their sums, 192 KiB, are read and written
/// once for each [`DEPTH`], a tile at a time from as many rows as it has, and wait for memory where they do not stay in L2.
const COLUMNS: usize = 512;

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
    /// Applied last.
    pub act: Activation,
}

impl After<'_> {
    /// The sums as they are.
    pub const NOTHING: Self = Self { bias: None, add: None, act: Activation::None };
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
    // Four tasks a thread even out what other processes take from some; whole tiles each.
    let rows = m.div_ceil(4 * pool.threads()).min(ROWS).next_multiple_of(mr);
    let columns = n.min(ROWS * COLUMNS / rows).min(PACKED / k).max(1).next_multiple_of(nr);
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
        pool.for_each_with(rows * PITCH, y.chunks_mut(rows * n).enumerate(), |scratch, (i, y)| {
            let count = y.len() / n;
            let panels = &mut scratch.as_chunks_mut().0[..count.next_multiple_of(mr)];
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
                    n,
                    depth,
                    accumulate: at > 0,
                    after: (at + depth == k).then_some(after),
                    y: &mut *y,
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
    /// Columns of `y`.
    n: usize,
    /// Elements of the inner dimension.
    depth: usize,
    /// Whether `y` holds the sums over earlier elements.
    accumulate: bool,
    /// What follows, if these are the last elements.
    after: Option<After<'a>>,
    /// `[count, n]`.
    y: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let nr = S::Tile::NR;
        for (i, panel) in self.columns.chunks_exact(self.depth * nr).take(self.cols.div_ceil(nr)).enumerate() {
            let (column, cols) = (self.first + i * nr, nr.min(self.cols - i * nr));
            let (pitch, rows, accumulate) = (self.n, self.count, self.accumulate);
            let out = Out { to: &mut self.y[column..], pitch, cols, rows, accumulate };
            S::Tile::column_panel(s, self.rows, panel, self.depth, out);
            // The panel's sums were just written: the epilogue finds them in L1 or L2.
            if let Some(after) = self.after {
                for r in 0..self.count {
                    let y = &mut self.y[r * self.n + column..][..cols];
                    after.row(s, self.first_row + r, column, y);
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
    }
}
