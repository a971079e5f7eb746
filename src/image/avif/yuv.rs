//! Planes to RGB, as ITU-T H.273 section 8.3 defines them and libavif, which upstream reads AVIF with, rounds them.

use super::av1::{Frame, Layout, Row};
use super::container::Nclx;
use crate::error::{Error, ErrorKind, Result};

/// How three planes become red, green and blue.
enum Matrix {
    /// Planes are green, blue and red.
    Identity,
    /// Lossless luma and two differences, code point 8.
    YCgCo,
    /// By the weights of red and blue in luma.
    Weights { kr: f32, kb: f32 },
}

impl Matrix {
    fn new(code: u16) -> Result<Self> {
        let (kr, kb) = match code {
            0 => return Ok(Self::Identity),
            8 => return Ok(Self::YCgCo),
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            // 2 is "unspecified", which readers take as BT.601.
            2 | 5 | 6 => (0.299, 0.114),
            7 => (0.212, 0.087),
            9 => (0.2627, 0.0593),
            other => {
                let message = format!("expected matrix coefficients 0, 1, 2 or 4 to 9 (H.273, table 4), found {other}");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        Ok(Self::Weights { kr, kb })
    }

    /// Red, green and blue, 0 to 1, of luma 0 to 1 and chroma -0.5 to 0.5.
    fn rgb(&self, y: f32, u: f32, v: f32) -> [f32; 3] {
        match *self {
            Self::Identity => [v, y, u],
            Self::YCgCo => [y - u + v, y + u, y - u - v],
            Self::Weights { kr, kb } => {
                let r = y + 2.0 * (1.0 - kr) * v;
                let b = y + 2.0 * (1.0 - kb) * u;
                [r, (y - kr * r - kb * b) / (1.0 - kr - kb), b]
            }
        }
    }
}

/// Converts a picture into `rgb`, packed and of its size. The container's colour description outranks the bitstream's.
pub fn to_rgb(frame: &Frame, color: Option<Nclx>, rgb: &mut [u8]) -> Result<()> {
    let color = color.unwrap_or(frame.color());
    let matrix = Matrix::new(color.matrix)?;
    let levels = Levels::new(frame.depth(), color.full_range);
    if frame.layout() == Layout::I400 {
        for (y, out) in rgb.chunks_exact_mut(frame.width() * 3).enumerate() {
            frame.row(0, y).for_each(|x, v| out[3 * x..][..3].fill(byte(levels.luma(f32::from(v)))));
        }
        return Ok(());
    }
    if matches!(matrix, Matrix::Identity) && frame.layout() != Layout::I444 {
        let message = format!("expected 4:4:4 with the identity matrix, found {:?}", frame.layout());
        return Err(Error::new(ErrorKind::Unsupported, message));
    }

    let width = frame.width();
    let mut luma = vec![0.0; width];
    let mut chroma = [vec![0.0; width], vec![0.0; width]];
    let mut held = Vec::with_capacity(width);
    for (y, out) in rgb.chunks_exact_mut(width * 3).enumerate() {
        frame.row(0, y).for_each(|x, v| luma[x] = levels.luma(f32::from(v)));
        for (plane, out) in chroma.iter_mut().enumerate() {
            chroma_row(frame, plane + 1, y, &mut held, out);
            // With the identity matrix all three planes are coded as luma is.
            match matrix {
                Matrix::Identity => out.iter_mut().for_each(|v| *v = levels.luma(*v)),
                _ => out.iter_mut().for_each(|v| *v = levels.chroma(*v)),
            }
        }
        for (x, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *out = matrix.rgb(luma[x], chroma[0][x], chroma[1][x]).map(byte);
        }
    }
    Ok(())
}

/// Lays `rgb` over white by the alpha in `frame`'s luma plane.
pub fn over_white(frame: &Frame, color: Option<Nclx>, premultiplied: bool, rgb: &mut [u8]) {
    let levels = Levels::new(frame.depth(), color.unwrap_or(frame.color()).full_range);
    for (y, out) in rgb.chunks_exact_mut(frame.width() * 3).enumerate() {
        frame.row(0, y).for_each(|x, v| {
            let alpha = byte(levels.luma(f32::from(v)));
            for sample in &mut out[3 * x..][..3] {
                *sample = match premultiplied {
                    true => sample.saturating_add(255 - alpha),
                    false => crate::image::over_white(*sample, alpha),
                };
            }
        });
    }
}

/// Row `y` of a chroma plane at the picture's width. Halved planes are interpolated as if each sample lay in the
/// middle of the pixels it stands for: 3/4 of the nearer sample and 1/4 of the farther, per axis.
fn chroma_row(frame: &Frame, plane: usize, y: usize, held: &mut Vec<f32>, out: &mut [f32]) {
    let layout = frame.layout();
    if layout == Layout::I444 {
        return frame.row(plane, y).for_each(|x, v| out[x] = f32::from(v));
    }
    held.clear();
    if layout == Layout::I420 {
        let rows = frame.height().div_ceil(2);
        let (near, far) = (y / 2, neighbour(y, rows));
        held.resize(frame.width().div_ceil(2), 0.0);
        frame.row(plane, near).for_each(|x, v| held[x] = 0.75 * f32::from(v));
        frame.row(plane, far).for_each(|x, v| held[x] += 0.25 * f32::from(v));
    } else {
        held.resize(frame.width().div_ceil(2), 0.0);
        frame.row(plane, y).for_each(|x, v| held[x] = f32::from(v));
    }
    for (x, out) in out.iter_mut().enumerate() {
        *out = 0.75 * held[x / 2] + 0.25 * held[neighbour(x, held.len())];
    }
}

/// The second nearest of `len` samples of half the resolution to position `i`; the nearest is `i / 2`.
fn neighbour(i: usize, len: usize) -> usize {
    if i.is_multiple_of(2) { (i / 2).saturating_sub(1) } else { (i / 2 + 1).min(len - 1) }
}

/// Sample values to fractions (H.273, equations 21 to 28).
struct Levels {
    black: f32,
    luma: f32,
    middle: f32,
    chroma: f32,
}

impl Levels {
    fn new(depth: u32, full_range: bool) -> Self {
        let most = ((1u32 << depth) - 1) as f32;
        let unit = (1u32 << (depth - 8)) as f32;
        let middle = 128.0 * unit;
        match full_range {
            true => Self { black: 0.0, luma: 1.0 / most, middle, chroma: 1.0 / most },
            false => Self { black: 16.0 * unit, luma: 1.0 / (219.0 * unit), middle, chroma: 1.0 / (224.0 * unit) },
        }
    }

    fn luma(&self, v: f32) -> f32 {
        (v - self.black) * self.luma
    }

    fn chroma(&self, v: f32) -> f32 {
        (v - self.middle) * self.chroma
    }
}

/// A fraction to the nearest of 256 levels.
fn byte(v: f32) -> u8 {
    // The cast saturates below 0 and above 255.
    (v * 255.0 + 0.5) as u8
}

impl Row<'_> {
    /// Calls `f` with each sample and its place.
    fn for_each(self, mut f: impl FnMut(usize, u16)) {
        match self {
            Row::Eight(row) => row.iter().enumerate().for_each(|(x, &v)| f(x, v.into())),
            Row::Sixteen(row) => row.iter().enumerate().for_each(|(x, &v)| f(x, v)),
        }
    }
}
