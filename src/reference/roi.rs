//! RoI align as `torchvision.ops.roi_align` computes it with `aligned=False` and `sampling_ratio=-1`
//! ([roi_align_common.h](https://github.com/pytorch/vision/blob/v0.21.0/torchvision/csrc/ops/cpu/roi_align_common.h)).

use super::buffer::{Buffer, Rows};
use crate::error::Result;

pub(super) fn roi_align(
    x: &Buffer,
    h: usize,
    w: usize,
    c: usize,
    boxes: &[[f32; 4]],
    size: usize,
    y: &mut Buffer,
) -> Result<()> {
    assert!(size > 0, "a pooled box has a size");
    let x = x.rows(h * w, c);
    let y = y.output(boxes.len() * c * size * size)?;
    for (n, &[x0, y0, x1, y1]) in boxes.iter().enumerate() {
        assert!([x0, y0, x1, y1].iter().all(|v| v.is_finite()), "box {n} is not finite");
        let down = Bins::new(y0, y1, size);
        let across = Bins::new(x0, x1, size);
        for i in 0..size {
            for j in 0..size {
                let mut sums = vec![0.0; c];
                for sy in down.samples(i) {
                    for sx in across.samples(j) {
                        accumulate(&x, sample(sy, h), sample(sx, w), w, &mut sums);
                    }
                }
                let count = (down.grid * across.grid) as f64;
                for channel in 0..c {
                    y[((n * c + channel) * size + i) * size + j] = (sums[channel] / count) as f32;
                }
            }
        }
    }
    Ok(())
}

/// One axis of a box, cut into equal bins.
///
/// Positions are computed in f32 in upstream's order, since a number of samples and an "outside" hang on them: in exact
/// arithmetic a box could take another sample than upstream's.
struct Bins {
    start: f32,
    bin: f32,
    /// Samples per bin, `⌈bin⌉`.
    grid: usize,
}

impl Bins {
    fn new(start: f32, end: f32, size: usize) -> Self {
        // Boxes below one grid cell, also reversed ones, are grown to one.
        let extent = (end - start).max(1.0);
        let bin = extent / size as f32;
        Self { start, bin, grid: bin.ceil() as usize }
    }

    /// Centres of the samples of bin `i`.
    fn samples(&self, i: usize) -> impl Iterator<Item = f32> {
        (0..self.grid).map(move |s| self.start + i as f32 * self.bin + (s as f32 + 0.5) * self.bin / self.grid as f32)
    }
}

/// The two lines of an axis of `len` that a position lies between, with their weights; `None` if more than a line
/// outside, which counts as zero.
fn sample(position: f32, len: usize) -> Option<[(usize, f64); 2]> {
    if position < -1.0 || position > len as f32 {
        return None;
    }
    let position = f64::from(position).max(0.0);
    let low = position as usize;
    if low + 1 >= len {
        return Some([(len - 1, 1.0), (len - 1, 0.0)]);
    }
    let part = position - low as f64;
    Some([(low, 1.0 - part), (low + 1, part)])
}

/// Adds the bilinear sample to every channel's sum.
fn accumulate(
    x: &Rows<'_>,
    down: Option<[(usize, f64); 2]>,
    across: Option<[(usize, f64); 2]>,
    w: usize,
    sums: &mut [f64],
) {
    let (Some(down), Some(across)) = (down, across) else { return };
    for (row, a) in down {
        for (column, b) in across {
            let pixel = x.row(row * w + column);
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += a * b * f64::from(value);
            }
        }
    }
}
