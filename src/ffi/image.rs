//! Pictures: views of pixels, and what the model has seen in one.

use std::borrow::Cow;
use std::ffi::{CString, c_char};
use std::sync::Arc;

use super::boundary::{call, give, given, many, optional, optional_out, plainly, release};
use super::error::{c_string, sam3_error};
use super::plain::{Sized32, read};
use crate::image::{ImageView, PixelFormat};
use crate::instance::MAX_SIDE;
use crate::{Error, ImageEmbedding, Result, Timings};

/// 3 bytes a pixel: red, green, blue.
pub const SAM3_FORMAT_RGB8: u32 = 0;
/// 3 bytes a pixel: blue, green, red. OpenCV's.
pub const SAM3_FORMAT_BGR8: u32 = 1;
/// 4 bytes a pixel: red, green, blue, straight alpha. Pixels are laid over white by it: a picture of alpha 0 is white.
pub const SAM3_FORMAT_RGBA8: u32 = 2;
/// 4 bytes a pixel: blue, green, red, straight alpha. Pixels are laid over white by it: a picture of alpha 0 is white.
pub const SAM3_FORMAT_BGRA8: u32 = 3;
/// 1 byte a pixel.
pub const SAM3_FORMAT_GRAY8: u32 = 4;
/// 4 bytes a pixel: red, green, blue, and one that is not looked at.
pub const SAM3_FORMAT_RGBX8: u32 = 5;
/// 4 bytes a pixel: blue, green, red, and one that is not looked at: frame buffers, whose alpha is often 0.
pub const SAM3_FORMAT_BGRX8: u32 = 6;

/// Pixels that belong to the host: upright, in sRGB as files and screens have it. Set `size` to
/// `sizeof(sam3_image_view)`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sam3_image_view {
    /// `sizeof(sam3_image_view)`.
    pub size: u32,
    /// A `SAM3_FORMAT_` constant.
    pub format: u32,
    /// Pixels in a row, 1 to 65535.
    pub width: u32,
    /// Rows, 1 to 65535.
    pub height: u32,
    /// Bytes from the start of one row to the start of the row below it: negative where the bottom row comes first in
    /// memory, 0 for rows without gaps.
    pub stride: i64,
    /// The first pixel of the top row. Any alignment.
    pub data: *const u8,
}

// SAFETY: u32 ×4, i64, a pointer: no padding on 64-bit targets, and on 32-bit ones the tail is never read.
unsafe impl Sized32 for sam3_image_view {
    const FIRST: usize = 24 + size_of::<*const u8>();
    const NAME: &'static str = "sam3_image_view";
}

/// The pixels of a view, top row first.
pub(super) struct Pixels<'a> {
    bytes: Cow<'a, [u8]>,
    width: usize,
    height: usize,
    stride: usize,
    format: PixelFormat,
}

impl<'a> Pixels<'a> {
    /// The pixels behind a view, where they are if their rows ascend in memory, otherwise copied.
    ///
    /// # Safety
    /// As the module's text demands, for the view and all pixels it describes.
    pub unsafe fn given(view: *const sam3_image_view) -> Result<Self> {
        // SAFETY: handed on from the caller.
        let view = unsafe { read(view, "view") }?;
        let format = match view.format {
            SAM3_FORMAT_RGB8 => PixelFormat::Rgb8,
            SAM3_FORMAT_BGR8 => PixelFormat::Bgr8,
            SAM3_FORMAT_RGBA8 => PixelFormat::Rgba8,
            SAM3_FORMAT_BGRA8 => PixelFormat::Bgra8,
            SAM3_FORMAT_GRAY8 => PixelFormat::Gray8,
            SAM3_FORMAT_RGBX8 => PixelFormat::Rgbx8,
            SAM3_FORMAT_BGRX8 => PixelFormat::Bgrx8,
            other => {
                return Err(Error::invalid(format!("view.format: expected a SAM3_FORMAT_ constant, found {other}")));
            }
        };
        let (width, height) = (view.width as usize, view.height as usize);
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(Error::invalid(format!("view: expected 1..={MAX_SIDE} pixels a side, found {width}x{height}")));
        }
        // At most 65,535 · 4 bytes.
        let row = width * format.bytes_per_pixel();
        let gap = if view.stride == 0 { row as u64 } else { view.stride.unsigned_abs() };
        if gap < row as u64 {
            return Err(Error::invalid(format!(
                "view.stride: expected at least {row} bytes either way for {width} pixels of {format:?}, found {}",
                view.stride
            )));
        }
        let above = gap.checked_mul(height as u64 - 1).filter(|n| n.checked_add(row as u64).is_some());
        let fits = above.and_then(|n| isize::try_from(n + row as u64).ok());
        let Some(len) = fits.map(|n| n as usize) else {
            return Err(Error::invalid(format!("view: {height} rows {gap} bytes apart exceed the address space")));
        };
        let stride = gap as usize;
        if view.data.is_null() {
            return Err(Error::invalid("view.data: expected a pointer, found NULL"));
        }
        if view.stride >= 0 {
            // SAFETY: the caller promises the rows the view describes, `len` bytes from the first to the last.
            let bytes = Cow::Borrowed(unsafe { many(view.data, len, "view.data") }?);
            return Ok(Self { bytes, width, height, stride, format });
        }
        let lowest = view.data.wrapping_sub(len - row);
        // SAFETY: as above; the top row lies last.
        let bytes = unsafe { many(lowest, len, "view.data") }?;
        let mut copy = reserved(row * height)?;
        bytes.chunks(stride).rev().for_each(|r| copy.extend_from_slice(&r[..row]));
        Ok(Self { bytes: Cow::Owned(copy), width, height, stride: row, format })
    }

    /// The same pixels, copied where they were borrowed.
    pub fn into_owned(self) -> Result<Pixels<'static>> {
        let Self { bytes, width, height, stride, format } = self;
        let (bytes, stride) = match bytes {
            Cow::Owned(bytes) => (bytes, stride),
            Cow::Borrowed(bytes) => {
                let row = width * format.bytes_per_pixel();
                let mut copy = reserved(row * height)?;
                bytes.chunks(stride).for_each(|r| copy.extend_from_slice(&r[..row]));
                (copy, row)
            }
        };
        Ok(Pixels { bytes: Cow::Owned(bytes), width, height, stride, format })
    }

    pub fn view(&self) -> Result<ImageView<'_>> {
        ImageView::new(&self.bytes, self.width, self.height, self.stride, self.format)
    }
}

fn reserved(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|e| super::open::no_memory(len as u64).with_source(e))?;
    Ok(bytes)
}

/// Names and milliseconds of stages, ready to be lent.
pub(super) struct Times(Vec<(CString, f64)>);

impl Times {
    pub fn new(timings: &Timings) -> Self {
        Self(timings.iter().map(|(name, time)| (c_string(name), time.as_secs_f64() * 1e3)).collect())
    }

    pub fn len(&self) -> u32 {
        self.0.len() as u32
    }

    /// One line for the log.
    pub fn line(&self) -> String {
        let stages = self.0.iter().map(|(name, ms)| format!("{} {ms:.3} ms", name.to_string_lossy()));
        stages.collect::<Vec<_>>().join(", ")
    }

    /// Hands out stage `index`.
    ///
    /// # Safety
    /// As the module's text demands for `name` and `milliseconds`.
    pub unsafe fn get(&self, index: u32, name: *mut *const c_char, milliseconds: *mut f64) -> Result<()> {
        // SAFETY: handed on from the caller.
        let (name, milliseconds) =
            unsafe { (optional_out(name, "name")?, optional_out(milliseconds, "milliseconds")?) };
        let count = self.0.len();
        let found = self.0.get(index as usize);
        let found = found.ok_or_else(|| Error::invalid(format!("stage: expected 0..{count}, found {index}")))?;
        if let Some(name) = name {
            name.write(found.0.as_ptr());
        }
        if let Some(milliseconds) = milliseconds {
            milliseconds.write(found.1);
        }
        Ok(())
    }
}

/// A picture that a model has looked at: prompts on it pay only for themselves. Never changes: any number of threads
/// may use it at once, with any session of its model. It needs neither the session that made it nor the pixels.
pub struct sam3_image(pub(super) Arc<Seen>);

pub(super) struct Seen {
    pub embedding: ImageEmbedding,
    pub times: Times,
}

/// Another handle of the same picture, freed on its own; NULL for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_image_clone(image: *const sam3_image) -> *mut sam3_image {
    // SAFETY: the caller's promise, see the module's text.
    match unsafe { optional(image, "image") } {
        Ok(Some(image)) => plainly(std::ptr::null_mut(), || give(sam3_image(image.0.clone()))),
        _ => std::ptr::null_mut(),
    }
}

/// Columns of the picture, in pixels; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_image_width(image: *const sam3_image) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { optional(image, "image") }.ok().flatten().map_or(0, |i| i.0.embedding.width() as u32)
}

/// Rows of the picture, in pixels; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_image_height(image: *const sam3_image) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { optional(image, "image") }.ok().flatten().map_or(0, |i| i.0.embedding.height() as u32)
}

/// How many stages of encoding this picture were timed; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_image_timing_count(image: *const sam3_image) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { optional(image, "image") }.ok().flatten().map_or(0, |i| i.0.times.len())
}

/// The name of stage `index`, lent until the picture is freed, and the milliseconds it took. Either may be NULL. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_image_timing(
    image: *const sam3_image,
    index: u32,
    name: *mut *const c_char,
    milliseconds: *mut f64,
    error: *mut *mut sam3_error,
) -> i32 {
    // SAFETY: the caller's promise, see the module's text.
    let body = || unsafe { given(image, "image")?.0.times.get(index, name, milliseconds) };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Frees this handle. NULL is ignored. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_image_free(image: *mut sam3_image) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(image) }
}
