//! What the engine answers with: instances, their masks, and the forms masks are handed on in.
//!
//! * [`Mask`] is the bitmap, one bit a pixel.
//! * [`rle`] writes and reads run lengths: COCO's, counted and compressed, and row-major `start length` pairs.
//! * [`polygon`] follows outlines exactly and simplifies them.
//! * [`draw`] paints instances over a picture; [`cutout`] cuts them out of it.
//!
//! This module imports nothing but the crate's error type, so that masks are usable without a model, and pictures come
//! in as plain RGB bytes, so that it takes part in no decision about decoding.

mod label;
mod mask;
mod stroke;

pub mod cutout;
pub mod draw;
pub mod polygon;
pub mod rle;

pub use mask::{MAX_PIXELS, MAX_SIDE, Mask, Runs};

/// One thing found in a picture. Its identity is its position in the answer: answers are ordered by falling score.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// How sure the model is, 0 to 1.
    pub score: f32,
    /// The model's box: `[x0, y0, x1, y1]` in pixels of the upright picture, edges not centres, so that
    /// `[0, 0, width, height]` is the whole picture. The mask's own tight box is [`Mask::bounding_box`].
    pub bbox: [f32; 4],
    /// The pixels, at the size of the upright picture.
    pub mask: Mask,
    /// Which of the request's prompts found it, counted from 0.
    pub prompt: usize,
}

impl Instance {
    /// Pixels of the mask.
    pub fn area(&self) -> u64 {
        self.mask.area()
    }
}
