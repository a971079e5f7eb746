//! Instances cut out of a picture: RGBA with straight alpha.
//!
//! Pixels that are fully transparent are black: what was cut away is gone from the file, and it compresses well.

use super::Mask;
use super::draw::check_pixels;
use crate::{Error, Result};

/// Pixels of 4 bytes, red, green, blue and straight (not premultiplied) alpha, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgba {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 4]`.
    pub pixels: Vec<u8>,
}

/// The masked pixels of `rgb`, opaque, at the size of the picture.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if `rgb` does not hold as many pixels of 3 bytes as the mask has pixels.
pub fn cutout(rgb: &[u8], mask: &Mask) -> Result<Rgba> {
    check_pixels(rgb, mask.width(), mask.height())?;
    let (width, height) = (mask.width(), mask.height());
    let mut pixels = vec![0; width * height * 4];
    for y in 0..height {
        for (x0, x1) in mask.runs(y) {
            let (from, to) = (y * width + x0, y * width + x1);
            let source = rgb[from * 3..to * 3].chunks_exact(3);
            for (out, colour) in pixels[from * 4..to * 4].chunks_exact_mut(4).zip(source) {
                out[..3].copy_from_slice(colour);
                out[3] = 255;
            }
        }
    }
    Ok(Rgba { width, height, pixels })
}

/// The same with soft edges: `alpha` is one byte a pixel, 0 cut away, 255 opaque.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if one of the buffers does not have the size of the picture.
pub fn cutout_soft(rgb: &[u8], width: usize, height: usize, alpha: &[u8]) -> Result<Rgba> {
    check_pixels(rgb, width, height)?;
    if alpha.len() != width * height {
        return Err(Error::invalid(format!(
            "expected {} bytes of alpha for {width} x {height} pixels, found {}",
            width * height,
            alpha.len()
        )));
    }
    let pixels = rgb.chunks_exact(3).zip(alpha).flat_map(|(p, &a)| if a == 0 { [0; 4] } else { [p[0], p[1], p[2], a] });
    Ok(Rgba { width, height, pixels: pixels.collect() })
}

impl Rgba {
    /// The part inside `bbox`, `[x0, y0, x1, y1]` in pixels, half open: of a mask's [`Mask::bounding_box`], all that is
    /// not cut away.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if the box is reversed or leaves the picture.
    pub fn crop(&self, bbox: [usize; 4]) -> Result<Rgba> {
        let [x0, y0, x1, y1] = bbox;
        if x0 > x1 || y0 > y1 || x1 > self.width || y1 > self.height {
            return Err(Error::invalid(format!(
                "expected a box inside {} x {} pixels, found {bbox:?}",
                self.width, self.height
            )));
        }
        let mut pixels = Vec::with_capacity((x1 - x0) * (y1 - y0) * 4);
        for y in y0..y1 {
            pixels.extend_from_slice(&self.pixels[(y * self.width + x0) * 4..(y * self.width + x1) * 4]);
        }
        Ok(Rgba { width: x1 - x0, height: y1 - y0, pixels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_and_crops() {
        let rgb: Vec<u8> = (1..=36).collect();
        let mask = Mask::from_fn(4, 3, |x, y| (1..3).contains(&x) && y == 1);
        let whole = cutout(&rgb, &mask).unwrap();
        assert_eq!(whole.pixels.len(), 48);
        assert_eq!(whole.pixels[..20], [0; 20]);
        let cropped = whole.crop(mask.bounding_box().unwrap()).unwrap();
        assert_eq!(cropped, Rgba { width: 2, height: 1, pixels: vec![16, 17, 18, 255, 19, 20, 21, 255] });
        let alpha: Vec<u8> = mask.to_u8().iter().map(|a| a / 2).collect();
        let soft = cutout_soft(&rgb, 4, 3, &alpha).unwrap().crop([1, 1, 3, 2]).unwrap();
        assert_eq!(soft.pixels, [16, 17, 18, 127, 19, 20, 21, 127]);
        assert!(whole.crop([2, 0, 1, 1]).is_err() && whole.crop([0, 0, 5, 1]).is_err());
        assert!(cutout(&rgb[1..], &mask).is_err() && cutout_soft(&rgb, 4, 3, &alpha[1..]).is_err());
    }
}
