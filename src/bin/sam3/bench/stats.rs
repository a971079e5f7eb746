//! Numbers that describe a series of times, and how far they can be trusted.
//!
//! Quantiles are of the nearest rank: the p-quantile of n samples is the sample of rank ⌈p·n⌉, one that was really
//! measured. With few samples the high ones are therefore the maximum, which `n` beside them tells.

use serde::{Deserialize, Serialize};

/// Times of one path or stage over the measured runs, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Samples, at least 1.
    pub n: usize,
    pub min: f64,
    pub mean: f64,
    pub median: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
    /// Coefficient of variation: the standard deviation (of n - 1 degrees of freedom) over the mean; none for n = 1.
    pub cv: Option<f64>,
    /// In the order they were measured.
    pub samples: Vec<f64>,
}

impl Series {
    /// Describes `samples`; `None` for no samples, or one that is no time.
    pub fn new(samples: Vec<f64>) -> Option<Self> {
        if samples.is_empty() || samples.iter().any(|s| !s.is_finite() || *s < 0.0) {
            return None;
        }
        let sorted = sorted(&samples);
        let n = samples.len();
        let rank = |p: f64| sorted[((p * n as f64).ceil() as usize).clamp(1, n) - 1];
        let mean = samples.iter().sum::<f64>() / n as f64;
        let squares: f64 = samples.iter().map(|s| (s - mean).powi(2)).sum();
        let cv = (n > 1 && mean > 0.0).then(|| (squares / (n - 1) as f64).sqrt() / mean);
        Some(Self {
            n,
            min: sorted[0],
            mean,
            median: median(&sorted),
            p90: rank(0.90),
            p95: rank(0.95),
            p99: rank(0.99),
            max: sorted[n - 1],
            cv,
            samples,
        })
    }

    /// An interval that holds the true median with at least 95 % confidence, whatever the distribution: the k-th
    /// smallest and the k-th largest sample, where a fair coin thrown n times shows fewer than k heads at most once in
    /// 40 times. Below six samples no k will do, and the interval is all that was seen.
    pub fn median_interval(&self) -> (f64, f64) {
        let sorted = sorted(&self.samples);
        let n = sorted.len();
        // P(heads = i), from i = 0 on; sums stay below 1/40 up to k - 1. Underflow at thousands of samples only makes
        // the interval wider.
        let (mut term, mut sum, mut k) = (0.5f64.powi(n.min(1000) as i32), 0.0, 0);
        if n <= 1000 {
            for i in 0..n {
                sum += term;
                if sum > 0.025 {
                    break;
                }
                k = i + 1;
                term *= (n - i) as f64 / (i + 1) as f64;
            }
        } else {
            // The normal law, which is the coin's at such numbers.
            k = (n as f64 / 2.0 - 0.98 * (n as f64).sqrt()).floor() as usize;
        }
        let k = k.max(1) - 1;
        (sorted[k], sorted[n - 1 - k])
    }
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle sample, or the mean of the two middle ones.
fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_of_the_nearest_rank() {
        let s = Series::new((1..=20).rev().map(f64::from).collect()).unwrap();
        assert_eq!((s.n, s.min, s.mean, s.median, s.max), (20, 1.0, 10.5, 10.5, 20.0));
        // ⌈0.95·20⌉ = 19, ⌈0.99·20⌉ = 20: with 20 runs p99 is the maximum.
        assert_eq!((s.p90, s.p95, s.p99), (18.0, 19.0, 20.0));
        // Variance of 1..=20 is 35.
        assert!((s.cv.unwrap() - 35f64.sqrt() / 10.5).abs() < 1e-12);
        let one = Series::new(vec![3.0]).unwrap();
        assert_eq!((one.min, one.median, one.p99, one.cv), (3.0, 3.0, 3.0, None));
        for bad in [vec![], vec![f64::NAN], vec![1.0, -1.0], vec![f64::INFINITY]] {
            assert_eq!(Series::new(bad.clone()), None, "{bad:?}");
        }
    }

    #[test]
    fn median_intervals_are_those_of_the_tables() {
        let interval = |n: u32| Series::new((1..=n).map(f64::from).collect()).unwrap().median_interval();
        // Ranks as in tables of the sign test: none below 6, 2 and 9 of 10, 6 and 15 of 20, 40 and 61 of 100.
        assert_eq!(interval(1), (1.0, 1.0));
        assert_eq!(interval(5), (1.0, 5.0));
        assert_eq!(interval(6), (1.0, 6.0));
        assert_eq!(interval(10), (2.0, 9.0));
        assert_eq!(interval(20), (6.0, 15.0));
        assert_eq!(interval(100), (40.0, 61.0));
        let (low, high) = interval(4000);
        assert!((1930.0..1950.0).contains(&low) && (2050.0..2070.0).contains(&high), "{low} {high}");
    }
}
