//! Keys and values as the tiles read them.

use super::{Keys, Pad, Shared};
use crate::cpu::gemm::{Columns, PackColumns, Stored, Tile};
use crate::cpu::simd::{Kernel, Simd};
use crate::weights::Dtype;

impl<'a> Shared<'a> {
    /// A key of a window and head.
    #[inline(always)]
    fn key_row(&self, pair: usize, key: usize) -> &'a [f32] {
        let (window, end) = self.place_of(pair);
        let row = match self.key(window, key) {
            Some(row) => self.spec.k.row(row, end),
            None => self.padding().k.row(key, end),
        };
        &row[end - self.spec.head_dim..]
    }

    /// A value of a window and head.
    #[inline(always)]
    fn value_row(&self, pair: usize, key: usize) -> &'a [f32] {
        let (window, end) = self.place_of(pair);
        let row = match self.key(window, key) {
            Some(row) => self.spec.v.row(row, end),
            None => &self.padding().v[..end],
        };
        &row[end - self.spec.head_dim..]
    }

    /// The window of a pair of window and head, and the end of the head's columns.
    #[inline(always)]
    fn place_of(&self, pair: usize) -> (usize, usize) {
        (pair / self.spec.heads, (pair % self.spec.heads + 1) * self.spec.head_dim)
    }

    fn padding(&self) -> Pad<'a> {
        match self.spec.pattern {
            Keys::Windows { padding: Some(padding), .. } => padding,
            _ => panic!("windows that hang over the grid have padding"),
        }
    }
}

/// Panels of keys `[head_dim, NR]`, numbered through all windows and heads.
pub(super) struct PackKeys<'a> {
    pub shared: &'a Shared<'a>,
    /// Number of the first.
    pub first: usize,
    /// The panels.
    pub to: &'a mut [f32],
}

impl Kernel for PackKeys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { shared, first, to } = self;
        let (dim, nr) = (shared.spec.head_dim, S::Tile::NR);
        let panels = shared.padded_keys / nr;
        for (i, panel) in (first..).zip(to.chunks_exact_mut(nr * dim)) {
            let (pair, first) = (i / panels, i % panels * nr);
            let count = nr.min(shared.grid.keys - first);
            let columns = &HeadKeys { shared, pair };
            PackColumns { columns, first, count, at: 0, depth: dim, panel }.run(s);
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
