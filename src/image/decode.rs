//! Picture files: which format it is, how large it claims to be, and its pixels, upright and in RGB.
//!
//! The size is checked from the header before anything is allocated for the pixels, and what decoders allocate besides
//! is bounded too where they let us. The `image` crate decodes everything but AVIF.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use ::image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::orient::Orientation;
use super::{Picture, PixelFormat, push_rgb, reserve};
use crate::error::{Error, ErrorKind, Result};

/// What a picture file may ask of this machine. All limits are checked before the memory is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeLimits {
    /// Most pixels, width times height. The default, 178,956,970, is where Pillow begins to refuse
    /// (`2 * Image.MAX_IMAGE_PIXELS`, half a GiB of RGB): beyond it upstream opens nothing either.
    pub max_pixels: u64,
    /// Longest side. The default, 65,535, is what JPEG and AV1 can hold. A picture of one by a hundred million pixels is
    /// no larger than others, but every one of its rows is resampled to the model's width, which takes minutes.
    pub max_side: u32,
    /// Most bytes that a decoder may allocate, pixels in the file's own format included. The default, 2 GiB, holds the
    /// most pixels in the widest format, 8 bytes each, with room for tables and rows. The AV1 decoder takes no such
    /// limit; its memory follows from `max_pixels`, at most about 12 bytes each.
    pub max_alloc: u64,
    /// Most bytes of the file itself. The default is 1 GiB, above any uncompressed file within `max_pixels` of 8 bits.
    pub max_file: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_pixels: 178_956_970, max_side: 65_535, max_alloc: 2 << 30, max_file: 1 << 30 }
    }
}

impl DecodeLimits {
    /// Both sides as `usize`, if their product is within the limit.
    pub(super) fn check(&self, width: u32, height: u32) -> Result<(usize, usize)> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(image_error(format!("expected at least 1x1 pixels, found {width}x{height}")));
        }
        if pixels > self.max_pixels {
            return Err(image_error(format!(
                "expected at most {} pixels, found {width}x{height} = {pixels}",
                self.max_pixels
            )));
        }
        if width.max(height) > self.max_side {
            return Err(image_error(format!(
                "expected sides of at most {} pixels, found {width}x{height}",
                self.max_side
            )));
        }
        match (usize::try_from(width), usize::try_from(height)) {
            (Ok(w), Ok(h)) => Ok((w, h)),
            _ => Err(image_error(format!("{width}x{height} pixels do not fit the address space"))),
        }
    }
}

/// The bytes of the file at `path`, if they are within the limit.
pub(super) fn read_file(path: &Path, limits: &DecodeLimits) -> Result<Vec<u8>> {
    let io = |what: &str, e: std::io::Error| Error::new(ErrorKind::Io, what).with_source(e);
    let file = File::open(path).map_err(|e| io("cannot open", e))?;
    let mut bytes = Vec::new();
    // The length that the system reports may be a lie (pipes, /proc), so the limit is on what is read.
    file.take(limits.max_file.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| io("cannot read", e))?;
    if bytes.len() as u64 > limits.max_file {
        return Err(image_error(format!("expected a file of at most {} bytes", limits.max_file)));
    }
    Ok(bytes)
}

/// Decodes a picture file of any format.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    if is_heif(bytes) {
        return decode_heif(bytes, limits);
    }
    let format =
        ::image::guess_format(bytes).ok().filter(|format| SUPPORTED.contains(format)).ok_or_else(|| unknown(bytes))?;
    with_image_crate(bytes, format, limits).map_err(|e| e.at(format_name(format)))
}

const SUPPORTED: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => "picture",
    }
}

fn unknown(bytes: &[u8]) -> Error {
    let head = &bytes[..bytes.len().min(8)];
    let message = format!(
        "expected JPEG, PNG, WebP, GIF, BMP, TIFF{} found {} bytes beginning with {head:02x?}",
        if cfg!(feature = "avif") { " or AVIF," } else { "," },
        bytes.len()
    );
    Error::new(ErrorKind::Unsupported, message)
}

/// Whether the file begins with the box that every ISO media file begins with (ISO 14496-12, 4.3).
fn is_heif(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"ftyp")
}

#[cfg(feature = "avif")]
fn decode_heif(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    super::avif::decode(bytes, limits).map_err(|e| e.at("AVIF"))
}

#[cfg(not(feature = "avif"))]
fn decode_heif(_: &[u8], _: &DecodeLimits) -> Result<Picture> {
    Err(Error::new(ErrorKind::Unsupported, "AVIF: this build has no feature `avif`"))
}

fn with_image_crate(bytes: &[u8], format: ImageFormat, limits: &DecodeLimits) -> Result<Picture> {
    if format == ImageFormat::Jpeg {
        jpeg_is_whole(bytes)?;
    }
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(from_image_crate)?;
    let (width, height) = decoder.dimensions();
    let (w, h) = limits.check(width, height)?;
    let color = decoder.color_type();

    let total = decoder.total_bytes();
    if total > limits.max_alloc {
        return Err(image_error(format!("expected at most {} bytes of pixels, found {total}", limits.max_alloc)));
    }
    let mut allowed = Limits::default();
    allowed.max_alloc = Some(limits.max_alloc - total);
    decoder.set_limits(allowed).map_err(from_image_crate)?;
    // Damaged metadata is no reason to refuse a picture whose pixels are whole.
    let orientation = decoder.orientation().map_or(1, |o| o.to_exif());

    let mut raw = zeroed(usize::try_from(total).ok(), w, h)?;
    decoder.read_image(&mut raw).map_err(from_image_crate)?;
    let rgb = to_rgb(raw, color, w, h)?;
    let (rgb, w, h) = Orientation::from_exif(orientation).apply(rgb, w, h);
    Ok(Picture::from_rgb(rgb, w, h))
}

/// A zeroed buffer, or an error where a plain `vec!` would abort. The memory is asked for twice so that the second
/// time it can come zeroed from the system, untouched until a decoder writes to it: a header that lies about its size
/// costs no time.
pub(super) fn zeroed(len: Option<usize>, w: usize, h: usize) -> Result<Vec<u8>> {
    reserve(&mut Vec::new(), len, w, h)?;
    Ok(vec![0; len.unwrap_or_default()])
}

/// Samples as the `image` crate delivers them, 16-bit ones in the machine's byte order, to RGB. Of 16 bits the upper
/// 8 are kept, as Pillow does for colour (its grey saturates at 255 instead, which turns most such pictures white).
fn to_rgb(mut raw: Vec<u8>, color: ColorType, w: usize, h: usize) -> Result<Vec<u8>> {
    if matches!(color, ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16) {
        for i in 0..raw.len() / 2 {
            raw[i] = u16::from_ne_bytes([raw[2 * i], raw[2 * i + 1]]).to_be_bytes()[0];
        }
        raw.truncate(raw.len() / 2);
    }
    let format = match color {
        ColorType::Rgb8 | ColorType::Rgb16 => return Ok(raw),
        ColorType::L8 | ColorType::L16 => PixelFormat::Gray8,
        ColorType::Rgba8 | ColorType::Rgba16 => PixelFormat::Rgba8,
        ColorType::La8 | ColorType::La16 => {
            let mut rgb = Vec::new();
            reserve(&mut rgb, (w * h).checked_mul(3), w, h)?;
            rgb.extend(raw.as_chunks::<2>().0.iter().flat_map(|&[v, a]| [super::over_white(v, a); 3]));
            return Ok(rgb);
        }
        _ => {
            let message = format!("expected grey or RGB samples of 8 or 16 bits, found {color:?}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    };
    let mut rgb = Vec::new();
    reserve(&mut rgb, (w * h).checked_mul(3), w, h)?;
    push_rgb(&raw, format, &mut rgb);
    Ok(rgb)
}

/// Refuses a JPEG whose data ends before its end-of-image marker. The decoder would fill the rest with grey, and masks
/// of grey are worse than an error; Pillow refuses such files too.
fn jpeg_is_whole(bytes: &[u8]) -> Result<()> {
    let cut = || image_error(format!("expected an end-of-image marker, found the end of the file at {}", bytes.len()));
    let mut at = 2;
    loop {
        // A marker: any number of 0xff, then its code (ITU-T T.81, B.1.1.2).
        let start = at + bytes.get(at..).ok_or_else(cut)?.iter().position(|&b| b == 0xff).ok_or_else(cut)?;
        let code_at = start + bytes[start..].iter().position(|&b| b != 0xff).ok_or_else(cut)?;
        at = code_at + 1;
        match bytes[code_at] {
            0xd9 => return Ok(()),
            // Stuffed bytes of entropy-coded data, restart markers, SOI and TEM have no length.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            _ => {
                let length = bytes.get(at..at + 2).ok_or_else(cut)?;
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

pub(super) fn image_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Image, message)
}

fn from_image_crate(e: ImageError) -> Error {
    let (kind, message) = match &e {
        ImageError::Unsupported(_) => (ErrorKind::Unsupported, "this variant cannot be decoded"),
        ImageError::Limits(_) => (ErrorKind::Image, "the decoder would exceed its limits"),
        _ => (ErrorKind::Image, "the file is damaged"),
    };
    Error::new(kind, message).with_source(e)
}
