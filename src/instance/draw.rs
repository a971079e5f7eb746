//! Instances painted over a picture.
//!
//! The outline is the exact ring of `polygon`, its pixel steps smoothed away, drawn as an antialiased line with a dark
//! casing; widths grow with the picture, so that an overlay looks the same whether 450 or 4000 pixels are shown in the
//! same space. Fills come first, then lines, then labels: no instance hides the outline of another.

use super::polygon::{Corner, trace};
use super::stroke::{Canvas, Field, Line, frame};
use super::{Mask, label};
use crate::{Error, Result};

/// Eight colours for instances, in the order they are handed out.
///
/// Saturated and mostly bright, because photographs are neither: they stand out as a tint as well as as a line. Blue and
/// orange were set; the others were searched for by the smallest difference between any two as seen with normal sight,
/// without red cones and without green cones. In CIELAB any two of the eight are at least 44 apart with normal sight and
/// 26 with either kind of colour blindness; of the first six, 50 and 30 (test `palette_tells_apart`).
pub const PALETTE: [[u8; 3]; 8] = [
    [0x1e, 0x90, 0xff],
    [0xff, 0x9f, 0x0a],
    [0x5e, 0xff, 0xe8],
    [0xe7, 0x00, 0x58],
    [0xff, 0xf5, 0x8c],
    [0x5c, 0x17, 0xff],
    [0xe8, 0xad, 0xff],
    [0xaa, 0x14, 0xa0],
];

/// The colour of instance `i`: the palette over and over.
pub fn colour(i: usize) -> [u8; 3] {
    PALETTE[i % PALETTE.len()]
}

/// One instance to paint.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its pixels, at the size of the picture.
    pub mask: &'a Mask,
    /// Its box, `[x0, y0, x1, y1]` in pixels; `None` paints none. Where a label goes, too.
    pub bbox: Option<[f32; 4]>,
    /// RGB.
    pub colour: [u8; 3],
    /// Written as a percentage where the style asks for labels.
    pub score: Option<f32>,
}

/// What is painted of each instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Opacity of the tint, 0 to 1.
    pub fill: f32,
    /// Whether outlines are drawn.
    pub contours: bool,
    /// Whether boxes are drawn.
    pub boxes: bool,
    /// Whether scores are written, at the top left corner of the box.
    pub labels: bool,
    /// Width of outlines, pixels; `None` chooses by the size of the picture ([`line_width`]).
    pub width: Option<f32>,
}

impl Default for Style {
    fn default() -> Self {
        Self { fill: 0.45, contours: true, boxes: false, labels: false, width: None }
    }
}

/// The width of outlines on a picture of this size: 1/400 of its longer side, but 2 pixels at least, for less is not
/// seen on a tint, and 24 at most.
pub fn line_width(width: usize, height: usize) -> f32 {
    (width.max(height) as f32 / 400.0).clamp(2.0, 24.0)
}

/// Paints `items` over `rgb`, row-major pixels of 3 bytes, in place. Later items lie above earlier ones.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if `rgb` does not hold `width * height` pixels, or a mask has another size.
pub fn overlay(rgb: &mut [u8], width: usize, height: usize, items: &[Item<'_>], style: Style) -> Result<()> {
    check_pixels(rgb, width, height)?;
    if let Some((i, item)) =
        items.iter().enumerate().find(|(_, t)| (t.mask.width(), t.mask.height()) != (width, height))
    {
        return Err(Error::invalid(format!(
            "mask {i}: expected the size of the picture, {width} x {height}, found {} x {}",
            item.mask.width(),
            item.mask.height()
        )));
    }
    let line = style.width.filter(|w| w.is_finite()).unwrap_or(line_width(width, height)).clamp(0.5, 64.0);
    let mut canvas = Canvas { rgb, width, height };
    if style.fill > 0.0 {
        items.iter().for_each(|item| tint(&mut canvas, item.mask, item.colour, style.fill.min(1.0)));
    }
    for item in items {
        let look = |width: f32| Line { colour: item.colour, width, casing: (width * 0.4).max(0.8) };
        if style.contours {
            outline(&mut canvas, item.mask, look(line));
        }
        if let (true, Some(bbox)) = (style.boxes, finite(item.bbox)) {
            frame(&mut canvas, bbox, look((line * 0.7).round().max(1.0)));
        }
    }
    for item in items {
        if let (true, Some(bbox), Some(score)) = (style.labels, finite(item.bbox), item.score) {
            label::percentage(&mut canvas, bbox, score, item.colour, line);
        }
    }
    Ok(())
}

/// A box all of whose sides are numbers; others are not drawn.
fn finite(bbox: Option<[f32; 4]>) -> Option<[f32; 4]> {
    bbox.filter(|b| b.iter().all(|v| v.is_finite()))
}

pub(super) fn check_pixels(rgb: &[u8], width: usize, height: usize) -> Result<()> {
    Mask::check_size(width, height)?;
    if rgb.len() != width * height * 3 {
        return Err(Error::invalid(format!(
            "expected {width} x {height} pixels of 3 bytes, {} in all, found {}",
            width * height * 3,
            rgb.len()
        )));
    }
    Ok(())
}

fn tint(canvas: &mut Canvas<'_>, mask: &Mask, colour: [u8; 3], alpha: f32) {
    // One table per channel: a photograph has millions of pixels, a byte 256 values.
    let tables = colour
        .map(|c| std::array::from_fn::<u8, 256, _>(|p| (p as f32 + (f32::from(c) - p as f32) * alpha + 0.5) as u8));
    for y in 0..mask.height() {
        for (x0, x1) in mask.runs(y) {
            let first = y * canvas.width;
            for pixel in canvas.rgb[(first + x0) * 3..(first + x1) * 3].chunks_exact_mut(3) {
                pixel.iter_mut().zip(&tables).for_each(|(p, table)| *p = table[usize::from(*p)]);
            }
        }
    }
}

fn outline(canvas: &mut Canvas<'_>, mask: &Mask, line: Line) {
    let Some(bounds) = mask.bounding_box() else { return };
    let mut field = Field::new(canvas, bounds.map(|v| v as f32), line);
    trace(mask, |ring| field.chain(&smooth(ring, line.width), true));
    field.draw(canvas, line);
}

/// The ring without its pixel steps: the middles of its unit edges, smoothed along the ring by about half the width of
/// the line, and no more of them than the line can show.
fn smooth(ring: &[Corner], width: f32) -> Vec<[f32; 2]> {
    let mut points = Vec::new();
    for (i, &[x, y]) in ring.iter().enumerate() {
        let [tx, ty] = ring[(i + 1) % ring.len()];
        let steps = (tx - x).abs() + (ty - y).abs();
        let (dx, dy) = ((tx - x).signum() as f32, (ty - y).signum() as f32);
        points.extend((0..steps).map(|s| [x as f32 + (s as f32 + 0.5) * dx, y as f32 + (s as f32 + 0.5) * dy]));
    }
    // A pass of (1 2 1)/4 has variance 1/2: n passes blur by sqrt(n / 2) pixels.
    let passes = (width * width / 2.0).clamp(2.0, 32.0) as usize;
    for _ in 0..passes {
        let (first, mut before) = (points[0], points[points.len() - 1]);
        for i in 0..points.len() {
            let after = points.get(i + 1).copied().unwrap_or(first);
            let here = points[i];
            points[i] = [0, 1].map(|k| (before[k] + 2.0 * here[k] + after[k]) / 4.0);
            before = here;
        }
    }
    let stride = ((width / 3.0) as usize).clamp(1, points.len().div_ceil(12));
    points.into_iter().step_by(stride).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paints_inside_and_nowhere_else() {
        let mask = Mask::from_fn(60, 40, |x, y| (20..40).contains(&x) && (10..30).contains(&y));
        let mut rgb = vec![100; 60 * 40 * 3];
        let item = Item { mask: &mask, bbox: None, colour: [255, 0, 0], score: None };
        overlay(&mut rgb, 60, 40, &[item], Style::default()).unwrap();
        let at = |x: usize, y: usize| &rgb[(y * 60 + x) * 3..][..3];
        assert_eq!(at(30, 20), [170, 55, 55]);
        assert_eq!(at(5, 5), [100; 3]);
        assert!(at(20, 20)[0] > 220 && at(20, 20)[1] < 40, "the outline: {:?}", at(20, 20));
    }

    /// CIELAB (D65) of an sRGB colour as seen through a matrix on linear RGB.
    fn lab(colour: [u8; 3], sight: &[[f64; 3]; 3]) -> [f64; 3] {
        let times = |m: &[[f64; 3]; 3], v: [f64; 3]| m.map(|row| row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
        let linear = colour.map(|c| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        let seen = times(sight, linear).map(|v| v.clamp(0.0, 1.0));
        let xyz = times(&[[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07218], [0.01933, 0.11919, 0.95030]], seen);
        let [x, y, z] = [xyz[0] / 0.95047, xyz[1], xyz[2] / 1.08883]
            .map(|t| if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 });
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    #[test]
    fn palette_tells_apart() {
        let normal = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        // Machado, Oliveira and Fernandes 2009, severity 1.
        let no_red =
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]];
        let no_green =
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]];
        for (name, sight, all, first_six) in [
            ("normal", normal, 44.0, 50.0),
            ("no red cones", no_red, 26.0, 30.0),
            ("no green cones", no_green, 26.0, 30.0),
        ] {
            let seen = PALETTE.map(|c| lab(c, &sight));
            for (j, b) in seen.iter().enumerate() {
                for (i, a) in seen[..j].iter().enumerate() {
                    let distance = a.iter().zip(b).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt();
                    let least = if j < 6 { first_six } else { all };
                    assert!(distance >= least, "{name}: colours {i} and {j} are only {distance:.1} apart");
                }
            }
        }
    }

    #[test]
    fn odd_boxes_and_sizes_do_no_harm() {
        let mask = Mask::from_fn(9, 7, |x, y| (x + y) % 2 == 0);
        let style = Style { boxes: true, labels: true, ..Style::default() };
        for bbox in [
            [0.0, 0.0, 9.0, 7.0],
            [-1e30, -1e30, 1e30, 1e30],
            [f32::NAN, 0.0, f32::INFINITY, 1.0],
            [8.0, 6.0, 1.0, 1.0],
            [500.0, 500.0, 600.0, 600.0],
            [4.0; 4],
        ] {
            for width in [None, Some(0.0), Some(1e9), Some(f32::NAN)] {
                for score in [0.0, 0.987, 1.0, f32::NAN, -3.0, 1e9] {
                    let item = Item { mask: &mask, bbox: Some(bbox), colour: colour(3), score: Some(score) };
                    overlay(&mut [0; 9 * 7 * 3], 9, 7, &[item], Style { width, ..style }).unwrap();
                }
            }
        }
        let empty = Mask::new(0, 0);
        let item = Item { mask: &empty, bbox: Some([0.0; 4]), colour: colour(0), score: Some(0.5) };
        overlay(&mut [], 0, 0, &[item], style).unwrap();
        assert!(overlay(&mut [0; 5], 9, 7, &[], style).is_err());
        assert!(overlay(&mut [0; 27], 3, 3, &[item], style).is_err());
    }
}
