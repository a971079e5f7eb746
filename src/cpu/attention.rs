//! Multi-head attention without a matrix of scores.
//!
//! One pass over the keys per block of queries, with the running maximum and sum of Milakov & Gimelshein's online
//! softmax (2018), as in FlashAttention (Dao et al., 2022). Both products run on the register tile of the GEMM: keys
//! are packed into panels `[head_dim, NR]`, values into panels `[keys, NR]`, both once per window and head; scores stay
//! in a block of [`QUERIES`] × [`DEPTH`] that fits L2.
//!
//! A task is a block of queries of one head of one window. It writes a contiguous piece of a temporary buffer; a second
//! pass gathers the heads of each row.

use rayon::prelude::*;

use super::activation::exp;
use super::gemm::{DEPTH, Out, PITCH, PackColumns, Row, Strided, Tile, TileSize};
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{Kernel, Simd};

/// Queries of a task: a multiple of every tile's rows. With a block of keys the scores take 104 KiB of L2, and a packed
/// panel of keys, read from L2 or L3, serves all of them.
const QUERIES: usize = 96;

/// [`crate::ops::Rope`] by its values.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// `[tokens, head_dim / 2]`.
    pub cos: &'a [f32],
    /// `[tokens, head_dim / 2]`.
    pub sin: &'a [f32],
}

/// [`crate::ops::Pattern`] by its values.
#[derive(Clone, Copy)]
pub enum Keys<'a> {
    /// All.
    Full,
    /// None after the query.
    Causal,
    /// Those of the query's window.
    Windows {
        height: usize,
        width: usize,
        size: usize,
        /// `[heads·head_dim]`.
        pad_k: &'a [f32],
        /// `[heads·head_dim]`.
        pad_v: &'a [f32],
    },
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
    pub turn: Option<Turn<'a>>,
    pub pattern: Keys<'a>,
}

/// Which tokens a window has. Without windows there is one, of everything.
#[derive(Clone, Copy)]
struct Window {
    /// Row and column of its first token.
    top: usize,
    left: usize,
    /// Columns of it inside the grid.
    inside: usize,
    /// Queries: tokens inside the grid.
    queries: usize,
    /// Keys, padding included.
    keys: usize,
}

/// What tasks share.
struct Shared<'a> {
    spec: Spec<'a>,
    windows: Vec<Window>,
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
    let windows = windows(&spec);
    let keys = windows[0].keys;
    let shared = Shared { spec, padded_keys: keys.next_multiple_of(nr), padded_dim: dim.next_multiple_of(nr), windows };
    let blocks = shared.blocks();
    let tasks: Vec<Task> = shared.tasks(blocks);

    let key_size = shared.padded_keys * dim;
    let value_size = keys * shared.padded_dim;
    let pairs = shared.windows.len() * heads;
    let mut packed_keys = pool.scratch(pairs * key_size);
    let mut packed_values = pool.scratch(pairs * value_size);
    let mut outputs = pool.scratch(tasks.len() * QUERIES * dim);
    pool.install(|| {
        // Panels of keys are tasks of their own where there are few windows and heads.
        packed_keys.par_chunks_mut(nr * dim).enumerate().for_each_init(
            || pool.scratch(nr * dim),
            |turned, (i, panel)| {
                let (pair, panel_index) = (i * nr / shared.padded_keys, i % (shared.padded_keys / nr));
                let first = panel_index * nr;
                let count = nr.min(keys - first);
                shared.keys(pair, first, count, turned);
                let rows = Strided { data: turned, offset: 0, stride: dim };
                let columns = super::gemm::Activations { rows, width: dim };
                isa.run(PackColumns { columns: &columns, first: 0, count, at: 0, depth: dim, panel });
            },
        );
        packed_values.par_chunks_mut(keys * nr).enumerate().for_each(|(i, panel)| {
            let panels = shared.padded_dim / nr;
            shared.values(i / panels, i % panels * nr, nr, panel);
        });
        outputs.par_chunks_mut(QUERIES * dim).zip(&tasks).for_each_init(
            || pool.scratch(2 * QUERIES * PITCH + QUERIES * shared.padded_dim + 2 * QUERIES * DEPTH),
            |scratch, (out, &task)| {
                let pair = task.window * heads + task.head;
                isa.run(Block {
                    shared: &shared,
                    task,
                    keys: &packed_keys[pair * key_size..][..key_size],
                    values: &packed_values[pair * value_size..][..value_size],
                    scratch,
                    out,
                });
            },
        );
        y.par_chunks_mut(heads * dim).enumerate().for_each(|(row, y)| {
            let (window, query) = shared.place(row);
            for (head, y) in y.chunks_exact_mut(dim).enumerate() {
                let block = (window * heads + head) * blocks + query / QUERIES;
                y.copy_from_slice(&outputs[(block * QUERIES + query % QUERIES) * dim..][..dim]);
            }
        });
    });
}

/// The windows of a call, row by row. All have equally many keys.
fn windows(spec: &Spec<'_>) -> Vec<Window> {
    let Keys::Windows { height, width, size, .. } = spec.pattern else {
        return vec![Window { top: 0, left: 0, inside: 0, queries: spec.queries, keys: spec.keys }];
    };
    assert!(size > 0 && height * width == spec.queries && spec.queries == spec.keys);
    let mut windows = Vec::new();
    for top in (0..height).step_by(size) {
        for left in (0..width).step_by(size) {
            let (rows, inside) = (size.min(height - top), size.min(width - left));
            windows.push(Window { top, left, inside, queries: rows * inside, keys: size * size });
        }
    }
    windows
}

impl Shared<'_> {
    /// Blocks of queries in the fullest window.
    fn blocks(&self) -> usize {
        self.windows.iter().map(|w| w.queries.div_ceil(QUERIES)).max().unwrap_or(0)
    }

    /// `[window][head][block]`; those of windows with fewer blocks are empty.
    fn tasks(&self, blocks: usize) -> Vec<Task> {
        let mut tasks = Vec::with_capacity(self.windows.len() * self.spec.heads * blocks);
        for (window, w) in self.windows.iter().enumerate() {
            for head in 0..self.spec.heads {
                for first in (0..blocks).map(|b| b * QUERIES) {
                    let count = w.queries.saturating_sub(first).min(QUERIES);
                    tasks.push(Task { window, head, first, count });
                }
            }
        }
        tasks
    }

    /// The window of a row of `y`, and which of its queries the row is.
    fn place(&self, row: usize) -> (usize, usize) {
        let Keys::Windows { width, size, .. } = self.spec.pattern else { return (0, row) };
        let (y, x) = (row / width, row % width);
        let window = y / size * width.div_ceil(size) + x / size;
        (window, y % size * self.windows[window].inside + x % size)
    }

    /// Row of `q` and row of the rotary table of a window's query.
    fn query(&self, window: usize, query: usize) -> (usize, usize) {
        let Keys::Windows { width, size, .. } = self.spec.pattern else { return (query, query) };
        let w = self.windows[window];
        let (y, x) = (query / w.inside, query % w.inside);
        ((w.top + y) * width + w.left + x, y * size + x)
    }

    /// Row of `k` and `v` of a window's key, `None` for padding. Its row of the rotary table is `key` itself.
    fn key(&self, window: usize, key: usize) -> Option<usize> {
        let Keys::Windows { height, width, size, .. } = self.spec.pattern else { return Some(key) };
        let w = self.windows[window];
        let (y, x) = (w.top + key / size, w.left + key % size);
        (y < height && x < width).then_some(y * width + x)
    }

    /// Keys `first .. first + count` of a window and head, turned, to `[count, head_dim]`.
    fn keys(&self, pair: usize, first: usize, count: usize, to: &mut [f32]) {
        let (window, head) = (pair / self.spec.heads, pair % self.spec.heads);
        let dim = self.spec.head_dim;
        for (key, to) in (first..first + count).zip(to.chunks_exact_mut(dim)) {
            let k = match (self.key(window, key), self.spec.pattern) {
                (None, Keys::Windows { pad_k, .. }) => &pad_k[head * dim..][..dim],
                (row, _) => &self.spec.k.row(row.unwrap_or(key), (head + 1) * dim)[head * dim..],
            };
            turn(k, self.spec.turn, key, 1.0, to);
        }
    }

    /// Columns `column .. column + nr` of all values of a window and head, to `[keys, nr]`.
    fn values(&self, pair: usize, column: usize, nr: usize, to: &mut [f32]) {
        let (window, head) = (pair / self.spec.heads, pair % self.spec.heads);
        let dim = self.spec.head_dim;
        let count = nr.min(dim - column);
        for (key, to) in to.chunks_exact_mut(nr).enumerate() {
            let v = match (self.key(window, key), self.spec.pattern) {
                (None, Keys::Windows { pad_v, .. }) => &pad_v[head * dim..][..dim],
                (row, _) => &self.spec.v.row(row.unwrap_or(key), (head + 1) * dim)[head * dim..],
            };
            to[..count].copy_from_slice(&v[column..][..count]);
            to[count..].fill(0.0);
        }
    }
}

/// `to = rope(x) · scale`: pairs `(2i, 2i + 1)` turn by the angle of `token` and `i`.
#[inline(always)]
fn turn(x: &[f32], table: Option<Turn<'_>>, token: usize, scale: f32, to: &mut [f32]) {
    match table {
        None => to.iter_mut().zip(x).for_each(|(to, x)| *to = x * scale),
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

/// The kernel of a task.
struct Block<'a> {
    shared: &'a Shared<'a>,
    task: Task,
    /// `[panel][head_dim][NR]`.
    keys: &'a [f32],
    /// `[panel][keys][NR]`.
    values: &'a [f32],
    scratch: &'a mut [f32],
    /// `[QUERIES, head_dim]`.
    out: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { shared, task, keys, values, scratch, out } = self;
        let Shared { spec, padded_dim, .. } = shared;
        let (dim, nr) = (spec.head_dim, S::Tile::NR);
        let key_count = shared.windows[task.window].keys;
        let tiles = task.count.next_multiple_of(S::Tile::MR);

        let (queries, scratch) = scratch.split_at_mut(QUERIES * PITCH);
        let (scores, scratch) = scratch.split_at_mut(QUERIES * PITCH);
        let (sums, bias) = scratch.split_at_mut(QUERIES * padded_dim);
        let queries: &mut [Row] = &mut queries.as_chunks_mut().0[..tiles];
        for (i, to) in queries.iter_mut().enumerate() {
            if i < task.count {
                let (row, token) = shared.query(task.window, task.first + i);
                let q = &spec.q.row(row, (task.head + 1) * dim)[task.head * dim..];
                turn(q, spec.turn, token, spec.scale, &mut to[..dim]);
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
        for (i, out) in out.chunks_exact_mut(dim).enumerate().take(task.count) {
            let scale = 1.0 / totals[i];
            out.iter_mut().zip(&sums[i * padded_dim..]).for_each(|(out, sum)| *out = sum * scale);
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

#[cfg(test)]
mod tests;
