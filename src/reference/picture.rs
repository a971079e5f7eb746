//! Pixels, patches, upsampling, and masks.

use super::buffer::Buffer;
use crate::error::Result;
use crate::image::{ImageView, normalise, resize, resize_bilinear_f32};
use crate::ops::Cut;

pub(super) fn ingest(picture: &ImageView<'_>, side: usize, y: &mut Buffer) -> Result<()> {
    for (y, v) in y.output(side * side * 3)?.iter_mut().zip(resize(picture, side)) {
        *y = normalise(v);
    }
    Ok(())
}

pub(super) fn cut(cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) {
    let ([h, w], [oh, ow]) = (cut.from, cut.to);
    for (map, words) in masks {
        assert_eq!(words.len(), oh * cut.line(), "the words of a mask of {ow} x {oh}");
        words.fill(0);
        if oh * ow == 0 {
            continue;
        }
        let map: Vec<f32> = map.iter().map(|&x| cut.compared.exact(x)).collect();
        for (i, v) in resize_bilinear_f32(&map, h, w, oh, ow).into_iter().enumerate() {
            words[i / ow * cut.line() + i % ow / 64] |= u64::from(v > cut.threshold) << (i % ow % 64);
        }
    }
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
