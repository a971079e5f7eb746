//! How a model is opened, and what a segmentation returns: objects with setters, so that options can be added.

use std::ffi::{c_char, c_void};
use std::sync::{Mutex, PoisonError};

use super::boundary::{call, give, given, handle_out, optional_text, release};
use super::devices::{SAM3_DEVICE_AUTO, SAM3_DEVICE_CPU, SAM3_DEVICE_CUDA, SAM3_DEVICE_REFERENCE};
use super::error::sam3_error;
use super::log::{Log, SAM3_LOG_DEBUG, sam3_log_fn};
use crate::{Device, Error, ModelOptions, Precision, Result, SegmentOptions};

/// Numbers as the device likes them best: 32-bit floats on a CPU, the 16-bit ones of its matrix units on a GPU.
pub const SAM3_PRECISION_AUTO: u32 = 0;
/// 32-bit floats throughout.
pub const SAM3_PRECISION_F32: u32 = 1;
/// Brain floats of 16 bits between layers, sums in 32 bits.
pub const SAM3_PRECISION_BF16: u32 = 2;

/// How a model is opened. Any thread; a model keeps a copy.
pub struct sam3_model_options(Mutex<(ModelOptions, Log)>);

impl sam3_model_options {
    pub(super) fn read(&self) -> (ModelOptions, Log) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, f: impl FnOnce(&mut ModelOptions, &mut Log) -> Result<()>) -> Result<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (options, log) = &mut *held;
        f(options, log)
    }
}

/// Default options: the fastest device, one thread per physical core, no log. `*out` is the caller's, freed with
/// `sam3_model_options_free`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_options_new(out: *mut *mut sam3_model_options, error: *mut *mut sam3_error) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let out = unsafe { handle_out(out, "out") }?;
        *out = give(sam3_model_options(Mutex::default()));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets where the model runs: a `SAM3_DEVICE_` constant, and which of its kind, 0 where there is but one. Whether it is
/// there shows when the model is opened. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_options_set_device(
    options: *mut sam3_model_options,
    kind: u32,
    index: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        let device = match (kind, index) {
            (SAM3_DEVICE_AUTO, 0) => Device::Auto,
            (SAM3_DEVICE_CPU, 0) => Device::Cpu,
            (SAM3_DEVICE_CUDA, i) => Device::Cuda(i as usize),
            (SAM3_DEVICE_REFERENCE, 0) => Device::Reference,
            _ => {
                return Err(Error::invalid(format!(
                    "device: expected SAM3_DEVICE_AUTO, _CPU or _REFERENCE with index 0, or SAM3_DEVICE_CUDA, found \
                     kind {kind}, index {index}"
                )));
            }
        };
        options.change(|o, _| {
            o.device = device;
            Ok(())
        })
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the number of CPU threads of the model, 0 for one per physical core. They belong to the model and end with it.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_options_set_threads(
    options: *mut sam3_model_options,
    threads: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    /// More than any machine has; a negative number that became unsigned is more yet.
    const MOST: u32 = 4096;
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        if threads > MOST {
            return Err(Error::invalid(format!("threads: expected at most {MOST}, found {threads}")));
        }
        options.change(|o, _| {
            o.threads = (threads > 0).then_some(threads as usize);
            Ok(())
        })
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the instruction set of the CPU kernels by its name in `sam3_device.isas`; NULL or "" for the best. Whether this
/// machine has it shows when the model is opened. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_options_set_isa(
    options: *mut sam3_model_options,
    isa: *const c_char,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (options, isa) = unsafe { (given(options, "options")?, optional_text(isa, "isa")?) };
        options.change(|o, _| {
            o.isa = isa.filter(|name| !name.is_empty()).map(str::to_owned);
            Ok(())
        })
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the precision, a `SAM3_PRECISION_` constant. Whether the device has it shows when the model is opened:
/// `SAM3_UNSUPPORTED` if not. GPUs have both, CPUs 32-bit floats. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_options_set_precision(
    options: *mut sam3_model_options,
    precision: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        let precision = match precision {
            SAM3_PRECISION_AUTO => Precision::Auto,
            SAM3_PRECISION_F32 => Precision::F32,
            SAM3_PRECISION_BF16 => Precision::Bf16,
            _ => {
                let message = format!("precision: expected a SAM3_PRECISION_ constant, found {precision}");
                return Err(Error::invalid(message));
            }
        };
        options.change(|o, _| {
            o.precision = precision;
            Ok(())
        })
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sends the log up to `level`, a `SAM3_LOG_` constant, to `write` with `user`: of opening the model, and of all its
/// sessions. `user` is not looked at; it and `write` have to stay valid until the model and all that came from it are
/// freed. A NULL `write` turns the log off. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_options_set_log(
    options: *mut sam3_model_options,
    level: u32,
    write: sam3_log_fn,
    user: *mut c_void,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        if level > SAM3_LOG_DEBUG {
            return Err(Error::invalid(format!("log level: expected 0..={SAM3_LOG_DEBUG}, found {level}")));
        }
        options.change(|_, log| {
            *log = Log { level, write, user };
            Ok(())
        })
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Frees options. NULL is ignored; models opened with them stay as they are. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_options_free(options: *mut sam3_model_options) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(options) }
}

/// What a segmentation returns. Any thread; calls copy what they need.
pub struct sam3_segment_options(Mutex<SegmentOptions>);

impl sam3_segment_options {
    pub(super) fn read(&self) -> SegmentOptions {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, f: impl FnOnce(&mut SegmentOptions)) {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Default options: thresholds of 0.5, all instances, one mask per object, no semantic masks. `*out` is the caller's,
/// freed with `sam3_segment_options_free`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_segment_options_new(
    out: *mut *mut sam3_segment_options,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let out = unsafe { handle_out(out, "out") }?;
        *out = give(sam3_segment_options(Mutex::default()));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

fn probability(name: &str, value: f32) -> Result<f32> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(Error::invalid(format!("{name}: expected a number within 0..=1, found {value}")))
}

/// Sets the score above which instances of concepts are kept, 0 to 1, 0.5 by default. Objects are asked for by place,
/// so they are always kept. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_segment_options_set_threshold(
    options: *mut sam3_segment_options,
    threshold: f32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        let threshold = probability("threshold", threshold)?;
        options.change(|o| o.threshold = threshold);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the probability above which a pixel belongs to a mask, 0 to 1, 0.5 by default. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_segment_options_set_mask_threshold(
    options: *mut sam3_segment_options,
    threshold: f32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        let threshold = probability("mask threshold", threshold)?;
        options.change(|o| o.mask_threshold = threshold);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets how many instances a result holds at most, the best ones of all prompts together; 0, the default, for all. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_segment_options_set_max_instances(
    options: *mut sam3_segment_options,
    count: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        options.change(|o| o.max_masks = (count > 0).then_some(count as usize));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets whether an object prompt returns three masks, of a part, a whole and something between, instead of the best
/// one: 0 (the default) or 1. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_segment_options_set_multimask(
    options: *mut sam3_segment_options,
    multimask: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        let multimask = flag("multimask", multimask)?;
        options.change(|o| o.multimask = multimask);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets whether concept prompts also return their semantic mask, every pixel of the concept: 0 (the default) or 1. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_segment_options_set_semantic(
    options: *mut sam3_segment_options,
    semantic: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let options = unsafe { given(options, "options") }?;
        let semantic = flag("semantic", semantic)?;
        options.change(|o| o.semantic = semantic);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// 0 or 1 as a truth value.
pub(super) fn flag(name: &str, value: u32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::invalid(format!("{name}: expected 0 or 1, found {value}"))),
    }
}

/// Frees options. NULL is ignored. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_segment_options_free(options: *mut sam3_segment_options) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(options) }
}
