//! NEON of AArch64: 4 lanes, 32 registers. Every AArch64 processor that runs a general operating system has it.

// Where the target's baseline has NEON, as all hosted AArch64 targets have, its value intrinsics are safe everywhere.
#![allow(unused_unsafe)]

use std::arch::aarch64::*;

use super::{Kernel, MAX_LANES, Simd};
use crate::cpu::gemm::Shape;

/// Proof that the processor has NEON: only [`Neon::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token, if the processor has NEON.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Runs `k` compiled for this instruction set.
    pub fn run<K: Kernel>(self, k: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn enter<K: Kernel>(s: Neon, k: K) -> K::Output {
            k.run(s)
        }
        // SAFETY: `self` exists only if `detect` found neon.
        unsafe { enter(self, k) }
    }
}

/// An expression of intrinsics on values.
macro_rules! proved {
    ($e:expr) => {
        // SAFETY: the intrinsics touch no memory and need neon, which `detect` found before it made the token whose
        // method this is.
        unsafe { $e }
    };
}

impl Simd for Neon {
    type F = float32x4_t;
    // 12·2 accumulators, 2 columns, broadcasts from memory, of 32 registers; 8 columns divide attention's key blocks.
    type Tile = Shape<12, 2>;
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        proved!(vdupq_n_f32(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> float32x4_t {
        let x: &[f32; 4] = x.first_chunk().expect("4 elements");
        // SAFETY: `x` is 16 readable bytes; neon by the token.
        unsafe { vld1q_f32(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: float32x4_t, x: &mut [f32]) {
        let x: &mut [f32; 4] = x.first_chunk_mut().expect("4 elements");
        // SAFETY: `x` is 16 writable bytes; neon by the token.
        unsafe { vst1q_f32(x.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> float32x4_t {
        let bytes: &[u8; 16] = bytes.first_chunk().expect("16 bytes");
        // SAFETY: 16 readable bytes, loaded as bytes at any alignment; neon by the token.
        unsafe { vreinterpretq_f32_u8(vld1q_u8(bytes.as_ptr())) }
    }
    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> float32x4_t {
        // The conversion instruction needs half-precision types that are not stable; `half` has it behind a detection.
        let bytes: &[u8; 8] = bytes.first_chunk().expect("8 bytes");
        let mut wide = [0.0; 4];
        for (w, b) in wide.iter_mut().zip(bytes.chunks_exact(2)) {
            *w = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
        }
        self.load(&wide)
    }
    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> float32x4_t {
        let bytes: &[u8; 8] = bytes.first_chunk().expect("8 bytes");
        // SAFETY: 8 readable bytes, loaded as bytes at any alignment; neon by the token. bfloat16 is the upper half of
        // an f32.
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vreinterpret_u16_u8(vld1_u8(bytes.as_ptr()))))) }
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proved!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proved!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proved!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proved!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        proved!(vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // By comparison, since `fmax` would hand out a NaN of either side.
        proved!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proved!(vbslq_f32(vcltq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        proved!(vrndnq_f32(a))
    }
    #[inline(always)]
    fn pow2(self, n: float32x4_t) -> float32x4_t {
        proved!(vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)))))
    }
    #[inline(always)]
    fn select_lt(self, a: float32x4_t, b: float32x4_t, x: float32x4_t, y: float32x4_t) -> float32x4_t {
        proved!(vbslq_f32(vcltq_f32(a, b), x, y))
    }
    #[inline(always)]
    fn lt_bits(self, a: float32x4_t, b: float32x4_t) -> u32 {
        // Each lane keeps a bit of its own, and their sum has them all.
        let bits = [1, 2, 4, 8];
        // SAFETY: `bits` is 16 readable bytes; neon by the token.
        unsafe { vaddvq_u32(vandq_u32(vcltq_f32(a, b), vld1q_u32(bits.as_ptr()))) }
    }
    #[inline(always)]
    fn sum(self, v: float32x4_t) -> f32 {
        proved!(vaddvq_f32(v))
    }
    #[inline(always)]
    fn max_lane(self, v: float32x4_t) -> f32 {
        proved!(vmaxvq_f32(v))
    }
    #[inline(always)]
    fn transpose(self, r: &mut [float32x4_t; MAX_LANES]) {
        proved!({
            let (ab0, ab1) = (vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]));
            let (cd0, cd1) = (vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3]));
            r[0] = vcombine_f32(vget_low_f32(ab0), vget_low_f32(cd0));
            r[1] = vcombine_f32(vget_low_f32(ab1), vget_low_f32(cd1));
            r[2] = vcombine_f32(vget_high_f32(ab0), vget_high_f32(cd0));
            r[3] = vcombine_f32(vget_high_f32(ab1), vget_high_f32(cd1));
        })
    }
}
