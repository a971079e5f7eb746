//! Boxes of the decoder, `[n, 4]` as normalised cxcywh.

use std::f64::consts::TAU;

use super::buffer::Buffer;
use crate::error::Result;

/// Base of the sine embedding's wavelengths.
const TEMPERATURE: f64 = 10000.0;

/// Clamp of [`refine`]'s inverse sigmoid.
const EPSILON: f64 = 1e-3;

/// `Sam3SinePositionEmbedding.encode_boxes`
pub(super) fn sine(boxes: &Buffer, n: usize, features: usize, y: &mut Buffer) -> Result<()> {
    let boxes = boxes.rows(n, 4);
    let y = y.output(n * 4 * features)?;
    for r in 0..n {
        let [cx, cy, w, h] = cxcywh(boxes.row(r));
        for (block, t) in [cy, cx, w, h].into_iter().enumerate() {
            for i in 0..features {
                let angle = TAU * t / TEMPERATURE.powf((i / 2 * 2) as f64 / features as f64);
                let value = if i % 2 == 0 { angle.sin() } else { angle.cos() };
                y[(r * 4 + block) * features + i] = value as f32;
            }
        }
    }
    Ok(())
}

/// `Sam3DetrDecoder._get_rpb_matrix`, up to its MLPs.
pub(super) fn deltas(
    boxes: &Buffer,
    n: usize,
    height: usize,
    width: usize,
    dx: &mut Buffer,
    dy: &mut Buffer,
) -> Result<()> {
    let boxes = boxes.rows(n, 4);
    let dx = dx.output(n * width * 2)?;
    let dy = dy.output(n * height * 2)?;
    for r in 0..n {
        let [cx, cy, w, h] = cxcywh(boxes.row(r));
        for (edge, side) in [-0.5, 0.5].into_iter().enumerate() {
            for x in 0..width {
                dx[(r * width + x) * 2 + edge] = log_scaled(x as f64 / width as f64 - (cx + side * w)) as f32;
            }
            for y in 0..height {
                dy[(r * height + y) * 2 + edge] = log_scaled(y as f64 / height as f64 - (cy + side * h)) as f32;
            }
        }
    }
    Ok(())
}

/// `sign(d)·log2(|8d| + 1) / log2(8)`
fn log_scaled(d: f64) -> f64 {
    ((8.0 * d).abs() + 1.0).log2().copysign(d) / 3.0
}

/// One step of box refinement.
pub(super) fn refine(delta: &Buffer, boxes: &Buffer, n: usize, y: &mut Buffer) -> Result<()> {
    let delta = delta.slice(0, n * 4);
    let boxes = boxes.slice(0, n * 4);
    let y = y.output(n * 4)?;
    for i in 0..n * 4 {
        y[i] = sigmoid(f64::from(delta[i]) + inverse_sigmoid(f64::from(boxes[i]))) as f32;
    }
    Ok(())
}

/// `1 / (1 + exp(-x))`
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(max(x, ε) / max(1 - x, ε))` of `x` clamped to 0..1.
fn inverse_sigmoid(x: f64) -> f64 {
    // `clamp` keeps a NaN where `max` would hide it.
    let x = x.clamp(0.0, 1.0);
    (x.clamp(EPSILON, 1.0) / (1.0 - x).clamp(EPSILON, 1.0)).ln()
}

fn cxcywh(row: &[f32]) -> [f64; 4] {
    [row[0], row[1], row[2], row[3]].map(f64::from)
}
