//! Convolutions at the shapes of the feature pyramid and the pixel decoder, as a share of the measured multiply-add peak.
//!
//! The opponent of the 3×3 convolution is the usual way: patches written out (im2col), then one product by the `gemm`
//! crate; that of the transposed convolution is the product alone, without the shuffle to the larger grid.
//! `cargo bench --no-default-features --bench conv`; `SAM3_ISA` and `SAM3_THREADS` choose instruction set and threads.

mod opponent;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opponent::{Matrix, product};
use sam3::cpu::{Buffer, CpuOps, Isa};
use sam3::ops::{Epilogue, Linear, Ops};
use sam3::weights::{Dtype, HostTensor};

/// Values in -1..1 that cost nothing to make.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn activation(ops: &CpuOps, len: usize) -> Buffer {
    let mut act = Buffer::default();
    ops.upload(&values(len), &mut act).unwrap();
    act
}

fn layer(ops: &CpuOps, n: usize, k: usize) -> Linear<CpuOps> {
    let bytes: Vec<u8> = values(n * k).iter().flat_map(|v| v.to_le_bytes()).collect();
    let w = ops.matrix(&[HostTensor::from_bytes("w", &[n, k], Dtype::F32, bytes).unwrap()]).unwrap();
    Linear { w, b: Some(activation(ops, n)), n, k }
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
    let mut group = c.benchmark_group("conv");
    group.sample_size(10);
    let share = |flop: f64, seconds: f64| {
        format!("{:.1} GFLOP/s ({:.0} %)", flop / seconds / 1e9, 100.0 * flop / seconds / peak)
    };

    for side in [72, 144, 288] {
        let (cin, cout) = (256, 256);
        let (x, l, mut y) = (activation(&ops, side * side * cin), layer(&ops, cout, 9 * cin), Buffer::default());
        let flop = 2.0 * (side * side * cout * 9 * cin) as f64;
        let mut call = || ops.conv3x3(&x, &l, side, side, &mut y).unwrap();
        let ours = best(&mut call);
        let w = values(cout * 9 * cin);
        let (mut patches, mut out) = (vec![0.0; side * side * 9 * cin], vec![0.0; side * side * cout]);
        let theirs = best(|| {
            unfold(x.as_slice(), side, cin, &mut patches);
            let (a, b) =
                (Matrix { data: &patches, row: 9 * cin, column: 1 }, Matrix { data: &w, row: 1, column: 9 * cin });
            product(ops.threads(), (side * side, cout, 9 * cin), a, b, 1.0, &mut out, cout);
        });
        println!("3x3 at {side}: {} | patches and gemm crate: {}", share(flop, ours), share(flop, theirs));
        group.throughput(Throughput::Elements(flop as u64));
        group.bench_function(BenchmarkId::new("3x3", side), |b| b.iter(&mut call));
    }
    for (side, cin, cout) in [(72, 1024, 512), (144, 512, 256)] {
        let (x, l, mut y) = (activation(&ops, side * side * cin), layer(&ops, 4 * cout, cin), Buffer::default());
        let flop = 2.0 * (side * side * 4 * cout * cin) as f64;
        let mut call = || ops.deconv2x2(&x, &l, side, side, Epilogue::NONE, &mut y).unwrap();
        let ours = best(&mut call);
        let (w, mut out) = (values(4 * cout * cin), vec![0.0; side * side * 4 * cout]);
        let theirs = best(|| {
            let a = Matrix { data: x.as_slice(), row: cin, column: 1 };
            let b = Matrix { data: &w, row: 1, column: cin };
            product(ops.threads(), (side * side, 4 * cout, cin), a, b, 1.0, &mut out, 4 * cout);
        });
        println!("transposed at {side}: {} | gemm crate: {}", share(flop, ours), share(flop, theirs));
        group.throughput(Throughput::Elements(flop as u64));
        group.bench_function(BenchmarkId::new("transposed", side), |b| b.iter(&mut call));
    }
}

/// `patches[side², 9·c]` of `x[side², c]` with a border of zeros.
fn unfold(x: &[f32], side: usize, c: usize, patches: &mut [f32]) {
    for (pixel, patch) in patches.chunks_exact_mut(9 * c).enumerate() {
        let (row, column) = (pixel / side, pixel % side);
        for (tap, out) in patch.chunks_exact_mut(c).enumerate() {
            // One less than the place itself, so that the border is still a number.
            let (y, x_at) = (row + tap / 3, column + tap % 3);
            if (1..=side).contains(&y) && (1..=side).contains(&x_at) {
                out.copy_from_slice(&x[((y - 1) * side + x_at - 1) * c..][..c]);
            } else {
                out.fill(0.0);
            }
        }
    }
}

criterion_group!(benches, shapes);
criterion_main!(benches);
