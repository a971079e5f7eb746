//! The picture that is measured when none is named: made up, the same on every machine, and as hard to decode as a
//! photograph of its size.

use sam3::Result;
use sam3::image::{FileFormat, ImageView, PixelFormat, encode};

/// Columns and rows: about a megapixel, what a web page shows large.
const SIZE: (usize, usize) = (1280, 853);
/// Discs in front of the background: centre and radius as shares of the picture's width, and colour.
const DISCS: [([f32; 3], [f32; 3]); 5] = [
    ([0.50, 0.30, 0.14], [214.0, 60.0, 48.0]),
    ([0.22, 0.42, 0.09], [52.0, 120.0, 200.0]),
    ([0.78, 0.20, 0.07], [240.0, 200.0, 70.0]),
    ([0.82, 0.50, 0.11], [60.0, 160.0, 90.0]),
    ([0.36, 0.12, 0.05], [150.0, 80.0, 170.0]),
];

/// The picture as a JPEG file.
pub fn jpeg() -> Result<Vec<u8>> {
    let (width, height) = SIZE;
    let mut pixels = Vec::with_capacity(width * height * 3);
    // Xorshift of Marsaglia, for the grain that makes a photograph's bytes.
    let mut state = 0x9e37_79b9u32;
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (x as f32 / width as f32, y as f32 / width as f32);
            let mut rgb = [90.0 + 90.0 * u, 110.0 + 70.0 * v, 160.0 - 60.0 * u * v];
            for ([cx, cy, radius], colour) in DISCS {
                if (u - cx).powi(2) + (v - cy).powi(2) < radius * radius {
                    rgb = colour.map(|c| c * (1.0 - 1.5 * (v - cy + radius)));
                }
            }
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let grain = (state >> 24) as f32 / 16.0 - 8.0;
            pixels.extend(rgb.map(|c| (c + grain).clamp(0.0, 255.0) as u8));
        }
    }
    encode(&ImageView::new(&pixels, width, height, width * 3, PixelFormat::Rgb8)?, FileFormat::Jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_a_readable_jpeg_and_always_the_same() {
        let bytes = jpeg().unwrap();
        let picture = sam3::image::Picture::decode(&bytes).unwrap();
        assert_eq!((picture.width(), picture.height()), SIZE);
        assert_eq!(bytes, jpeg().unwrap());
        // The red disc is where it was drawn, and the corner is background.
        let at = |x: usize, y: usize| &picture.pixels()[(y * SIZE.0 + x) * 3..][..3];
        let (disc, corner) = (at(640, 384), at(2, 2));
        assert!(disc[0] > 2 * disc[2] && corner[2] > corner[0], "{disc:?} {corner:?}");
    }
}
