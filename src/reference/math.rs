//! Scalar functions in f64 that the standard library lacks.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::ops::Activation;

/// Where `erf` changes from the series to the continued fraction. Above 2 the fraction needs few terms; below it
/// `1 - erf` has lost at most `1 / erfc(2) = 214` times the rounding error of f64, which is still `5·10⁻¹⁴`.
const SERIES_BELOW: f64 = 2.0;

/// Error function `2/√π · ∫₀ˣ exp(-t²) dt`; relative error within `10⁻¹⁵`.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    let y = if a < SERIES_BELOW { erf_series(a) } else { 1.0 - erfc_fraction(a) };
    y.copysign(x)
}

/// Complementary error function `1 - erf(x)`; relative error within `10⁻¹³`, also where it is tiny.
pub fn erfc(x: f64) -> f64 {
    if x < SERIES_BELOW { 1.0 - erf(x) } else { erfc_fraction(x) }
}

/// `2/√π · exp(-x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1·3·…·(2n + 1))`, whose terms are all positive so that nothing cancels.
///
/// [DLMF 7.6.2](https://dlmf.nist.gov/7.6#E2). For `0 ≤ x < 2`, term `n` is the one before times `2x²/(2n + 1)`, and
/// 50 of them reach `10⁻²⁰` of the first.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..50 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// `exp(-x²)/√π · 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …))))` for `x ≥ 2`.
///
/// [DLMF 7.9.1](https://dlmf.nist.gov/7.9#E1), evaluated from the inside. At `x = 2`, where convergence is slowest, 60
/// levels are exact to f64.
fn erfc_fraction(x: f64) -> f64 {
    let mut tail = x;
    for n in (1..=60).rev() {
        tail = x + f64::from(n) / 2.0 / tail;
    }
    (-x * x).exp() / PI.sqrt() / tail
}

/// `x·Φ(x) = x/2·(1 + erf(x/√2))`, as `erfc(-x/√2)` so that the tail keeps its digits.
fn gelu(x: f64) -> f64 {
    x / 2.0 * erfc(-x * FRAC_1_SQRT_2)
}

/// What a GEMM or a normalisation ends with.
pub(super) fn activate(act: Activation, x: f64) -> f64 {
    match act {
        Activation::None => x,
        Activation::Gelu => gelu(x),
        // Not `max`, which drops a NaN.
        Activation::Relu if x < 0.0 => 0.0,
        Activation::Relu => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `math.erf(x)` and `math.erfc(x)` of CPython 3.11.
    const ERF: [(f64, f64, f64); 11] = [
        (1e-10, 1.1283791670955126e-10, 0.999999999887162),
        (0.1, 0.1124629160182849, 0.8875370839817152),
        (0.46875, 0.49261347321793797, 0.507386526782062),
        (0.5, 0.5204998778130465, 0.4795001221869535),
        (1.0, 0.8427007929497149, 0.15729920705028513),
        (1.5, 0.9661051464753108, 0.033894853524689274),
        (1.9999, 0.9953201979070294, 0.004679802092970608),
        (2.0, 0.9953222650189527, 0.004677734981047265),
        (2.5, 0.999593047982555, 0.0004069520174449589),
        (4.0, 0.9999999845827421, 1.541725790028002e-08),
        (6.0, 1.0, 2.1519736712498916e-17),
    ];

    #[test]
    fn erf_to_the_last_digits() {
        for (x, erf_x, erfc_x) in ERF {
            assert!((erf(x) - erf_x).abs() <= 1e-15 * erf_x, "erf({x}) = {:e}, expected {erf_x:e}", erf(x));
            assert!((erfc(x) - erfc_x).abs() <= 1e-13 * erfc_x, "erfc({x}) = {:e}, expected {erfc_x:e}", erfc(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!((erf(40.0), erfc(40.0), erfc(-40.0)), (1.0, 0.0, 2.0));
        assert!(erf(f64::NAN).is_nan() && erfc(f64::NAN).is_nan());
    }

    #[test]
    fn erf_is_smooth_where_the_formulas_meet() {
        let (below, above) = (erf_series(2.0), 1.0 - erfc_fraction(2.0));
        assert!((below - above).abs() < 1e-15, "{below:e} {above:e}");
    }

    #[test]
    fn gelu_agrees_with_torch() {
        // torch.nn.functional.gelu(torch.tensor([...], dtype=torch.float64))
        for (x, expected) in [
            (-6.0, -5.919525869479969e-09),
            (-3.0, -0.00404969409489031),
            (-1.25, -0.13206221708356905),
            (-0.5, -0.15426876936299344),
            (0.0, 0.0),
            (0.75, 0.5800294857173489),
            (2.0, 1.9544997361036416),
            (5.0, 4.999998566742141),
        ] {
            // torch rounds 1 + erf, so its far tail is right to eps·|x| only.
            let y = gelu(x);
            assert!((y - expected).abs() <= 1e-15 * f64::abs(x), "gelu({x}) = {y:e}, expected {expected:e}");
        }
    }

    #[test]
    fn relu_keeps_nan() {
        assert!(activate(Activation::Relu, f64::NAN).is_nan());
        assert_eq!([-1.0, 0.0, 2.0].map(|x| activate(Activation::Relu, x)), [0.0, 0.0, 2.0]);
    }
}
