//! Attention between many rows and few, with the projections of the many multiplied into the few.
//!
//! A click's eight tokens look at 5184 pixels, and the pixels at them. A score is `(q·Wqx)ᵀ(Wk·y)`, whose middle may be
//! multiplied first: where `m = few·heads` is less than the heads' width `w`, `m` folded rows of the inputs' width cost
//! less than the projections of all pixels, and keys, values or queries of all pixels are never made. With few keys,
//! what follows the weights folds likewise: `o(Σ p·v)` is a product of the weights with `m` rows `Wo·v`.
//!
//! ```text
//! few queries:  f[m, d] = q·Wk      scores[m, keys] = f·xᵀ + q·addᵀ     y = Wv·(softmax(scores)·x)
//! few keys:     f[m, d] = k·Wq      scores[queries, m] = x·fᵀ + add·kᵀ   y = softmax(scores)·(v·Wo)
//! ```
//!
//! Biases: of keys, one falls out of the softmax; of queries, it is a product with each key; of values, it passes through,
//! since the weights sum to 1.

use super::{few_keys, few_queries};
use crate::cpu::gemm::{
    Bf16, Columns, DEPTH, Element, F16, F32, Out, PITCH, PackColumns, Row, Strided, Tile, TileSize, pack_rows,
};
use crate::cpu::isa::Isa;
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Simd};
use crate::cpu::{Buffer, CpuOps, Matrix, strided};
use crate::error::Result;
use crate::ops::{Attention, Epilogue, Linear, Ops, Pattern, Projected, View, attend_in_steps};
use crate::weights::Dtype;

/// Fewest rows on the side of the many that pay for folding the others.
const MANY: usize = 96;

/// Rows of a task on the side of the many queries, and keys that are scored at a time: with the weights' rows and those
/// of the scores, each of them `PITCH` wide, some 300 KiB.
pub const BLOCK: usize = 96;

/// Whether folding `few` rows saves a good part of the arithmetic, and the folded rows fit a depth of the tile.
fn pays(few: usize, many: usize, heads: usize, w: usize, d: usize) -> bool {
    let m = few * heads;
    many >= MANY && few > 0 && 4 * m <= 3 * w && d <= DEPTH && w <= DEPTH
}

/// [`Ops::attend`]
pub fn attend(
    ops: &CpuOps,
    [q, k, v]: [Projected<'_, CpuOps>; 3],
    spec: &Attention<'_, Buffer>,
    o: &Linear<CpuOps>,
    residual: Option<View<'_, Buffer>>,
    inner: [&mut Buffer; 4],
    y: &mut Buffer,
) -> Result<()> {
    let Attention { heads, head_dim, queries, keys, scale, .. } = *spec;
    let (heads, w) = (Heads { count: heads, dim: head_dim }, heads * head_dim);
    let epilogue = Epilogue { add: residual, ..Epilogue::NONE };
    if !matches!(spec.pattern, Pattern::Full) {
        return attend_in_steps(ops, [q, k, v], spec, o, residual, inner, y);
    }
    if let (Some((x, by_k)), Some((also, by_v)), None) = (k.from, v.from, v.add)
        && (x.offset, x.stride) == (also.offset, also.stride)
        && std::ptr::eq(x.buf, also.buf)
        && pays(queries, keys, heads.count, w, by_k.k)
    {
        let [made_q, _, _, made] = inner;
        let q = strided(q.rows(ops, queries, made_q)?);
        let k = (Source::new(x, by_k, w), k.add.map(strided), keys);
        let to = made.output(queries * w)?;
        few_queries::run(&ops.pool, ops.isa, heads, scale, (q, queries), k, Source::new(x, by_v, w), to);
        return ops.linear(View::new(made, w), o, queries, epilogue, y);
    }
    if pays(keys, queries, heads.count, w, q.from.map_or(0, |(_, by)| by.k)) {
        let [_, made_k, made_v, _] = inner;
        let k = strided(k.rows(ops, keys, made_k)?);
        let v = strided(v.rows(ops, keys, made_v)?);
        let q = (q.from.map(|(x, by)| Source::new(x, by, w)), q.add.map(strided));
        assert_eq!((o.w.n, o.w.k), (o.n, w), "a layer's matrix");
        let (o, after, y) = ((&o.w, o.n), crate::cpu::after(o, queries, epilogue), y.output(queries * o.n)?);
        few_keys::run(&ops.pool, ops.isa, heads, scale, q, (k, v, keys), o, after, y);
        return Ok(());
    }
    attend_in_steps(ops, [q, k, v], spec, o, residual, inner, y)
}

/// Rows of inputs with their projection to all heads.
pub struct Source<'a, C> {
    /// `[rows, d]`.
    pub x: Strided<'a>,
    pub d: usize,
    /// `[w, d]`.
    pub w: &'a C,
    /// `[w]`.
    pub b: Option<&'a [f32]>,
}

impl<'a> Source<'a, Matrix> {
    fn new(x: View<'a, Buffer>, by: &'a Linear<CpuOps>, w: usize) -> Self {
        assert_eq!((by.w.n, by.w.k), (w, by.k), "a projection to all heads");
        Self { x: strided(x), d: by.k, w: &by.w, b: by.b.as_ref().map(|b| &b.0[..w]) }
    }
}

/// Heads and their width.
#[derive(Clone, Copy)]
pub struct Heads {
    pub count: usize,
    pub dim: usize,
}

/// `to[h·few + i, d] = Σ_c rows[i, h·dim + c] · W[h·dim + c, :]`, or with `W` the other way round, `W[:, h·dim + c]`.
pub fn fold(
    pool: &Pool,
    isa: Isa,
    heads: Heads,
    (rows, few): (Strided<'_>, usize),
    (weights, across, d): (&impl Columns, bool, usize),
    to: &mut [f32],
) {
    let (mr, nr) = isa.run(TileSize);
    let tiles = few.next_multiple_of(mr);
    let len = tiles * PITCH + heads.dim * nr;
    pool.for_each_with(len, to.chunks_exact_mut(few * d).enumerate(), |scratch, (head, to)| {
        isa.run(Fold { dim: heads.dim, head, rows, few, weights, across, d, scratch, to });
    });
}

/// The rows of one head.
struct Fold<'a, C> {
    dim: usize,
    head: usize,
    rows: Strided<'a>,
    few: usize,
    weights: &'a C,
    across: bool,
    d: usize,
    scratch: &'a mut [f32],
    to: &'a mut [f32],
}

impl<C: Columns> Kernel for Fold<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { dim, head, rows, few, weights, across, d, scratch, to } = self;
        let nr = S::Tile::NR;
        let tiles = few.next_multiple_of(S::Tile::MR);
        let (packed, panel) = scratch.split_at_mut(tiles * PITCH);
        let packed: &mut [Row] = packed.as_chunks_mut().0;
        pack_rows(&rows, 0, few, head * dim, dim, packed);
        for first in (0..d).step_by(nr) {
            let count = nr.min(d - first);
            if across {
                for (c, to) in panel.chunks_exact_mut(nr).enumerate() {
                    let row = weights.column(head * dim + c);
                    for j in (0..count).step_by(S::LANES) {
                        let v = match row.dtype {
                            Dtype::F32 => F32::load_at(s, row.bytes, first + j),
                            Dtype::F16 => F16::load_at(s, row.bytes, first + j),
                            Dtype::Bf16 => Bf16::load_at(s, row.bytes, first + j),
                        };
                        s.store(v, &mut to[j..]);
                    }
                }
            } else {
                PackColumns { columns: weights, first, count, at: head * dim, depth: dim, panel: &mut *panel }.run(s);
            }
            let out = Out { to: &mut to[first..], pitch: d, cols: count, rows: few, accumulate: false };
            S::Tile::column_panel(s, packed, panel, dim, out);
        }
    }
}

/// `to[few, w] = rows · scale`
pub fn scaled(rows: Strided<'_>, few: usize, w: usize, scale: f32, to: &mut [f32]) {
    for (i, to) in to.chunks_exact_mut(w).take(few).enumerate() {
        to.iter_mut().zip(rows.row(i, w)).for_each(|(to, &x)| *to = x * scale);
    }
}
