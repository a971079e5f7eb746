//! One AV1 picture through `rav1d`.
//!
//! `rav1d` is a Rust port of dav1d whose only public interface is dav1d's C one: functions that take pointers, and
//! structs that stand for reference counts and have no destructor. This file is the fence around it. Each such struct
//! sits in an owner whose `Drop` releases it, and pixels leave only through [`Frame::row`], which is safe.
//!
//! Two things it cannot fence off. A panic inside the decoder aborts the process, since it cannot leave an `extern "C"`
//! function; the way to the one that is known is closed below, and tens of thousands of damaged files found no other.
//! And the decoder's two threads are told to end when it is closed, but not joined: they may live a moment longer.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;

use rav1d::include::dav1d::data::Dav1dData;
use rav1d::include::dav1d::dav1d::{Dav1dContext, Dav1dLogger, Dav1dSettings};
use rav1d::include::dav1d::headers::{
    DAV1D_PIXEL_LAYOUT_I400, DAV1D_PIXEL_LAYOUT_I420, DAV1D_PIXEL_LAYOUT_I422, DAV1D_PIXEL_LAYOUT_I444,
    Dav1dSequenceHeader,
};
use rav1d::include::dav1d::picture::Dav1dPicture;
use rav1d::src::lib as dav1d;

use super::container::Nclx;
use crate::error::{Error, ErrorKind, Result};
use crate::image::decode::image_error;
use crate::image::{DecodeLimits, reserve};

/// How a picture's chroma planes relate to its luma plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Luma only.
    I400,
    /// Half the width and half the height.
    I420,
    /// Half the width.
    I422,
    /// The same size.
    I444,
}

/// Samples of a row: bytes where the picture has 8 bits, otherwise the low bits of 16.
#[derive(Clone, Copy)]
pub enum Row<'a> {
    Eight(&'a [u8]),
    Sixteen(&'a [u16]),
}

/// A decoded picture.
///
/// Invariant, established by [`Frame::decode`]: the planes that `layout` names are present, each with at least as
/// many rows, `stride` bytes apart, of as many samples as [`Frame::plane_size`] says.
pub struct Frame {
    picture: OwnedPicture,
    width: usize,
    height: usize,
    depth: u32,
    layout: Layout,
    color: Nclx,
}

impl Frame {
    /// Decodes the first picture of `data`, open bitstream units.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Image`] if the data is damaged or its sequence header or frame header exceeds `limits`.
    pub fn decode(data: &[u8], operating_point: u8, limits: &DecodeLimits) -> Result<Self> {
        let header = sequence_header(data)?;
        let side = |n: c_int| u32::try_from(n).unwrap_or(0);
        limits.check(side(header.max_width), side(header.max_height))?;

        let context = Context::open(operating_point, limits)?;
        let picture = context.decode(data)?;
        Self::new(picture)
    }

    fn new(picture: OwnedPicture) -> Result<Self> {
        let p = &picture.0;
        let layout = match p.p.layout {
            DAV1D_PIXEL_LAYOUT_I400 => Layout::I400,
            DAV1D_PIXEL_LAYOUT_I420 => Layout::I420,
            DAV1D_PIXEL_LAYOUT_I422 => Layout::I422,
            DAV1D_PIXEL_LAYOUT_I444 => Layout::I444,
            other => return Err(internal(format!("pixel layout {other}"))),
        };
        let (Ok(width), Ok(height)) = (usize::try_from(p.p.w), usize::try_from(p.p.h)) else {
            return Err(internal(format!("size {}x{}", p.p.w, p.p.h)));
        };
        let depth = match p.p.bpc {
            8 => 8,
            10 => 10,
            12 => 12,
            other => return Err(internal(format!("{other} bits per sample"))),
        };
        let header = p.seq_hdr.ok_or_else(|| internal("no sequence header"))?;
        // SAFETY: a non-null `seq_hdr` points into the header that the picture holds a reference to, and `picture` is
        // alive; the decoder never writes to a header once it has handed it out.
        let header = unsafe { header.as_ref() };
        let color = Nclx { matrix: header.mtrx as u16, full_range: header.color_range != 0 };
        let frame = Self { width, height, depth, layout, color, picture };
        for plane in 0..frame.planes() {
            let (w, _) = frame.plane_size(plane);
            let bytes = w * if depth == 8 { 1 } else { 2 };
            let stride = frame.picture.0.stride[plane.min(1)];
            // Strides are positive, since the decoder's own allocator makes the planes; relied on in `row`.
            if frame.picture.0.data[plane].is_none() || usize::try_from(stride).is_ok_and(|s| s < bytes) || stride < 0 {
                return Err(internal(format!("plane {plane} of stride {stride}")));
            }
        }
        Ok(frame)
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// Bits per sample: 8, 10 or 12.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The bitstream's own colour description.
    pub fn color(&self) -> Nclx {
        self.color
    }

    fn planes(&self) -> usize {
        if self.layout == Layout::I400 { 1 } else { 3 }
    }

    /// Samples in a row, and rows, of a plane.
    fn plane_size(&self, plane: usize) -> (usize, usize) {
        match self.layout {
            Layout::I420 if plane > 0 => (self.width.div_ceil(2), self.height.div_ceil(2)),
            Layout::I422 if plane > 0 => (self.width.div_ceil(2), self.height),
            _ => (self.width, self.height),
        }
    }

    /// Row `y` of plane 0 (luma), 1 or 2 (chroma).
    ///
    /// # Panics
    ///
    /// If the picture has no such row.
    pub fn row(&self, plane: usize, y: usize) -> Row<'_> {
        let (w, h) = self.plane_size(plane);
        assert!(plane < self.planes() && y < h, "row {y} of plane {plane} of {w}x{h}");
        let p = &self.picture.0;
        let data = p.data[plane].map_or(ptr::null(), |data| data.as_ptr().cast_const().cast::<u8>());
        // SAFETY: `new` saw that `data` is not null, that strides are not negative, and that a stride holds `w`
        // samples; the decoder allocated `h` rows of `stride` bytes, and row `y` is one of them. The planes are aligned
        // to 64 bytes and their strides are multiples of 64 (`DAV1D_PICTURE_ALIGNMENT`), which is enough for `u16`,
        // and samples above 8 bits are `u16` in the machine's byte order. Nobody writes to them any more: the
        // decoder hands a picture out when it is finished, and is closed before the first call of this function.
        unsafe {
            let start = data.offset(p.stride[plane.min(1)] * y as isize);
            match self.depth {
                8 => Row::Eight(slice::from_raw_parts(start, w)),
                _ => Row::Sixteen(slice::from_raw_parts(start.cast(), w)),
            }
        }
    }
}

/// The first sequence header in `data`.
fn sequence_header(data: &[u8]) -> Result<Dav1dSequenceHeader> {
    if data.is_empty() {
        // The decoder would refuse it too, but not without a word on standard error.
        return Err(image_error("expected AV1 data, found none"));
    }
    let mut header = MaybeUninit::<Dav1dSequenceHeader>::uninit();
    // SAFETY: the output is valid to write to, and pointer and length are those of a slice. The call only reads them.
    let result = unsafe {
        dav1d::dav1d_parse_sequence_header(
            NonNull::new(header.as_mut_ptr()),
            NonNull::new(data.as_ptr().cast_mut()),
            data.len(),
        )
    };
    if result.0 != 0 {
        return Err(image_error("expected an AV1 sequence header, found none"));
    }
    // SAFETY: the call returned success, and it writes the whole header before it does.
    Ok(unsafe { header.assume_init() })
}

/// An open decoder.
struct Context(Option<Dav1dContext>);

impl Context {
    fn open(operating_point: u8, limits: &DecodeLimits) -> Result<Self> {
        let mut settings = MaybeUninit::<Dav1dSettings>::uninit();
        // SAFETY: the pointer is valid to write settings to, and the call writes all of them.
        let mut settings = unsafe {
            dav1d::dav1d_default_settings(NonNull::from(&mut settings).cast());
            settings.assume_init()
        };
        // Two frame contexts, and thus two threads, are the fewest with which rav1d 1.1.0 survives damaged data: with
        // one, any error within a frame panics inside an `extern "C"` function, which aborts the process
        // (https://github.com/memorysafety/rav1d/issues/1497).
        settings.n_threads = 2;
        settings.max_frame_delay = 2;
        settings.operating_point = operating_point.into();
        // Of a picture in layers, only the last and best.
        settings.all_layers = 0;
        settings.frame_size_limit = u32::try_from(limits.max_pixels).unwrap_or(u32::MAX);
        // SAFETY: without a callback there is nothing to call; the decoder then keeps silent instead of writing to
        // the standard error of whoever uses this library.
        settings.logger = unsafe { Dav1dLogger::new(None, None) };

        let mut context = Self(None);
        // SAFETY: both pointers are to live values of their types; the settings come from the call above.
        let result =
            unsafe { dav1d::dav1d_open(Some(NonNull::from(&mut context.0)), Some(NonNull::from(&mut settings))) };
        if result.0 != 0 || context.0.is_none() {
            return Err(internal(format!("cannot open the decoder, code {}", result.0)));
        }
        Ok(context)
    }

    fn decode(&self, data: &[u8]) -> Result<OwnedPicture> {
        let mut packet = Packet::copy(data)?;
        // SAFETY: the context is open, since `open` saw so and only `drop` closes it, and the packet is valid to read
        // and write; what the call leaves in it is released by its `Drop`.
        let sent = unsafe { dav1d::dav1d_send_data(self.0, Some(NonNull::from(&mut packet.0))) };
        if sent.0 != 0 {
            return Err(image_error(format!("the AV1 data is damaged, or exceeds the limits (code {})", sent.0)));
        }
        // The first call may only tell the decoder that no more data comes, the second then hands out what it held
        // back waiting for a better layer.
        for _ in 0..2 {
            let mut picture = OwnedPicture(Dav1dPicture::default());
            // SAFETY: as above; the call overwrites an empty picture, which holds no reference that would be lost.
            let result = unsafe { dav1d::dav1d_get_picture(self.0, Some(NonNull::from(&mut picture.0))) };
            if result.0 == 0 && picture.0.data[0].is_some() {
                return Ok(picture);
            }
        }
        Err(image_error("the AV1 data holds no whole picture"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer is to a live value that holds a context from `dav1d_open` or none, and the call takes it
        // out, so that it is closed once.
        unsafe { dav1d::dav1d_close(Some(NonNull::from(&mut self.0))) };
    }
}

/// Data on its way into the decoder.
struct Packet(Dav1dData);

impl Packet {
    fn copy(data: &[u8]) -> Result<Self> {
        // The decoder's own allocation aborts when it fails, so it is tried here first.
        reserve(&mut Vec::new(), Some(data.len()), data.len(), 1)?;
        let mut packet = Self(Dav1dData::default());
        // SAFETY: the output is valid to write to, and empty, so that overwriting it loses nothing.
        let buffer = unsafe { dav1d::dav1d_data_create(Some(NonNull::from(&mut packet.0)), data.len()) };
        if buffer.is_null() {
            let message = format!("no memory for {} bytes of AV1 data", data.len());
            return Err(Error::new(ErrorKind::OutOfMemory, message));
        }
        // SAFETY: the call returned a buffer of `data.len()` bytes that only `packet` refers to.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), buffer, data.len()) };
        Ok(packet)
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: the pointer is to a live value, and the call leaves it empty, so that its reference is released once.
        unsafe { dav1d::dav1d_data_unref(Some(NonNull::from(&mut self.0))) };
    }
}

/// A reference to a picture of the decoder, or to none.
struct OwnedPicture(Dav1dPicture);

impl Drop for OwnedPicture {
    fn drop(&mut self) {
        // SAFETY: the pointer is to a live value, and the call leaves it empty, so that its reference is released once.
        unsafe { dav1d::dav1d_picture_unref(Some(NonNull::from(&mut self.0))) };
    }
}

fn internal(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, format!("unexpected answer of the AV1 decoder: {what}"))
}
