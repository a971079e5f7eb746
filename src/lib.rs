//! `sam3`: native inference for Meta's Segment Anything Model 3.
#![deny(unsafe_code)]

#[doc(hidden)]
pub mod cpu;
mod engine;
mod error;
#[cfg(feature = "capi")]
pub mod ffi;
pub mod image;
pub mod instance;
mod model;
#[doc(hidden)]
pub mod ops;
mod options;
mod prompt;
#[doc(hidden)]
pub mod reference;
mod segmentation;
pub mod text;
pub mod weights;

pub use engine::{CancelHandle, ImageEmbedding, Machine, Model, ModelInfo, Session};
pub use error::{Error, ErrorKind, Result};
pub use model::{Progress, Stage};
pub use options::{Device, ModelOptions, SegmentOptions};
pub use prompt::{Concept, ExemplarBox, LowResMask, MaskPrompt, Object, Point, Prompt};
pub use segmentation::{PromptAnswer, RawTensor, Segmentation, Timings};
