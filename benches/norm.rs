//! Norms and sums at the shapes of the model. They are bound by memory, so their share is of the rate at which the same
//! threads copy a buffer of the same size; counted are the bytes read and written once.
//!
//! The opponent is the formula as a plain loop over rows, on as many threads, compiled for the machine's baseline.
//! `cargo bench --no-default-features --bench norm`; `SAM3_ISA` and `SAM3_THREADS` choose instruction set and threads.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use sam3::cpu::{Buffer, CpuOps, Isa};
use sam3::ops::{Activation, Norm, Ops, View};

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
    while start.elapsed() < Duration::from_secs(1) {
        let call_start = Instant::now();
        call();
        best = best.min(call_start.elapsed());
    }
    best.as_secs_f64()
}

fn shapes(c: &mut Criterion) {
    let threads = std::env::var("SAM3_THREADS").ok().map(|t| t.parse().expect("SAM3_THREADS is a number"));
    let ops = CpuOps::new(threads, Isa::from_env().unwrap()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(ops.threads()).build().unwrap();
    println!("{} threads, {}", ops.threads(), ops.isa());
    let mut group = c.benchmark_group("norm");
    group.sample_size(10);

    // Tokens of the picture; queries of the decoder; the pixel decoder's finest level.
    for (rows, width) in [(72 * 72, 1024), (201, 256), (288 * 288, 256)] {
        let (x, z) = (activation(&ops, rows * width), activation(&ops, rows * width));
        let norm: Norm<CpuOps> =
            Norm { gamma: activation(&ops, width), beta: activation(&ops, width), eps: 1e-5, width };
        let (mut y, mut out) = (Buffer::default(), vec![0.0f32; rows * width]);
        // Some tens of pieces a thread, each of whole rows.
        let piece = width * rows.div_ceil(32 * ops.threads());
        let copied = pool.install(|| {
            best(|| {
                let pieces = out.par_chunks_mut(piece).zip(x.as_slice().par_chunks(piece));
                pieces.for_each(|(to, from)| to.copy_from_slice(from));
            })
        });
        let (gamma, beta) = (norm.gamma.as_slice(), norm.beta.as_slice());
        let by_rows = pool.install(|| {
            best(|| {
                let pieces = out.par_chunks_mut(piece).zip(x.as_slice().par_chunks(piece));
                pieces.for_each(|(to, from)| {
                    let rows = to.chunks_exact_mut(width).zip(from.chunks_exact(width));
                    rows.for_each(|(to, from)| plain(from, gamma, beta, to));
                });
            })
        });
        let summed = pool.install(|| {
            best(|| {
                let from = x.as_slice().par_chunks(piece).zip(z.as_slice().par_chunks(piece));
                out.par_chunks_mut(piece).zip(from).for_each(|(to, (a, b))| {
                    to.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = a + b);
                });
            })
        });
        // Bytes of one buffer; a copy touches two, a sum three.
        let bytes = (4 * rows * width) as f64;
        let mut report = |name: &str, touched: f64, opponent: Option<f64>, call: &mut dyn FnMut()| {
            let rate = |seconds: f64| {
                let share = 100.0 * (touched / seconds) / (2.0 / copied);
                format!("{:.1} GB/s ({share:.0} % of copying)", touched * bytes / seconds / 1e9)
            };
            let ours = rate(best(&mut *call));
            let theirs = opponent.map(|t| format!(" | plain loop: {}", rate(t))).unwrap_or_default();
            println!("{name} {rows} x {width}: {ours}{theirs}");
            group.throughput(Throughput::Bytes((touched * bytes) as u64));
            group.bench_function(BenchmarkId::new(name, format!("{rows}x{width}")), |b| b.iter(&mut *call));
        };
        let view = |a| View::new(a, width);
        let none = Activation::None;
        report("layer norm", 2.0, Some(by_rows), &mut || ops.layer_norm(view(&x), &norm, rows, none, &mut y).unwrap());
        report("sum", 3.0, Some(summed), &mut || ops.add(view(&x), view(&z), rows, rows, width, &mut y).unwrap());
        if width == 256 {
            // Reads twice: the mean of all rows must be known first.
            report("group norm", 3.0, None, &mut || ops.group_norm(&x, &norm, 8, rows, none, &mut y).unwrap());
        }
    }
}

/// `(x - mean) / √(var + eps) · gamma + beta` of one row.
fn plain(x: &[f32], gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    for (i, y) in y.iter_mut().enumerate() {
        *y = (x[i] - mean) * scale * gamma[i] + beta[i];
    }
}

criterion_group!(benches, shapes);
criterion_main!(benches);
