//! Prompts, built by calls.

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use super::boundary::{call, give, given, handle_out, many, optional_text, release};
use super::error::sam3_error;
use super::options::flag;
use super::plain::{sam3_box, sam3_point};
use super::result::sam3_result;
use crate::instance::MAX_SIDE;
use crate::{Concept, Error, ExemplarBox, LowResMask, MaskPrompt, Object, Point, Prompt, Result};

/// A question about a picture: a concept, of which every instance is wanted, or one object. Calls that build it and
/// calls that use it may come from any thread; one that uses it sees it as it was at that moment. It belongs to no
/// model and no picture, and may be used again.
pub struct sam3_prompt(Mutex<Prompt>);

impl sam3_prompt {
    /// The prompt as it is now.
    pub(super) fn read(&self) -> Prompt {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn concept(&self, what: &str, f: impl FnOnce(&mut Concept)) -> Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Prompt::Concept(concept) => {
                f(concept);
                Ok(())
            }
            Prompt::Object(_) => Err(Error::invalid(format!("{what}: expected a concept prompt, found an object's"))),
        }
    }

    fn object(&self, what: &str, f: impl FnOnce(&mut Object)) -> Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Prompt::Object(object) => {
                f(object);
                Ok(())
            }
            Prompt::Concept(_) => Err(Error::invalid(format!("{what}: expected an object prompt, found a concept's"))),
        }
    }
}

fn corners(b: &sam3_box) -> [f32; 4] {
    [b.x0, b.y0, b.x1, b.y1]
}

/// A concept prompt: every instance of what the short noun phrase `text` names ("red car"), or of what exemplars show,
/// or of both together. `text` is UTF-8, of at most 30 of the published checkpoint's tokens, some twenty words; NULL if
/// only exemplars follow. `*out` is the caller's, freed with `sam3_prompt_free`; NULL after a failure. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_new_concept(
    text: *const c_char,
    out: *mut *mut sam3_prompt,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, text) = unsafe { (handle_out(out, "out")?, optional_text(text, "text")?) };
        let concept = Concept { text: text.map(str::to_owned), exemplars: Vec::new() };
        *out = give(sam3_prompt(Mutex::new(concept.into())));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// An object prompt: one object, shown by points, a box, a mask, in any mix. `*out` is the caller's, freed with
/// `sam3_prompt_free`; NULL after a failure. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_new_object(out: *mut *mut sam3_prompt, error: *mut *mut sam3_error) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let out = unsafe { handle_out(out, "out") }?;
        *out = give(sam3_prompt(Mutex::new(Object::default().into())));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Adds a box round an example (`positive` 1) or a counter-example (0) to a concept prompt. Whether it lies within the
/// picture shows when the prompt is used. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_add_exemplar(
    prompt: *mut sam3_prompt,
    place: *const sam3_box,
    positive: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (prompt, place) = unsafe { (given(prompt, "prompt")?, given(place, "place")?) };
        let exemplar = ExemplarBox { xyxy: corners(place), positive: flag("positive", positive)? };
        prompt.concept("sam3_prompt_add_exemplar", |c| c.exemplars.push(exemplar))
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Adds clicks to an object prompt; `points` may be NULL if `count` is 0. Whether they lie within the picture shows when
/// the prompt is used. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_add_points(
    prompt: *mut sam3_prompt,
    points: *const sam3_point,
    count: usize,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (prompt, points) = unsafe { (given(prompt, "prompt")?, many(points, count, "points")?) };
        let point = |p: &sam3_point| Ok(Point { x: p.x, y: p.y, positive: flag("point.positive", p.positive)? });
        let points = points.iter().map(point).collect::<Result<Vec<_>>>()?;
        prompt.object("sam3_prompt_add_points", |o| o.points.extend(points))
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the box of an object prompt, instead of the one it had. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_set_box(
    prompt: *mut sam3_prompt,
    place: *const sam3_box,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (prompt, place) = unsafe { (given(prompt, "prompt")?, given(place, "place")?) };
        prompt.object("sam3_prompt_set_box", |o| o.bbox = Some(corners(place)))
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the mask of an object prompt, instead of the mask or logits it had: one byte a pixel, object where it is 128 or
/// more, stretched over the picture. `stride` is the bytes from one row to the next, 0 for `width`. The mask is copied.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_set_mask(
    prompt: *mut sam3_prompt,
    mask: *const u8,
    width: u32,
    height: u32,
    stride: usize,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        let (width, height) = (width as usize, height as usize);
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(Error::invalid(format!("mask: expected 1..={MAX_SIDE} pixels a side, found {width}x{height}")));
        }
        let stride = if stride == 0 { width } else { stride };
        if stride < width {
            return Err(Error::invalid(format!("stride: expected at least {width} bytes, found {stride}")));
        }
        let len = stride.checked_mul(height - 1).and_then(|n| n.checked_add(width)).unwrap_or(usize::MAX);
        // SAFETY: the caller's promise, see the module's text.
        let (prompt, mask) = unsafe { (given(prompt, "prompt")?, many(mask, len, "mask")?) };
        let pixels = mask.chunks(stride).flat_map(|row| &row[..width]).copied().collect();
        prompt.object("sam3_prompt_set_mask", |o| o.mask = Some(MaskPrompt::Picture { pixels, width, height }))
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the mask of an object prompt to logits at the model's resolution: `side * side` finite numbers, row by row,
/// `side` being `sam3_model_info.mask_side`. They are copied. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_set_logits(
    prompt: *mut sam3_prompt,
    logits: *const f32,
    side: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        let side = side as usize;
        if !(1..=MAX_SIDE).contains(&side) {
            return Err(Error::invalid(format!("side: expected 1..={MAX_SIDE}, found {side}")));
        }
        // SAFETY: the caller's promise, see the module's text.
        let (prompt, logits) = unsafe { (given(prompt, "prompt")?, many(logits, side * side, "logits")?) };
        let logits = LowResMask::new(logits, side)?;
        prompt.object("sam3_prompt_set_logits", |o| o.mask = Some(MaskPrompt::Logits(logits)))
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the mask of an object prompt to what instance `index` of a result was made from: the next round of refining it,
/// with another click. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_set_previous(
    prompt: *mut sam3_prompt,
    result: *const sam3_result,
    index: u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (prompt, result) = unsafe { (given(prompt, "prompt")?, given(result, "result")?) };
        let logits = result.0.logits(index)?.clone();
        prompt.object("sam3_prompt_set_previous", |o| o.mask = Some(MaskPrompt::Logits(logits)))
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Frees a prompt. NULL is ignored. Calls that use it have a copy. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_prompt_free(prompt: *mut sam3_prompt) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(prompt) }
}
