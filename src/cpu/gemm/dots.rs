//! Products of few rows: text tokens, queries, prompts. Rows and columns are both contiguous along the inner
//! dimension, so each output is a dot product straight from the stored weights, 4 × 4 at a time to use each load four
//! times. The weights pass once, hence the time is that of reading them.

use super::pack::{Bf16, Columns, Element, F16, F32, Rows, Stored};
use super::{After, Isa, Kernel, Pool, Simd};
use crate::cpu::simd::MAX_LANES;
use crate::weights::Dtype;

/// Side of the tile of dot products: 16 accumulators and 4 + 1 operands.
const SIDE: usize = 4;

/// Outputs that one thread finishes by itself: some microseconds.
const SMALL: usize = 1 << 14;

/// As [`super::gemm`], for small `m`.
pub fn dots(
    pool: &Pool,
    isa: Isa,
    a: &impl Rows,
    b: &impl Columns,
    (m, n, k): (usize, usize, usize),
    after: After<'_>,
    y: &mut [f32],
) {
    let mut rows = pool.scratch(m * k);
    for (i, row) in rows.chunks_exact_mut(k).enumerate() {
        a.read(i, 0, row);
    }
    // Transposed, so that a task's outputs are contiguous.
    let mut turned = pool.scratch(n * m);
    // Small enough to balance, large enough (some 64 Ki weights) to be worth a task.
    let columns = n.div_ceil(8 * pool.threads()).max((1 << 16) / k).max(SIDE).next_multiple_of(SIDE);
    pool.for_each(turned.chunks_mut(columns * m).enumerate(), |(i, out)| {
        isa.run(Dots { rows: &rows, columns: b, first: i * columns, m, k, out });
    });
    let turned = &*turned;
    let each = if m * n < SMALL { m } else { 1 };
    pool.for_each(y.chunks_mut(each * n).enumerate(), |(i, y)| {
        for (i, y) in (i * each..).zip(y.chunks_exact_mut(n)) {
            for (j, y) in y.iter_mut().enumerate() {
                *y = turned[j * m + i];
            }
            isa.run(Ending { after, row: i, y });
        }
    });
}

/// `out[j·m + i] = rows[i] · columns[first + j]`
struct Dots<'a, C> {
    rows: &'a [f32],
    columns: &'a C,
    first: usize,
    m: usize,
    k: usize,
    out: &'a mut [f32],
}

impl<C: Columns> Kernel for Dots<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (m, k) = (self.m, self.k);
        let all = self.out.len() / m;
        for (g, out) in self.out.chunks_mut(SIDE * m).enumerate() {
            let count = out.len() / m;
            let stored = |g: usize, count: usize| -> [Stored<'_>; SIDE] {
                std::array::from_fn(|j| self.columns.column(self.first + g * SIDE + j.min(count - 1)))
            };
            let left = (all - g * SIDE).saturating_sub(SIDE).min(SIDE);
            let next = if left > 0 { stored(g + 1, left) } else { stored(g, count) };
            let stored = stored(g, count);
            let one_type = stored.iter().chain(&next).all(|c| c.dtype == stored[0].dtype);
            // Columns of several types meet only where parts of a stacked matrix do.
            let each = if one_type { count } else { 1 };
            for j in (0..count).step_by(each) {
                let columns: [&[u8]; SIDE] = std::array::from_fn(|i| stored[(j + i).min(j + each - 1)].bytes);
                let ahead = if one_type { next.map(|c| c.bytes) } else { columns };
                let out = &mut out[j * m..][..each * m];
                match stored[j].dtype {
                    Dtype::F32 => group::<S, F32>(s, self.rows, columns, ahead, m, k, out),
                    Dtype::F16 => group::<S, F16>(s, self.rows, columns, ahead, m, k, out),
                    Dtype::Bf16 => group::<S, Bf16>(s, self.rows, columns, ahead, m, k, out),
                }
            }
        }
    }
}

/// All rows by up to [`SIDE`] columns.
#[inline(always)]
fn group<S: Simd, E: Element>(
    s: S,
    rows: &[f32],
    columns: [&[u8]; SIDE],
    ahead: [&[u8]; SIDE],
    m: usize,
    k: usize,
    out: &mut [f32],
) {
    let mut i = 0;
    while i < m {
        let rows = &rows[i * k..];
        // Later rows find the columns in L1, where the first had them put.
        let ahead = if i == 0 { ahead } else { columns };
        match m - i {
            1 => tile::<S, E, 1>(s, rows, columns, ahead, k, m, &mut out[i..]),
            2 => tile::<S, E, 2>(s, rows, columns, ahead, k, m, &mut out[i..]),
            3 => tile::<S, E, 3>(s, rows, columns, ahead, k, m, &mut out[i..]),
            _ => tile::<S, E, SIDE>(s, rows, columns, ahead, k, m, &mut out[i..]),
        }
        i += SIDE;
    }
}

/// `R` rows by [`SIDE`] columns; writes the columns that begin inside `out`. Asks for `ahead`, the columns that come
/// next: a column ends where the processor has just learned to read it ahead, in pages of 4 KiB for 1024 f32.
#[inline(always)]
fn tile<S: Simd, E: Element, const R: usize>(
    s: S,
    rows: &[f32],
    columns: [&[u8]; SIDE],
    ahead: [&[u8]; SIDE],
    k: usize,
    m: usize,
    out: &mut [f32],
) {
    let mut acc = [[s.splat(0.0); SIDE]; R];
    let whole = k - k % S::LANES;
    // Sliced in place to one length, so that one bounds check a step serves all.
    let mut x: [&[f32]; R] = [&[]; R];
    let (mut w, mut next): ([&[u8]; SIDE], [&[u8]; SIDE]) = ([&[]; SIDE], [&[]; SIDE]);
    for i in 0..R {
        x[i] = &rows[i * k..][..whole];
    }
    for j in 0..SIDE {
        w[j] = &columns[j][..whole * E::BYTES];
        next[j] = &ahead[j][..whole * E::BYTES];
    }
    let mut p = 0;
    while p < whole {
        let mut loaded = [s.splat(0.0); SIDE];
        for j in 0..SIDE {
            loaded[j] = E::load(s, &w[j][p * E::BYTES..]);
            s.prefetch(&next[j][p * E::BYTES..]);
        }
        for i in 0..R {
            let x = s.load(&x[i][p..]);
            for j in 0..SIDE {
                acc[i][j] = s.mul_add(x, loaded[j], acc[i][j]);
            }
        }
        p += S::LANES;
    }
    if whole < k {
        let mut loaded = [s.splat(0.0); SIDE];
        for j in 0..SIDE {
            loaded[j] = E::load_at(s, columns[j], whole);
        }
        for i in 0..R {
            let x = s.load_head(&rows[i * k..][whole..k]);
            for j in 0..SIDE {
                acc[i][j] = s.mul_add(x, loaded[j], acc[i][j]);
            }
        }
    }
    // Indices below are constants once the loops are unrolled, without which the sums would live in memory.
    let mut totals = [0.0; MAX_LANES];
    if S::LANES == SIDE * SIDE && R > 1 {
        let mut square = [s.splat(0.0); MAX_LANES];
        for j in 0..SIDE {
            for i in 0..R {
                square[j * R + i] = acc[i][j];
            }
        }
        s.store(s.sums(&mut square), &mut totals);
    } else {
        for j in 0..SIDE {
            for i in 0..R {
                totals[j * R + i] = s.sum(acc[i][j]);
            }
        }
    }
    for j in 0..SIDE {
        if let Some(out) = out.get_mut(j * m..) {
            out.iter_mut().zip(&totals[j * R..][..R]).for_each(|(to, &total)| *to = total);
        }
    }
}

/// The epilogue of one row.
struct Ending<'a> {
    after: After<'a>,
    row: usize,
    y: &'a mut [f32],
}

impl Kernel for Ending<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.after.row(s, self.row, 0, self.y);
    }
}
