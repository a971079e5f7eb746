//! Arithmetic on the decoder's few hundred boxes: plain code, and f64 where it costs nothing.

/// [`crate::ops::Ops::box_sine`]
pub fn sine(boxes: &[[f32; 4]], features: usize, y: &mut [f32]) {
    // The order of the blocks (cy, cx, w, h) among a box's (cx, cy, w, h).
    const BLOCKS: [usize; 4] = [1, 0, 2, 3];
    for (b, y) in boxes.iter().zip(y.chunks_exact_mut(4 * features)) {
        for (block, y) in BLOCKS.into_iter().zip(y.chunks_exact_mut(features)) {
            let t = f64::from(b[block]) * std::f64::consts::TAU;
            for (i, y) in y.iter_mut().enumerate() {
                let angle = t / 10_000f64.powf((i / 2 * 2) as f64 / features as f64);
                *y = if i % 2 == 0 { angle.sin() } else { angle.cos() } as f32;
            }
        }
    }
}

/// [`crate::ops::Ops::box_deltas`] of one axis: `to[boxes, lines, 2]` for boxes with centre `b[centre]` and extent
/// `b[centre + 2]`.
pub fn deltas(boxes: &[[f32; 4]], centre: usize, lines: usize, to: &mut [f32]) {
    for (b, to) in boxes.iter().zip(to.chunks_exact_mut(2 * lines)) {
        let (middle, half) = (b[centre], 0.5 * b[centre + 2]);
        for (i, to) in to.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let line = i as f32 / lines as f32;
            *to = [middle - half, middle + half].map(|edge| {
                let d = f64::from(line - edge) * 8.0;
                // log2(8) = 3.
                ((d.abs() + 1.0).log2() / 3.0 * d.signum()) as f32
            });
        }
    }
}

/// [`crate::ops::Ops::box_refine`]
pub fn refine(delta: &[f32], boxes: &[f32], y: &mut [f32]) {
    for ((y, &delta), &x) in y.iter_mut().zip(delta).zip(boxes) {
        let x = f64::from(x).clamp(0.0, 1.0);
        let logit = (x.max(1e-3) / (1.0 - x).max(1e-3)).ln();
        *y = (1.0 / (1.0 + (-(f64::from(delta) + logit)).exp())) as f32;
    }
}
