//! Pictures and masks to files: PNG and WebP without loss, JPEG at a fixed quality.
//!
//! A file appears under its name only when it is whole. It is written beside its place under another name, flushed to
//! the disk, and renamed; whatever fails on the way removes it again.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ::image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use ::image::{ExtendedColorType, ImageEncoder};

use super::{ImageView, PixelFormat, push_rgb, reserve};
use crate::error::{Error, ErrorKind, Result};

/// Quality of JPEG files on libjpeg's scale of 1 to 100, where 95 is the most that is worth its bytes.
pub const JPEG_QUALITY: u8 = 95;

/// A format that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFormat {
    /// Lossless; grey, RGB and RGBA.
    Png,
    /// Lossy, at [`JPEG_QUALITY`]; grey and RGB.
    Jpeg,
    /// Lossless WebP; grey is stored as RGB, and no side may exceed 16384.
    WebP,
}

impl FileFormat {
    /// By a file's ending, in any case: `png`, `jpg`, `jpeg`, `webp`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for any other ending or none.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "png" => Ok(Self::Png),
            "jpg" | "jpeg" => Ok(Self::Jpeg),
            "webp" => Ok(Self::WebP),
            _ => Err(Error::invalid("expected a file ending in png, jpg, jpeg or webp").at(path.display())),
        }
    }
}

/// The bytes of a picture file. Blue-first pixels are stored red-first.
///
/// # Errors
///
/// [`ErrorKind::InvalidArgument`] for transparency in a JPEG, or a picture larger than the format can hold.
pub fn encode(view: &ImageView<'_>, format: FileFormat) -> Result<Vec<u8>> {
    let (pixels, color) = packed(view)?;
    let size = |n: usize| {
        let message = || format!("{format:?}: a side of {n} pixels is more than the format can hold");
        u32::try_from(n).map_err(|_| Error::invalid(message()))
    };
    let (w, h) = (size(view.width())?, size(view.height())?);
    let mut out = Vec::new();
    match format {
        FileFormat::Png => PngEncoder::new(&mut out).write_image(&pixels, w, h, color),
        FileFormat::Jpeg if color == ExtendedColorType::Rgba8 => {
            return Err(Error::invalid("a JPEG cannot hold transparency: use png or webp"));
        }
        FileFormat::Jpeg => JpegEncoder::new_with_quality(&mut out, JPEG_QUALITY).write_image(&pixels, w, h, color),
        FileFormat::WebP => WebPEncoder::new_lossless(&mut out).write_image(&pixels, w, h, color),
    }
    .map_err(|e| Error::invalid(format!("{w}x{h} pixels cannot be written as {format:?}")).with_source(e))?;
    Ok(out)
}

/// Writes a picture file, in the format of the path's ending, whole or not at all.
///
/// # Errors
///
/// As [`FileFormat::of`], [`encode`] and [`save_as`].
pub fn save(view: &ImageView<'_>, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    save_as(view, path, FileFormat::of(path)?)
}

/// Writes a picture file in a given format, whole or not at all. A file already there is replaced; symbolic links are
/// followed. What cannot be replaced, a device or a pipe such as `/dev/stdout`, is written to as it is.
///
/// # Errors
///
/// As [`encode`], and [`ErrorKind::Io`] if the file cannot be written. Messages begin with the path.
pub fn save_as(view: &ImageView<'_>, path: impl AsRef<Path>, format: FileFormat) -> Result<()> {
    let path = path.as_ref();
    let bytes = encode(view, format).map_err(|e| e.at(path.display()))?;
    write_file(path, &bytes)
}

/// Writes any file whole or not at all, as [`save_as`] does.
///
/// # Errors
///
/// [`ErrorKind::Io`] if the file cannot be written. Messages begin with the path.
pub fn write_file(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    write_whole(path, bytes)
        .map_err(|e| Error::new(ErrorKind::Io, "cannot write the file").at(path.display()).with_source(e))
}

/// The view's pixels without stride and red first, and their type.
fn packed(view: &ImageView<'_>) -> Result<(Vec<u8>, ExtendedColorType)> {
    let (w, h, format) = (view.width(), view.height(), view.format());
    let mut pixels = Vec::new();
    let len = w.checked_mul(h).and_then(|n| n.checked_mul(format.bytes_per_pixel()));
    reserve(&mut pixels, len, w, h)?;
    let reordered = matches!(format, PixelFormat::Bgr8 | PixelFormat::Rgbx8 | PixelFormat::Bgrx8);
    for y in 0..h {
        match reordered {
            true => push_rgb(view.row(y), format, &mut pixels),
            false => pixels.extend_from_slice(view.row(y)),
        }
    }
    let color = match format {
        PixelFormat::Gray8 => ExtendedColorType::L8,
        PixelFormat::Rgb8 | PixelFormat::Bgr8 | PixelFormat::Rgbx8 | PixelFormat::Bgrx8 => ExtendedColorType::Rgb8,
        PixelFormat::Rgba8 => ExtendedColorType::Rgba8,
        PixelFormat::Bgra8 => {
            pixels.as_chunks_mut::<4>().0.iter_mut().for_each(|p| p.swap(0, 2));
            ExtendedColorType::Rgba8
        }
    };
    Ok((pixels, color))
}

/// A file that goes away unless it was given its name.
struct Unfinished {
    path: PathBuf,
    kept: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done if even this fails; the error that led here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A link's target takes the file, so that the link itself survives; one that leads nowhere is replaced.
    let target = fs::canonicalize(path);
    let path = target.as_deref().unwrap_or(path);
    if fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        // Renaming a file over a device would take the device from everybody.
        return File::options().write(true).open(path)?.write_all(bytes);
    }
    // Unique among the threads of this process; other processes differ by their number.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}-{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));

    let part = path.with_file_name(hidden);
    let mut file = File::create_new(&part)?;
    let mut unfinished = Unfinished { path: part, kept: false };
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&unfinished.path, path)?;
    unfinished.kept = true;
    Ok(())
}
