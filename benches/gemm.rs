//! Dense layers at the image encoder's shapes, with the `gemm` crate as the opponent, and both as a share of the
//! measured multiply-add peak.
//!
//! `cargo bench --no-default-features --bench gemm`; `SAM3_ISA` and `SAM3_THREADS` choose instruction set and threads,
//! `SAM3_BENCH_ROWS` the rows.
//! The opponent multiplies by ready f32 weights; ours packs the stored weights in every call.

mod opponent;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opponent::{Matrix, product};
use sam3::cpu::{Buffer, CpuOps, Isa};
use sam3::ops::{Activation, Epilogue, Linear, Ops, View};
use sam3::weights::{Dtype, HostTensor};

/// Name, outputs, inputs of a layer of the encoder.
const LAYERS: [(&str, usize, usize); 4] =
    [("qkv", 3072, 1024), ("proj", 1024, 1024), ("fc1", 4736, 1024), ("fc2", 1024, 4736)];

fn ops() -> CpuOps {
    let threads = std::env::var("SAM3_THREADS").ok().map(|t| t.parse().expect("SAM3_THREADS is a number"));
    CpuOps::new(threads, Isa::from_env().unwrap()).unwrap()
}

/// Values in -1..1 that cost nothing to make.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn activation(ops: &CpuOps, len: usize) -> Buffer {
    let mut act = Buffer::default();
    ops.upload(&values(len), &mut act).unwrap();
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

fn layers(c: &mut Criterion) {
    let ops = ops();
    let peak = ops.peak_flops();
    println!("{} threads, {}: {:.1} GFLOP/s of multiply-adds in registers", ops.threads(), ops.isa(), peak / 1e9);
    let mut group = c.benchmark_group("gemm");
    group.sample_size(10);
    let rows = std::env::var("SAM3_BENCH_ROWS").unwrap_or_else(|_| "5184 576 201 32 8 1".to_owned());
    for m in rows.split_whitespace().map(|m| m.parse::<usize>().expect("SAM3_BENCH_ROWS is numbers")) {
        for (name, n, k) in LAYERS {
            let flop = 2.0 * (m * n * k) as f64;
            group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
            let x = activation(&ops, m * k);
            let mut y = Buffer::default();
            let mut row = format!("{name} {m} x {n} x {k}:");
            for (dtype, what) in [(Dtype::F32, "f32"), (Dtype::Bf16, "bf16")] {
                let bytes: Vec<u8> = match dtype {
                    Dtype::F32 => values(n * k).iter().flat_map(|v| v.to_le_bytes()).collect(),
                    _ => values(n * k).iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                };
                let w = ops.matrix(&[HostTensor::from_bytes("w", &[n, k], dtype, bytes).unwrap()]).unwrap();
                let l = Linear { w, b: Some(activation(&ops, n)), n, k };
                let mut call = || ops.linear(View::new(&x, k), &l, m, Epilogue::NONE, &mut y).unwrap();
                let seconds = best(&mut call);
                row += &format!(" {what} {:.1} GFLOP/s ({:.0} %)", flop / seconds / 1e9, 100.0 * flop / seconds / peak);
                group.bench_function(BenchmarkId::new(format!("sam3-{what}"), format!("{name}-{m}")), |b| {
                    b.iter(&mut call)
                });
                if name == "fc1" && dtype == Dtype::F32 {
                    let seconds =
                        best(|| ops.linear(View::new(&x, k), &l, m, Epilogue::act(Activation::Gelu), &mut y).unwrap());
                    row += &format!(" with GELU {:.1}", flop / seconds / 1e9);
                }
            }
            let (a, w, mut out) = (values(m * k), values(n * k), vec![0.0f32; m * n]);
            let mut call = || by_crate(ops.threads(), (m, n, k), &a, &w, &mut out);
            let seconds = best(&mut call);
            row += &format!(" | gemm crate {:.1} ({:.0} %)", flop / seconds / 1e9, 100.0 * flop / seconds / peak);
            group.bench_function(BenchmarkId::new("gemm-crate", format!("{name}-{m}")), |b| b.iter(&mut call));
            println!("{row}");
        }
    }
}

/// `out[m, n] = a[m, k] · w[n, k]ᵀ` by the `gemm` crate.
fn by_crate(threads: usize, (m, n, k): (usize, usize, usize), a: &[f32], w: &[f32], out: &mut [f32]) {
    let (a, w) = (Matrix { data: a, row: k, column: 1 }, Matrix { data: w, row: 1, column: k });
    product(threads, (m, n, k), a, w, 1.0, out, n);
}

criterion_group!(benches, layers);
criterion_main!(benches);
