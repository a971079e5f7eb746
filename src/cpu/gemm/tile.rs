//! The innermost loop: a tile of sums in registers.

use crate::cpu::simd::Simd;

/// Depth of a block of the inner dimension, and of the attention's blocks of keys. A packed panel of columns,
/// `DEPTH · NR · 4` bytes, is 32 KiB with AVX-512 and 16 KiB with AVX2: it stays in L1 while the row panels stream
/// by from L2.
pub const DEPTH: usize = 256;

/// Elements between two rows of a row panel. 64 bytes more than [`DEPTH`], for rows 1024 bytes apart would meet in the
/// same few sets of L1.
pub const PITCH: usize = DEPTH + 16;

/// One row of a row panel: [`DEPTH`] elements of use.
pub type Row = [f32; PITCH];

/// The shape of an instruction set's register tile, and the kernel of that shape.
pub trait Tile<S: Simd> {
    /// Rows.
    const MR: usize;
    /// Columns.
    const NR: usize;

    /// `out[i·pitch + j] (+)= Σ_p rows[i][p] · panel[p][j]` for `p < depth`, `j < cols`, and all rows of `rows`,
    /// which are at most [`DEPTH`] deep and a multiple of [`Tile::MR`].
    ///
    /// `panel` is `[depth, NR]`. Of the last `MR` rows only those that begin inside `out` are written.
    fn column_panel(s: S, rows: &[Row], panel: &[f32], depth: usize, out: Out<'_>);
}

/// Where a kernel leaves a panel of sums.
pub struct Out<'a> {
    /// Row `i` starts at `i · pitch`; the last may end with the slice.
    pub to: &'a mut [f32],
    /// Elements between the starts of rows; at least `cols`.
    pub pitch: usize,
    /// Columns to write, 1 ..= NR.
    pub cols: usize,
    /// Rows to write.
    pub rows: usize,
    /// Whether to add to what is there.
    pub accumulate: bool,
}

/// A tile of `MR` rows and `NV` vectors of columns: `MR · NV` accumulators.
///
/// Per step of the inner dimension it loads `NV` vectors of columns, broadcasts `MR` elements and issues `MR · NV`
/// multiply-adds: with 2 loads and 2 FMAs a cycle the FMAs are the bound, once there are enough independent ones to
/// cover their latency. (Low et al., "Analytical Modeling Is Enough for High-Performance BLIS", 2016.)
pub struct Shape<const MR: usize, const NV: usize>;

impl<S: Simd, const MR: usize, const NV: usize> Tile<S> for Shape<MR, NV> {
    const MR: usize = MR;
    const NR: usize = NV * S::LANES;

    #[inline(always)]
    fn column_panel(s: S, rows: &[Row], panel: &[f32], depth: usize, out: Out<'_>) {
        let Out { to, pitch, cols, rows: count, accumulate } = out;
        for (t, rows) in rows.as_chunks::<MR>().0.iter().enumerate() {
            let first = t * MR;
            if first >= count {
                break;
            }
            let acc = sums::<S, MR, NV>(s, rows, panel, depth);
            let to = &mut to[first * pitch..];
            if first + MR <= count && cols == NV * S::LANES {
                for i in 0..MR {
                    let row = &mut to[i * pitch..][..NV * S::LANES];
                    for j in 0..NV {
                        let row = &mut row[j * S::LANES..];
                        let sum = if accumulate { s.add(s.load(row), acc[i][j]) } else { acc[i][j] };
                        s.store(sum, row);
                    }
                }
            } else {
                for i in 0..MR {
                    if first + i < count {
                        let row = &mut to[i * pitch..][..cols];
                        for j in 0..NV {
                            if j * S::LANES < cols {
                                let row = &mut row[j * S::LANES..];
                                let sum = if accumulate { s.add(s.load_head(row), acc[i][j]) } else { acc[i][j] };
                                s.store_head(sum, row);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `Σ_p rows[i][p] · panel[p][j]` in registers.
#[inline(always)]
fn sums<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    rows: &[Row; MR],
    panel: &[f32],
    depth: usize,
) -> [[S::F; NV]; MR] {
    let mut acc = [[s.splat(0.0); NV]; MR];
    let mut columns = [s.splat(0.0); NV];
    for (p, panel) in (0..depth.min(DEPTH)).zip(panel.chunks_exact(NV * S::LANES)) {
        for j in 0..NV {
            columns[j] = s.load(&panel[j * S::LANES..]);
        }
        for i in 0..MR {
            let x = s.splat(rows[i][p]);
            for j in 0..NV {
                acc[i][j] = s.mul_add(x, columns[j], acc[i][j]);
            }
        }
    }
    acc
}
