//! Attention at the shapes of the model, as a share of the measured multiply-add peak.
//!
//! Beside it stands the usual way without a kernel of its own: for each head and window the two products by the `gemm`
//! crate around a matrix of scores in memory, once as they are and once with the softmax between them. It has no bias
//! and no mask to apply, and its windows lie ready in a row.
//!
//! `cargo bench --no-default-features --bench attention`; `SAM3_ISA` and `SAM3_THREADS` choose instruction set and
//! threads. Counted are the two products, `4 · queries · keys · head_dim` operations a head.

mod opponent;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opponent::{Matrix, product};
use rayon::prelude::*;
use sam3::cpu::{Buffer, CpuOps, Isa};
use sam3::ops::{Attention, Ops, Pattern, View};

fn activation(ops: &CpuOps, len: usize) -> Buffer {
    let values: Vec<f32> = (0..len).map(|i| ((i * 2_654_435_761) % 2003) as f32 / 1001.0 - 1.0).collect();
    let mut act = Buffer::default();
    ops.upload(&values, &mut act).unwrap();
    act
}

/// The best of several calls, in seconds.
fn best(mut call: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let call_start = Instant::now();
        call();
        best = best.min(call_start.elapsed());
    }
    best.as_secs_f64()
}

fn shapes(c: &mut Criterion) {
    let threads = std::env::var("SAM3_THREADS").ok().map(|t| t.parse().expect("SAM3_THREADS is a number"));
    let ops = CpuOps::new(threads, Isa::from_env().unwrap()).unwrap();
    let peak = ops.peak_flops();
    println!("{} threads, {}: {:.1} GFLOP/s of multiply-adds in registers", ops.threads(), ops.isa(), peak / 1e9);
    let mut group = c.benchmark_group("attention");
    group.sample_size(10);

    let grid = 72 * 72;
    let (by, bx) = (activation(&ops, 200 * 72 * 8), activation(&ops, 200 * 72 * 8));
    let windows = Pattern::Windows { height: 72, width: 72, size: 24, padding: None };
    let boxes = Pattern::Boxes { height: 72, width: 72, first: 1, by: &by, bx: &bx };
    let full = |heads, dim, queries, keys| Attention::full(heads, dim, queries, keys);
    // Name, call, keys a query sees on average.
    let cases = [
        ("windows", Attention { pattern: windows, ..full(16, 64, grid, grid) }, 576),
        ("global", full(16, 64, grid, grid), grid),
        ("text", Attention { pattern: Pattern::Causal, ..full(16, 64, 32, 32) }, 16),
        ("image-to-text", full(8, 32, grid, 33), 33),
        ("queries-to-image", Attention { pattern: boxes, ..full(8, 32, 201, grid) }, grid),
        ("points-to-image", full(8, 16, 9, grid), grid),
        ("image-to-points", full(8, 16, grid, 9), 9),
    ];
    for (name, spec, seen) in cases {
        let width = spec.heads * spec.head_dim;
        let (q, k) = (activation(&ops, spec.queries * width), activation(&ops, spec.keys * width));
        let v = activation(&ops, spec.keys * width);
        let mut y = Buffer::default();
        let view = |x| View::new(x, width);
        let mut call = || ops.attention(view(&q), view(&k), view(&v), &spec, &mut y).unwrap();
        let flop = 4 * spec.queries * seen * width;
        let rate = flop as f64 / best(&mut call);
        let unfused = Unfused::new(&spec, ops.threads());
        let [products, whole] = [false, true].map(|softmax| {
            let mut out = vec![0.0; q.as_slice().len()];
            flop as f64 / best(|| unfused.run(q.as_slice(), k.as_slice(), v.as_slice(), softmax, &mut out))
        });
        let share = |rate: f64| format!("{:.1} ({:.0} %)", rate / 1e9, 100.0 * rate / peak);
        println!(
            "{name}: {} GFLOP/s | gemm crate: products {}, with softmax {}",
            share(rate),
            share(products),
            share(whole)
        );
        group.throughput(Throughput::Elements(flop as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(&mut call));
    }
}

/// Attention without a kernel of its own.
struct Unfused {
    pool: rayon::ThreadPool,
    heads: usize,
    dim: usize,
    /// Queries and keys of one window; all of them without windows.
    block: (usize, usize),
}

impl Unfused {
    fn new(spec: &Attention<'_, Buffer>, threads: usize) -> Self {
        let block = match spec.pattern {
            Pattern::Windows { size, .. } => (size * size, size * size),
            _ => (spec.queries, spec.keys),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        Self { pool, heads: spec.heads, dim: spec.head_dim, block }
    }

    /// Tensors are `[tokens, heads · dim]`; the threads share out windows and heads.
    fn run(&self, q: &[f32], k: &[f32], v: &[f32], softmax: bool, out: &mut [f32]) {
        let (dim, width, (queries, keys)) = (self.dim, self.heads * self.dim, self.block);
        let windows = q.len() / (queries * width);
        let heads: Vec<(usize, Vec<f32>)> = self.pool.install(|| {
            let head = |i: usize| {
                let (window, head) = (i / self.heads, i % self.heads);
                let at = |tokens: usize| window * tokens * width + head * dim;
                let (q, k, v) = (&q[at(queries)..], &k[at(keys)..], &v[at(keys)..]);
                let mut scores = vec![0.0; queries * keys];
                let (a, b) = (Matrix { data: q, row: width, column: 1 }, Matrix { data: k, row: 1, column: width });
                product(1, (queries, keys, dim), a, b, 1.0 / (dim as f32).sqrt(), &mut scores, keys);
                if softmax {
                    scores.chunks_exact_mut(keys).for_each(soften);
                }
                let mut mixed = vec![0.0; queries * dim];
                let (a, b) =
                    (Matrix { data: &scores, row: keys, column: 1 }, Matrix { data: v, row: width, column: 1 });
                product(1, (queries, dim, keys), a, b, 1.0, &mut mixed, dim);
                (i, mixed)
            };
            (0..windows * self.heads).into_par_iter().map(head).collect()
        });
        for (i, mixed) in heads {
            let start = i / self.heads * queries * width + i % self.heads * dim;
            for (row, values) in mixed.chunks_exact(dim).enumerate() {
                out[start + row * width..][..dim].copy_from_slice(values);
            }
        }
    }
}

/// Scores of a query to shares.
fn soften(row: &mut [f32]) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in row.iter_mut() {
        *score = (*score - most).exp();
        sum += *score;
    }
    row.iter_mut().for_each(|score| *score /= sum);
}

criterion_group!(benches, shapes);
criterion_main!(benches);
