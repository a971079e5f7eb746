//! `sam3`: native inference for Meta's Segment Anything Model 3.
//!
//! A picture and text, examples, clicks, boxes or masks in; masks with scores and boxes out.
//!
//! ```
//! use sam3::image::Picture;
//! use sam3::{Model, ModelOptions, Prompt, SegmentOptions};
//!
//! # fn main() -> sam3::Result<()> {
//! # let (checkpoint, photo) = ("tests/fixtures/tiny-a", "assets/photos/chelsea.jpg");
//! let model = Model::open(checkpoint, &ModelOptions::default())?; // weights: mapped, shared by all threads
//! let mut session = model.session(); // scratch: one caller at a time
//! let picture = Picture::open(photo)?;
//! let image = session.encode(&picture.view())?; // the expensive part, once per picture
//! let cats = session.segment(&image, &[Prompt::text("cat")], &SegmentOptions::default())?;
//! for found in &cats.instances {
//!     println!("{:.2} {:?}, {} pixels", found.score, found.bbox, found.area());
//! }
//! let clicked = session.segment(&image, &[Prompt::point(220.0, 130.0)], &SegmentOptions::default())?;
//! assert_eq!(clicked.instances.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # How it is built
//!
//! ```text
//! bin → engine → model → ops ← { reference, cpu, cuda }  weights, image, text, instance, error: leaves
//! ```
//!
//! The model is written once, in `model/`, over a closed list of fused operations, the trait in `ops.rs`. Back ends
//! implement the list and know nothing of the model: `reference` by naive loops with f64 accumulation, which is the
//! definition, `cpu` by SIMD kernels on threads that the model owns, and `cuda` by the kernels of `kernels/` on NVIDIA
//! GPUs. [`weights`] maps checkpoints and holds the one table of all tensors, [`image`] decodes and resizes as upstream
//! does, [`text`] tokenises, [`instance`] holds masks and the forms they are handed on in. The engine above joins them:
//! [`Model`], [`Session`], [`ImageEmbedding`], [`Segmentation`].
//!
//! What is right is what the Python package `transformers` 5.23 computes (`models/sam3`, `models/sam3_tracker`);
//! `tests/golden.rs` compares every stage with it.
//!
//! # Untrusted input
//!
//! Checkpoints, configurations, tokenizers, pictures and prompts may come from strangers. Whatever they hold, calls end
//! with an answer or an [`Error`] that says what was expected and what was found, without a panic and without
//! allocations beyond the documented limits. One promise is asked in return: a checkpoint's files stay as they are
//! while a model has them mapped.
#![deny(unsafe_code)]

#[doc(hidden)]
pub mod cpu;
#[cfg(feature = "cuda")]
#[doc(hidden)]
pub mod cuda;
#[cfg(feature = "demo-model")]
pub mod demo;
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
#[cfg(feature = "serve")]
pub mod serve;
pub mod text;
pub mod weights;

pub use engine::{CancelHandle, Gpu, ImageEmbedding, Machine, Model, ModelInfo, PassedOver, Session};
pub use error::{Error, ErrorKind, Result};
pub use model::{Progress, Stage};
pub use options::{Device, ModelOptions, Precision, SegmentOptions};
pub use prompt::{Concept, ExemplarBox, LowResMask, MaskPrompt, Object, Point, Prompt};
pub use segmentation::{PromptAnswer, RawTensor, Segmentation, Timings};

/// The README's library example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
