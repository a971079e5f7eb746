//! No vector instructions: one lane. What remains where a processor has none of the others, and the simplest of the
//! implementations that tests compare.

use super::{Kernel, MAX_LANES, Simd};
use crate::cpu::gemm::Shape;

/// Plain Rust; every processor has it.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Scalar {
    /// Runs `k`.
    pub fn run<K: Kernel>(self, k: K) -> K::Output {
        k.run(self)
    }
}

/// First element of a slice of bytes as `N` bytes.
#[inline(always)]
fn head<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("a whole element")
}

impl Simd for Scalar {
    type F = f32;
    // 4·4 accumulators: what the 16 registers of the x86-64 baseline hold, nearly; the compiler joins columns into
    // vectors of the baseline.
    type Tile = Shape<4, 4>;
    const LANES: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> f32 {
        x[0]
    }
    #[inline(always)]
    fn store(self, v: f32, x: &mut [f32]) {
        x[0] = v;
    }
    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> f32 {
        f32::from_le_bytes(head(bytes))
    }
    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> f32 {
        half::f16::from_le_bytes(head(bytes)).to_f32()
    }
    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> f32 {
        half::bf16::from_le_bytes(head(bytes)).to_f32()
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        // `f32::mul_add` would be a library call here.
        a * b + c
    }
    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn round(self, a: f32) -> f32 {
        a.round_ties_even()
    }
    #[inline(always)]
    fn pow2(self, n: f32) -> f32 {
        f32::from_bits(((n as i32 + 127) as u32) << 23)
    }
    #[inline(always)]
    fn select_lt(self, a: f32, b: f32, x: f32, y: f32) -> f32 {
        if a < b { x } else { y }
    }
    #[inline(always)]
    fn lt_bits(self, a: f32, b: f32) -> u32 {
        u32::from(a < b)
    }
    #[inline(always)]
    fn sum(self, v: f32) -> f32 {
        v
    }
    #[inline(always)]
    fn max_lane(self, v: f32) -> f32 {
        v
    }
    #[inline(always)]
    fn transpose(self, _rows: &mut [f32; MAX_LANES]) {}
}
