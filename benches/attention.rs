//! Attention at the shapes of the model, as a share of the measured multiply-add peak.
//!
//! `cargo bench --no-default-features --bench attention`; `SAM3_ISA` and `SAM3_THREADS` choose instruction set and
//! threads. Counted are the two products, `4 · queries · keys · head_dim` operations a head.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sam3::cpu::{Buffer, CpuOps, Isa};
use sam3::ops::{Attention, Ops, Pattern, Rope, View};

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
    let pad = activation(&ops, 1024);
    let table = |tokens: usize| Rope { cos: activation(&ops, tokens * 32), sin: activation(&ops, tokens * 32), tokens };
    let (window_table, grid_table) = (table(576), table(grid));
    let pad = || View::new(&pad, 1024);
    let windows = Pattern::Windows { height: 72, width: 72, size: 24, pad_k: pad(), pad_v: pad() };
    let boxes = Pattern::Boxes { height: 72, width: 72, first: 1, by: &by, bx: &bx };
    let full = |heads, dim, queries, keys| Attention::full(heads, dim, queries, keys);
    // Name, call, keys a query sees.
    let cases = [
        ("windows", Attention { rope: Some(&window_table), pattern: windows, ..full(16, 64, grid, grid) }, 576),
        ("global", Attention { rope: Some(&grid_table), ..full(16, 64, grid, grid) }, grid),
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
        println!("{name}: {:.1} GFLOP/s ({:.0} %)", rate / 1e9, 100.0 * rate / peak);
        group.throughput(Throughput::Elements(flop as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(&mut call));
    }
}

criterion_group!(benches, shapes);
criterion_main!(benches);
