//! Pixels in, and between the sizes of a feature pyramid.

use super::isa::Isa;
use super::pool::Pool;
use super::rows::Sum;

/// Values of a task of [`ingest`].
const VALUES: usize = 1 << 16;

/// `y = (rgb - 127.5) / 127.5`
pub fn ingest(pool: &Pool, rgb: &[u8], y: &mut [f32]) {
    pool.for_each(y.chunks_mut(VALUES).zip(rgb.chunks(VALUES)), |(y, rgb)| {
        for (y, &v) in y.iter_mut().zip(rgb) {
            *y = (f32::from(v) - 127.5) / 127.5;
        }
    });
}

/// [`crate::ops::Ops::upsample_add`]
pub fn upsample_add(
    pool: &Pool,
    isa: Isa,
    x: &[f32],
    (h, w): (usize, usize),
    skip: &[f32],
    (oh, ow): (usize, usize),
    c: usize,
    y: &mut [f32],
) {
    pool.for_each(y.chunks_mut(ow * c).zip(skip.chunks(ow * c)).enumerate(), |(i, (y, skip))| {
        let line = &x[i * h / oh * w * c..][..w * c];
        for (j, (y, skip)) in y.chunks_exact_mut(c).zip(skip.chunks_exact(c)).enumerate() {
            isa.run(Sum { a: &line[j * w / ow * c..][..c], b: skip, y });
        }
    });
}
