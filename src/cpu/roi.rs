//! RoI align.

use super::pool::Pool;

/// Channels summed at a time.
const CHANNELS: usize = 64;

/// [`crate::ops::Ops::roi_align`]: `torchvision.ops.roi_align` with `aligned=False`, `sampling_ratio=-1`.
///
/// A box, at least 1 × 1, is cut into `size × size` bins; each averages a grid of `⌈side / size⌉` bilinear samples in
/// each direction.
pub fn roi_align(
    pool: &Pool,
    x: &[f32],
    (h, w, c): (usize, usize, usize),
    boxes: &[[f32; 4]],
    size: usize,
    y: &mut [f32],
) {
    pool.for_each(y.chunks_mut(c * size * size).zip(boxes), |(y, &[x0, y0, x1, y1])| {
        let (bin_h, bin_w) = ((y1 - y0).max(1.0) / size as f32, (x1 - x0).max(1.0) / size as f32);
        // A bin of side b takes ⌈b⌉ samples; `as` saturates, NaN becomes 0 and yields zeros.
        let (rows, columns) = (bin_h.ceil() as usize, bin_w.ceil() as usize);
        for (bin, first) in (0..size * size).flat_map(|bin| (0..c).step_by(CHANNELS).map(move |first| (bin, first))) {
            let mut sums = [0.0f64; CHANNELS];
            let sums = &mut sums[..CHANNELS.min(c - first)];
            for iy in 0..rows {
                let sy = y0 + (bin / size) as f32 * bin_h + (iy as f32 + 0.5) * bin_h / rows as f32;
                let Some(sy) = sample(sy, h) else { continue };
                for ix in 0..columns {
                    let sx = x0 + (bin % size) as f32 * bin_w + (ix as f32 + 0.5) * bin_w / columns as f32;
                    let Some(sx) = sample(sx, w) else { continue };
                    for (row, wy) in sy {
                        for (column, wx) in sx {
                            let weight = f64::from(wy * wx);
                            let pixel = &x[(row * w + column) * c + first..][..sums.len()];
                            sums.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += weight * f64::from(v));
                        }
                    }
                }
            }
            let count = (rows * columns).max(1) as f64;
            for (channel, sum) in (first..).zip(sums) {
                y[channel * size * size + bin] = (*sum / count) as f32;
            }
        }
    });
}

/// The two neighbours of a coordinate among `len` and their weights; `None` where upstream samples zero.
fn sample(at: f32, len: usize) -> Option<[(usize, f32); 2]> {
    if !(-1.0..=len as f32).contains(&at) {
        return None;
    }
    let at = at.max(0.0);
    let low = at as usize;
    if low + 1 >= len {
        return Some([(len - 1, 1.0), (len - 1, 0.0)]);
    }
    let high = at - low as f32;
    Some([(low, 1.0 - high), (low + 1, high)])
}
