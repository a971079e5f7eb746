//! What a caller chooses: device, threads, thresholds.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Where the model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The fastest device this build and this machine have.
    #[default]
    Auto,
    /// SIMD kernels on all cores.
    Cpu,
    /// NVIDIA GPU of this index.
    Cuda(usize),
    /// Plain loops with f64 accumulation, thousands of times slower: the definition the others are checked against.
    Reference,
}

impl FromStr for Device {
    type Err = Error;

    /// `auto`, `cpu`, `cuda`, `cuda:N` or `reference`.
    fn from_str(s: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("device: expected auto, cpu, cuda, cuda:N or reference, found {s:?}"));
        match s {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            "reference" => Ok(Device::Reference),
            _ => {
                let index = s.strip_prefix("cuda:").ok_or_else(wrong)?;
                index.parse().map(Device::Cuda).map_err(|_| wrong())
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(i) => write!(f, "cuda:{i}"),
            Device::Reference => f.write_str("reference"),
        }
    }
}

/// What matrices and the operands of products are rounded to. Sums are f32 everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// As the device likes it best: f32 on a CPU; on a GPU bf16, or what the environment variable `SAM3_PRECISION` names,
    /// `bf16` or `f32`.
    #[default]
    Auto,
    /// 32-bit floats throughout. Every device has it; GPUs are several times slower with it.
    F32,
    /// Brain floats of 16 bits, for the matrix units of GPUs.
    Bf16,
}

/// How a model is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ModelOptions {
    /// Where it runs.
    pub device: Device,
    /// Threads of the CPU back end; `None` is one per physical core. The pool belongs to the model.
    pub threads: Option<usize>,
    /// Instruction set of the CPU kernels, by a name of [`crate::Machine::isas`]; `None` is the best there is, or what
    /// the environment variable `SAM3_ISA` names.
    pub isa: Option<String>,
    /// What it computes in. One that the device does not have makes opening fail with `Unsupported`.
    pub precision: Precision,
}

impl ModelOptions {
    /// Defaults on `device`.
    pub fn on(device: Device) -> Self {
        Self { device, ..Self::default() }
    }

    /// Sets the number of threads.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets the instruction set of the CPU kernels.
    #[must_use]
    pub fn isa(mut self, name: impl Into<String>) -> Self {
        self.isa = Some(name.into());
        self
    }

    /// Sets what it computes in.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }
}

/// What a segmentation returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SegmentOptions {
    /// Concept instances scored above this are kept; 0..=1, 0.5 by default. Objects are asked for by place, so they
    /// are always kept.
    pub threshold: f32,
    /// A pixel belongs to a mask above this probability; 0..=1, 0.5 by default.
    pub mask_threshold: f32,
    /// At most so many instances, the best; `None` keeps all.
    pub max_masks: Option<usize>,
    /// Whether an object prompt returns the ambiguity output (three masks) instead of one mask.
    pub multimask: bool,
    /// Whether concept prompts also return the semantic mask: every pixel that belongs to the concept.
    pub semantic: bool,
    /// Whether the raw tensors of upstream's outputs are returned, for all queries.
    pub raw: bool,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self { threshold: 0.5, mask_threshold: 0.5, max_masks: None, multimask: false, semantic: false, raw: false }
    }
}

impl SegmentOptions {
    /// Checks that the thresholds are probabilities and that `max_masks` is not zero.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, value) in [("threshold", self.threshold), ("mask_threshold", self.mask_threshold)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid(format!("{name}: expected a number within 0..=1, found {value}")));
            }
        }
        if self.max_masks == Some(0) {
            return Err(Error::invalid("max_masks: expected at least 1, found 0"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse_and_print() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3", "reference"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }

    #[test]
    fn thresholds_are_probabilities() {
        for bad in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
            assert!(SegmentOptions { threshold: bad, ..Default::default() }.check().is_err());
            assert!(SegmentOptions { mask_threshold: bad, ..Default::default() }.check().is_err());
        }
        assert!(SegmentOptions { max_masks: Some(0), ..Default::default() }.check().is_err());
        assert!(SegmentOptions { threshold: 0.0, mask_threshold: 1.0, ..Default::default() }.check().is_ok());
    }
}
