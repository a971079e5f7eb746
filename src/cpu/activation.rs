//! `exp`, exact GELU, and the epilogue that ends products.

use super::simd::Simd;
use crate::ops::Activation;

/// Below this, e^x is less than the smallest normal f32, 2⁻¹²⁶; [`exp`] returns zero there.
const EXP_MIN: f32 = -87.336_54;
/// Above this, e^x is more than 2¹²⁷·√2, and rounding x/ln 2 would ask for 2¹²⁸.
const EXP_MAX: f32 = 88.376_26;

/// `e^x` within 2 ulps for x ≤ [`EXP_MAX`], where it saturates; zero below [`EXP_MIN`], and so of -∞.
///
/// `x = n·ln 2 + r`, `|r| ≤ ln 2 / 2`, `e^x = 2ⁿ·(1 + r + r²·P(r))`. P has degree 4, fitted for the least maximal
/// relative error of the whole (Lawson's iteration over 81 Chebyshev nodes, 40 digits): 3.1e-9, a twentieth of an ulp.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // The operand that may be NaN comes second, where it survives.
    let clamped = s.max(s.splat(EXP_MIN), s.min(s.splat(EXP_MAX), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts (Cody & Waite): the first has 9 bits, so that its product with n is exact.
    let r = s.mul_add(n, s.splat(-0.693_359_4), clamped);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    let p = s.splat(0.001_381_445_5);
    let p = s.mul_add(p, r, s.splat(0.008_368_782));
    let p = s.mul_add(p, r, s.splat(0.041_668_394));
    let p = s.mul_add(p, r, s.splat(0.166_665_2));
    let p = s.mul_add(p, r, s.splat(0.499_999_93));
    let p = s.mul_add(s.mul(p, r), r, r);
    let y = s.mul_add(p, s.pow2(n), s.pow2(n));
    s.select_lt(x, s.splat(EXP_MIN), s.splat(0.0), y)
}

/// `x·Φ(x)`, within 1.5e-7·max(1, |x|) of the exact value.
///
/// `x·Φ(x) = max(x, 0) - |x|·Φ(-|x|)`, whose second term is at most 0.17: it takes the place of `1 + erf`, which
/// cancels for negative x. With `t = 1 / (1 + 0.3·|x|)`, `Φ(-|x|) = e^(-x²/2)·t·P(t)` in the manner of Hastings
/// (Abramowitz & Stegun 7.1.26), with P of degree 6 fitted for the least maximal error of the term (Lawson's iteration
/// over 160 Chebyshev nodes of 0..7, 50 digits): 2.2e-9.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let zero = s.splat(0.0);
    let a = s.max(x, s.sub(zero, x));
    let t = s.div(s.splat(1.0), s.mul_add(a, s.splat(0.3), s.splat(1.0)));
    let p = s.splat(0.032_632_99);
    let p = s.mul_add(p, t, s.splat(-0.222_827_2));
    let p = s.mul_add(p, t, s.splat(0.480_639_38));
    let p = s.mul_add(p, t, s.splat(-0.267_058_7));
    let p = s.mul_add(p, t, s.splat(0.274_126_67));
    let p = s.mul_add(p, t, s.splat(0.078_503_326));
    let p = s.mul_add(p, t, s.splat(0.123_983_41));
    let e = exp(s, s.mul(s.mul(a, a), s.splat(-0.5)));
    let term = s.mul(s.mul(a, s.mul(t, p)), e);
    s.sub(s.max(zero, x), term)
}

/// `act(x)`.
#[inline(always)]
pub fn activate<S: Simd>(s: S, x: S::F, act: Activation) -> S::F {
    match act {
        Activation::None => x,
        Activation::Gelu => gelu(s, x),
        // In this order a NaN survives.
        Activation::Relu => s.max(s.splat(0.0), x),
    }
}

/// `act(y + bias + add)` along a piece of a row.
pub struct Finish<'a> {
    /// As long as the piece.
    pub bias: Option<&'a [f32]>,
    /// As long as the piece.
    pub add: Option<&'a [f32]>,
    /// Applied last.
    pub act: Activation,
}

impl Finish<'_> {
    /// In place.
    #[inline(always)]
    pub fn apply<S: Simd>(&self, s: S, y: &mut [f32]) {
        for i in (0..y.len()).step_by(S::LANES) {
            let y = &mut y[i..];
            let mut v = s.load_head(y);
            if let Some(bias) = self.bias {
                v = s.add(v, s.load_head(&bias[i..]));
            }
            if let Some(add) = self.add {
                v = s.add(v, s.load_head(&add[i..]));
            }
            s.store_head(activate(s, v, self.act), y);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use crate::cpu::simd::Kernel;

    /// A function of one vector over a slice of whole vectors.
    struct Map<'a>(&'a [f32], bool);

    impl Kernel for Map<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<f32> {
            let mut out = vec![0.0; self.0.len()];
            for (x, y) in self.0.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
                let x = s.load(x);
                s.store(if self.1 { exp(s, x) } else { gelu(s, x) }, y);
            }
            out
        }
    }

    #[test]
    fn exp_is_within_two_ulps() {
        // Every 4099th float between -87.3 and 88.3, both signs: dense in all binades.
        let mut x: Vec<f32> =
            (0..0x42b0_8000u32).step_by(4099).flat_map(|b| [b, b | 1 << 31]).map(f32::from_bits).collect();
        x.retain(|&x| (-87.33..88.37).contains(&x));
        x.truncate(x.len() / 16 * 16);
        for isa in Isa::available() {
            let worst = isa.run(Map(&x, true)).iter().zip(&x).fold(0.0, |worst: f64, (&y, &x)| {
                let exact = f64::from(x).exp();
                let ulp = f64::from((exact as f32).next_up() - exact as f32);
                worst.max((f64::from(y) - exact).abs() / ulp)
            });
            assert!(worst < 2.0, "{isa}: {worst} ulp");
        }
    }

    #[test]
    fn exp_of_extremes() {
        let mut x = [0.0; 16];
        x[..7].copy_from_slice(&[f32::NEG_INFINITY, -1e30, -87.34, f32::MIN, 0.0, 1e30, f32::INFINITY]);
        for isa in Isa::available() {
            let y = isa.run(Map(&x, true));
            assert_eq!(y[..5], [0.0, 0.0, 0.0, 0.0, 1.0], "{isa}");
            assert!(y[5].is_finite() && y[5] > 2e38 && y[6] == y[5], "{isa}: {y:?}");
        }
    }

    /// `Φ(x)` in f64 by the series of A&S 26.2.10, the continued fraction of 26.2.14 for large arguments.
    pub fn normal_cdf(x: f64) -> f64 {
        let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        if x.abs() < 5.0 {
            let (mut term, mut sum, mut i) = (x, x, 1.0);
            while term.abs() > 1e-20 * sum.abs() {
                i += 2.0;
                term *= x * x / i;
                sum += term;
            }
            0.5 + density * sum
        } else {
            let fraction = (1..60).rev().fold(x.abs(), |f, i| x.abs() + f64::from(i) / f);
            if x < 0.0 { density / fraction } else { 1.0 - density / fraction }
        }
    }

    #[test]
    fn gelu_is_exact_to_f32() {
        assert!((normal_cdf(1.0) - 0.841_344_746_068_542_9).abs() < 1e-15);
        assert!((normal_cdf(-6.0) - 9.865_876_450_376_98e-10).abs() < 1e-22);
        let mut x: Vec<f32> = (0..160_000).map(|i| i as f32 * 1.25e-4 - 10.0).collect();
        x.extend([
            -1e30, -100.0, -20.0, -1e-30, -0.0, 0.0, 1e-30, 1e-8, 20.0, 100.0, 1e30, 0.5, 0.25, -0.5, -0.25, 4.0,
        ]);
        for isa in Isa::available() {
            for (&y, &x) in isa.run(Map(&x, false)).iter().zip(&x) {
                let exact = f64::from(x) * normal_cdf(f64::from(x).clamp(-30.0, 30.0));
                let error = (f64::from(y) - exact).abs();
                assert!(error <= 1.5e-7 * f64::from(x.abs()).max(1.0), "{isa}: gelu({x}) = {y}, exactly {exact}");
            }
        }
    }
}
