//! Resampling of one `f32` plane, as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` does it
//! on a CPU: with `antialias=True` for mask prompts that shrink to the model's size, without for probability maps that
//! grow to the picture's.
//!
//! The positions are computed in `f32`, in ATen's order of operations (`UpSample.h`, `UpSampleKernel.cpp`) and with its
//! fused multiplication and subtraction, because an `f32` position on a 1000-pixel axis is off by up to 6e-5 of a
//! pixel: other arithmetic, though it were better, would move every weight by that much and miss upstream by a hundred
//! times the 1e-6 that the tests allow.
//!
//! One difference is known. For an output one sample wide (and more than one high) torch 2.11 mistakes the memory
//! format of its intermediate and repeats one row all over; this resamples.

/// Resizes `[h, w]` to `[oh, ow]` with an antialiased triangle filter: `antialias=True`.
///
/// # Panics
///
/// If `src` does not hold `h * w` samples, or a size is zero.
pub fn resize_antialias_f32(src: &[f32], h: usize, w: usize, oh: usize, ow: usize) -> Vec<f32> {
    check(src, h, w, oh, ow);
    let horizontal = Filter::new(w, ow);
    let vertical = Filter::new(h, oh);

    // ATen resamples the last dimension first, then the one before it.
    let mut rows = vec![0.0; h * ow];
    for (row, out) in src.chunks_exact(w).zip(rows.chunks_exact_mut(ow)) {
        for (out, (first, weights)) in out.iter_mut().zip(horizontal.taps()) {
            *out = weights.iter().zip(&row[first..]).map(|(&weight, &v)| weight * v).sum();
        }
    }
    let mut out = vec![0.0; oh * ow];
    for (out, (first, weights)) in out.chunks_exact_mut(ow).zip(vertical.taps()) {
        for (&weight, row) in weights.iter().zip(rows[first * ow..].chunks_exact(ow)) {
            for (out, &v) in out.iter_mut().zip(row) {
                *out += weight * v;
            }
        }
    }
    out
}

/// Resizes `[h, w]` to `[oh, ow]` by interpolating between the four nearest samples: `antialias=False`.
///
/// # Panics
///
/// If `src` does not hold `h * w` samples, or a size is zero.
pub fn resize_bilinear_f32(src: &[f32], h: usize, w: usize, oh: usize, ow: usize) -> Vec<f32> {
    let mut rows = BilinearRows::new(src, h, w, oh, ow);
    let mut out = Vec::with_capacity(oh * ow);
    while let Some(row) = rows.next_row() {
        out.extend_from_slice(row);
    }
    out
}

/// [`resize_bilinear_f32`] one output row at a time, so that a map as large as the picture never needs to exist.
///
/// Holds two input rows resampled to the output's width and one output row; each input row is resampled once.
pub struct BilinearRows<'a> {
    src: &'a [f32],
    w: usize,
    across: Taps,
    down: Taps,
    /// Output rows made so far.
    made: usize,
    /// Input rows `near.0` and `far.0`, resampled to the output's width; `usize::MAX` while none is held.
    near: (usize, Vec<f32>),
    far: (usize, Vec<f32>),
    row: Vec<f32>,
}

impl<'a> BilinearRows<'a> {
    /// Prepares to resize `src`, `[h, w]`, to `[oh, ow]`.
    ///
    /// # Panics
    ///
    /// If `src` does not hold `h * w` samples, or a size is zero.
    pub fn new(src: &'a [f32], h: usize, w: usize, oh: usize, ow: usize) -> Self {
        check(src, h, w, oh, ow);
        Self {
            src,
            w,
            across: Taps::new(w, ow),
            down: Taps::new(h, oh),
            made: 0,
            near: (usize::MAX, vec![0.0; ow]),
            far: (usize::MAX, vec![0.0; ow]),
            row: vec![0.0; ow],
        }
    }

    /// The next output row, `ow` samples, or `None` after the last.
    pub fn next_row(&mut self) -> Option<&[f32]> {
        let y = self.made;
        if y == self.down.len() {
            return None;
        }
        self.made += 1;
        let (near, far) = (self.down.near[y] as usize, self.down.far[y] as usize);
        if self.far.0 == near {
            std::mem::swap(&mut self.near, &mut self.far);
        }
        for (index, held) in [(near, &mut self.near), (far, &mut self.far)] {
            if held.0 != index {
                let row = &self.src[index * self.w..][..self.w];
                for (x, out) in held.1.iter_mut().enumerate() {
                    let (near, far) = (self.across.near[x] as usize, self.across.far[x] as usize);
                    *out = self.across.blend(x, row[near], row[far]);
                }
                held.0 = index;
            }
        }
        for ((out, &near), &far) in self.row.iter_mut().zip(&self.near.1).zip(&self.far.1) {
            *out = self.down.blend(y, near, far);
        }
        Some(&self.row)
    }
}

fn check(src: &[f32], h: usize, w: usize, oh: usize, ow: usize) {
    assert_eq!(src.len(), h * w, "samples of a plane of {h}x{w}");
    assert!(h > 0 && w > 0 && oh > 0 && ow > 0, "resize from {h}x{w} to {oh}x{ow}");
}

/// The two input samples of each output sample along one axis, and their weights.
#[derive(Debug)]
pub struct Taps {
    /// The sample before the position, or at it.
    pub near: Vec<u32>,
    /// The one after it, the last sample where there is none.
    pub far: Vec<u32>,
    /// What `near` counts.
    pub near_weight: Vec<f32>,
    /// What `far` counts.
    pub far_weight: Vec<f32>,
}

impl Taps {
    /// `area_pixel_compute_source_index` and `guard_index_and_lambda` for every output sample.
    ///
    /// # Panics
    ///
    /// If a size is zero, or beyond `u32`.
    pub fn new(input: usize, output: usize) -> Self {
        assert!(input > 0 && output > 0, "resize from {input} to {output} samples");
        let last = u32::try_from(input - 1).expect("samples of a line");
        let scale = input as f32 / output as f32;
        let memory = || Vec::with_capacity(output);
        let mut taps = Self {
            near: Vec::with_capacity(output),
            far: Vec::with_capacity(output),
            near_weight: memory(),
            far_weight: memory(),
        };
        for i in 0..output {
            // One rounding, as in ATen's kernels for AVX2: without it the position moves by a unit in the last place.
            let position = scale.mul_add(i as f32 + 0.5, -0.5).max(0.0);
            let near = (position as u32).min(last);
            let far_weight = (position - near as f32).clamp(0.0, 1.0);
            // With equal sizes ATen copies; here that is a weight of zero.
            taps.near.push(near);
            taps.far.push((near + 1).min(last));
            taps.near_weight.push(1.0 - far_weight);
            taps.far_weight.push(far_weight);
        }
        taps
    }

    /// Output samples.
    pub fn len(&self) -> usize {
        self.near.len()
    }

    /// Output sample `i` from the input samples `near` and `far`.
    #[inline(always)]
    pub fn blend(&self, i: usize, near: f32, far: f32) -> f32 {
        near * self.near_weight[i] + far * self.far_weight[i]
    }
}

/// The triangle filter from `input` to `output` samples: `_compute_indices_min_size_weights_aa` at `f32`.
struct Filter {
    /// First input sample and number of weights of each output sample.
    spans: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Filter {
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f32 / output as f32;
        let support = scale.max(1.0);
        let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
        let most = support.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(output);
        let mut weights: Vec<f32> = Vec::new();
        for i in 0..output {
            let center = scale * (i as f32 + 0.5);
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(input as i64) as usize;
            let len = end.saturating_sub(first).min(most);
            let start = weights.len();
            weights.extend((0..len).map(|j| {
                let x = ((j + first) as f32 - center + 0.5) * inverse;
                (1.0 - x.abs()).max(0.0)
            }));
            let total: f32 = weights[start..].iter().sum();
            if total != 0.0 {
                weights[start..].iter_mut().for_each(|w| *w /= total);
            }
            spans.push((first, len));
        }
        Self { spans, weights }
    }

    /// First input sample and weights of each output sample, in order.
    fn taps(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let mut rest = self.weights.as_slice();
        self.spans.iter().map(move |&(first, len)| {
            let (weights, after) = rest.split_at(len);
            rest = after;
            (first, weights)
        })
    }
}
