//! Pixels, patches and upsampling.

use super::buffer::Buffer;
use crate::error::Result;

pub(super) fn ingest(rgb: &[u8], y: &mut Buffer) -> Result<()> {
    for (y, &byte) in y.output(rgb.len())?.iter_mut().zip(rgb) {
        *y = ((f64::from(byte) - 127.5) / 127.5) as f32;
    }
    Ok(())
}

pub(super) fn patches(x: &Buffer, h: usize, w: usize, c: usize, p: usize, y: &mut Buffer) -> Result<()> {
    assert!(p > 0 && h.is_multiple_of(p) && w.is_multiple_of(p), "a picture {h}×{w} in patches of {p}");
    let x = x.rows(h * w, c);
    let y = y.output(h * w * c)?;
    let mut out = y.iter_mut();
    for i in 0..h / p {
        for j in 0..w / p {
            for channel in 0..c {
                for dy in 0..p {
                    for dx in 0..p {
                        let pixel = x.row((i * p + dy) * w + j * p + dx);
                        *out.next().expect("as many elements as pixels and channels") = pixel[channel];
                    }
                }
            }
        }
    }
    Ok(())
}

pub(super) fn upsample_add(
    x: &Buffer,
    [h, w]: [usize; 2],
    skip: &Buffer,
    [oh, ow]: [usize; 2],
    c: usize,
    y: &mut Buffer,
) -> Result<()> {
    let x = x.rows(h * w, c);
    let skip = skip.rows(oh * ow, c);
    let y = y.output(oh * ow * c)?;
    for i in 0..oh {
        for j in 0..ow {
            let from = x.row(i * h / oh * w + j * w / ow);
            let to = i * ow + j;
            for channel in 0..c {
                y[to * c + channel] = (f64::from(from[channel]) + f64::from(skip.row(to)[channel])) as f32;
            }
        }
    }
    Ok(())
}
