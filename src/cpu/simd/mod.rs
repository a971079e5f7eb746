//! The vector instructions the CPU back end is written over, and the only `unsafe` of that back end.
//!
//! An instruction set is a zero-sized token that can be had only from its `detect`, so holding one *is* the proof that
//! the processor has the instructions; every `unsafe` below cites that proof. Kernels are written once over [`Simd`]
//! as a [`Kernel`] and entered through the token's `run`, a function compiled with the instruction set switched on,
//! into which the `#[inline(always)]` kernel and all operations of its token dissolve. Loads and stores take slices
//! and check their length, which the optimiser removes where a kernel walks in whole vectors.
//!
//! ```text
//! Isa (isa.rs) ── run ──▶ Avx2::run ── #[target_feature] ──▶ Kernel::run::<Avx2> ──▶ s.load, s.mul_add, …
//! ```

//! # Instructions that are there and not used
//!
//! All arithmetic is f32, because the goldens are: stages within 1e-4 of upstream's. Dot products of narrower numbers are
//! faster where a processor has them, and cannot hold that.
//!
//! - AVX512-BF16 (`vdpbf16ps`) and the bf16 of Arm round both factors to 8 bits, 2⁻⁹ of each: a sum is off by 1.6e-3,
//!   measured on the encoder's layers. bf16 *weights* cost nothing where they stay exact: they are widened as they are
//!   packed, at the rate of f32 weights.
//! - AVX512-VNNI, AVX-VNNI and Arm's `sdot` multiply 8-bit integers: they want quantised weights, which no published
//!   checkpoint has, and activations quantised on the way.
//! - AMX multiplies bf16 and 8-bit integers, likewise.
//!
//! What pays of AVX-512 is its foundation: 32 registers of 16 lanes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::Scalar;

/// The widest vector of all instruction sets, in f32 lanes: size of stack buffers that hold any one.
pub const MAX_LANES: usize = 16;

// Weights are read as the little-endian bytes they are stored in.
const _: () = assert!(cfg!(target_endian = "little"), "the CPU back end needs a little-endian machine");

/// A computation written once for all instruction sets.
pub trait Kernel {
    /// What it returns.
    type Output;

    /// Does it. Implementations are `#[inline(always)]`, as is all they call per vector: code that is not inlined into
    /// the token's `run` is compiled without the instruction set.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// An instruction set: a token whose existence proves that the processor has it.
///
/// Slices shorter than a vector panic in `load` and `store`. Lanes are numbered in memory order.
pub trait Simd: Copy + Send + Sync + 'static {
    /// [`Self::LANES`] values of f32.
    type F: Copy;
    /// The GEMM tile that suits the number of registers.
    type Tile: crate::cpu::gemm::Tile<Self>;
    /// Lanes of a vector; a power of two up to [`MAX_LANES`].
    const LANES: usize;

    /// `x` in all lanes.
    fn splat(self, x: f32) -> Self::F;
    /// The first `LANES` elements.
    fn load(self, x: &[f32]) -> Self::F;
    /// To the first `LANES` elements.
    fn store(self, v: Self::F, x: &mut [f32]);
    /// `LANES` f32 from their bytes, at any alignment.
    fn load_f32(self, bytes: &[u8]) -> Self::F;
    /// `LANES` IEEE binary16 from their bytes, at any alignment, widened exactly.
    fn load_f16(self, bytes: &[u8]) -> Self::F;
    /// `LANES` bfloat16 from their bytes, at any alignment, widened exactly.
    fn load_bf16(self, bytes: &[u8]) -> Self::F;

    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once (twice on [`Scalar`], whose baseline has no fused instruction).
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, ties to even; for |a| < 2³¹.
    fn round(self, a: Self::F) -> Self::F;
    /// `2ⁿ` of integers -126 ..= 127.
    fn pow2(self, n: Self::F) -> Self::F;
    /// `x` where `a < b`, `y` elsewhere.
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// Bit `i` is set where `a < b` in lane `i`.
    fn lt_bits(self, a: Self::F, b: Self::F) -> u32;
    /// Sum of all lanes, as a tree.
    fn sum(self, v: Self::F) -> f32;
    /// Largest of all lanes.
    fn max_lane(self, v: Self::F) -> f32;
    /// Transposes the square of the first `LANES` vectors.
    fn transpose(self, rows: &mut [Self::F; MAX_LANES]);

    /// Sums of all lanes of each of the first `LANES` vectors, in their order.
    #[inline(always)]
    fn sums(self, rows: &mut [Self::F; MAX_LANES]) -> Self::F {
        self.transpose(rows);
        for half in [MAX_LANES / 2, MAX_LANES / 4, MAX_LANES / 8, MAX_LANES / 16] {
            if half < Self::LANES {
                for i in 0..half {
                    rows[i] = self.add(rows[i], rows[i + half]);
                }
            }
        }
        rows[0]
    }

    /// Asks for the cache line that `bytes` begins in. Does nothing where there is no such instruction.
    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// As [`Simd::load`] of a slice that may be shorter; lanes past its end are zero.
    #[inline(always)]
    fn load_head(self, x: &[f32]) -> Self::F {
        if x.len() >= Self::LANES {
            return self.load(x);
        }
        let mut buffer = [0.0; MAX_LANES];
        buffer[..x.len()].copy_from_slice(x);
        self.load(&buffer)
    }

    /// As [`Simd::store`] to a slice that may be shorter; lanes past its end are dropped.
    #[inline(always)]
    fn store_head(self, v: Self::F, x: &mut [f32]) {
        if x.len() >= Self::LANES {
            return self.store(v, x);
        }
        let mut buffer = [0.0; MAX_LANES];
        self.store(v, &mut buffer);
        x.copy_from_slice(&buffer[..x.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    /// Applies every lane-wise operation to `a`, `b`, `c`, in a fixed order.
    struct Lanewise<'a>(&'a [f32; 16], &'a [f32; 16], &'a [f32; 16]);

    impl Kernel for Lanewise<'_> {
        type Output = Vec<Vec<f32>>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut out = vec![vec![0.0; 16]; 10];
            for i in (0..16).step_by(S::LANES) {
                let (a, b, c) = (s.load(&self.0[i..]), s.load(&self.1[i..]), s.load(&self.2[i..]));
                let results = [
                    s.add(a, b),
                    s.sub(a, b),
                    s.mul(a, b),
                    s.div(a, b),
                    s.mul_add(a, b, c),
                    s.max(a, b),
                    s.min(a, b),
                    s.round(a),
                    s.pow2(s.round(a)),
                    s.select_lt(a, b, b, c),
                ];
                for (row, v) in out.iter_mut().zip(results) {
                    s.store(v, &mut row[i..]);
                }
            }
            out
        }
    }

    #[test]
    fn lanewise_operations_match_scalar_arithmetic() {
        let a: [f32; 16] = std::array::from_fn(|i| (i as f32 - 7.5) * 3.25 + 0.125);
        let b: [f32; 16] = std::array::from_fn(|i| 5.0 - (i * i) as f32 * 0.375);
        let c: [f32; 16] = std::array::from_fn(|i| i as f32 * -1.5 + 2.0);
        type F = fn(f32, f32, f32) -> f32;
        let expected: [F; 10] = [
            |a, b, _| a + b,
            |a, b, _| a - b,
            |a, b, _| a * b,
            |a, b, _| a / b,
            |a, b, c| a * b + c,
            |a, b, _| a.max(b),
            |a, b, _| a.min(b),
            |a, _, _| a.round_ties_even(),
            |a, _, _| a.round_ties_even().exp2(),
            |a, b, c| if a < b { b } else { c },
        ];
        for isa in Isa::available() {
            let out = isa.run(Lanewise(&a, &b, &c));
            for (op, row) in expected.iter().zip(&out) {
                for i in 0..16 {
                    let want = op(a[i], b[i], c[i]);
                    assert!((row[i] - want).abs() <= want.abs() * 1e-6, "{isa}: {} for {want}", row[i]);
                }
            }
        }
    }

    /// Sum, maximum, transposition, partial loads and stores.
    struct Across<'a>(&'a [f32]);

    impl Kernel for Across<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let x = self.0;
            let n = S::LANES;
            assert_eq!(s.sum(s.load(x)), x[..n].iter().sum::<f32>());
            assert_eq!(s.max_lane(s.load(x)), x[..n].iter().copied().fold(f32::MIN, f32::max));
            for (i, y) in x[1..=MAX_LANES].iter().enumerate() {
                let bits = (0..n).fold(0, |bits, lane| bits | u32::from(x[lane] < *y) << lane);
                assert_eq!(s.lt_bits(s.load(x), s.splat(*y)), bits, "{i}");
            }
            assert_eq!(s.lt_bits(s.splat(f32::NAN), s.load(x)), 0);
            let mut rows = [s.splat(0.0); MAX_LANES];
            for r in 0..n {
                rows[r] = s.load(&x[r * n..]);
            }
            let mut sums = [0.0; MAX_LANES];
            s.store(s.sums(&mut { rows }), &mut sums);
            for r in 0..n {
                assert_eq!(sums[r], s.sum(rows[r]));
            }
            s.transpose(&mut rows);
            for r in 0..n {
                let mut row = [0.0; MAX_LANES];
                s.store(rows[r], &mut row);
                for c in 0..n {
                    assert_eq!(row[c], x[c * n + r]);
                }
            }
            for len in 0..=n {
                let mut out = [-1.0; MAX_LANES];
                s.store(s.load_head(&x[..len]), &mut out);
                assert_eq!(out[..len], x[..len]);
                assert!(out[len..n].iter().all(|&v| v == 0.0));
                let mut out = [-1.0; MAX_LANES];
                s.store_head(s.load(x), &mut out[..len]);
                assert_eq!(out[..len], x[..len]);
                assert!(out[len..].iter().all(|&v| v == -1.0));
            }
        }
    }

    #[test]
    fn operations_across_lanes() {
        // Small integers: any order of summation is exact.
        let x: Vec<f32> = (0..256).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        for isa in Isa::available() {
            isa.run(Across(&x));
        }
    }

    /// Widens all 2¹⁶ bit patterns.
    struct Widen<'a>(&'a [u8], bool);

    impl Kernel for Widen<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<f32> {
            let mut out = vec![0.0; self.0.len() / 2];
            for (from, to) in self.0.chunks_exact(2 * S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
                s.store(if self.1 { s.load_f16(from) } else { s.load_bf16(from) }, to);
            }
            out
        }
    }

    #[test]
    fn widening_is_exact_for_all_bit_patterns() {
        // One byte in front: nothing is aligned.
        let bytes: Vec<u8> = std::iter::once(0).chain((0..=u16::MAX).flat_map(u16::to_le_bytes)).collect();
        for isa in Isa::available() {
            let f16 = isa.run(Widen(&bytes[1..], true));
            let bf16 = isa.run(Widen(&bytes[1..], false));
            for bits in 0..=u16::MAX {
                let (h, b) = (half::f16::from_bits(bits).to_f32(), half::bf16::from_bits(bits).to_f32());
                let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                assert!(same(f16[bits as usize], h), "{isa}: f16 {bits:#06x}");
                assert!(same(bf16[bits as usize], b), "{isa}: bf16 {bits:#06x}");
            }
        }
    }
}
