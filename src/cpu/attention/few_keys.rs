//! Many rows look at few keys.

use super::folded::{BLOCK, Heads, Source, fold, scaled};
use crate::cpu::activation::exp;
use crate::cpu::gemm::{Activations, After, Columns, Out, PITCH, PackColumns, Row, Strided, Tile, TileSize, pack_rows};
use crate::cpu::isa::Isa;
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Simd};

/// Few keys: `y[queries, n] = o(attention) + residual`, where `after` has the bias of `o` and the residual.
pub fn run<C: Columns>(
    pool: &Pool,
    isa: Isa,
    heads: Heads,
    scale: f32,
    (q, add): (Option<Source<'_, C>>, Option<Strided<'_>>),
    (k, v, keys): (Strided<'_>, Strided<'_>, usize),
    (o, n): (&C, usize),
    after: After<'_>,
    y: &mut [f32],
) {
    let (_, nr) = isa.run(TileSize);
    let (w, m) = (heads.count * heads.dim, keys * heads.count);
    let d = q.as_ref().map_or(0, |q| q.d);
    let (columns, of_head, outputs) = (m.div_ceil(nr), keys.div_ceil(nr), n.div_ceil(nr));
    let of_heads = if add.is_some() { heads.count * of_head * heads.dim * nr } else { 0 };
    let packed = columns * d * nr + of_heads + outputs * m * nr;
    let mut memory = pool.scratch(keys * w + m * d.max(n) + m + packed);
    let (few, rest) = memory.split_at_mut(keys * w);
    let (folded, rest) = rest.split_at_mut(m * d.max(n));
    let (bias, rest) = rest.split_at_mut(m);
    let (by_inputs, rest) = rest.split_at_mut(columns * d * nr);
    let (by_add, by_outputs) = rest.split_at_mut(of_heads);
    scaled(k, keys, w, scale, few);
    let few = Strided { data: few, offset: 0, stride: w };
    bias.fill(0.0);
    if let Some(q) = &q {
        if let Some(b) = q.b {
            for (i, to) in bias.iter_mut().enumerate() {
                let (head, key) = (i / keys, i % keys);
                let range = head * heads.dim..(head + 1) * heads.dim;
                *to = few.row(key, w)[range.clone()].iter().zip(&b[range]).map(|(k, b)| k * b).sum();
            }
        }
        let folded = &mut folded[..m * d];
        fold(pool, isa, heads, (few, keys), (q.w, true, d), folded);
        let columns = &Activations { rows: Strided { data: folded, offset: 0, stride: d }, width: d };
        for (i, panel) in by_inputs.chunks_exact_mut(d * nr).enumerate() {
            isa.run(PackColumns { columns, first: i * nr, count: nr.min(m - i * nr), at: 0, depth: d, panel });
        }
    }
    for (i, panel) in by_add.chunks_exact_mut(heads.dim * nr).enumerate() {
        let (head, first) = (i / of_head, i % of_head * nr);
        let (count, at, depth) = (nr.min(keys - first), head * heads.dim, heads.dim);
        isa.run(PackColumns { columns: &Activations { rows: few, width: w }, first, count, at, depth, panel });
    }
    let folded = &mut folded[..m * n];
    fold(pool, isa, heads, (v, keys), (o, false, n), folded);
    for (i, panel) in by_outputs.chunks_exact_mut(m * nr).enumerate() {
        let count = nr.min(n - i * nr);
        for (to, from) in panel.chunks_exact_mut(nr).zip(folded.chunks_exact(n)) {
            to[..count].copy_from_slice(&from[i * nr..][..count]);
            to[count..].fill(0.0);
        }
    }
    let x = q.map(|q| q.x);
    let shared = Keys { heads, keys, d, n, x, add, bias, by_inputs, by_add, by_outputs, after };
    // Four tasks a thread even out what other processes take from some.
    let block = (y.len() / n).div_ceil(4 * pool.threads()).min(BLOCK);
    pool.for_each_with(2 * BLOCK * PITCH, y.chunks_mut(block * n).enumerate(), |scratch, (i, y)| {
        isa.run(Block { shared: &shared, first: i * block, scratch, y });
    });
}

/// What the tasks of few keys share.
struct Keys<'a> {
    heads: Heads,
    keys: usize,
    d: usize,
    n: usize,
    x: Option<Strided<'a>>,
    add: Option<Strided<'a>>,
    /// `[m]`, of each score.
    bias: &'a [f32],
    /// Folded keys, `[panel][d][NR]`.
    by_inputs: &'a [f32],
    /// The keys themselves, `[head][panel][dim][NR]`.
    by_add: &'a [f32],
    /// Folded values, `[panel][m][NR]`.
    by_outputs: &'a [f32],
    after: After<'a>,
}

/// Some queries.
struct Block<'a> {
    shared: &'a Keys<'a>,
    first: usize,
    scratch: &'a mut [f32],
    /// `[queries, n]`.
    y: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { shared, first, scratch, y } = self;
        let Keys { heads, keys, d, n, x, add, bias, by_inputs, by_add, by_outputs, after } = *shared;
        let (nr, m, count) = (S::Tile::NR, keys * heads.count, y.len() / n);
        let tiles = count.next_multiple_of(S::Tile::MR);
        let (rows, scores) = scratch.split_at_mut(BLOCK * PITCH);
        let rows: &mut [Row] = &mut rows.as_chunks_mut().0[..tiles];
        if let Some(x) = x {
            pack_rows(&x, first, count, 0, d, rows);
            for (j, panel) in by_inputs.chunks_exact(d * nr).enumerate() {
                let out = Out { to: &mut scores[j * nr..], pitch: PITCH, cols: nr, rows: count, accumulate: false };
                S::Tile::column_panel(s, rows, panel, d, out);
            }
        }
        if let Some(add) = add {
            let of_head = keys.div_ceil(nr);
            for (i, panel) in by_add.chunks_exact(heads.dim * nr).enumerate() {
                let (head, j) = (i / of_head, i % of_head * nr);
                if j == 0 {
                    pack_rows(&add, first, count, head * heads.dim, heads.dim, rows);
                }
                let to = &mut scores[head * keys + j..];
                let out = Out { to, pitch: PITCH, cols: nr.min(keys - j), rows: count, accumulate: x.is_some() };
                S::Tile::column_panel(s, rows, panel, heads.dim, out);
            }
        }
        let scores: &mut [Row] = &mut scores.as_chunks_mut().0[..tiles];
        for (i, scores) in scores.iter_mut().enumerate() {
            if i >= count {
                scores[..m].fill(0.0);
                continue;
            }
            for (scores, bias) in scores[..m].chunks_exact_mut(keys).zip(bias.chunks_exact(keys)) {
                share(s, scores, bias);
            }
        }
        for (j, panel) in by_outputs.chunks_exact(m * nr).enumerate() {
            let out = Out { to: &mut y[j * nr..], pitch: n, cols: nr.min(n - j * nr), rows: count, accumulate: false };
            S::Tile::column_panel(s, scores, panel, m, out);
        }
        for (i, y) in y.chunks_exact_mut(n).enumerate() {
            after.row(s, first + i, 0, y);
        }
    }
}

/// Softmax of a few scores with their biases.
#[inline(always)]
fn share<S: Simd>(s: S, scores: &mut [f32], bias: &[f32]) {
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut highest = lowest;
    for j in (0..scores.len()).step_by(S::LANES) {
        let v = s.add(s.load_head(&scores[j..]), s.load_head(&bias[j..]));
        s.store_head(v, &mut scores[j..]);
        // Past the end a vector has zeros, which are no scores.
        let left = scores.len() - j;
        highest = if left >= S::LANES { s.max(v, highest) } else { s.max(s.splat(most(&scores[j..])), highest) };
    }
    let base = s.splat(s.max_lane(highest));
    let mut total = 0.0;
    for j in (0..scores.len()).step_by(S::LANES) {
        let weight = exp(s, s.sub(s.load_head(&scores[j..]), base));
        s.store_head(weight, &mut scores[j..]);
        total += if scores.len() - j >= S::LANES { s.sum(weight) } else { scores[j..].iter().sum() };
    }
    let scale = s.splat(1.0 / total);
    for j in (0..scores.len()).step_by(S::LANES) {
        s.store_head(s.mul(s.load_head(&scores[j..]), scale), &mut scores[j..]);
    }
}

/// The largest, `b` over NaN as in [`Simd::max`].
#[inline(always)]
fn most(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |most, &x| if most > x { most } else { x })
}
