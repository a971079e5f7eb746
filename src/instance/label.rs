//! Scores on a picture: digits as strokes, so that no font is needed and every size is sharp.

use super::stroke::{Canvas, Field, Line, overlap};

/// Strokes of `0` to `9` and `%` on a grid 4 wide and 6 high, `y` down. Curves are given by few points and rounded
/// by [`rounded`].
const GLYPHS: [&[&[[f32; 2]]]; 11] = [
    &[&[[2.0, 0.0], [4.0, 0.0], [4.0, 3.0], [4.0, 6.0], [2.0, 6.0], [0.0, 6.0], [0.0, 3.0], [0.0, 0.0], [2.0, 0.0]]],
    &[&[[0.7, 1.4], [2.4, 0.0], [2.4, 0.0], [2.4, 6.0]]],
    &[&[[0.1, 1.8], [0.1, 0.0], [2.0, 0.0], [3.9, 0.0], [3.9, 1.8], [3.7, 3.0], [0.0, 6.0], [0.0, 6.0], [4.0, 6.0]]],
    &[
        &[[0.2, 1.0], [0.6, 0.0], [2.0, 0.0], [3.8, 0.0], [3.8, 1.5], [3.8, 2.8], [1.5, 2.8]],
        &[[1.5, 2.8], [4.0, 2.8], [4.0, 4.4], [4.0, 6.0], [2.0, 6.0], [0.4, 6.0], [0.0, 4.8]],
    ],
    &[&[[3.0, 6.0], [3.0, 0.0], [3.0, 0.0], [0.0, 4.4], [0.0, 4.4], [4.1, 4.4]]],
    &[&[
        [3.7, 0.0],
        [0.6, 0.0],
        [0.6, 0.0],
        [0.3, 2.8],
        [0.3, 2.8],
        [1.0, 2.1],
        [2.0, 2.1],
        [4.0, 2.1],
        [4.0, 4.1],
        [4.0, 6.0],
        [2.0, 6.0],
        [0.4, 6.0],
        [0.0, 5.0],
    ]],
    &[&[
        [3.5, 0.3],
        [1.4, 0.0],
        [0.0, 2.0],
        [0.0, 4.2],
        [0.0, 6.0],
        [2.0, 6.0],
        [4.0, 6.0],
        [4.0, 4.2],
        [4.0, 2.5],
        [2.0, 2.5],
        [0.3, 2.5],
        [0.1, 4.2],
    ]],
    &[&[[0.0, 0.0], [4.0, 0.0], [4.0, 0.0], [1.5, 6.0]]],
    &[
        &[[2.0, 2.8], [0.3, 2.8], [0.3, 1.4], [0.3, 0.0], [2.0, 0.0], [3.7, 0.0], [3.7, 1.4], [3.7, 2.8], [2.0, 2.8]],
        &[[2.0, 2.8], [4.0, 2.8], [4.0, 4.4], [4.0, 6.0], [2.0, 6.0], [0.0, 6.0], [0.0, 4.4], [0.0, 2.8], [2.0, 2.8]],
    ],
    &[&[
        [0.5, 5.7],
        [2.6, 6.0],
        [4.0, 4.0],
        [4.0, 1.8],
        [4.0, 0.0],
        [2.0, 0.0],
        [0.0, 0.0],
        [0.0, 1.8],
        [0.0, 3.5],
        [2.0, 3.5],
        [3.7, 3.5],
        [3.9, 1.8],
    ]],
    &[
        &[[4.3, 0.0], [0.3, 6.0]],
        &[[0.8, 0.0], [1.6, 0.0], [1.6, 1.1], [1.6, 2.2], [0.8, 2.2], [0.0, 2.2], [0.0, 1.1], [0.0, 0.0], [0.8, 0.0]],
        &[[3.8, 3.8], [4.6, 3.8], [4.6, 4.9], [4.6, 6.0], [3.8, 6.0], [3.0, 6.0], [3.0, 4.9], [3.0, 3.8], [3.8, 3.8]],
    ],
];

/// Writes `score` (0 to 1; others are cut, no number is not written) as `97%` on a plate of `colour` that stands on the
/// top left corner of `bbox`, or inside it where the picture ends above. `line` is the width of outlines.
pub(super) fn percentage(canvas: &mut Canvas<'_>, bbox: [f32; 4], score: f32, colour: [u8; 3], line: f32) {
    if score.is_nan() {
        return;
    }
    // Below 100 % unless it is exactly that: 99.6 % is not certainty.
    let percent = (score.clamp(0.0, 1.0) * 100.0).floor() as usize;
    let text: Vec<usize> = percent.to_string().bytes().map(|b| usize::from(b - b'0')).chain([10]).collect();
    // Cell of the grid: digits come out 10 pixels high at the thinnest line, 11 times its width at thicker ones.
    let unit = (line * 0.85).max(1.55);
    let (margin, advance) = (unit * 2.1, unit * 5.6);
    let width = advance * (text.len() - 1) as f32 + unit * 4.6 + 2.0 * margin;
    let height = unit * 6.0 + 2.0 * margin;
    // Flush with the outer edge of the frame, whose line has 0.7 of the width.
    let border = (line * 0.7).round().max(1.0);
    let left = (bbox[0] - border).round().min(canvas.width as f32 - width).max(0.0);
    let top = (bbox[1] - border - height).round();
    let top = if top < 0.0 { bbox[1].max(0.0).round() } else { top }.min((canvas.height as f32 - height).max(0.0));
    plate(canvas, [left, top, left + width, top + height], colour);

    let ink = Line { colour: ink_on(colour), width: unit * 0.95, casing: 0.0 };
    let mut field = Field::new(canvas, [left, top, left + width, top + height], ink);
    for (i, &glyph) in text.iter().enumerate() {
        let (x, y) = (left + margin + advance * i as f32, top + margin);
        for stroke in GLYPHS[glyph] {
            let points: Vec<_> = rounded(stroke).into_iter().map(|[u, v]| [x + u * unit, y + v * unit]).collect();
            field.chain(&points, false);
        }
    }
    field.draw(canvas, ink);
}

/// Black or white, whichever contrasts more with `colour` (relative luminance of WCAG 2, threshold where both are
/// equal: sqrt(1.05 * 0.05) - 0.05).
fn ink_on(colour: [u8; 3]) -> [u8; 3] {
    let linear = colour.map(|c| (f32::from(c) / 255.0).powf(2.2));
    let luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    if luminance > 0.179 { [0x10; 3] } else { [0xff; 3] }
}

fn plate(canvas: &mut Canvas<'_>, [x0, y0, x1, y1]: [f32; 4], colour: [u8; 3]) {
    for y in y0.max(0.0) as usize..(y1.ceil().max(0.0) as usize).min(canvas.height) {
        for x in x0.max(0.0) as usize..(x1.ceil().max(0.0) as usize).min(canvas.width) {
            canvas.blend(x, y, colour, overlap(x, x0, x1) * overlap(y, y0, y1));
        }
    }
}

/// Rounds a stroke: a quadratic B-spline through the middles of its sides, from its first to its last point. A point
/// given twice stays a corner.
fn rounded(points: &[[f32; 2]]) -> Vec<[f32; 2]> {
    const PIECES: usize = 6;
    let middle = |a: [f32; 2], b: [f32; 2]| [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
    let mut out = vec![points[0]];
    for i in 1..points.len().saturating_sub(1) {
        let from = if i == 1 { points[0] } else { middle(points[i - 1], points[i]) };
        let to = if i + 2 == points.len() { points[i + 1] } else { middle(points[i], points[i + 1]) };
        out.extend((1..=PIECES).map(|s| {
            let t = s as f32 / PIECES as f32;
            [0, 1].map(|k| (1.0 - t).powi(2) * from[k] + 2.0 * t * (1.0 - t) * points[i][k] + t * t * to[k])
        }));
    }
    if let [.., last] = points
        && points.len() == 2
    {
        out.push(*last);
    }
    out
}
