//! Few queries look at many rows.
//!
//! The keys are shared out among the threads in parts, each of which has a softmax of its own, as in
//! [Flash-Decoding](https://crfm.stanford.edu/2023/10/12/flashdecoding.html); what they leave is merged afterwards.

use super::folded::{BLOCK, Heads, Source, fold, scaled};
use super::soften;
use crate::cpu::gemm::{Activations, Columns, Out, PITCH, PackColumns, Row, Strided, Tile, TileSize, pack_rows};
use crate::cpu::isa::Isa;
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Simd};

/// Keys of a task, which leaves sums of all folded queries to be merged: some hundred microseconds. Not a share of the
/// threads, so that their number is not seen in the sums.
const PART: usize = 4 * BLOCK;

/// Few queries, and keys and values that are projections of the same rows: `y[queries, w]`, the heads' output.
pub fn run<C: Columns>(
    pool: &Pool,
    isa: Isa,
    heads: Heads,
    scale: f32,
    (q, queries): (Strided<'_>, usize),
    (k, add, keys): (Source<'_, C>, Option<Strided<'_>>, usize),
    v: Source<'_, C>,
    y: &mut [f32],
) {
    let (mr, nr) = isa.run(TileSize);
    let (w, d, m) = (heads.count * heads.dim, k.d, queries * heads.count);
    let tiles = m.next_multiple_of(mr);
    let parts = keys.div_ceil(PART);
    let part = m * (d.next_multiple_of(nr) + 2);
    let of_head = queries.next_multiple_of(mr);
    let mut memory =
        pool.scratch(queries * w + m * d + (tiles + heads.count * of_head) * PITCH + parts * part + m * heads.dim);
    let (few, rest) = memory.split_at_mut(queries * w);
    let (folded, rest) = rest.split_at_mut(m * d);
    let (rows, rest) = rest.split_at_mut((tiles + heads.count * of_head) * PITCH);
    let (sums, heads_out) = rest.split_at_mut(parts * part);
    scaled(q, queries, w, scale, few);
    let few = Strided { data: few, offset: 0, stride: w };
    fold(pool, isa, heads, (few, queries), (k.w, true, d), folded);
    let rows: &mut [Row] = rows.as_chunks_mut().0;
    let (rows, of_heads) = rows.split_at_mut(tiles);
    pack_rows(&Strided { data: folded, offset: 0, stride: d }, 0, m, 0, d, rows);
    if add.is_some() {
        for (head, rows) in of_heads.chunks_exact_mut(of_head).enumerate() {
            pack_rows(&few, 0, queries, head * heads.dim, heads.dim, rows);
        }
    }
    let shared = Queries { heads, queries, d, rows, of_heads, x: k.x, add };
    let len = tiles * PITCH + BLOCK.max(d).max(heads.dim) * nr;
    pool.for_each_with(len, sums.chunks_exact_mut(part).enumerate(), |scratch, (i, to)| {
        isa.run(Part { shared: &shared, first: i * PART, end: keys.min((i + 1) * PART), scratch, to });
    });
    let sums = &*sums;
    let len = of_head * PITCH + d * nr;
    pool.for_each_with(len, heads_out.chunks_exact_mut(queries * heads.dim).enumerate(), |scratch, (head, to)| {
        isa.run(Merge { shared: &shared, head, sums, values: &v, scratch, to });
    });
    for (head, from) in heads_out.chunks_exact(queries * heads.dim).enumerate() {
        for (i, from) in from.chunks_exact(heads.dim).enumerate() {
            y[i * w + head * heads.dim..][..heads.dim].copy_from_slice(from);
        }
    }
}

/// What the tasks of few queries share.
struct Queries<'a> {
    heads: Heads,
    queries: usize,
    d: usize,
    /// Folded queries, head by head, padded to whole tiles.
    rows: &'a [Row],
    /// The queries themselves, each head's padded to whole tiles.
    of_heads: &'a [Row],
    x: Strided<'a>,
    add: Option<Strided<'a>>,
}

/// The keys `first .. end`, to sums `[m, d]` with rows of whole panels, then `[m]` highest scores and `[m]` totals.
struct Part<'a> {
    shared: &'a Queries<'a>,
    first: usize,
    end: usize,
    scratch: &'a mut [f32],
    to: &'a mut [f32],
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { shared, first: begin, end, scratch, to } = self;
        let Queries { heads, queries, d, rows, of_heads, x, add } = *shared;
        let (nr, m) = (S::Tile::NR, queries * heads.count);
        let of_head = of_heads.len() / heads.count;
        let (scores, panel) = scratch.split_at_mut(rows.len() * PITCH);
        let wide = d.next_multiple_of(nr);
        let (sums, rest) = to.split_at_mut(m * wide);
        let (highest, totals) = rest.split_at_mut(m);
        highest.fill(f32::NEG_INFINITY);
        totals.fill(0.0);
        for first in (begin..end).step_by(BLOCK) {
            let count = BLOCK.min(end - first);
            for j in (0..count).step_by(nr) {
                let (key, cols) = (first + j, nr.min(count - j));
                let columns = &Activations { rows: x, width: d };
                PackColumns { columns, first: key, count: cols, at: 0, depth: d, panel: &mut *panel }.run(s);
                let out = Out { to: &mut scores[j..], pitch: PITCH, cols: nr, rows: m, accumulate: false };
                S::Tile::column_panel(s, rows, &panel[..d * nr], d, out);
                let Some(add) = add else { continue };
                let columns = &Activations { rows: add, width: heads.count * heads.dim };
                for (head, rows) in of_heads.chunks_exact(of_head).enumerate() {
                    let (at, depth) = (head * heads.dim, heads.dim);
                    PackColumns { columns, first: key, count: cols, at, depth, panel: &mut *panel }.run(s);
                    let to = &mut scores[head * queries * PITCH + j..];
                    let out = Out { to, pitch: PITCH, cols: nr, rows: queries, accumulate: true };
                    S::Tile::column_panel(s, rows, &panel[..depth * nr], depth, out);
                }
            }
            let scores: &mut [Row] = scores.as_chunks_mut().0;
            for (i, scores) in scores.iter_mut().enumerate() {
                let whole = count.next_multiple_of(S::LANES);
                if i >= m {
                    scores[..whole].fill(0.0);
                    continue;
                }
                scores[count..whole].fill(f32::NEG_INFINITY);
                let sums = &mut sums[i * wide..][..wide];
                soften(s, &mut scores[..whole], &mut highest[i], &mut totals[i], (first > begin).then_some(sums));
            }
            for j in (0..d).step_by(nr) {
                for (key, to) in (first..first + count).zip(panel.chunks_exact_mut(nr)) {
                    let x = &x.row(key, d)[j..];
                    for l in (0..nr).step_by(S::LANES) {
                        s.store(s.load_head(x.get(l..).unwrap_or(&[])), &mut to[l..]);
                    }
                }
                let out = Out { to: &mut sums[j..], pitch: wide, cols: nr, rows: m, accumulate: first > begin };
                S::Tile::column_panel(s, scores, &panel[..count * nr], count, out);
            }
        }
    }
}

/// The heads' output of one head, `[queries, dim]`, from the parts' sums.
struct Merge<'a, C> {
    shared: &'a Queries<'a>,
    head: usize,
    /// Of each part, one after the other.
    sums: &'a [f32],
    values: &'a Source<'a, C>,
    scratch: &'a mut [f32],
    to: &'a mut [f32],
}

impl<C: Columns> Kernel for Merge<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { shared, head, sums, values, scratch, to } = self;
        let Queries { heads, queries, d, .. } = *shared;
        let (nr, m) = (S::Tile::NR, queries * heads.count);
        let wide = d.next_multiple_of(nr);
        let (rows, panel) = scratch.split_at_mut(queries.next_multiple_of(S::Tile::MR) * PITCH);
        let rows: &mut [Row] = rows.as_chunks_mut().0;
        rows.iter_mut().for_each(|row| row[..d].fill(0.0));
        let parts = || sums.chunks_exact(m * (wide + 2));
        for i in 0..queries {
            let at = head * queries + i;
            let highest = parts().map(|p| p[m * wide + at]).fold(f32::NEG_INFINITY, f32::max);
            let share = |p: &[f32]| (p[m * wide + at] - highest).exp();
            let total: f32 = parts().map(|p| share(p) * p[m * wide + m + at]).sum();
            for part in parts() {
                let share = s.splat(share(part) / total);
                let (sums, row) = (&part[at * wide..][..d], &mut rows[i][..d]);
                for j in (0..d).step_by(S::LANES) {
                    let sum = s.mul_add(s.load_head(&sums[j..]), share, s.load_head(&row[j..]));
                    s.store_head(sum, &mut row[j..]);
                }
            }
        }
        for j in (0..heads.dim).step_by(nr) {
            let (first, count) = (head * heads.dim + j, nr.min(heads.dim - j));
            PackColumns { columns: values.w, first, count, at: 0, depth: d, panel: &mut *panel }.run(s);
            let out = Out { to: &mut to[j..], pitch: heads.dim, cols: count, rows: queries, accumulate: false };
            S::Tile::column_panel(s, rows, &panel[..d * nr], d, out);
        }
        if let Some(bias) = values.b {
            let bias = &bias[head * heads.dim..][..heads.dim];
            for to in to.chunks_exact_mut(heads.dim) {
                to.iter_mut().zip(bias).for_each(|(to, b)| *to += b);
            }
        }
    }
}
