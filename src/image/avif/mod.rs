//! AVIF: an AV1 key frame in a HEIF container, decoded in Rust.
//!
//! | file | what it holds |
//! |---|---|
//! | `container` | boxes: where the primary item and its alpha are, their size, colour description and orientation |
//! | `av1` | the decoder `rav1d`, whose only public interface is dav1d's C one; the only unsafe code here |
//! | `yuv` | planes of 8, 10 or 12 bits to RGB |
//!
//! The container is parsed here rather than by a crate: `avif-parse` tells neither orientation nor colour description,
//! and refuses files whose major brand is not `avif`; two parsers reading one file could disagree about it.
//!
//! Not supported, and said so in the error: pictures stitched from tiles (`grid`), overlays, other codecs (HEIC), and
//! the matrices that need more than the three planes of one pixel (constant luminance, ICtCp). As upstream's reader
//! does, clean apertures are not applied, and HDR transfer functions are taken as if they were sRGB's.

mod av1;
mod container;
mod yuv;

use self::av1::Frame;
use self::container::{Container, Item};
use super::decode::{image_error, zeroed};
use super::{DecodeLimits, Picture};
use crate::error::Result;

/// Decodes the primary picture of an AVIF file.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    let container = Container::parse(bytes)?;
    let frame = decode_item(&container.primary, limits)?;
    let (w, h) = (frame.width(), frame.height());
    let mut rgb = zeroed(w.checked_mul(h).and_then(|n| n.checked_mul(3)), w, h)?;
    yuv::to_rgb(&frame, container.primary.color, &mut rgb)?;
    drop(frame);

    if let Some(alpha) = &container.alpha {
        let frame = decode_item(alpha, limits).map_err(|e| e.at("alpha"))?;
        if (frame.width(), frame.height()) != (w, h) {
            let (aw, ah) = (frame.width(), frame.height());
            return Err(image_error(format!("expected alpha of {w}x{h} pixels, found {aw}x{ah}")));
        }
        yuv::over_white(&frame, alpha.color, container.premultiplied, &mut rgb);
    }
    let (rgb, w, h) = container.primary.orientation.apply(rgb, w, h);
    Ok(Picture::from_rgb(rgb, w, h))
}

/// Decodes one item, with both of the sizes it claims checked before its pixels are.
fn decode_item(item: &Item<'_>, limits: &DecodeLimits) -> Result<Frame> {
    if let Some((w, h)) = item.size {
        limits.check(w, h)?;
    }
    let frame = Frame::decode(&item.data, item.operating_point, limits)?;
    let found = (frame.width(), frame.height());
    match item.size {
        Some((w, h)) if (w as usize, h as usize) != found => {
            Err(image_error(format!("expected {w}x{h} pixels as the container says, found {}x{}", found.0, found.1)))
        }
        _ => Ok(frame),
    }
}
