//! Opening models, and what they are.

use std::ffi::{CString, c_char, c_void};
use std::time::Instant;

use super::boundary::{call, give, given, handle_out, many, optional, plainly, release, text};
use super::error::{c_string, sam3_error};
use super::lent::{Lent, Release, sam3_release_fn};
use super::log::{Log, SAM3_LOG_INFO};
use super::options::sam3_model_options;
use super::plain::{Sized32, fill, read};
use super::reader::{Files, sam3_reader};
use crate::weights::Blob;
use crate::{Error, ErrorKind, Model, ModelOptions, Result};

/// Weights on a device. Never changes: any number of threads may use it at once, each with a session of its own. All
/// that comes from a model keeps what it needs of it alive, so it may be freed as soon as the host needs no new
/// sessions; its memory and its threads end with the last handle that came from it, wherever that is freed.
pub struct sam3_model {
    pub(super) model: Model,
    pub(super) log: Log,
    device: CString,
}

/// What a model is. Set `size` to `sizeof(sam3_model_info)` before the call that fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sam3_model_info {
    /// `sizeof(sam3_model_info)`.
    pub size: u32,
    /// Side of the square, in pixels, that pictures are resized to.
    pub image_side: u32,
    /// Side of the model's own masks, in pixels: `SAM3_SPACE_MODEL`, and what `sam3_prompt_set_logits` takes.
    pub mask_side: u32,
    /// 1 if it takes concept prompts, else 0.
    pub concepts: u32,
    /// 1 if it takes object prompts, else 0.
    pub objects: u32,
    /// 0.
    pub reserved: u32,
    /// Parameters of the checkpoint.
    pub parameters: u64,
    /// Bytes of its weight files.
    pub bytes: u64,
    /// Where it runs, for people: UTF-8, lent by the model.
    pub device: *const c_char,
}

// SAFETY: u32 ×6, u64 ×2, a pointer: no padding on 64-bit targets, and on 32-bit ones the tail is never read.
unsafe impl Sized32 for sam3_model_info {
    const FIRST: usize = 40 + size_of::<*const c_char>();
    const NAME: &'static str = "sam3_model_info";
}

/// The caller's options, or the defaults.
///
/// # Safety
/// As the module's text demands.
unsafe fn options_or_default(options: *const sam3_model_options) -> Result<(ModelOptions, Log)> {
    // SAFETY: handed on from the caller.
    Ok(unsafe { optional(options, "options") }?.map(sam3_model_options::read).unwrap_or_default())
}

fn opened(log: Log, how: &str, open: impl FnOnce() -> Result<Model>) -> Result<sam3_model> {
    let start = Instant::now();
    let model = open().inspect_err(|e| log.failure(how, e))?;
    let info = model.info();
    log.line(SAM3_LOG_INFO, || {
        let (tensors, bytes, device) = (info.checkpoint.tensors, info.checkpoint.bytes, &info.device);
        format!("{how}: {tensors} tensors, {bytes} bytes on {device} in {:.3} s", start.elapsed().as_secs_f64())
    });
    if let Some(why) = &info.passed_over {
        log.line(SAM3_LOG_INFO, || format!("{how}: not on a GPU: {why}"));
    }
    let device = c_string(&info.device);
    Ok(sam3_model { model, log, device })
}

/// Opens a checkpoint: a directory with `config.json`, `model.safetensors` (or shards with their index) and
/// `tokenizer.json`, or a `.safetensors` file with the others beside it. `path` is UTF-8 on every system. The weights are
/// mapped, not read, until the model and all that came from it are freed: replace the files meanwhile, but do not truncate
/// or rewrite them. `options` may be NULL for the defaults. `*out` is the caller's, freed with `sam3_model_free`; NULL
/// after a failure. Any thread.
///
/// Takes seconds for the published checkpoint. Failures: `SAM3_IO`, `SAM3_CHECKPOINT`, `SAM3_UNSUPPORTED`,
/// `SAM3_OUT_OF_MEMORY`, `SAM3_DEVICE`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_open(
    path: *const c_char,
    options: *const sam3_model_options,
    out: *mut *mut sam3_model,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, path, (options, log)) =
            unsafe { (handle_out(out, "out")?, text(path, "path")?, options_or_default(options)?) };
        *out = give(opened(log, "sam3_model_open", || Model::open(path, &options))?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Opens a checkpoint from memory: the bytes of `config.json`, of one `model.safetensors`, and of `tokenizer.json`; for
/// the latter NULL and 0 stand for the standard CLIP vocabulary. The bytes are copied, and may be freed after the call.
/// Otherwise like `sam3_model_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_open_memory(
    config: *const u8,
    config_size: usize,
    weights: *const u8,
    weights_size: usize,
    tokenizer: *const u8,
    tokenizer_size: usize,
    options: *const sam3_model_options,
    out: *mut *mut sam3_model,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, config, weights, tokenizer, (options, log)) = unsafe {
            (
                handle_out(out, "out")?,
                many(config, config_size, "config")?,
                many(weights, weights_size, "weights")?,
                many(tokenizer, tokenizer_size, "tokenizer")?,
                options_or_default(options)?,
            )
        };
        let config = utf8(config)?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(weights.len()).map_err(|e| no_memory(weights.len() as u64).with_source(e))?;
        copy.extend_from_slice(weights);
        let tokenizer = (!tokenizer.is_empty()).then_some(tokenizer);
        let open = || Model::from_memory(config, copy, tokenizer, &options);
        *out = give(opened(log, "sam3_model_open_memory", open)?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// `sam3_model_open_memory` without the copy: `weights` stays the host's, and has to stay where and as it is until
/// `release` is called with `user`. That happens once, whatever this call returns: within it if it fails, or if the
/// device keeps weights in memory of its own; otherwise when the model and all that came from it are freed, on the thread
/// that frees the last of them. Calls of this library from `release` are fine. NULL for `release` is for memory that
/// outlives all of them, such as a constant. The other bytes are needed for the length of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_open_lent(
    config: *const u8,
    config_size: usize,
    weights: *const u8,
    weights_size: usize,
    tokenizer: *const u8,
    tokenizer_size: usize,
    release: sam3_release_fn,
    user: *mut c_void,
    options: *const sam3_model_options,
    out: *mut *mut sam3_model,
    error: *mut *mut sam3_error,
) -> i32 {
    // From here on dropping it tells the host, whichever way this ends.
    let release = Release::new(release, user);
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, config, weights, tokenizer, (options, log)) = unsafe {
            (
                handle_out(out, "out")?,
                many(config, config_size, "config")?,
                many(weights, weights_size, "weights")?,
                many(tokenizer, tokenizer_size, "tokenizer")?,
                options_or_default(options)?,
            )
        };
        // SAFETY: the caller's promise, see the function's text.
        let lent = Blob::from_owner(unsafe { Lent::new(weights, release) });
        let config = utf8(config)?;
        let tokenizer = (!tokenizer.is_empty()).then_some(tokenizer);
        let open = || Model::from_memory(config, lent, tokenizer, &options);
        *out = give(opened(log, "sam3_model_open_lent", open)?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Opens a checkpoint through the host's own file system; see `sam3_reader`. The callbacks are called on this thread,
/// within this call. Otherwise like `sam3_model_open`. A callback that fails makes it `SAM3_IO`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_open_reader(
    reader: *const sam3_reader,
    options: *const sam3_model_options,
    out: *mut *mut sam3_model,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, reader, (options, log)) =
            unsafe { (handle_out(out, "out")?, read(reader, "reader")?, options_or_default(options)?) };
        let open = || {
            let files = Files::new(&reader)?;
            let config = files.all(c"config.json")?;
            let weights = files.all(c"model.safetensors")?;
            let tokenizer = files.all_if_any(c"tokenizer.json")?;
            Model::from_memory(utf8(&config)?, weights, tokenizer.as_deref(), &options)
        };
        *out = give(opened(log, "sam3_model_open_reader", open)?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Opens the small model that is part of the library, where it is: `sam3_build_info()` says `demo-model: yes`.
/// Otherwise `SAM3_UNSUPPORTED`. Like `sam3_model_open`, without a path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_open_demo(
    options: *const sam3_model_options,
    out: *mut *mut sam3_model,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, (options, log)) = unsafe { (handle_out(out, "out")?, options_or_default(options)?) };
        *out = give(opened(log, "sam3_model_open_demo", || demo(&options))?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

fn utf8(config: &[u8]) -> Result<&str> {
    str::from_utf8(config).map_err(|e| Error::checkpoint("config.json: expected UTF-8").with_source(e))
}

pub(super) fn no_memory(bytes: u64) -> Error {
    Error::new(ErrorKind::OutOfMemory, format!("no memory for {bytes} bytes"))
}

/// Another handle of the same model, freed on its own; NULL for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_clone(model: *const sam3_model) -> *mut sam3_model {
    // SAFETY: the caller's promise, see the module's text.
    let Ok(Some(model)) = (unsafe { optional(model, "model") }) else { return std::ptr::null_mut() };
    let copy = || give(sam3_model { model: model.model.clone(), log: model.log, device: model.device.clone() });
    plainly(std::ptr::null_mut(), copy)
}

/// Fills `*info`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_get_info(
    model: *const sam3_model,
    info: *mut sam3_model_info,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (model, out) = unsafe { (given(model, "model")?, fill(info, "info")?) };
        let info = model.model.info();
        out.write(sam3_model_info {
            size: 0,
            image_side: info.config.vision.image_size as u32,
            mask_side: model.model.mask_side() as u32,
            concepts: info.config.detector.is_some().into(),
            objects: info.config.tracker.is_some().into(),
            reserved: 0,
            parameters: info.checkpoint.parameters,
            bytes: info.checkpoint.bytes,
            device: model.device.as_ptr(),
        });
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Frees this handle. NULL is ignored. If it was the last one of its model, this waits for the model's threads to end.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_model_free(model: *mut sam3_model) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(model) }
}

#[cfg(feature = "demo-model")]
fn demo(options: &ModelOptions) -> Result<Model> {
    Model::demo(options)
}

#[cfg(not(feature = "demo-model"))]
fn demo(_: &ModelOptions) -> Result<Model> {
    let message = "this build of sam3 has no demo model in it; open a checkpoint with sam3_model_open";
    Err(Error::new(ErrorKind::Unsupported, message))
}
