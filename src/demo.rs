//! The demo model: a small SAM 3 that is part of the program (feature `demo-model`), so that it answers without a
//! download.
//!
//! It is the published architecture with fewer and narrower layers, trained from nothing on composed pictures by
//! `tools/demo-model`, and loaded by the same code as any checkpoint. Its configuration says what it is good for
//! ([`crate::weights::Config::origin`]). Written to files, [`CONFIG`] and [`weights`] load in `transformers` as well.

use crate::engine::Model;
use crate::error::Result;
use crate::options::ModelOptions;

/// The text of `config.json`.
pub const CONFIG: &str = include_str!("../assets/demo/config.json");

/// The bytes on a cache line: tensors begin at multiples of 8 bytes of the file, so that they can be read in place.
static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../assets/demo/model.safetensors"));

#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

/// The bytes of `model.safetensors`. Its tokenizer is CLIP's, cut to the configured size.
pub fn weights() -> &'static [u8] {
    &WEIGHTS.0
}

impl Model {
    /// The small model that is part of this build. It knows drawn shapes in plain colours, and nothing of photographs;
    /// see [`crate::demo`].
    ///
    /// # Errors
    ///
    /// Those of the device asked for.
    pub fn demo(options: &ModelOptions) -> Result<Self> {
        Self::from_memory(CONFIG, weights(), None, options)
    }
}
