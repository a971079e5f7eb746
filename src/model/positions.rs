//! Position tables made once on the host: rotary angles, sine embeddings, tiled embeddings, the click decoder's
//! Fourier features. All in f32, as upstream computes them.

use std::f32::consts::TAU;

/// Rotary angles of a `side × side` grid, `[side², head_dim]`: cosine and sine of each pair (`Sam3ViTRotaryEmbedding`).
///
/// The first half of a token's pairs turns with its column, the second with its row, both multiplied by `scale`; global
/// layers scale their grid to a window's (`precompute_positions`).
pub fn angles(side: usize, head_dim: usize, theta: f32, scale: f32) -> Vec<f32> {
    let quarter = head_dim / 4;
    let inv_freq: Vec<f32> = (0..quarter).map(|i| 1.0 / theta.powf((2 * i) as f32 / (head_dim / 2) as f32)).collect();
    let mut out = Vec::with_capacity(side * side * quarter * 4);
    for y in 0..side {
        for x in 0..side {
            for position in [x as f32 * scale, y as f32 * scale] {
                for f in &inv_freq {
                    out.extend([(position * f).cos(), (position * f).sin()]);
                }
            }
        }
    }
    out
}

/// `row`, heads of the width of `angles` one after the other, turned by each row of `angles` (`apply_rotary_pos_emb_2d`).
pub fn turns(row: &[f32], angles: &[f32], head_dim: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(angles.len() / head_dim * row.len());
    for angles in angles.chunks_exact(head_dim) {
        for head in row.chunks_exact(head_dim) {
            for (pair, angle) in head.as_chunks::<2>().0.iter().zip(angles.as_chunks::<2>().0) {
                let ([a, b], [cos, sin]) = (*pair, *angle);
                out.extend([a * cos - b * sin, b * cos + a * sin]);
            }
        }
    }
    out
}

/// Rows `[from², width]` repeated over a `to × to` grid, cut at its edge: position embeddings
/// (`_tile_position_embeddings`), the rotary angles of windows.
pub fn tile(rows: &[f32], from: usize, to: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(to * to * width);
    for y in 0..to {
        for x in 0..to {
            let row = (y % from) * from + x % from;
            out.extend_from_slice(&rows[row * width..][..width]);
        }
    }
    out
}

/// `10000^(2⌊i/2⌋ / features)` for each of `features` elements (`dim_t`).
fn wavelengths(features: usize) -> Vec<f32> {
    (0..features).map(|i| 10000f32.powf((2 * (i / 2)) as f32 / features as f32)).collect()
}

/// `sin` at even and `cos` at odd elements of `value / wavelength`.
fn sine(value: f32, wavelengths: &[f32], out: &mut Vec<f32>) {
    for (i, w) in wavelengths.iter().enumerate() {
        let angle = value / w;
        out.push(if i % 2 == 0 { angle.sin() } else { angle.cos() });
    }
}

/// Sine embedding of a `side × side` map, `[side², width]`: rows first, then columns, positions 1..=side scaled to
/// 0..2π (`build_sine_position_embedding` with `normalize`).
pub fn sine_map(side: usize, width: usize) -> Vec<f32> {
    let w = wavelengths(width / 2);
    let mut out = Vec::with_capacity(side * side * width);
    let scaled = |i: usize| (i + 1) as f32 / (side as f32 + 1e-6) * TAU;
    for y in 0..side {
        for x in 0..side {
            sine(scaled(y), &w, &mut out);
            sine(scaled(x), &w, &mut out);
        }
    }
    out
}

/// `(embedding of cy, of cx, h, w)` of a normalised cxcywh box, `width + 2` elements
/// (`_encode_box_coordinates`, `encode_1d_positions`).
pub fn sine_box([cx, cy, w, h]: [f32; 4], width: usize, out: &mut Vec<f32>) {
    let wl = wavelengths(width / 2);
    sine(cy * TAU, &wl, out);
    sine(cx * TAU, &wl, out);
    out.push(h);
    out.push(w);
}

/// Random Fourier features of a point in 0..1², `width` elements: sines of all frequencies, then cosines
/// (`Sam3TrackerPositionalEmbedding`). `gaussian` is `[2, width / 2]`.
pub fn fourier([x, y]: [f32; 2], gaussian: &[f32], out: &mut Vec<f32>) {
    let half = gaussian.len() / 2;
    let (x, y) = (2.0 * x - 1.0, 2.0 * y - 1.0);
    let angle = |i: usize| TAU * (x * gaussian[i] + y * gaussian[half + i]);
    out.extend((0..half).map(|i| angle(i).sin()));
    out.extend((0..half).map(|i| angle(i).cos()));
}

/// Fourier features of the centres of a `side × side` grid (`get_image_wide_positional_embeddings`).
pub fn fourier_map(side: usize, gaussian: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(side * side * gaussian.len());
    let centre = |i: usize| (i as f32 + 0.5) / side as f32;
    for y in 0..side {
        for x in 0..side {
            fourier([centre(x), centre(y)], gaussian, &mut out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_repeat_and_cut() {
        let t = tile(&[0.0, 1.0, 2.0, 3.0], 2, 3, 1);
        assert_eq!(t, [0.0, 1.0, 0.0, 2.0, 3.0, 2.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn rotary_table_turns_columns_first() {
        let table = angles(2, 8, 10000.0, 1.0);
        assert_eq!(table.len(), 4 * 8);
        let of = |a: f32| [a.cos(), a.sin()];
        // Token 1 is (x 1, y 0): the first two pairs turn by 1 and 1/100, the last two stand.
        assert_eq!(&table[8..16], [of(1.0), of(0.01), of(0.0), of(0.0)].as_flattened());
        // Token 2 is (x 0, y 1).
        assert_eq!(&table[16..24], [of(0.0), of(0.0), of(1.0), of(0.01)].as_flattened());
    }

    #[test]
    fn a_row_turns_by_each_angle() {
        // Two heads of one pair, by a quarter and by a half.
        let turned = turns(&[1.0, 2.0, 3.0, 4.0], &[0.0, 1.0, -1.0, 0.0], 2);
        assert_eq!(turned, [-2.0, 1.0, -4.0, 3.0, -1.0, -2.0, -3.0, -4.0]);
    }
}
