//! The bitmap all other forms of a mask are made from.
//!
//! Rows are padded to whole 64-bit words, pixel `x` being bit `x % 64` of word `x / 64`: a row can then be handed to a
//! thread, compared or counted on its own, and a run of pixels is found with one `trailing_zeros`. The padding bits are
//! zero at all times; every writer in this file keeps it so, and every reader relies on it.

use crate::{Error, Result};

/// The longest side of a mask: what a JPEG can hold, and what keeps pixel-edge coordinates exact in `f32`.
pub const MAX_SIDE: usize = 65_535;

/// The most pixels of a mask read from run lengths of unknown origin: 128 MiB of bits, 21 times a 50-megapixel
/// photograph.
pub const MAX_PIXELS: usize = 1 << 30;

/// A binary mask of `[height, width]`, one bit a pixel, row-major.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    /// `[height, width.div_ceil(64)]`.
    words: Vec<u64>,
}

impl Mask {
    /// An empty mask. Either side may be 0.
    ///
    /// # Panics
    /// If a side exceeds [`MAX_SIDE`]; sizes from outside are checked with [`Mask::check_size`] first.
    pub fn new(width: usize, height: usize) -> Self {
        assert!(width <= MAX_SIDE && height <= MAX_SIDE, "a mask of {width} x {height} exceeds {MAX_SIDE} a side");
        Self { width, height, words: vec![0; width.div_ceil(64) * height] }
    }

    /// Whether a mask of this size may be made from untrusted input.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if a side exceeds [`MAX_SIDE`] or the area [`MAX_PIXELS`].
    pub fn check_size(width: usize, height: usize) -> Result<()> {
        if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
            return Err(Error::invalid(format!(
                "expected a mask of at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all, found {width} x {height}"
            )));
        }
        Ok(())
    }

    /// A mask whose pixel `(x, y)` is `f(x, y)`, asked row by row.
    ///
    /// # Panics
    /// As [`Mask::new`].
    pub fn from_fn(width: usize, height: usize, mut f: impl FnMut(usize, usize) -> bool) -> Self {
        let mut mask = Self::new(width, height);
        for y in 0..height {
            for (i, word) in mask.row_mut(y).iter_mut().enumerate() {
                let first = i * 64;
                for bit in 0..(width - first).min(64) {
                    *word |= u64::from(f(first + bit, y)) << bit;
                }
            }
        }
        mask
    }

    /// A mask from one byte a pixel, row-major; every value but 0 is foreground.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if the size is too large or `pixels` does not hold `width * height` bytes.
    pub fn from_u8(width: usize, height: usize, pixels: &[u8]) -> Result<Self> {
        Self::check_size(width, height)?;
        if pixels.len() != width * height {
            return Err(Error::invalid(format!(
                "expected {} bytes for a mask of {width} x {height}, found {}",
                width * height,
                pixels.len()
            )));
        }
        let mut mask = Self::new(width, height);
        for y in 0..height {
            let row = &pixels[y * width..][..width];
            for (word, bytes) in mask.row_mut(y).iter_mut().zip(row.chunks(64)) {
                for (bit, &byte) in bytes.iter().enumerate() {
                    *word |= u64::from(byte != 0) << bit;
                }
            }
        }
        Ok(mask)
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Words in a row: `width.div_ceil(64)`.
    pub fn row_words(&self) -> usize {
        self.width.div_ceil(64)
    }

    /// Pixel `(x, y)`.
    ///
    /// # Panics
    /// If it lies outside the mask.
    #[inline]
    pub fn get(&self, x: usize, y: usize) -> bool {
        assert!(x < self.width, "x = {x} in a mask {} wide", self.width);
        self.row(y)[x / 64] >> (x % 64) & 1 != 0
    }

    /// Sets pixel `(x, y)`.
    ///
    /// # Panics
    /// If it lies outside the mask.
    #[inline]
    pub fn set(&mut self, x: usize, y: usize, on: bool) {
        assert!(x < self.width, "x = {x} in a mask {} wide", self.width);
        let word = &mut self.row_mut(y)[x / 64];
        *word = *word & !(1 << (x % 64)) | u64::from(on) << (x % 64);
    }

    /// Row `y` as words: pixel `x` is bit `x % 64` of word `x / 64`; bits beyond the width are 0.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn row(&self, y: usize) -> &[u64] {
        let n = self.row_words();
        &self.words[y * n..][..n]
    }

    /// Row `y` for writing. Crate-private because the writer must leave the bits beyond the width 0.
    #[inline]
    pub(crate) fn row_mut(&mut self, y: usize) -> &mut [u64] {
        let n = self.row_words();
        &mut self.words[y * n..][..n]
    }

    /// All rows for writing, [`Mask::row_words`] words each. Crate-private for the same reason.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Makes pixels `x0..x1` of row `y` foreground.
    ///
    /// # Panics
    /// If `x1` exceeds the width or there is no such row.
    pub fn fill(&mut self, y: usize, x0: usize, x1: usize) {
        assert!(x1 <= self.width, "x = {x1} in a mask {} wide", self.width);
        set_bits(self.row_mut(y), x0, x1);
    }

    /// Foreground pixels.
    pub fn area(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// Whether there is no foreground pixel.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&w| w == 0)
    }

    /// The tight box of the foreground, `[x0, y0, x1, y1]` in pixels, half open: `x0..x1`, `y0..y1`. `None` if empty.
    pub fn bounding_box(&self) -> Option<[usize; 4]> {
        let n = self.row_words();
        if n == 0 {
            return None;
        }
        let used = |row: &[u64]| row.iter().any(|&w| w != 0);
        let y0 = self.words.chunks_exact(n).position(used)?;
        let y1 = self.height - self.words.chunks_exact(n).rev().position(used)?;
        let mut columns = vec![0; n];
        for row in self.words[y0 * n..y1 * n].chunks_exact(n) {
            columns.iter_mut().zip(row).for_each(|(c, w)| *c |= w);
        }
        let first = columns.iter().position(|&w| w != 0)?;
        let last = columns.iter().rposition(|&w| w != 0)?;
        let x0 = first * 64 + columns[first].trailing_zeros() as usize;
        let x1 = last * 64 + 64 - columns[last].leading_zeros() as usize;
        Some([x0, y0, x1, y1])
    }

    /// Intersection over union, 0 to 1. Two empty masks have no union; their value is 0, so that nothing counts as
    /// found where there is nothing.
    ///
    /// # Panics
    /// If the sizes differ.
    pub fn iou(&self, other: &Mask) -> f64 {
        assert_eq!((self.width, self.height), (other.width, other.height), "masks of two sizes have no IoU");
        let (mut both, mut either) = (0u64, 0u64);
        for (a, b) in self.words.iter().zip(&other.words) {
            both += u64::from((a & b).count_ones());
            either += u64::from((a | b).count_ones());
        }
        if either == 0 { 0.0 } else { both as f64 / either as f64 }
    }

    /// One byte a pixel, row-major: 255 foreground, 0 background.
    pub fn to_u8(&self) -> Vec<u8> {
        let mut out = vec![0; self.width * self.height];
        for y in 0..self.height {
            for (x0, x1) in self.runs(y) {
                out[y * self.width + x0..y * self.width + x1].fill(255);
            }
        }
        out
    }

    /// One bit a pixel, row-major, the leftmost pixel in the highest bit, every row starting on a byte of its own: the
    /// scanlines of a 1-bit PNG, and `numpy.packbits(mask, axis=1)`. `height * width.div_ceil(8)` bytes; unused low
    /// bits of a row's last byte are 0.
    pub fn packed_bits(&self) -> Vec<u8> {
        let n = self.width.div_ceil(8);
        let mut out = Vec::with_capacity(n * self.height);
        for y in 0..self.height {
            // Reversing a word puts pixel 0 into the highest bit; its big-endian bytes then run from left to right.
            let bytes = self.row(y).iter().flat_map(|w| w.reverse_bits().to_be_bytes());
            out.extend(bytes.take(n));
        }
        out
    }

    /// The foreground runs of row `y` from left to right, half open and never touching: `(x0, x1)`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn runs(&self, y: usize) -> Runs<'_> {
        Runs { row: self.row(y), x: 0, width: self.width }
    }
}

impl std::fmt::Debug for Mask {
    /// Size and area: the bits themselves would fill screens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} x {}, area {})", self.width, self.height, self.area())
    }
}

/// The foreground runs of one row; see [`Mask::runs`].
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    row: &'a [u64],
    /// Everything left of it has been reported.
    x: usize,
    width: usize,
}

impl Runs<'_> {
    /// The first pixel at or right of `x` whose bit is set in `row ^ flip`; the width if there is none.
    fn next_bit(&self, x: usize, flip: u64) -> usize {
        let mut i = x / 64;
        let Some(&first) = self.row.get(i) else { return self.width };
        let mut word = (first ^ flip) & (!0 << (x % 64));
        while word == 0 {
            i += 1;
            match self.row.get(i) {
                Some(&next) => word = next ^ flip,
                None => return self.width,
            }
        }
        (i * 64 + word.trailing_zeros() as usize).min(self.width)
    }
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let start = self.next_bit(self.x, 0);
        if start >= self.width {
            self.x = self.width;
            return None;
        }
        self.x = self.next_bit(start, !0);
        Some((start, self.x))
    }
}

/// Sets bits `from..to` of a string of words, lowest bit first.
pub(super) fn set_bits(words: &mut [u64], from: usize, to: usize) {
    if from >= to {
        return;
    }
    let (first, last) = (from / 64, (to - 1) / 64);
    let head = !0 << (from % 64);
    let tail = !0 >> (63 - (to - 1) % 64);
    if first == last {
        words[first] |= head & tail;
    } else {
        words[first] |= head;
        words[first + 1..last].fill(!0);
        words[last] |= tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Widths around a word, and an awkward pattern.
    fn samples() -> impl Iterator<Item = Mask> {
        [0, 1, 7, 63, 64, 65, 127, 128, 130].into_iter().flat_map(|w| {
            [0, 1, 5].map(|h| Mask::from_fn(w, h, |x, y| (x * 7 + y * 13) % 11 < 6 || x == 63 || x + 1 == w))
        })
    }

    #[test]
    fn accessors_agree() {
        for mask in samples() {
            let (w, h) = (mask.width(), mask.height());
            let bytes = mask.to_u8();
            assert_eq!(Mask::from_u8(w, h, &bytes).unwrap(), mask);
            assert_eq!(bytes.iter().filter(|&&b| b == 255).count() as u64, mask.area());
            let mut copy = Mask::new(w, h);
            for y in 0..h {
                for x in 0..w {
                    assert_eq!(mask.get(x, y), bytes[y * w + x] == 255);
                    copy.set(x, y, !mask.get(x, y));
                    copy.set(x, y, mask.get(x, y));
                }
                let beyond = mask.row(y).last().map_or(0, |l| l.checked_shr(w as u32 % 64).unwrap_or(0));
                assert!(w % 64 == 0 || beyond == 0, "bits beyond the width of {mask:?}");
            }
            assert_eq!(copy, mask);
        }
    }

    #[test]
    fn runs_are_maximal() {
        for mask in samples() {
            let mut again = Mask::new(mask.width(), mask.height());
            for y in 0..mask.height() {
                let mut end = None;
                for (x0, x1) in mask.runs(y) {
                    assert!(x0 < x1 && end.is_none_or(|e| e < x0), "{mask:?} row {y}: {end:?} then {x0}..{x1}");
                    end = Some(x1);
                    again.fill(y, x0, x1);
                }
            }
            assert_eq!(again, mask);
        }
    }

    #[test]
    fn tight_box() {
        assert_eq!(Mask::new(100, 3).bounding_box(), None);
        assert_eq!(Mask::new(0, 3).bounding_box(), None);
        let mut mask = Mask::new(130, 9);
        mask.set(64, 4, true);
        assert_eq!(mask.bounding_box(), Some([64, 4, 65, 5]));
        mask.set(129, 2, true);
        mask.set(63, 8, true);
        assert_eq!(mask.bounding_box(), Some([63, 2, 130, 9]));
    }

    #[test]
    fn iou_counts_pixels() {
        let a = Mask::from_fn(70, 2, |x, _| x < 40);
        let b = Mask::from_fn(70, 2, |x, _| (20..70).contains(&x));
        assert_eq!(a.iou(&b), 40.0 / 140.0);
        assert_eq!(a.iou(&a), 1.0);
        assert_eq!(Mask::new(3, 3).iou(&Mask::new(3, 3)), 0.0);
    }

    #[test]
    fn packed_rows_start_on_bytes() {
        let mut mask = Mask::new(10, 2);
        mask.set(0, 0, true);
        mask.set(9, 0, true);
        mask.set(7, 1, true);
        assert_eq!(mask.packed_bits(), [0x80, 0x40, 0x01, 0x00]);
        let wide = Mask::from_fn(70, 1, |x, _| x == 64);
        assert_eq!(wide.packed_bits(), [0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    }

    #[test]
    fn wrong_sizes_are_errors() {
        assert!(Mask::from_u8(3, 3, &[0; 8]).is_err());
        assert!(Mask::from_u8(MAX_SIDE + 1, 1, &[0; 8]).is_err());
        assert!(Mask::check_size(MAX_SIDE, MAX_SIDE).is_err());
        assert!(Mask::check_size(32768, 32768).is_ok());
    }
}
