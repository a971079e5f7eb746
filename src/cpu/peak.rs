//! The multiply-add peak, by which benchmarks judge kernels.

use std::hint::black_box;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::isa::Isa;
use super::pool::Pool;
use super::simd::{Kernel, Simd};

/// Independent sums: more than latency times units (4 cycles by 2) of any processor here, fewer than the registers.
const CHAINS: usize = 12;

/// Steps of each chain in one sample: some 100 µs.
const STEPS: usize = 50_000;

/// Floating-point operations a second of multiply-adds on registers alone, all threads at once, the best of several
/// samples.
pub fn peak_flops(pool: &Pool, isa: Isa) -> f64 {
    let sample = |_| {
        let start = Instant::now();
        let flop = AtomicUsize::new(0);
        pool.for_each(0..pool.threads(), |_| {
            flop.fetch_add(isa.run(Chains), Relaxed);
        });
        flop.into_inner() as f64 / start.elapsed().as_secs_f64()
    };
    (0..200).map(sample).fold(0.0, f64::max)
}

/// [`CHAINS`] sums of [`STEPS`] multiply-adds; returns how many floating-point operations these are.
struct Chains;

impl Kernel for Chains {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let mut acc = [s.splat(0.0); CHAINS];
        let (x, y) = (s.splat(black_box(0.5)), s.splat(black_box(0.25)));
        for _ in 0..STEPS {
            for a in &mut acc {
                *a = s.mul_add(*a, x, y);
            }
        }
        let mut total = s.splat(0.0);
        for a in acc {
            total = s.add(total, a);
        }
        black_box(s.sum(total));
        2 * S::LANES * CHAINS * STEPS
    }
}
