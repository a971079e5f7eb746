//! A checkpoint on disk: its configuration, its mapped files, and the table of its tensors.

mod config;

pub use config::*;
