//! What a GEMM multiplies: rows from anywhere, columns from stored weights or activations, and their packed forms.

use super::tile::{Row, Tile};
use crate::cpu::simd::{Kernel, MAX_LANES, Simd};
use crate::weights::Dtype;

/// The left factor, row by row: an activation, or the pixels under a convolution's kernel.
pub trait Rows: Sync {
    /// Writes elements `at ..` of row `row` to all of `to`.
    fn read(&self, row: usize, at: usize, to: &mut [f32]);
}

/// Rows of a flat buffer.
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    /// The buffer.
    pub data: &'a [f32],
    /// First element of row 0.
    pub offset: usize,
    /// Elements between the starts of two rows.
    pub stride: usize,
}

impl<'a> Strided<'a> {
    /// `width` elements of row `row`.
    #[inline(always)]
    pub fn row(&self, row: usize, width: usize) -> &'a [f32] {
        &self.data[self.offset + row * self.stride..][..width]
    }
}

impl Rows for Strided<'_> {
    fn read(&self, row: usize, at: usize, to: &mut [f32]) {
        to.copy_from_slice(&self.row(row, at + to.len())[at..]);
    }
}

/// The right factor, transposed: row `n` holds the weights of output `n`.
pub trait Columns: Sync {
    /// All elements of row `n`.
    fn column(&self, n: usize) -> Stored<'_>;
}

/// Elements as they are stored.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// Their type.
    pub dtype: Dtype,
    /// Their bytes, at any alignment.
    pub bytes: &'a [u8],
}

/// Rows of an activation as the right factor.
pub struct Activations<'a> {
    /// The rows.
    pub rows: Strided<'a>,
    /// Their width.
    pub width: usize,
}

impl Columns for Activations<'_> {
    fn column(&self, n: usize) -> Stored<'_> {
        Stored { dtype: Dtype::F32, bytes: bytemuck::cast_slice(self.rows.row(n, self.width)) }
    }
}

/// One storage type, for kernels that choose it outside their loops.
pub trait Element {
    /// Bytes of one.
    const BYTES: usize;

    /// A vector of them.
    fn load<S: Simd>(s: S, bytes: &[u8]) -> S::F;

    /// The vector at element `at`, zero past the end.
    #[inline(always)]
    fn load_at<S: Simd>(s: S, bytes: &[u8], at: usize) -> S::F {
        let bytes = &bytes[at * Self::BYTES..];
        if bytes.len() >= S::LANES * Self::BYTES {
            return Self::load(s, bytes);
        }
        let mut buffer = [0; 4 * MAX_LANES];
        buffer[..bytes.len()].copy_from_slice(bytes);
        Self::load(s, &buffer)
    }
}

/// [`Dtype::F32`].
pub struct F32;
/// [`Dtype::F16`].
pub struct F16;
/// [`Dtype::Bf16`].
pub struct Bf16;

impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn load<S: Simd>(s: S, bytes: &[u8]) -> S::F {
        s.load_f32(bytes)
    }
}

impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn load<S: Simd>(s: S, bytes: &[u8]) -> S::F {
        s.load_f16(bytes)
    }
}

impl Element for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn load<S: Simd>(s: S, bytes: &[u8]) -> S::F {
        s.load_bf16(bytes)
    }
}

/// Packs `columns[first .. first + count]`, elements `at .. at + depth`, into a panel `[depth, NR]`, missing columns
/// as zeros.
pub struct PackColumns<'a, C> {
    /// The right factor.
    pub columns: &'a C,
    /// First column of the panel.
    pub first: usize,
    /// Columns there are, 1 ..= NR.
    pub count: usize,
    /// First element of the inner dimension.
    pub at: usize,
    /// Elements of the inner dimension.
    pub depth: usize,
    /// `[depth, NR]`.
    pub panel: &'a mut [f32],
}

impl<C: Columns> Kernel for PackColumns<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let nr = S::Tile::NR;
        for g in (0..nr).step_by(S::LANES) {
            // Squares of LANES columns by LANES elements, turned in registers.
            let mut group = [Stored { dtype: Dtype::F32, bytes: &[] }; MAX_LANES];
            let count = self.count.saturating_sub(g).min(S::LANES);
            for r in 0..count {
                group[r] = self.columns.column(self.first + g + r);
            }
            let dtype = group[0].dtype;
            let mut done = 0;
            if count == S::LANES && group[..count].iter().all(|c| c.dtype == dtype) {
                done = self.depth - self.depth % S::LANES;
                let panel = &mut self.panel[..done * nr];
                match dtype {
                    Dtype::F32 => squares::<S, F32>(s, &group, self.at, g, panel),
                    Dtype::F16 => squares::<S, F16>(s, &group, self.at, g, panel),
                    Dtype::Bf16 => squares::<S, Bf16>(s, &group, self.at, g, panel),
                }
            }
            // What is no whole square, or of several types.
            for p in (done..self.depth).step_by(S::LANES) {
                let mut square = [s.splat(0.0); MAX_LANES];
                for r in 0..S::LANES {
                    if r < count {
                        let bytes = group[r].bytes;
                        square[r] = match group[r].dtype {
                            Dtype::F32 => F32::load_at(s, bytes, self.at + p),
                            Dtype::F16 => F16::load_at(s, bytes, self.at + p),
                            Dtype::Bf16 => Bf16::load_at(s, bytes, self.at + p),
                        };
                    }
                }
                s.transpose(&mut square);
                for r in 0..S::LANES.min(self.depth - p) {
                    s.store(square[r], &mut self.panel[(p + r) * nr + g..]);
                }
            }
        }
    }
}

/// Turns the first LANES of `columns`, from element `at` on, into columns `to ..` of `panel`, which is whole squares.
#[inline(always)]
fn squares<S: Simd, E: Element>(s: S, columns: &[Stored<'_>; MAX_LANES], at: usize, to: usize, panel: &mut [f32]) {
    let line = S::LANES * S::Tile::NR;
    let len = panel.len() / S::Tile::NR * E::BYTES;
    let mut bytes = [&[][..]; MAX_LANES];
    for r in 0..S::LANES {
        bytes[r] = &columns[r].bytes[at * E::BYTES..][..len];
    }
    for (i, panel) in panel.chunks_exact_mut(line).enumerate() {
        let mut square = [s.splat(0.0); MAX_LANES];
        for r in 0..S::LANES {
            square[r] = E::load(s, &bytes[r][i * S::LANES * E::BYTES..]);
        }
        s.transpose(&mut square);
        for (square, panel) in square.iter().zip(panel.chunks_exact_mut(S::Tile::NR)) {
            s.store(*square, &mut panel[to..]);
        }
    }
}

/// Copies rows `first .. first + count` of `rows`, elements `at .. at + depth`, to the start of `to`; the rows up to
/// its end, padding up to a whole tile, become zero.
pub fn pack_rows(rows: &impl Rows, first: usize, count: usize, at: usize, depth: usize, to: &mut [Row]) {
    for (i, to) in to.iter_mut().enumerate() {
        if i < count {
            rows.read(first + i, at, &mut to[..depth]);
        } else {
            to[..depth].fill(0.0);
        }
    }
}
