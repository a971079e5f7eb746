//! A picture of any size becomes the model's square input, bit for bit as upstream does it.
//!
//! Upstream is `Sam3ImageProcessor` of transformers 5.23 (`TorchvisionBackend`): `torchvision.transforms.v2` resizes a
//! contiguous `uint8` tensor `[1, 3, h, w]` with `bilinear, antialias=True`, then rescale and normalisation are fused
//! into one `(v - 127.5) / 127.5` in `f32`.
//!
//! On a CPU with AVX2 that resize ends in ATen's `upsample_avx_bilinear_bicubic_uint8` (`UpSampleKernelAVXAntialias.h`;
//! weights in `UpSampleKernel.cpp`, `_compute_index_ranges_int16_weights`), which follows Pillow's `Resample.c`:
//! a horizontal pass, rounding to `u8`, then a vertical pass, both with 16-bit fixed-point weights of one precision
//! per axis. All of that is integer arithmetic, so its order does not matter and equality is exact. On CPUs without
//! AVX2, and on GPUs, torchvision goes through `f32` instead and differs from itself by one level here and there; we
//! take the AVX2 result as the definition on every machine.
//!
//! The resampler is written by hand rather than taken from a crate for three reasons: it must be equal to upstream's
//! and stay so, it reads strided and swizzled views without a copy, and it streams. One input row is resampled
//! horizontally, added to the output rows it touches (their sums are exact in `i32`), and forgotten, so that scratch
//! memory stays below `side * side * 12` bytes even for a picture of one by a hundred million pixels.

use std::collections::VecDeque;

use super::ImageView;

/// `NORMALISED[v]` is what the model sees for the sample `v`.
pub const NORMALISED: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut v = 0;
    while v < 256 {
        // Mean 0.5 and deviation 0.5, both multiplied by 1 / rescale_factor = 255; subtraction and division in `f32`
        // as `torchvision.transforms.v2.functional.normalize` does them.
        table[v] = (v as f32 - 127.5) / 127.5;
        v += 1;
    }
    table
};

/// The model's input value for one sample: `(v - 127.5) / 127.5`, equal to upstream's for every `v`.
pub fn normalise(v: u8) -> f32 {
    NORMALISED[usize::from(v)]
}

/// Squashes a picture to `[side, side, 3]` RGB samples, without regard to its aspect ratio; grey is repeated in the
/// three channels and transparency laid over white first.
pub fn resize(view: &ImageView<'_>, side: usize) -> Vec<u8> {
    if side == 0 {
        return Vec::new();
    }
    let horizontal = Axis::new(view.width(), side);
    let vertical = Axis::new(view.height(), side);
    let row_len = side * 3;
    let mut out = Vec::with_capacity(side * row_len);

    let mut scratch = Vec::new();
    let mut row = vec![0u8; row_len];
    // Sums of the output rows that have begun and not ended, the first of them row `out.len() / row_len`.
    let mut open: VecDeque<Vec<i32>> = VecDeque::new();
    let mut spare: Vec<Vec<i32>> = Vec::new();
    let mut done = 0;

    for y in 0..view.height() {
        horizontal.apply(view.rgb_row(y, &mut scratch), &mut row);
        // Windows begin and end in order, so the rows open at `y` are a run that starts at `done`.
        for oy in done..side {
            let span = &vertical.spans[oy];
            if span.first > y {
                break;
            }
            if oy - done == open.len() {
                let mut sums = spare.pop().unwrap_or_else(|| vec![0; row_len]);
                sums.fill(vertical.rounding());
                open.push_back(sums);
            }
            let Some(&weight) = vertical.weights_of(span).get(y - span.first) else { continue };
            add_row(&mut open[oy - done], &row, weight);
        }
        while done < side && vertical.spans[done].end() == y + 1 {
            let Some(sums) = open.pop_front() else { break };
            out.extend(sums.iter().map(|&sum| vertical.round(sum)));
            spare.push(sums);
            done += 1;
        }
    }
    debug_assert_eq!(done, side);
    out
}

/// `sums[i] += weight * row[i]`
fn add_row(sums: &mut [i32], row: &[u8], weight: i16) {
    let weight = i32::from(weight);
    for (sum, &v) in sums.iter_mut().zip(row) {
        // Both factors fit 16 bits, which lets the compiler multiply 8 at a time on any x86-64.
        *sum += weight * i32::from(i16::from(v));
    }
}

/// The input samples of one output sample, and where their weights are.
pub struct Span {
    /// First input sample.
    pub first: usize,
    /// Input samples.
    pub len: usize,
    /// First of as many of [`Axis::weights`].
    pub weights: usize,
}

impl Span {
    fn end(&self) -> usize {
        self.first + self.len
    }
}

/// The triangle filter from `input` to `output` samples in fixed point.
pub struct Axis {
    /// One for each output sample, in order.
    pub spans: Vec<Span>,
    /// Of all spans, one behind the other.
    pub weights: Vec<i16>,
    /// Bits after the point: as many as leave the largest weight below `2^15`, at most 22.
    pub precision: u32,
}

impl Axis {
    /// From `input` to `output` samples.
    pub fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        // Half the filter's width: one input sample when enlarging, one output sample when reducing.
        let support = scale.max(1.0);
        let inverse = 1.0 / support;
        let most = support.ceil() as usize * 2 + 1;

        let mut taps = Vec::with_capacity(most);
        // The normalised weights of output sample `i` into `taps`; returns the first input sample.
        let fill = |i: usize, taps: &mut Vec<f64>| -> usize {
            let center = scale * (i as f64 + 0.5);
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(input as i64) as usize;
            let len = end.saturating_sub(first).min(most);
            taps.clear();
            taps.extend((0..len).map(|j| {
                let x = ((j + first) as f64 - center + 0.5) * inverse;
                (1.0 - x.abs()).max(0.0)
            }));
            let total: f64 = taps.iter().sum();
            if total != 0.0 {
                taps.iter_mut().for_each(|w| *w /= total);
            }
            first
        };

        let mut largest = 0.0f64;
        for i in 0..output {
            fill(i, &mut taps);
            largest = taps.iter().copied().fold(largest, f64::max);
        }
        let fits = |bits: u32| ((0.5 + largest * f64::from(1u32 << (bits + 1))) as i32) < 1 << 15;
        let precision = (0..22).find(|&bits| !fits(bits)).unwrap_or(22);

        let one = f64::from(1u32 << precision);
        let mut spans = Vec::with_capacity(output);
        let mut weights = Vec::new();
        for i in 0..output {
            let first = fill(i, &mut taps);
            spans.push(Span { first, len: taps.len(), weights: weights.len() });
            weights.extend(taps.iter().map(|&w| (0.5 + w * one) as i16));
        }
        Self { spans, weights, precision }
    }

    fn weights_of(&self, span: &Span) -> &[i16] {
        &self.weights[span.weights..][..span.len]
    }

    /// What a sum starts at, so that the shift at its end rounds to nearest.
    fn rounding(&self) -> i32 {
        1 << self.precision >> 1
    }

    fn round(&self, sum: i32) -> u8 {
        (sum >> self.precision).clamp(0, 255) as u8
    }

    /// Resamples one row of RGB.
    fn apply(&self, row: &[u8], out: &mut [u8]) {
        if row.len() == out.len() {
            // Equal sizes: every weight but the middle one is zero.
            out.copy_from_slice(row);
            return;
        }
        let pixels = row.as_chunks::<3>().0;
        for (span, out) in self.spans.iter().zip(out.as_chunks_mut::<3>().0) {
            let mut sums = [self.rounding(); 3];
            for (pixel, &weight) in pixels[span.first..span.end()].iter().zip(self.weights_of(span)) {
                for c in 0..3 {
                    sums[c] += i32::from(weight) * i32::from(pixel[c]);
                }
            }
            *out = sums.map(|sum| self.round(sum));
        }
    }
}
