//! SAM 3, written once over [`crate::ops::Ops`].
//!
//! Nothing here knows a device, a thread, a data type or an instruction set, and nothing here is `unsafe`. Each file is
//! one of upstream's modules, its steps in upstream's order and under upstream's names, with the place in
//! `transformers` 5.23 beside them (`modeling_sam3.py` unless another file is named), so that the two can be read side
//! by side. Shapes are token-major: a feature map `[h, w, c]` is `h·w` rows of `c`.
//!
//! A batch is one picture and one prompt. Upstream pads phrases and boxes to a common length and masks the padding out
//! everywhere; with a batch of one there is nothing to pad, so the same numbers come from shorter sequences and there
//! are no masks.

mod attention;
mod control;
mod decoder;
mod fusion;
mod geometry_encoder;
mod interactive;
mod load;
mod mask_head;
mod mlp;
mod neck;
mod positions;
mod sam3;
mod scratch;
mod text_encoder;
mod two_way;
mod vit;

pub use control::{Control, Progress, Stage};
pub use interactive::{ObjectAnswer, ObjectPrompt};
pub use sam3::{Exemplar, Grounding, ImageFeatures, Masks, Sam3, TextFeatures, Wanted, missing_part};
pub use scratch::Scratch;
