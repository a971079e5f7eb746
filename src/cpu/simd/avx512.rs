//! AVX-512 (F, BW, VL, DQ): 16 lanes, 32 registers, masks. Intel servers since Skylake-SP (2017), AMD since Zen 4.

use std::arch::x86_64::*;

use super::{Kernel, MAX_LANES, Simd};
use crate::cpu::gemm::Shape;

/// Proof that the processor has AVX-512 F, BW, VL, DQ and what [`super::Avx2`] stands for: only
/// [`Avx512::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The token, if the processor and the operating system have what it stands for.
    pub fn detect() -> Option<Self> {
        let found = super::Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        found.then_some(Self(()))
    }

    /// Runs `k` compiled for this instruction set.
    pub fn run<K: Kernel>(self, k: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
        fn enter<K: Kernel>(s: Avx512, k: K) -> K::Output {
            k.run(s)
        }
        // SAFETY: `self` exists only if `detect` found all of these.
        unsafe { enter(self, k) }
    }
}

/// An expression of intrinsics on values.
macro_rules! proved {
    ($e:expr) => {
        // SAFETY: the intrinsics touch no memory and need avx512 f, bw, vl or dq, which `detect` found before it made
        // the token whose method this is.
        unsafe { $e }
    };
}

/// A mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

impl Simd for Avx512 {
    type F = __m512;
    // 12·2 accumulators, 2 columns, broadcasts from memory, of 32 registers: 24 independent chains, where two
    // FMA units of latency 4 need 8. 14 rows would fit as well; 12 divides the 5184 tokens of a picture and the 576 of a
    // window, 14 does not.
    type Tile = Shape<12, 2>;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        proved!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        let x: &[f32; 16] = x.first_chunk().expect("16 elements");
        // SAFETY: `x` is 64 readable bytes, the load takes any alignment; avx512f by the token.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: __m512, x: &mut [f32]) {
        let x: &mut [f32; 16] = x.first_chunk_mut().expect("16 elements");
        // SAFETY: `x` is 64 writable bytes, the store takes any alignment; avx512f by the token.
        unsafe { _mm512_storeu_ps(x.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn load_head(self, x: &[f32]) -> __m512 {
        // SAFETY: the mask lets only lanes inside `x` touch memory, masked lanes do not fault; avx512f by the token.
        unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn store_head(self, v: __m512, x: &mut [f32]) {
        // SAFETY: the mask lets only lanes inside `x` touch memory, masked lanes do not fault; avx512f by the token.
        unsafe { _mm512_mask_storeu_ps(x.as_mut_ptr(), first(x.len()), v) }
    }
    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> __m512 {
        let bytes: &[u8; 64] = bytes.first_chunk().expect("64 bytes");
        // SAFETY: 64 readable bytes, any alignment, every bit pattern is an f32; avx512f by the token.
        unsafe { _mm512_loadu_ps(bytes.as_ptr().cast()) }
    }
    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> __m512 {
        let bytes: &[u8; 32] = bytes.first_chunk().expect("32 bytes");
        // SAFETY: 32 readable bytes, any alignment; avx512f by the token.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> __m512 {
        let bytes: &[u8; 32] = bytes.first_chunk().expect("32 bytes");
        // SAFETY: 32 readable bytes, any alignment; avx512f by the token. bfloat16 is the upper half of an f32.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bytes.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proved!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        proved!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        proved!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn pow2(self, n: __m512) -> __m512 {
        proved!({
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        proved!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x))
    }
    #[inline(always)]
    fn lt_bits(self, a: __m512, b: __m512) -> u32 {
        proved!(u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b)))
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        proved!(_mm512_reduce_add_ps(v))
    }
    #[inline(always)]
    fn max_lane(self, v: __m512) -> f32 {
        proved!(_mm512_reduce_max_ps(v))
    }
    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        // SAFETY: a hint that never faults, whatever the address; SSE is part of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast()) }
    }
    #[inline(always)]
    fn transpose(self, r: &mut [__m512; MAX_LANES]) {
        proved!({
            // 4×4 blocks inside the 128-bit quarters, by pairs and then pairs of pairs.
            for i in [0, 4, 8, 12] {
                let (a, b, c, d) = (r[i], r[i + 1], r[i + 2], r[i + 3]);
                let (ab0, ab1) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd0, cd1) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                r[i] = _mm512_shuffle_ps::<0x44>(ab0, cd0);
                r[i + 1] = _mm512_shuffle_ps::<0xee>(ab0, cd0);
                r[i + 2] = _mm512_shuffle_ps::<0x44>(ab1, cd1);
                r[i + 3] = _mm512_shuffle_ps::<0xee>(ab1, cd1);
            }
            // Then the 4×4 arrangement of quarters, in the same two steps.
            for i in 0..4 {
                let (a, b, c, d) = (r[i], r[i + 4], r[i + 8], r[i + 12]);
                let (ab0, ab1) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (cd0, cd1) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
                r[i] = _mm512_shuffle_f32x4::<0x88>(ab0, cd0);
                r[i + 4] = _mm512_shuffle_f32x4::<0x88>(ab1, cd1);
                r[i + 8] = _mm512_shuffle_f32x4::<0xdd>(ab0, cd0);
                r[i + 12] = _mm512_shuffle_f32x4::<0xdd>(ab1, cd1);
            }
        })
    }
}
