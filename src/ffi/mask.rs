//! Masks in the forms that hosts draw, store and compute with.

use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::boundary::{call, given, optional_out, room};
use super::error::sam3_error;
use super::plain::{Sized32, fill};
use super::result::{Answer, sam3_result};
use crate::image::resize_bilinear_f32;
use crate::instance::Mask;
use crate::{Error, LowResMask, Result};

/// 1 byte a pixel: 255 inside, 0 outside.
pub const SAM3_MASK_U8: u32 = 0;
/// 1 byte a pixel: the probability, rounded, from 0 for 0 to 255 for 1.
pub const SAM3_MASK_SOFT_U8: u32 = 1;
/// 4 bytes a pixel: a float, the logit of the probability as the model gave it, at the picture's size resized linearly.
pub const SAM3_MASK_LOGITS_F32: u32 = 2;
/// 1 bit a pixel, 1 inside, the leftmost pixel in the highest bit; rows begin with a byte of their own.
pub const SAM3_MASK_BITS: u32 = 3;

/// As large as the picture.
pub const SAM3_SPACE_PICTURE: u32 = 0;
/// As large as the model makes masks, a square of `sam3_model_info.mask_side` that is stretched over the picture.
pub const SAM3_SPACE_MODEL: u32 = 1;

/// Forms times spaces.
const VARIANTS: usize = 8;

/// A mask that the result lends. Set `size` to `sizeof(sam3_mask_view)` before the call that fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sam3_mask_view {
    /// `sizeof(sam3_mask_view)`.
    pub size: u32,
    /// Its form, a `SAM3_MASK_` constant.
    pub format: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next; there are no gaps.
    pub stride: u64,
    /// The top row, aligned for its form. Lent until the result is freed.
    pub data: *const u8,
}

// SAFETY: u32 ×4, u64, a pointer: no padding on 64-bit targets, and on 32-bit ones the tail is never read.
unsafe impl Sized32 for sam3_mask_view {
    const FIRST: usize = 24 + size_of::<*const u8>();
    const NAME: &'static str = "sam3_mask_view";
}

/// Forms of one mask that were lent and have to stay.
#[derive(Default)]
pub(super) struct Lent {
    planes: [OnceLock<Plane>; VARIANTS],
    pub coco: OnceLock<CString>,
    pub counts: OnceLock<Vec<u32>>,
    pub pairs: OnceLock<CString>,
}

/// Rows without gaps.
struct Plane {
    values: Values,
    width: usize,
    height: usize,
    row_bytes: usize,
}

enum Values {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Plane {
    fn bytes(&self) -> &[u8] {
        match &self.values {
            Values::Bytes(bytes) => bytes,
            Values::Floats(floats) => bytemuck::cast_slice(floats),
        }
    }
}

/// Which mask of an answer.
#[derive(Clone, Copy)]
enum Which {
    Instance(u32),
    Semantic(u32),
}

impl Which {
    fn lent(self, answer: &Answer) -> Result<&Lent> {
        let (list, index) = match self {
            Which::Instance(i) => (&answer.instances, i),
            Which::Semantic(i) => (&answer.semantic, i),
        };
        list.get(index as usize).ok_or_else(|| Error::invalid(format!("mask: found none of index {index}")))
    }

    fn parts(self, answer: &Answer) -> Result<(&Mask, &LowResMask)> {
        match self {
            Which::Instance(i) => Ok((&answer.instance(i)?.mask, answer.logits(i)?)),
            Which::Semantic(i) => answer.semantic(i),
        }
    }

    /// Probabilities at the picture's size.
    fn soft(self, answer: &Answer, low: &LowResMask) -> Vec<f32> {
        let (width, height) = (answer.found.width, answer.found.height);
        match self {
            Which::Instance(i) => answer.found.soft_mask(i as usize),
            Which::Semantic(_) => None,
        }
        .unwrap_or_else(|| low.probabilities(width, height))
    }
}

/// Checks what form is asked for, of what size: width, height, and bytes of a row.
fn shape(answer: &Answer, which: Which, format: u32, space: u32) -> Result<(usize, usize, usize)> {
    let (mask, low) = which.parts(answer)?;
    let (width, height) = match space {
        SAM3_SPACE_PICTURE => (mask.width(), mask.height()),
        SAM3_SPACE_MODEL => (low.side(), low.side()),
        _ => return Err(Error::invalid(format!("space: expected a SAM3_SPACE_ constant, found {space}"))),
    };
    let row = match format {
        SAM3_MASK_U8 | SAM3_MASK_SOFT_U8 => width,
        SAM3_MASK_LOGITS_F32 => width * 4,
        SAM3_MASK_BITS => width.div_ceil(8),
        _ => return Err(Error::invalid(format!("format: expected a SAM3_MASK_ constant, found {format}"))),
    };
    Ok((width, height, row))
}

/// A probability as a byte.
fn byte(probability: f32) -> u8 {
    (probability * 255.0 + 0.5) as u8
}

/// Makes a mask in the form and size that [`shape`] checked.
fn plane(answer: &Answer, which: Which, format: u32, space: u32) -> Result<Plane> {
    let (width, height, row_bytes) = shape(answer, which, format, space)?;
    let (mask, low) = which.parts(answer)?;
    let at_picture = space == SAM3_SPACE_PICTURE;
    let small;
    let mask = if at_picture {
        mask
    } else {
        small = Mask::from_fn(width, height, |x, y| low.logits()[y * width + x] > answer.threshold);
        &small
    };
    let values = match format {
        SAM3_MASK_U8 => Values::Bytes(mask.to_u8()),
        SAM3_MASK_BITS => Values::Bytes(mask.packed_bits()),
        SAM3_MASK_SOFT_U8 => {
            let soft = if at_picture { which.soft(answer, low) } else { low.probabilities(width, height) };
            Values::Bytes(soft.into_iter().map(byte).collect())
        }
        _ if at_picture => Values::Floats(resize_bilinear_f32(low.logits(), low.side(), low.side(), height, width)),
        _ => Values::Floats(low.logits().to_vec()),
    };
    Ok(Plane { values, width, height, row_bytes })
}

/// Lends a mask, made on the first call.
fn lend(answer: &Answer, which: Which, format: u32, space: u32) -> Result<sam3_mask_view> {
    let (_, lent) = (shape(answer, which, format, space)?, which.lent(answer)?);
    let slot = &lent.planes[(format * 2 + space) as usize];
    if slot.get().is_none() {
        // Another thread may be first; then this plane is dropped.
        let _ = slot.set(plane(answer, which, format, space)?);
    }
    let plane =
        slot.get().ok_or_else(|| Error::new(crate::ErrorKind::Internal, "a mask that was just made is gone"))?;
    Ok(sam3_mask_view {
        size: 0,
        format,
        width: plane.width as u32,
        height: plane.height as u32,
        stride: plane.row_bytes as u64,
        data: plane.bytes().as_ptr(),
    })
}

/// Copies a mask into the caller's buffer, or says how large that has to be.
///
/// # Safety
/// As the module's text demands, for `size` and as many bytes of `buffer` as it says.
unsafe fn copy(
    answer: &Answer,
    which: Which,
    (format, space): (u32, u32),
    buffer: *mut c_void,
    stride: usize,
    size: *mut usize,
) -> Result<()> {
    let (_, height, row) = shape(answer, which, format, space)?;
    let stride = if stride == 0 { row } else { stride };
    if stride < row {
        return Err(Error::invalid(format!("stride: expected at least {row} bytes, found {stride}")));
    }
    let need = stride.checked_mul(height - 1).and_then(|n| n.checked_add(row));
    let need = need.ok_or_else(|| Error::invalid(format!("stride: {stride} exceeds the address space")))?;
    // SAFETY: handed on from the caller.
    let size = unsafe { optional_out(size, "size") }?;
    let size = size.ok_or_else(|| Error::invalid("size: expected a pointer, found NULL"))?;
    if buffer.is_null() {
        size.write(need);
        return Ok(());
    }
    // SAFETY: with a buffer, the caller set the size to the bytes it has.
    let len = unsafe { size.assume_init_read() };
    size.write(need);
    if len < need {
        return Err(Error::invalid(format!("size: expected a buffer of at least {need} bytes, found {len}")));
    }
    if format == SAM3_MASK_LOGITS_F32 && !(buffer.cast::<f32>().is_aligned() && stride.is_multiple_of(4)) {
        return Err(Error::invalid("buffer, stride: expected multiples of 4 for floats"));
    }
    // SAFETY: handed on from the caller, who promises `len` bytes.
    let buffer = unsafe { room(buffer.cast(), need, "buffer") }?;
    let plane = plane(answer, which, format, space)?;
    for (to, from) in buffer.chunks_mut(stride).zip(plane.bytes().chunks_exact(row)) {
        // Bytes between rows are the caller's and stay as they are.
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = MaybeUninit::new(from));
    }
    Ok(())
}

/// Copies the mask of instance `index` into `buffer`: `format` is a `SAM3_MASK_` constant, `space` a `SAM3_SPACE_` one,
/// `stride` the bytes from one row to the next, 0 for rows without gaps. Bytes between rows are left alone. `*size` is
/// the bytes that `buffer` has, and becomes those that are needed; with a NULL `buffer` that is all that happens. A
/// buffer that is too short is `SAM3_INVALID_ARGUMENT`, and nothing is written to it. Floats need an address and a
/// stride divisible by 4. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_mask(
    result: *const sam3_result,
    index: u32,
    format: u32,
    space: u32,
    buffer: *mut c_void,
    stride: usize,
    size: *mut usize,
    error: *mut *mut sam3_error,
) -> i32 {
    // SAFETY: the caller's promise, see the module's text.
    let body = || unsafe {
        let answer = &given(result, "result")?.0;
        copy(answer, Which::Instance(index), (format, space), buffer, stride, size)
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Lends the mask of instance `index`; `format` and `space` as in `sam3_result_mask`. It is made on the first call and
/// kept until the result is freed. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_mask_view(
    result: *const sam3_result,
    index: u32,
    format: u32,
    space: u32,
    view: *mut sam3_mask_view,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (result, out) = unsafe { (given(result, "result")?, fill(view, "view")?) };
        out.write(lend(&result.0, Which::Instance(index), format, space)?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// `sam3_result_mask` for the semantic mask of prompt `prompt`, counted from 0: every pixel of the concept. It has to be
/// a concept's, and to be asked for by `sam3_segment_options_set_semantic`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_semantic(
    result: *const sam3_result,
    prompt: u32,
    format: u32,
    space: u32,
    buffer: *mut c_void,
    stride: usize,
    size: *mut usize,
    error: *mut *mut sam3_error,
) -> i32 {
    // SAFETY: the caller's promise, see the module's text.
    let body = || unsafe {
        let answer = &given(result, "result")?.0;
        copy(answer, Which::Semantic(prompt), (format, space), buffer, stride, size)
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// `sam3_result_mask_view` for the semantic mask of prompt `prompt`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_semantic_view(
    result: *const sam3_result,
    prompt: u32,
    format: u32,
    space: u32,
    view: *mut sam3_mask_view,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (result, out) = unsafe { (given(result, "result")?, fill(view, "view")?) };
        out.write(lend(&result.0, Which::Semantic(prompt), format, space)?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}
