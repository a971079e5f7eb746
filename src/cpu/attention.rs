//! Multi-head attention without a matrix of scores.
//!
//! One pass over the keys per block of queries, with the running maximum and sum of Milakov & Gimelshein's online
//! softmax (2018), as in FlashAttention (Dao et al., 2022). Both products run on the register tile of the GEMM: keys
//! are packed into panels `[head_dim, NR]`, values into panels `[keys, NR]`, both once per window and head; scores stay
//! in a block of [`QUERIES`] × [`DEPTH`] that fits L2.
//!
//! A task is a block of queries, of all heads where there are many blocks, else of one head of one window: then it writes
//! a contiguous piece of a temporary buffer, and a second pass gathers the heads of each row.
//!
//! Where one side has few rows, [`attend`] goes another way, see `folded`.

use super::activation::exp;
use super::gemm::{DEPTH, Out, PITCH, Row, Strided, Tile, TileSize};
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{Kernel, Simd};
pub use folded::attend;
use pack::{PackKeys, PackValues};

/// Queries of a task: a multiple of every tile's rows. With a block of keys the scores take 104 KiB of L2, and a packed
/// panel of keys, read from L2 or L3, serves all of them.
const QUERIES: usize = 96;

/// Rows of a task that gathers the heads.
const ROWS: usize = 64;

/// Fewest elements of a task that packs: some microseconds.
const PACKED: usize = 1 << 13;

/// [`crate::ops::Padding`] by its values.
#[derive(Clone, Copy)]
pub struct Pad<'a> {
    /// `[size², heads·head_dim]`.
    pub k: Strided<'a>,
    /// `[heads·head_dim]`.
    pub v: &'a [f32],
}

/// [`crate::ops::Pattern`] by its values.
#[derive(Clone, Copy)]
pub enum Keys<'a> {
    /// All.
    Full,
    /// None after the query.
    Causal,
    /// Those of the query's window.
    Windows { height: usize, width: usize, size: usize, padding: Option<Pad<'a>> },
    /// All, biased by the query's box.
    Boxes { height: usize, width: usize, first: usize, by: &'a [f32], bx: &'a [f32] },
}

/// One call.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    pub q: Strided<'a>,
    pub k: Strided<'a>,
    pub v: Strided<'a>,
    pub heads: usize,
    pub head_dim: usize,
    pub queries: usize,
    pub keys: usize,
    pub scale: f32,
    pub pattern: Keys<'a>,
}

/// How the tokens fall into windows. Without windows there is one, of everything.
#[derive(Clone, Copy)]
struct Grid {
    height: usize,
    width: usize,
    /// Side of a window.
    size: Option<usize>,
    /// Queries of the fullest window.
    queries: usize,
    /// Keys of every window, padding included.
    keys: usize,
}

/// Which tokens a window has.
#[derive(Clone, Copy)]
struct Window {
    /// Row and column of its first token.
    top: usize,
    left: usize,
    /// Columns of it inside the grid.
    inside: usize,
    /// Queries: tokens inside the grid.
    queries: usize,
}

/// What tasks share.
struct Shared<'a> {
    spec: Spec<'a>,
    grid: Grid,
    /// Keys of a window, rounded up to whole panels.
    padded_keys: usize,
    /// `head_dim`, rounded up to whole panels.
    padded_dim: usize,
}

/// A block of queries of one head of one window.
#[derive(Clone, Copy)]
struct Task {
    window: usize,
    head: usize,
    /// First query, in the window.
    first: usize,
    /// At most [`QUERIES`].
    count: usize,
}

/// `y[queries, heads·head_dim]`
pub fn attention(pool: &Pool, isa: Isa, spec: Spec<'_>, y: &mut [f32]) {
    let (heads, dim) = (spec.heads, spec.head_dim);
    assert_eq!(y.len(), spec.queries * heads * dim);
    assert!(dim > 0 && dim <= DEPTH, "heads of {dim}: 1 to {DEPTH} are built for");
    assert!(spec.keys > 0, "a softmax over nothing");
    if spec.queries == 0 {
        return;
    }
    let (mr, nr) = isa.run(TileSize);
    assert!(QUERIES.is_multiple_of(mr) && DEPTH.is_multiple_of(nr));
    let grid = Grid::new(&spec);
    let keys = grid.keys;
    let shared = Shared { spec, grid, padded_keys: keys.next_multiple_of(nr), padded_dim: dim.next_multiple_of(nr) };
    let blocks = grid.queries.div_ceil(QUERIES);
    let pairs = grid.windows() * heads;

    // Where queries alone make tasks enough, a task takes all heads of its queries and writes its rows of `y`. Windows
    // and heads are tasks elsewhere, whose columns are gathered afterwards.
    let rows_are_tasks = grid.size.is_none() && blocks >= 4 * pool.threads();
    let (key_size, value_size) = (shared.padded_keys * dim, keys * shared.padded_dim);
    let output_size = if rows_are_tasks { 0 } else { blocks * QUERIES * dim };
    let mut memory = pool.scratch(pairs * (key_size + value_size + output_size));
    let (packed_keys, memory) = memory.split_at_mut(pairs * key_size);
    let (packed_values, outputs) = memory.split_at_mut(pairs * value_size);
    let share = |units: usize, len: usize| units.div_ceil(8 * pool.threads()).max(PACKED.div_ceil(len));
    let panels = share(packed_keys.len() / (nr * dim), nr * dim);
    pool.for_each(packed_keys.chunks_mut(panels * nr * dim).enumerate(), |(i, to)| {
        isa.run(PackKeys { shared: &shared, first: i * panels, to });
    });
    let rows = share(packed_values.len() / nr, nr);
    pool.for_each(packed_values.chunks_mut(rows * nr).enumerate(), |(i, to)| {
        isa.run(PackValues { shared: &shared, first: i * rows, to });
    });
    let (packed_keys, packed_values) = (&*packed_keys, &*packed_values);
    let block = |task: Task, scratch: &mut [f32], out: &mut [f32], pitch: usize| {
        let pair = task.window * heads + task.head;
        let keys = &packed_keys[pair * key_size..][..key_size];
        let values = &packed_values[pair * value_size..][..value_size];
        isa.run(Block { shared: &shared, task, keys, values, scratch, out, pitch });
    };
    let bias = if let Keys::Boxes { height, width, .. } = spec.pattern { QUERIES * (height + width) } else { 0 };
    let len = 2 * QUERIES * PITCH + QUERIES * shared.padded_dim + bias;
    let width = heads * dim;
    if rows_are_tasks {
        pool.for_each_with(len, y.chunks_mut(QUERIES * width).enumerate(), |scratch, (i, y)| {
            for head in 0..heads {
                let task = Task { window: 0, head, first: i * QUERIES, count: y.len() / width };
                block(task, scratch, &mut y[head * dim..], width);
            }
        });
        return;
    }
    pool.for_each_with(len, outputs.chunks_exact_mut(QUERIES * dim).enumerate(), |scratch, (i, out)| {
        let (pair, first) = (i / blocks, i % blocks * QUERIES);
        let (window, head) = (pair / heads, pair % heads);
        // Windows at the edge have fewer queries than others, maybe none for this block.
        let count = grid.window(window).queries.saturating_sub(first).min(QUERIES);
        block(Task { window, head, first, count }, scratch, out, dim);
    });
    let outputs = &*outputs;
    pool.for_each(y.chunks_mut(ROWS * width).enumerate(), |(i, y)| {
        for (row, y) in (i * ROWS..).zip(y.chunks_exact_mut(width)) {
            let (window, query) = shared.place(row);
            for (head, y) in y.chunks_exact_mut(dim).enumerate() {
                let block = (window * heads + head) * blocks + query / QUERIES;
                y.copy_from_slice(&outputs[(block * QUERIES + query % QUERIES) * dim..][..dim]);
            }
        }
    });
}

impl Grid {
    fn new(spec: &Spec<'_>) -> Self {
        let Keys::Windows { height, width, size, .. } = spec.pattern else {
            return Self { height: 1, width: spec.queries, size: None, queries: spec.queries, keys: spec.keys };
        };
        assert!(size > 0 && height * width == spec.queries && spec.queries == spec.keys);
        let queries = size.min(height) * size.min(width);
        Self { height, width, size: Some(size), queries, keys: size * size }
    }

    /// Windows in a row, and rows of windows.
    fn sides(&self) -> (usize, usize) {
        self.size.map_or((1, 1), |size| (self.width.div_ceil(size), self.height.div_ceil(size)))
    }

    fn windows(&self) -> usize {
        let (columns, rows) = self.sides();
        columns * rows
    }

    fn window(&self, index: usize) -> Window {
        let Some(size) = self.size else {
            return Window { top: 0, left: 0, inside: self.queries, queries: self.queries };
        };
        let columns = self.sides().0;
        let (top, left) = (index / columns * size, index % columns * size);
        let (rows, inside) = (size.min(self.height - top), size.min(self.width - left));
        Window { top, left, inside, queries: rows * inside }
    }
}

impl Shared<'_> {
    /// The window of a row of `y`, and which of its queries the row is.
    fn place(&self, row: usize) -> (usize, usize) {
        let Keys::Windows { width, size, .. } = self.spec.pattern else { return (0, row) };
        let (y, x) = (row / width, row % width);
        let window = y / size * width.div_ceil(size) + x / size;
        (window, y % size * self.grid.window(window).inside + x % size)
    }

    /// Row of `q` of a window's query.
    fn query(&self, window: usize, query: usize) -> usize {
        let Keys::Windows { width, .. } = self.spec.pattern else { return query };
        let w = self.grid.window(window);
        (w.top + query / w.inside) * width + w.left + query % w.inside
    }

    /// Row of `k` and `v` of a window's key, `None` for padding.
    fn key(&self, window: usize, key: usize) -> Option<usize> {
        let Keys::Windows { height, width, size, .. } = self.spec.pattern else { return Some(key) };
        let w = self.grid.window(window);
        let (y, x) = (w.top + key / size, w.left + key % size);
        (y < height && x < width).then_some(y * width + x)
    }
}

/// The kernel of a task.
struct Block<'a> {
    shared: &'a Shared<'a>,
    task: Task,
    /// `[panel][head_dim][NR]`.
    keys: &'a [f32],
    /// `[panel][keys][NR]`.
    values: &'a [f32],
    scratch: &'a mut [f32],
    /// Rows of `head_dim`, one of each query.
    out: &'a mut [f32],
    /// Elements between their starts.
    pitch: usize,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { shared, task, keys, values, scratch, out, pitch } = self;
        let Shared { spec, padded_dim, .. } = shared;
        let (dim, nr) = (spec.head_dim, S::Tile::NR);
        let key_count = shared.grid.keys;
        let tiles = task.count.next_multiple_of(S::Tile::MR);

        let (queries, scratch) = scratch.split_at_mut(QUERIES * PITCH);
        let (scores, scratch) = scratch.split_at_mut(QUERIES * PITCH);
        let (sums, bias) = scratch.split_at_mut(QUERIES * padded_dim);
        let queries: &mut [Row] = &mut queries.as_chunks_mut().0[..tiles];
        for (i, to) in queries.iter_mut().enumerate() {
            if i < task.count {
                let row = shared.query(task.window, task.first + i);
                let q = &spec.q.row(row, (task.head + 1) * dim)[task.head * dim..];
                for j in (0..dim).step_by(S::LANES) {
                    s.store_head(s.mul(s.load_head(&q[j..]), s.splat(spec.scale)), &mut to[j..dim]);
                }
            } else {
                to[..dim].fill(0.0);
            }
        }
        let mut bias = BoxBias::gather(spec, task, bias);
        let mut highest = [f32::NEG_INFINITY; QUERIES];
        let mut totals = [0.0f32; QUERIES];

        let end = match spec.pattern {
            Keys::Causal => task.first + task.count,
            _ => key_count,
        };
        for first in (0..end).step_by(DEPTH) {
            let count = DEPTH.min(end - first);
            for (j, panel) in keys[first * dim..].chunks_exact(nr * dim).take(count.div_ceil(nr)).enumerate() {
                let to = &mut scores[j * nr..];
                let out = Out { to, pitch: PITCH, cols: nr, rows: tiles, accumulate: false };
                S::Tile::column_panel(s, queries, panel, dim, out);
            }
            let scores: &mut [Row] = &mut scores.as_chunks_mut().0[..tiles];
            for (i, scores) in scores.iter_mut().enumerate().take(task.count) {
                if let Some(bias) = &mut bias {
                    bias.add(s, i, first, &mut scores[..count]);
                }
                let mut seen = count;
                if let Keys::Causal = spec.pattern {
                    seen = count.min((task.first + i + 1).saturating_sub(first));
                }
                let sums = &mut sums[i * padded_dim..][..*padded_dim];
                let whole = count.next_multiple_of(S::LANES);
                scores[seen..whole].fill(f32::NEG_INFINITY);
                soften(s, &mut scores[..whole], &mut highest[i], &mut totals[i], (first > 0).then_some(sums));
            }
            for (j, panel) in values.chunks_exact(key_count * nr).enumerate() {
                let to = &mut sums[j * nr..];
                let out = Out { to, pitch: *padded_dim, cols: nr, rows: tiles, accumulate: first > 0 };
                S::Tile::column_panel(s, scores, &panel[first * nr..], count, out);
            }
        }
        for i in 0..task.count {
            let (sums, out) = (&sums[i * padded_dim..][..dim], &mut out[i * pitch..][..dim]);
            let scale = s.splat(1.0 / totals[i]);
            for j in (0..dim).step_by(S::LANES) {
                s.store_head(s.mul(s.load_head(&sums[j..]), scale), &mut out[j..]);
            }
        }
    }
}

/// Turns a row's scores into weights relative to the highest score so far, adds them to the total, and brings what was
/// summed before to the same base. Whole vectors; the first block of a row has a finite score.
#[inline(always)]
fn soften<S: Simd>(s: S, scores: &mut [f32], highest: &mut f32, total: &mut f32, sums: Option<&mut [f32]>) {
    let mut max = s.splat(*highest);
    for x in scores.chunks_exact(S::LANES) {
        max = s.max(s.load(x), max);
    }
    let new = s.max_lane(max);
    let base = s.splat(new);
    let mut sum = s.splat(0.0);
    for x in scores.chunks_exact_mut(S::LANES) {
        let weight = exp(s, s.sub(s.load(x), base));
        sum = s.add(sum, weight);
        s.store(weight, x);
    }
    if let Some(sums) = sums
        && new > *highest
    {
        let fade = (*highest - new).exp();
        *total *= fade;
        for x in sums.chunks_exact_mut(S::LANES) {
            s.store(s.mul(s.load(x), s.splat(fade)), x);
        }
    }
    *total += s.sum(sum);
    *highest = new;
}

/// The box bias of a task's head, gathered so that neighbouring keys are neighbours.
struct BoxBias<'a> {
    /// Columns of the key grid.
    width: usize,
    height: usize,
    /// First query of the task that has a box.
    skip: usize,
    /// `[QUERIES, height]`, then `[QUERIES, width]`.
    values: &'a [f32],
}

impl<'a> BoxBias<'a> {
    fn gather(spec: &Spec<'_>, task: Task, to: &'a mut [f32]) -> Option<Self> {
        let Keys::Boxes { height, width, first, by, bx } = spec.pattern else { return None };
        assert!(height * width == spec.keys && height <= DEPTH && width <= DEPTH, "a key grid of {height} x {width}");
        let heads = spec.heads;
        let (rows, columns) = to.split_at_mut(QUERIES * height);
        let skip = first.saturating_sub(task.first);
        for i in skip..task.count {
            let query = task.first + i - first;
            for (y, to) in rows[i * height..][..height].iter_mut().enumerate() {
                *to = by[(query * height + y) * heads + task.head];
            }
            for (x, to) in columns[i * width..][..width].iter_mut().enumerate() {
                *to = bx[(query * width + x) * heads + task.head];
            }
        }
        Some(Self { width, height, skip, values: to })
    }

    /// Adds the bias of the task's query `i` to the scores of the keys from `first` on.
    #[inline(always)]
    fn add<S: Simd>(&self, s: S, i: usize, first: usize, mut scores: &mut [f32]) {
        if i < self.skip {
            return;
        }
        let rows = &self.values[i * self.height..][..self.height];
        let columns = &self.values[QUERIES * self.height + i * self.width..][..self.width];
        let (mut y, mut x) = (first / self.width, first % self.width);
        while !scores.is_empty() {
            let (line, rest) = scores.split_at_mut(scores.len().min(self.width - x));
            let (row, columns) = (s.splat(rows[y]), &columns[x..]);
            for j in (0..line.len()).step_by(S::LANES) {
                let bias = s.add(row, s.load_head(&columns[j..]));
                let line = &mut line[j..];
                s.store_head(s.add(s.load_head(line), bias), line);
            }
            (scores, y, x) = (rest, y + 1, 0);
        }
    }
}

mod few_keys;
mod few_queries;
mod folded;
mod pack;
#[cfg(test)]
mod tests;
