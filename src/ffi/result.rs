//! Results: what was found, and how long it took.

use std::ffi::c_char;
use std::sync::Arc;

use super::boundary::{call, give, given, optional, out, plainly, release};
use super::error::sam3_error;
use super::image::Times;
use super::mask::Lent;
use super::plain::{Sized32, fill, sam3_box, sam3_rect};
use crate::instance::{Instance, Mask};
use crate::{Error, LowResMask, PromptAnswer, Result, SegmentOptions, Segmentation};

/// How far from the threshold a pixel counts as undecided, in logits, for the stability score: SAM's mask generator's.
const STABILITY_OFFSET: f32 = 1.0;

/// What one call found. Never changes: any number of threads may read it at once. It needs no other handle, and what it
/// lends is valid until it is freed.
pub struct sam3_result(pub(super) Arc<Answer>);

pub(super) struct Answer {
    pub found: Segmentation,
    /// The logit above which a pixel belongs to a mask.
    pub threshold: f32,
    times: Times,
    /// Forms of masks that were asked for, by instance and by prompt.
    pub instances: Vec<Lent>,
    pub semantic: Vec<Lent>,
}

impl Answer {
    pub fn new(found: Segmentation, options: &SegmentOptions, times: Times) -> Self {
        let threshold = (options.mask_threshold / (1.0 - options.mask_threshold)).ln();
        let instances = found.instances.iter().map(|_| Lent::default()).collect();
        let semantic = found.prompts.iter().map(|_| Lent::default()).collect();
        Self { found, threshold, times, instances, semantic }
    }

    pub fn instance(&self, index: u32) -> Result<&Instance> {
        let count = self.found.instances.len();
        let found = self.found.instances.get(index as usize);
        found.ok_or_else(|| Error::invalid(format!("instance: expected 0..{count}, found {index}")))
    }

    pub fn logits(&self, index: u32) -> Result<&LowResMask> {
        self.instance(index)?;
        let logits = self.found.logits(index as usize);
        logits.ok_or_else(|| Error::invalid(format!("instance {index}: expected logits, found none")))
    }

    pub fn prompt(&self, index: u32) -> Result<&PromptAnswer> {
        let count = self.found.prompts.len();
        let answer = self.found.prompts.get(index as usize);
        answer.ok_or_else(|| Error::invalid(format!("prompt: expected 0..{count}, found {index}")))
    }

    pub fn semantic(&self, prompt: u32) -> Result<(&Mask, &LowResMask)> {
        let answer = self.prompt(prompt)?;
        let both = answer.semantic.as_ref().zip(answer.semantic_logits.as_ref());
        both.ok_or_else(|| {
            Error::invalid(format!(
                "prompt {prompt}: expected a concept that was asked for its semantic mask (sam3_segment_options_set_semantic)"
            ))
        })
    }
}

/// One instance. Set `size` to `sizeof(sam3_instance)` before the call that fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sam3_instance {
    /// `sizeof(sam3_instance)`.
    pub size: u32,
    /// Which of the call's prompts found it, counted from 0.
    pub prompt: u32,
    /// How sure the model is, 0 to 1: for a concept the probability of the instance, for an object `predicted_iou`.
    pub score: f32,
    /// The model's own estimate of the mask's intersection over union with the truth, 0 to 1; NaN for concepts, of
    /// which it makes none.
    pub predicted_iou: f32,
    /// How little the mask depends on its threshold, 0 to 1: pixels more than one logit above it over those not more
    /// than one below it.
    pub stability: f32,
    /// The model's box, in pixels of the picture; for an object the edges of the mask.
    pub bbox: sam3_box,
    /// The pixels that the mask reaches, all 0 if it is empty.
    pub bounds: sam3_rect,
    /// 0.
    pub reserved: u32,
    /// Pixels of the mask, at the size of the picture.
    pub area: u64,
}

// SAFETY: u32 ×2, f32 ×3, f32 ×4, u32 ×4, u32, which are 56 bytes, and a u64: no padding.
unsafe impl Sized32 for sam3_instance {
    const FIRST: usize = 64;
    const NAME: &'static str = "sam3_instance";
}

/// How many instances were found, over all prompts, best score first; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_count(result: *const sam3_result) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { optional(result, "result") }.ok().flatten().map_or(0, |r| r.0.found.instances.len() as u32)
}

/// Columns of the picture and of its masks, in pixels; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_width(result: *const sam3_result) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { optional(result, "result") }.ok().flatten().map_or(0, |r| r.0.found.width as u32)
}

/// Rows of the picture and of its masks, in pixels; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_height(result: *const sam3_result) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { optional(result, "result") }.ok().flatten().map_or(0, |r| r.0.found.height as u32)
}

/// Fills `*instance` with instance `index`, counted from 0. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_instance(
    result: *const sam3_result,
    index: u32,
    instance: *mut sam3_instance,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (result, out) = unsafe { (given(result, "result")?, fill(instance, "instance")?) };
        let answer = &result.0;
        let (found, logits) = (answer.instance(index)?, answer.logits(index)?);
        let [x0, y0, x1, y1] = found.bbox;
        let bounds = found.mask.bounding_box().unwrap_or_default().map(|v| v as u32);
        let concept = answer.found.is_concept(index as usize);
        out.write(sam3_instance {
            size: 0,
            prompt: found.prompt as u32,
            score: found.score,
            predicted_iou: if concept { f32::NAN } else { found.score },
            stability: logits.stability(answer.threshold, STABILITY_OFFSET),
            bbox: sam3_box { x0, y0, x1, y1 },
            bounds: sam3_rect {
                x: bounds[0],
                y: bounds[1],
                width: bounds[2] - bounds[0],
                height: bounds[3] - bounds[1],
            },
            reserved: 0,
            area: found.area(),
        });
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets `*presence` to the probability, 0 to 1, that the picture holds what prompt `prompt` (counted from 0) asked for:
/// the concept at all, which is a factor of every score of its instances, or the object. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_presence(
    result: *const sam3_result,
    prompt: u32,
    presence: *mut f32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (result, presence) = unsafe { (given(result, "result")?, out(presence, "presence")?) };
        presence.write(result.0.prompt(prompt)?.presence);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// How many stages of the call were timed; 0 for NULL. Those of encoding the picture are the picture's:
/// `sam3_image_timing`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_timing_count(result: *const sam3_result) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { optional(result, "result") }.ok().flatten().map_or(0, |r| r.0.times.len())
}

/// The name of stage `index`, lent until the result is freed, and the milliseconds it took over all prompts. Either may
/// be NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_timing(
    result: *const sam3_result,
    index: u32,
    name: *mut *const c_char,
    milliseconds: *mut f64,
    error: *mut *mut sam3_error,
) -> i32 {
    // SAFETY: the caller's promise, see the module's text.
    let body = || unsafe { given(result, "result")?.0.times.get(index, name, milliseconds) };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Another handle of the same result, freed on its own; NULL for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_clone(result: *const sam3_result) -> *mut sam3_result {
    // SAFETY: the caller's promise, see the module's text.
    match unsafe { optional(result, "result") } {
        Ok(Some(result)) => plainly(std::ptr::null_mut(), || give(sam3_result(result.0.clone()))),
        _ => std::ptr::null_mut(),
    }
}

/// Frees this handle, and with the last one all that was lent. NULL is ignored. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_free(result: *mut sam3_result) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(result) }
}
