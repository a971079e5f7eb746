//! AVX2 with FMA and F16C: 8 lanes, 16 registers. Intel since Haswell (2013), AMD since Excavator and all Zen.

use std::arch::x86_64::*;

use super::{Kernel, MAX_LANES, Simd};
use crate::cpu::gemm::Shape;

/// Proof that the processor has AVX2, FMA and F16C: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if the processor and the operating system have what it stands for.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"))
            .then_some(Self(()))
    }

    /// Runs `k` compiled for this instruction set.
    pub fn run<K: Kernel>(self, k: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enter<K: Kernel>(s: Avx2, k: K) -> K::Output {
            k.run(s)
        }
        // SAFETY: `self` exists only if `detect` found avx2, fma and f16c.
        unsafe { enter(self, k) }
    }
}

/// An expression of intrinsics on values.
macro_rules! proved {
    ($e:expr) => {
        // SAFETY: the intrinsics touch no memory and need avx2, fma or f16c, which `detect` found before it made the
        // token whose method this is.
        unsafe { $e }
    };
}

impl Simd for Avx2 {
    type F = __m256;
    // 6·2 accumulators, 2 columns, 1 broadcast of 16 registers; 12 independent sums cover the latency of 2 FMA units
    // times 4-5 cycles. The tile of the BLIS paper's successors on Haswell.
    type Tile = Shape<6, 2>;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        proved!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        let x: &[f32; 8] = x.first_chunk().expect("8 elements");
        // SAFETY: `x` is 32 readable bytes, the load takes any alignment; avx by the token.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: __m256, x: &mut [f32]) {
        let x: &mut [f32; 8] = x.first_chunk_mut().expect("8 elements");
        // SAFETY: `x` is 32 writable bytes, the store takes any alignment; avx by the token.
        unsafe { _mm256_storeu_ps(x.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> __m256 {
        let bytes: &[u8; 32] = bytes.first_chunk().expect("32 bytes");
        // SAFETY: 32 readable bytes, any alignment, every bit pattern is an f32; avx by the token.
        unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) }
    }
    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> __m256 {
        let bytes: &[u8; 16] = bytes.first_chunk().expect("16 bytes");
        // SAFETY: 16 readable bytes, any alignment; f16c by the token.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> __m256 {
        let bytes: &[u8; 16] = bytes.first_chunk().expect("16 bytes");
        // SAFETY: 16 readable bytes, any alignment; avx2 by the token. bfloat16 is the upper half of an f32.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        proved!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        proved!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        proved!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        proved!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proved!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        proved!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        proved!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        proved!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn pow2(self, n: __m256) -> __m256 {
        proved!({
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn select_lt(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        proved!(_mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }
    #[inline(always)]
    fn lt_bits(self, a: __m256, b: __m256) -> u32 {
        proved!(_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) as u32)
    }
    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        proved!({
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: __m256) -> f32 {
        proved!({
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        // SAFETY: a hint that never faults, whatever the address; SSE is part of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast()) }
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [__m256; MAX_LANES]) {
        let r: &mut [__m256; 8] = rows.first_chunk_mut().expect("MAX_LANES is 16");
        proved!({
            // 4×4 blocks inside the 128-bit halves, by pairs and then pairs of pairs.
            for i in [0, 4] {
                let (a, b, c, d) = (r[i], r[i + 1], r[i + 2], r[i + 3]);
                let (ab0, ab1) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd0, cd1) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                r[i] = _mm256_shuffle_ps::<0x44>(ab0, cd0);
                r[i + 1] = _mm256_shuffle_ps::<0xee>(ab0, cd0);
                r[i + 2] = _mm256_shuffle_ps::<0x44>(ab1, cd1);
                r[i + 3] = _mm256_shuffle_ps::<0xee>(ab1, cd1);
            }
            // Then the halves change places.
            for i in 0..4 {
                let (low, high) = (r[i], r[i + 4]);
                r[i] = _mm256_permute2f128_ps::<0x20>(low, high);
                r[i + 4] = _mm256_permute2f128_ps::<0x31>(low, high);
            }
        })
    }
}
