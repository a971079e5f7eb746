//! Layer norm and group norm.
//!
//! Two passes, mean first: what is squared is the difference from the mean, so that nothing cancels. Sums are f32 over short
//! pieces and f64 over those, which keeps the statistics within a few ulps at any length.

use super::activation::activate;
use super::gemm::Strided;
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{Kernel, Simd};
use crate::ops::Activation;

/// Scale, shift and what else both norms take.
#[derive(Clone, Copy)]
pub struct Parameters<'a> {
    /// `[width]`.
    pub gamma: &'a [f32],
    /// `[width]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
    /// Applied last.
    pub act: Activation,
}

/// Rows of a task: enough to be worth handing out, few enough to balance, and to sum in f32.
const ROWS: usize = 32;

/// `y[rows, width]`, each row of `x` normalised by itself.
pub fn layer_norm(pool: &Pool, isa: Isa, x: Strided<'_>, p: Parameters<'_>, y: &mut [f32]) {
    let width = p.gamma.len();
    let tasks = y.chunks_mut(ROWS * width).enumerate();
    pool.for_each(tasks, |(i, y)| isa.run(LayerNorm { x, first: i * ROWS, p, y }));
}

struct LayerNorm<'a> {
    x: Strided<'a>,
    first: usize,
    p: Parameters<'a>,
    y: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.p.gamma.len();
        for (r, y) in self.y.chunks_exact_mut(width).enumerate() {
            let x = self.x.row(self.first + r, width);
            // Summed around any of the values, a mean far from zero costs no digits. `rest` is what rounding it to
            // `centre` leaves out.
            let mean = f64::from(x[0]) + sum::<S, false>(s, x, x[0]) / width as f64;
            let centre = mean as f32;
            let rest = mean - f64::from(centre);
            let variance = sum::<S, true>(s, x, centre) / width as f64 - rest * rest;
            let scale = (1.0 / (variance + f64::from(self.p.eps)).sqrt()) as f32;
            let (centre, rest, scale) = (s.splat(centre), s.splat(rest as f32), s.splat(scale));
            for i in (0..width).step_by(S::LANES) {
                let v = s.mul(s.sub(s.sub(s.load_head(&x[i..]), centre), rest), scale);
                let v = s.mul_add(v, s.load_head(&self.p.gamma[i..]), s.load_head(&self.p.beta[i..]));
                s.store_head(activate(s, v, self.p.act), &mut y[i..]);
            }
        }
    }
}

/// `Σ (x - centre)`, or of its squares: pieces of 256 in four vectors of partial sums, their totals in f64.
#[inline(always)]
fn sum<S: Simd, const SQUARED: bool>(s: S, x: &[f32], centre: f32) -> f64 {
    let c = s.splat(centre);
    let mut total = 0.0;
    for piece in x.chunks(256) {
        let mut acc = [s.splat(0.0); 4];
        let quads = piece.chunks_exact(4 * S::LANES);
        let tail = quads.remainder();
        for quad in quads {
            for j in 0..4 {
                let v = s.sub(s.load(&quad[j * S::LANES..]), c);
                acc[j] = if SQUARED { s.mul_add(v, v, acc[j]) } else { s.add(acc[j], v) };
            }
        }
        total += f64::from(s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]))));
        for &v in tail {
            let v = f64::from(v - centre);
            total += if SQUARED { v * v } else { v };
        }
    }
    total
}

/// `y[rows, width]`, normalised over all rows and the channels of each of `groups`.
pub fn group_norm(pool: &Pool, isa: Isa, x: &[f32], groups: usize, p: Parameters<'_>, y: &mut [f32]) {
    let width = p.gamma.len();
    assert!(groups > 0 && width.is_multiple_of(groups), "{width} channels in {groups} groups");
    let size = width / groups;
    let per_group = (x.len() / width * size) as f64;
    let pieces = x.len().div_ceil(ROWS * width);
    let mut memory = pool.scratch((pieces + 2) * width);
    let (parts, channels) = memory.split_at_mut(pieces * width);
    let (centre, scale) = channels.split_at_mut(width);
    // Sums of each piece, then of a group's channels in all pieces, in the picture's order, so that the result does not
    // depend on who computed what.
    let mean_of = |parts: &mut [f32], centre: &[f32], squared: bool, to: &mut dyn FnMut(usize, f64)| {
        let tasks = parts.chunks_exact_mut(width).zip(x.chunks(ROWS * width));
        pool.for_each(tasks, |(sums, x)| isa.run(ChannelSums { x, centre, squared, sums }));
        for group in 0..groups {
            let members = parts.chunks_exact(width).flat_map(|sums| &sums[group * size..][..size]);
            to(group, members.map(|&sum| f64::from(sum)).sum::<f64>() / per_group);
        }
    };
    scale.fill(0.0);
    mean_of(parts, scale, false, &mut |group, mean| centre[group * size..][..size].fill(mean as f32));
    mean_of(parts, centre, true, &mut |group, variance| {
        let members = scale[group * size..][..size].iter_mut().zip(&p.gamma[group * size..]);
        members.for_each(|(s, &g)| *s = (f64::from(g) / (variance + f64::from(p.eps)).sqrt()) as f32);
    });
    let (mean, scale) = (&*centre, &*scale);
    pool.for_each(y.chunks_mut(ROWS * width).zip(x.chunks(ROWS * width)), |(y, x)| {
        isa.run(ScaleChannels { x, mean, scale, p, y });
    });
}

/// `Σ (x - centre)` of each channel, or of its squares, over at most [`ROWS`] rows.
struct ChannelSums<'a> {
    x: &'a [f32],
    centre: &'a [f32],
    squared: bool,
    /// One of each channel.
    sums: &'a mut [f32],
}

impl Kernel for ChannelSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let sums = self.sums;
        let width = sums.len();
        sums.fill(0.0);
        for x in self.x.chunks_exact(width) {
            for i in (0..width).step_by(S::LANES) {
                let (sum, v) = (s.load_head(&sums[i..]), s.sub(s.load_head(&x[i..]), s.load_head(&self.centre[i..])));
                s.store_head(if self.squared { s.mul_add(v, v, sum) } else { s.add(sum, v) }, &mut sums[i..]);
            }
        }
    }
}

/// `act((x - mean) · scale + beta)` by channel.
struct ScaleChannels<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    scale: &'a [f32],
    p: Parameters<'a>,
    y: &'a mut [f32],
}

impl Kernel for ScaleChannels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.mean.len();
        for (x, y) in self.x.chunks_exact(width).zip(self.y.chunks_exact_mut(width)) {
            for i in (0..width).step_by(S::LANES) {
                let v = s.sub(s.load_head(&x[i..]), s.load_head(&self.mean[i..]));
                let v = s.mul_add(v, s.load_head(&self.scale[i..]), s.load_head(&self.p.beta[i..]));
                s.store_head(activate(s, v, self.p.act), &mut y[i..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{noise, pools};

    /// `act((x - mean) / √(var + eps) · gamma + beta)` of the listed elements in f64; the channel of each comes along.
    fn definition(x: &[(usize, f32)], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().map(|&(_, v)| f64::from(v)).sum::<f64>() / n;
        let var = x.iter().map(|&(_, v)| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let scale = (var + f64::from(eps)).sqrt();
        x.iter().map(|&(c, v)| (f64::from(v) - mean) / scale * f64::from(gamma[c]) + f64::from(beta[c])).collect()
    }

    #[test]
    fn layer_norm_by_definition() {
        for (pool, isa) in pools() {
            for (rows, width) in [(1, 1), (3, 7), (33, 64), (40, 67), (5, 1024)] {
                // A mean far from zero: one-pass formulas lose all digits here.
                let x: Vec<f32> = noise(rows * (width + 3), 1).iter().map(|v| v + 100.0).collect();
                let (gamma, beta) = (noise(width, 2), noise(width, 3));
                let p = Parameters { gamma: &gamma, beta: &beta, eps: 1e-5, act: Activation::Relu };
                let mut y = vec![f32::NAN; rows * width];
                let view = Strided { data: &x, offset: 2, stride: width + 3 };
                // The last row must not need what follows it.
                let data = &x[..2 + (rows - 1) * (width + 3) + width];
                layer_norm(&pool, isa, Strided { data, ..view }, p, &mut y);
                for r in 0..rows {
                    let row: Vec<_> = view.row(r, width).iter().copied().enumerate().collect();
                    for (c, want) in definition(&row, &gamma, &beta, 1e-5).into_iter().enumerate() {
                        let (got, want) = (f64::from(y[r * width + c]), want.max(0.0));
                        // Some ulps of the result's 2 to 3; one of the mean alone would be 8e-6.
                        assert!((got - want).abs() < 2e-6, "{isa} {rows}x{width} [{r}, {c}]: {got} for {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn group_norm_by_definition() {
        for (pool, isa) in pools() {
            for (rows, width, groups) in [(1, 4, 2), (70, 24, 8), (100, 18, 3), (333, 64, 1)] {
                let x: Vec<f32> = noise(rows * width, 4).iter().map(|v| v * 3.0 + 20.0).collect();
                let (gamma, beta) = (noise(width, 5), noise(width, 6));
                let p = Parameters { gamma: &gamma, beta: &beta, eps: 1e-5, act: Activation::None };
                let mut y = vec![f32::NAN; rows * width];
                group_norm(&pool, isa, &x, groups, p, &mut y);
                let size = width / groups;
                for g in 0..groups {
                    let members: Vec<usize> = (0..rows * width).filter(|i| i % width / size == g).collect();
                    let group: Vec<_> = members.iter().map(|&i| (i % width, x[i])).collect();
                    for (&i, want) in members.iter().zip(definition(&group, &gamma, &beta, 1e-5)) {
                        let got = f64::from(y[i]);
                        assert!((got - want).abs() < 1e-5, "{isa} {rows}x{width}/{groups} [{i}]: {got} for {want}");
                    }
                }
            }
        }
    }
}
