//! Pixels in and out: picture files and raw buffers become upright RGB, RGB becomes the model's square, masks become
//! picture-sized, and results become files.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | [`ImageView`], pixels that the caller owns; [`Picture`], pixels that we own |
//! | `decode` | picture files, their limits, and their orientation |
//! | `avif` | the one format the `image` crate does not decode in Rust (feature `avif`) |
//! | `preprocess` | resize and normalise, equal bit for bit to upstream's image processor |
//! | `interpolate` | `f32` resampling of masks, as `torch.nn.functional.interpolate` does it |
//! | `encode` | PNG, JPEG and WebP, to memory or atomically to a path |
//!
//! This is a leaf: it knows nothing of the model. Everything that reaches it from outside is untrusted.
//!
//! # Transparency
//!
//! Wherever pixels with alpha become RGB they are laid over white, with Pillow's integer arithmetic, because that is
//! what upstream feeds its model (`convert_to_rgb` in `image_transforms.py` of transformers 5.23 composites before it
//! converts; only older versions dropped the alpha channel).

#[cfg(feature = "avif")]
mod avif;
mod decode;
mod encode;
mod interpolate;
mod orient;
mod preprocess;

use std::borrow::Cow;
use std::path::Path;

pub use decode::DecodeLimits;
pub use encode::{FileFormat, JPEG_QUALITY, encode, save, save_as, write_file};
pub(crate) use interpolate::Taps;
pub use interpolate::{BilinearRows, resize_antialias_f32, resize_bilinear_f32};
#[cfg(feature = "cuda")]
pub(crate) use preprocess::Axis;
pub use preprocess::{NORMALISED, normalise, resize};

use crate::error::{Error, ErrorKind, Result};

/// How the bytes of one pixel are laid out; every sample is one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb8,
    /// Blue, green, red.
    Bgr8,
    /// Red, green, blue, alpha (straight, not premultiplied).
    Rgba8,
    /// Blue, green, red, alpha (straight, not premultiplied).
    Bgra8,
    /// One grey sample.
    Gray8,
    /// Red, green, blue, and a byte that means nothing.
    Rgbx8,
    /// Blue, green, red, and a byte that means nothing: what is drawn to a screen.
    Bgrx8,
}

impl PixelFormat {
    /// Bytes of one pixel.
    pub const fn bytes_per_pixel(self) -> usize {
        match self {
            Self::Gray8 => 1,
            Self::Rgb8 | Self::Bgr8 => 3,
            Self::Rgba8 | Self::Bgra8 | Self::Rgbx8 | Self::Bgrx8 => 4,
        }
    }
}

/// Borrowed pixels: `height` rows of `width` pixels, `stride` bytes from one row's start to the next.
///
/// [`ImageView::new`] is the only way to make one, so whoever holds a view may index it without further checks.
#[derive(Clone, Copy)]
pub struct ImageView<'a> {
    data: &'a [u8],
    width: usize,
    height: usize,
    stride: usize,
    format: PixelFormat,
}

impl<'a> ImageView<'a> {
    /// A view of `data`. The last row needs only its pixels, not the rest of its stride; bytes past it are ignored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for an empty picture, a stride shorter than a row, sizes whose product does not
    /// fit the address space, or a buffer too short for them.
    pub fn new(data: &'a [u8], width: usize, height: usize, stride: usize, format: PixelFormat) -> Result<Self> {
        if width == 0 || height == 0 {
            return Err(Error::invalid(format!("image view: expected at least 1x1 pixels, found {width}x{height}")));
        }
        let overflow =
            || Error::invalid(format!("image view: {width}x{height} pixels of {format:?} overflow the address space"));
        let row = width.checked_mul(format.bytes_per_pixel()).ok_or_else(overflow)?;
        if stride < row {
            return Err(Error::invalid(format!(
                "image view: expected a stride of at least {row} bytes for {width} pixels of {format:?}, found {stride}"
            )));
        }
        let need = stride.checked_mul(height - 1).and_then(|n| n.checked_add(row)).ok_or_else(overflow)?;
        if data.len() < need {
            return Err(Error::invalid(format!(
                "image view: expected at least {need} bytes for {width}x{height} pixels of {format:?} with a stride of \
                 {stride}, found {}",
                data.len()
            )));
        }
        Ok(Self { data, width, height, stride, format })
    }

    /// Pixels in a row, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows, at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Bytes from one row's start to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Layout of a pixel.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// The `width * bytes_per_pixel` bytes of row `y`.
    ///
    /// # Panics
    ///
    /// If `y` is not below the height.
    pub fn row(&self, y: usize) -> &'a [u8] {
        assert!(y < self.height, "row {y} of an image of {} rows", self.height);
        &self.data[y * self.stride..][..self.width * self.format.bytes_per_pixel()]
    }

    /// All pixels as packed RGB: the caller's own bytes where they are that already, otherwise a copy.
    ///
    /// # Errors
    ///
    /// As [`Picture::from_view`].
    pub fn packed_rgb(&self) -> Result<Cow<'a, [u8]>> {
        let row = self.width * 3;
        if self.format == PixelFormat::Rgb8 && (self.stride == row || self.height == 1) {
            return Ok(Cow::Borrowed(&self.data[..row * self.height]));
        }
        Ok(Cow::Owned(Picture::from_view(self)?.pixels))
    }

    /// Row `y` as packed RGB: the caller's own bytes where they are RGB already, otherwise converted into `scratch`.
    fn rgb_row<'s>(&self, y: usize, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        let row = self.row(y);
        if self.format == PixelFormat::Rgb8 {
            return row;
        }
        scratch.clear();
        push_rgb(row, self.format, scratch);
        scratch
    }
}

impl std::fmt::Debug for ImageView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageView({}x{} {:?}, stride {})", self.width, self.height, self.format, self.stride)
    }
}

/// Appends the pixels of `row` to `out` as RGB.
fn push_rgb(row: &[u8], format: PixelFormat, out: &mut Vec<u8>) {
    match format {
        PixelFormat::Rgb8 => out.extend_from_slice(row),
        PixelFormat::Bgr8 => out.extend(row.as_chunks::<3>().0.iter().flat_map(|&[b, g, r]| [r, g, b])),
        PixelFormat::Rgba8 => {
            out.extend(row.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, a]| [r, g, b].map(|v| over_white(v, a))));
        }
        PixelFormat::Bgra8 => {
            out.extend(row.as_chunks::<4>().0.iter().flat_map(|&[b, g, r, a]| [r, g, b].map(|v| over_white(v, a))));
        }
        PixelFormat::Rgbx8 => out.extend(row.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b])),
        PixelFormat::Bgrx8 => out.extend(row.as_chunks::<4>().0.iter().flat_map(|&[b, g, r, _]| [r, g, b])),
        PixelFormat::Gray8 => out.extend(row.iter().flat_map(|&v| [v; 3])),
    }
}

/// One sample of straight alpha `a` over opaque white.
///
/// Pillow's `AlphaComposite.c` with an opaque background: `coef1 = 128 a`, `coef2 = 128 (255 - a)`, and a division by
/// 255 as two shifts over 7 extra bits of precision. Kept literally; the tests compare all 65536 inputs.
fn over_white(v: u8, a: u8) -> u8 {
    let (v, a) = (u32::from(v), u32::from(a));
    let sum = 128 * (v * a + 255 * (255 - a)) + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}

/// An upright RGB picture that owns its pixels, tightly packed row by row.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pixels: Vec<u8>,
    width: usize,
    height: usize,
}

impl Picture {
    /// Reads and decodes a picture file within the default [`DecodeLimits`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the file cannot be read; otherwise as [`Picture::decode`]. Messages begin with the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &DecodeLimits::default())
    }

    /// [`Picture::open`] with the caller's limits.
    ///
    /// # Errors
    ///
    /// As [`Picture::open`].
    pub fn open_with(path: impl AsRef<Path>, limits: &DecodeLimits) -> Result<Self> {
        let path = path.as_ref();
        decode::read_file(path, limits)
            .and_then(|bytes| decode::decode(&bytes, limits))
            .map_err(|e| e.at(path.display()))
    }

    /// Decodes the bytes of a picture file within the default [`DecodeLimits`]. The format is told from the content:
    /// JPEG, PNG, WebP, GIF (first frame), BMP, TIFF (first page), and AVIF with feature `avif`. The orientation that
    /// the file asks for is applied, transparency is laid over white, and more than 8 bits are cut to the upper 8.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Image`] for damaged files and exceeded limits, [`ErrorKind::Unsupported`] for formats and variants
    /// outside that list.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_with(bytes, &DecodeLimits::default())
    }

    /// [`Picture::decode`] with the caller's limits.
    ///
    /// # Errors
    ///
    /// As [`Picture::decode`].
    pub fn decode_with(bytes: &[u8], limits: &DecodeLimits) -> Result<Self> {
        decode::decode(bytes, limits)
    }

    /// Copies the pixels of a view, converted to RGB.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfMemory`] if they do not fit.
    pub fn from_view(view: &ImageView<'_>) -> Result<Self> {
        let (width, height) = (view.width, view.height);
        let mut pixels = Vec::new();
        let len = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        reserve(&mut pixels, len, width, height)?;
        for y in 0..height {
            push_rgb(view.row(y), view.format, &mut pixels);
        }
        Ok(Self { pixels, width, height })
    }

    /// A picture of packed RGB that the decoders made.
    fn from_rgb(pixels: Vec<u8>, width: usize, height: usize) -> Self {
        debug_assert_eq!(pixels.len(), width * height * 3);
        Self { pixels, width, height }
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// `[height, width, 3]` samples.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The samples themselves.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// The picture as a view.
    pub fn view(&self) -> ImageView<'_> {
        ImageView {
            data: &self.pixels,
            width: self.width,
            height: self.height,
            stride: self.width * 3,
            format: PixelFormat::Rgb8,
        }
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

/// Room for `len` more bytes, `None` standing for a length beyond the address space.
fn reserve(buf: &mut Vec<u8>, len: Option<usize>, width: usize, height: usize) -> Result<()> {
    let full = || Error::new(ErrorKind::OutOfMemory, format!("no memory for a picture of {width}x{height} pixels"));
    buf.try_reserve_exact(len.ok_or_else(full)?).map_err(|e| full().with_source(e))
}
