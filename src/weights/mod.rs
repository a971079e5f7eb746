//! A checkpoint on disk: its configuration, its mapped files, and the table of its tensors.

mod config;
mod tensor;

pub use config::*;
pub use tensor::{Dtype, HostTensor};
