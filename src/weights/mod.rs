//! A checkpoint on disk: its configuration, its mapped files, and the table of its tensors.
//!
//! ```text
//! config.json ──config_parse──► Config ──manifest──► expected names and shapes ─┐
//! *.safetensors ──mmap──► Blob ──header──► stored names, types, places ──layout─┴─► store::Checkpoint ──► HostTensor
//! ```
//!
//! Everything here reads untrusted files. Nothing panics, allocates more than a small multiple of what it was given, or
//! goes on with a guess: a tensor that is missing or does not fit is an error at opening, never a row of zeros.

mod config;
mod config_parse;
mod header;
mod json;
mod layout;
pub mod manifest;
mod mmap;
mod quote;
mod store;
mod tensor;

pub use config::*;
pub use mmap::Blob;
pub use store::{Checkpoint, Summary};
pub use tensor::{Dtype, HostTensor};
