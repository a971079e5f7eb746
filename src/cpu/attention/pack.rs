//! Keys and values as the tiles read them, and the rotary turn.

use super::{Keys, Shared, Turn};
use crate::cpu::gemm::{Columns, PackColumns, Stored, Strided, Tile};
use crate::cpu::simd::{Kernel, Simd};
use crate::weights::Dtype;

impl<'a> Shared<'a> {
    /// A key of a window and head, before its turn.
    #[inline(always)]
    fn key_row(&self, pair: usize, key: usize) -> &'a [f32] {
        let pad = if let Keys::Windows { pad_k, .. } = self.spec.pattern { pad_k } else { &[] };
        self.row(&self.spec.k, pad, pair, key)
    }

    /// A value of a window and head.
    #[inline(always)]
    fn value_row(&self, pair: usize, key: usize) -> &'a [f32] {
        let pad = if let Keys::Windows { pad_v, .. } = self.spec.pattern { pad_v } else { &[] };
        self.row(&self.spec.v, pad, pair, key)
    }

    #[inline(always)]
    fn row(&self, rows: &Strided<'a>, pad: &'a [f32], pair: usize, key: usize) -> &'a [f32] {
        let (window, head, dim) = (pair / self.spec.heads, pair % self.spec.heads, self.spec.head_dim);
        match self.key(window, key) {
            Some(row) => &rows.row(row, (head + 1) * dim)[head * dim..],
            None => &pad[head * dim..][..dim],
        }
    }
}

/// Panels of keys `[head_dim, NR]`, numbered through all windows and heads.
pub(super) struct PackKeys<'a> {
    pub shared: &'a Shared<'a>,
    /// Number of the first.
    pub first: usize,
    /// `[NR, head_dim]` for the keys of a panel, turned.
    pub turned: &'a mut [f32],
    /// The panels.
    pub to: &'a mut [f32],
}

impl Kernel for PackKeys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { shared, first, turned, to } = self;
        let (dim, nr) = (shared.spec.head_dim, S::Tile::NR);
        let panels = shared.padded_keys / nr;
        for (i, panel) in (first..).zip(to.chunks_exact_mut(nr * dim)) {
            let (pair, first) = (i / panels, i % panels * nr);
            let count = nr.min(shared.grid.keys - first);
            if let Some(table) = shared.spec.turn {
                for (key, to) in (first..first + count).zip(turned.chunks_exact_mut(dim)) {
                    turn(s, shared.key_row(pair, key), Some(table), key, 1.0, to);
                }
                let rows = Strided { data: turned, offset: 0, stride: dim };
                let columns = &crate::cpu::gemm::Activations { rows, width: dim };
                PackColumns { columns, first: 0, count, at: 0, depth: dim, panel }.run(s);
            } else {
                let columns = &HeadKeys { shared, pair };
                PackColumns { columns, first, count, at: 0, depth: dim, panel }.run(s);
            }
        }
    }
}

/// Keys of one window and head where they lie.
struct HeadKeys<'a> {
    shared: &'a Shared<'a>,
    pair: usize,
}

impl Columns for HeadKeys<'_> {
    #[inline(always)]
    fn column(&self, n: usize) -> Stored<'_> {
        Stored { dtype: Dtype::F32, bytes: bytemuck::cast_slice(self.shared.key_row(self.pair, n)) }
    }
}

/// Rows of panels of values `[keys, NR]`, numbered through all windows, heads and panels.
pub(super) struct PackValues<'a> {
    pub shared: &'a Shared<'a>,
    /// Number of the first.
    pub first: usize,
    /// The rows.
    pub to: &'a mut [f32],
}

impl Kernel for PackValues<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shared, nr) = (self.shared, S::Tile::NR);
        let (keys, panels) = (shared.grid.keys, shared.padded_dim / nr);
        let (mut panel, mut key) = (self.first / keys, self.first % keys);
        for to in self.to.chunks_exact_mut(nr) {
            let (pair, column) = (panel / panels, panel % panels * nr);
            let value = &shared.value_row(pair, key)[column..];
            for j in (0..nr).step_by(S::LANES) {
                s.store(s.load_head(value.get(j..).unwrap_or(&[])), &mut to[j..]);
            }
            key += 1;
            if key == keys {
                (panel, key) = (panel + 1, 0);
            }
        }
    }
}

/// `to = rope(x) · scale`: pairs `(2i, 2i + 1)` turn by the angle of `token` and `i`.
#[inline(always)]
pub(super) fn turn<S: Simd>(s: S, x: &[f32], table: Option<Turn<'_>>, token: usize, scale: f32, to: &mut [f32]) {
    match table {
        None => {
            for i in (0..x.len()).step_by(S::LANES) {
                s.store_head(s.mul(s.load_head(&x[i..]), s.splat(scale)), &mut to[i..]);
            }
        }
        Some(Turn { cos, sin }) => {
            let half = x.len() / 2;
            let angles = cos[token * half..][..half].iter().zip(&sin[token * half..][..half]);
            let pairs = to.as_chunks_mut::<2>().0.iter_mut().zip(x.as_chunks::<2>().0);
            for ((to, x), (cos, sin)) in pairs.zip(angles) {
                *to = [(x[0] * cos - x[1] * sin) * scale, (x[1] * cos + x[0] * sin) * scale];
            }
        }
    }
}
