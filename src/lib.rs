//! `sam3`: native inference for Meta's Segment Anything Model 3.
#![deny(unsafe_code)]

pub mod cpu;
mod error;
pub mod image;
pub mod instance;
pub mod ops;
pub mod reference;
pub mod text;
pub mod weights;

pub use error::{Error, ErrorKind, Result};
