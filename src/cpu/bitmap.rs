//! Maps of logits to masks at another size: σ where it is wanted, bilinear resize, comparison, one bit a pixel.
//!
//! What is asked for is exact: the bits of a definition that takes σ from the library's `exp` and blends in f32, across
//! first and then down, without fused operations. Two things save most of its work and change none of its bits:
//!
//! - A pixel whose four samples all lie below the threshold lies below it. So only the box round the samples that do not
//!   is resampled.
//! - σ comes from vectors, and where a blend of it comes so close to the threshold that the two ways of taking σ might
//!   decide differently, the pixel is decided by the definition.

use std::ops::Range;

use super::activation::exp;
use super::isa::Isa;
use super::pool::Pool;
use super::simd::{Kernel, MAX_LANES, Simd};
use crate::image::Taps;
use crate::ops::{Compared, Cut};

/// Values up to this one lie below the threshold with whatever they are blended; NaN, which nothing is below, where that
/// cannot be said.
///
/// A blend exceeds the greatest of its samples by the rounding of three products and sums at each of two steps: less
/// than a millionth of it.
fn surely_below(cut: &Cut) -> f32 {
    let below = cut.threshold - 1e-5 * cut.threshold.abs();
    match cut.compared {
        Compared::Values => below,
        // Thresholds in the first 10⁻⁴ leave nothing to say, and NaN comes of it.
        Compared::Sigmoid => {
            let below = below - 1e-4;
            (below / (1.0 - below)).ln()
        }
    }
}

/// [`crate::ops::Ops::cut`]
pub fn cut(pool: &Pool, isa: Isa, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) {
    let ([_, width], [rows, columns], line) = (cut.from, cut.to, cut.line());
    // Four tasks a thread even out that some masks are smaller than others.
    let bands = (4 * pool.threads()).div_ceil(masks.len().max(1)).min(rows.max(1));
    let band = rows.div_ceil(bands).max(1);
    let mut tasks = Vec::with_capacity(masks.len() * bands);
    for (map, words) in masks {
        assert_eq!(words.len(), rows * line, "the words of a mask of {columns} x {rows}");
        tasks.extend(words.chunks_mut((band * line).max(1)).enumerate().map(|(i, words)| (*map, i * band, words)));
    }
    if tasks.is_empty() {
        return;
    }
    let taps = &cut.taps();
    pool.for_each_with(scratch_len(width, columns), tasks.into_iter(), |scratch, (map, first, words)| {
        isa.run(Bitmap { map, cut, taps, first, scratch, words });
    });
}

/// Some rows of a mask.
struct Bitmap<'a> {
    map: &'a [f32],
    cut: &'a Cut,
    /// Of all rows, and of the columns.
    taps: &'a [Taps; 2],
    /// First row.
    first: usize,
    /// [`scratch_len`] elements.
    scratch: &'a mut [f32],
    words: &'a mut [u64],
}

/// Elements of scratch for rows of `columns` pixels from `width` samples.
fn scratch_len(width: usize, columns: usize) -> usize {
    width + MAX_LANES + 2 * columns.next_multiple_of(MAX_LANES)
}

impl Kernel for Bitmap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { map, cut, taps, first, scratch, words } = self;
        let Cut { from: [_, width], compared, threshold, .. } = *cut;
        let [down, across] = taps;
        words.fill(0);
        let (line, low) = (cut.line(), s.splat(surely_below(cut)));
        let last = first + words.len() / line - 1;
        let rows = down.near[first] as usize..down.far[last] as usize + 1;
        let Some((rows, columns)) = extent(s, map, width, rows, low) else { return };
        // Neighbours have neighbouring samples, so the pixels that touch the box are neighbours; from a whole word on.
        let start = across.far.partition_point(|&far| (far as usize) < columns.start) / 64 * 64;
        let end = across.near.partition_point(|&near| (near as usize) < columns.end);
        if start >= end {
            return;
        }
        let samples = across.near[start] as usize..across.far[end - 1] as usize + 1;
        let (samples_of_row, held) = scratch.split_at_mut(width + MAX_LANES);
        let (near, far) = held.split_at_mut(held.len() / 2);
        let mut held = [(usize::MAX, near), (usize::MAX, far)];
        let (limit, close) = (s.splat(threshold), s.splat(Cut::CLOSE));
        for (y, words) in (first..).zip(words.chunks_exact_mut(line)) {
            let (top, bottom) = (down.near[y] as usize, down.far[y] as usize);
            if bottom < rows.start || top >= rows.end {
                continue;
            }
            if held[1].0 == top {
                held.swap(0, 1);
            }
            for (row, (at, pixels)) in [top, bottom].into_iter().zip(&mut held) {
                if *at != row {
                    let map = &map[row * width..][..width];
                    let map = match compared {
                        Compared::Values => map,
                        Compared::Sigmoid => {
                            sigmoid(s, &map[samples.clone()], &mut samples_of_row[samples.start..]);
                            &samples_of_row[..width]
                        }
                    };
                    for x in start..end {
                        pixels[x] = across.blend(x, map[across.near[x] as usize], map[across.far[x] as usize]);
                    }
                    *at = row;
                }
            }
            let (near, far) = (&held[0].1[..], &held[1].1[..]);
            let weights = (s.splat(down.near_weight[y]), s.splat(down.far_weight[y]));
            for x in (start..end).step_by(S::LANES) {
                let v = s.add(s.mul(s.load(&near[x..]), weights.0), s.mul(s.load(&far[x..]), weights.1));
                let mut bits = s.lt_bits(limit, v);
                if compared == Compared::Sigmoid {
                    let apart = s.max(s.sub(v, limit), s.sub(limit, v));
                    let mut doubtful = s.lt_bits(apart, close);
                    while doubtful != 0 {
                        let lane = doubtful.trailing_zeros();
                        doubtful &= doubtful - 1;
                        let x = x + lane as usize;
                        if x < end {
                            let above = cut.decide(taps, x, y, |i| compared.exact(map[i]));
                            bits = bits & !(1 << lane) | u32::from(above) << lane;
                        }
                    }
                }
                if x + S::LANES > end {
                    bits &= (1 << (end - x)) - 1;
                }
                words[x / 64] |= u64::from(bits) << (x % 64);
            }
        }
    }
}

/// The least rows and columns of `rows` that hold all values not at or below `low`; `None` where there are none.
#[inline(always)]
fn extent<S: Simd>(
    s: S,
    map: &[f32],
    width: usize,
    rows: Range<usize>,
    low: S::F,
) -> Option<(Range<usize>, Range<usize>)> {
    let (mut found, mut columns) = (rows.end..rows.start, width..0);
    for r in rows {
        let row = &map[r * width..][..width];
        for x in (0..width).step_by(S::LANES) {
            let piece = &row[x..];
            let below = s.lt_bits(s.load_head(piece), low);
            let lanes = S::LANES.min(piece.len());
            let bits = !below & (u32::MAX >> (32 - lanes));
            if bits != 0 {
                columns.start = columns.start.min(x + bits.trailing_zeros() as usize);
                columns.end = columns.end.max(x + 32 - bits.leading_zeros() as usize);
                found = found.start.min(r)..r + 1;
            }
        }
    }
    (found.start < found.end).then_some((found, columns))
}

/// `1 / (1 + e⁻ˣ)` of all of `x`, to the start of `y`, which has room for a vector more.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    let one = s.splat(1.0);
    for i in (0..x.len()).step_by(S::LANES) {
        let e = exp(s, s.sub(s.splat(0.0), s.load_head(&x[i..])));
        s.store(s.div(one, s.add(one, e)), &mut y[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{noise, pools};

    /// A map whose blends lie above and below, and close to the threshold in many places.
    fn maps(height: usize, width: usize) -> Vec<Vec<f32>> {
        let spread = noise(height * width, 7);
        let place = |i: usize| ((i / width) as f32 / height as f32 - 0.4, (i % width) as f32 / width as f32 - 0.6);
        let disc = |i: usize| 6.0 - 200.0 * (place(i).0.powi(2) + place(i).1.powi(2));
        vec![
            (0..height * width).map(|i| 5.0 * spread[i]).collect(),
            (0..height * width).map(disc).collect(),
            // Within rounding of the middle, where σ alone decides.
            (0..height * width).map(|i| 1e-6 * spread[i]).collect(),
            vec![-3.0; height * width],
            vec![3.0; height * width],
            (0..height * width).map(|i| if i == width + 1 { 100.0 } else { -100.0 }).collect(),
            vec![0.0; height * width],
        ]
    }

    #[test]
    fn bits_are_those_of_the_definition() {
        for (height, width, rows, columns) in
            [(5, 7, 20, 33), (48, 48, 75, 130), (9, 9, 9, 9), (30, 20, 11, 64), (3, 2, 1, 1)]
        {
            for (compared, thresholds) in [
                (Compared::Values, [0.0, 1.3, -2.0, f32::INFINITY, f32::NEG_INFINITY]),
                (Compared::Sigmoid, [0.5, 0.0, 1.0, 0.9, 1e-5]),
            ] {
                for (m, map) in maps(height, width).iter().enumerate() {
                    for threshold in thresholds {
                        let cut = Cut { from: [height, width], to: [rows, columns], compared, threshold };
                        let (line, taps) = (cut.line(), cut.taps());
                        let mut want = vec![0u64; rows * line];
                        for i in 0..rows * columns {
                            let (y, x) = (i / columns, i % columns);
                            let above = cut.decide(&taps, x, y, |i| compared.exact(map[i]));
                            want[y * line + x / 64] |= u64::from(above) << (x % 64);
                        }
                        for (pool, isa) in pools() {
                            let mut words = vec![u64::MAX; rows * line];
                            super::cut(&pool, isa, &cut, &mut [(map, &mut words)]);
                            assert!(
                                words == want,
                                "{isa} {height}x{width} to {rows}x{columns}, {compared:?} {m} {threshold}"
                            );
                        }
                    }
                }
            }
        }
    }
}
