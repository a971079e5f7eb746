//! Run lengths: COCO's two forms and row-major `start length` pairs.
//!
//! COCO (`pycocotools/_mask.pyx`, `common/maskApi.c`) walks the mask column by column and writes the lengths of
//! alternating runs, background first; its compressed form is those numbers as printable characters. The pairs are what
//! several HTTP services send: `start length`, starts counted from 1 over the rows, foreground only.
//!
//! Our bitmap is row-major, so COCO's order is reached by transposing 64 x 64 bits at a time: a strip of 64 columns is
//! turned into 64 strings of bits, which then read like rows. A 12-megapixel mask takes a few milliseconds.
//!
//! What is read here may come from anyone. All sums are checked, nothing is allocated before the lengths have been
//! found to fill the size exactly, and that size is bounded by [`Mask::check_size`].

use super::Mask;
use super::mask::set_bits;
use crate::{Error, Result};

/// COCO's uncompressed counts: lengths of alternating runs in column-major order, the first one background (0 if the
/// first pixel is foreground). They add up to `width * height`; a mask without pixels has none.
pub fn encode_counts(mask: &Mask) -> Vec<u32> {
    let (width, height) = (mask.width(), mask.height());
    let mut runs = Alternations::default();
    let mut columns = vec![0u64; 64 * height.div_ceil(64)];
    for strip in 0..mask.row_words() {
        gather_columns(mask, strip, &mut columns);
        for column in columns.chunks_exact(height.div_ceil(64).max(1)).take((width - strip * 64).min(64)) {
            runs.push(column, height);
        }
    }
    runs.finish()
}

/// The mask of COCO's uncompressed counts.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the size is too large or the counts do not add up to `width * height`.
pub fn decode_counts(counts: &[u32], width: usize, height: usize) -> Result<Mask> {
    Mask::check_size(width, height)?;
    let sum: u128 = counts.iter().map(|&c| u128::from(c)).sum();
    if sum != (width * height) as u128 {
        return Err(Error::invalid(format!(
            "expected run lengths that add up to {width} x {height} = {} pixels, found {sum}",
            width * height
        )));
    }
    let mut mask = Mask::new(width, height);
    // Every second count is foreground; what is left of one continues in the next column and the next strip.
    let mut position = 0;
    let mut runs = counts.chunks(2).filter_map(|pair| {
        let start = position + pair[0] as usize;
        position = start + pair.get(1).map_or(0, |&n| n as usize);
        (position > start).then_some((start, position))
    });
    let mut run = runs.next();
    let column_words = height.div_ceil(64);
    let mut columns = vec![0u64; 64 * column_words];
    for strip in 0..mask.row_words() {
        columns.fill(0);
        for (i, column) in columns.chunks_exact_mut(column_words.max(1)).take((width - strip * 64).min(64)).enumerate()
        {
            let first = (strip * 64 + i) * height;
            while let Some((start, end)) = run.filter(|r| r.0 < first + height) {
                set_bits(column, start.max(first) - first, end.min(first + height) - first);
                if end > first + height {
                    break;
                }
                run = runs.next();
            }
        }
        scatter_columns(&mut mask, strip, &columns);
    }
    Ok(mask)
}

/// COCO's compressed form of counts: each as its difference to the one two before it, in groups of 5 bits, lowest
/// first, a sixth bit saying that more follow, plus 48 to be printable (`rleToString`).
pub fn counts_to_string(counts: &[u32]) -> String {
    let mut text = String::with_capacity(counts.len() * 2);
    for (i, &count) in counts.iter().enumerate() {
        // The first three stand for themselves: upstream compares with `i > 2`.
        let mut rest = i64::from(count) - if i > 2 { i64::from(counts[i - 2]) } else { 0 };
        loop {
            let group = (rest & 0x1f) as u8;
            rest >>= 5;
            // The group's highest bit is the sign once all that is left is sign.
            let more = if group & 0x10 != 0 { rest != -1 } else { rest != 0 };
            text.push(char::from(group + if more { 0x20 } else { 0 } + 48));
            if !more {
                break;
            }
        }
    }
    text
}

/// The counts of a compressed string, for a mask of this size.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`], naming the place: the size is too large, a character is outside `'0'..='o'`,
/// a number is cut off, negative or beyond the size, or the sum is not `width * height`.
pub fn counts_from_string(text: &str, width: usize, height: usize) -> Result<Vec<u32>> {
    Mask::check_size(width, height)?;
    let pixels = (width * height) as i64;
    let mut counts: Vec<u32> = Vec::new();
    let (mut value, mut groups, mut sum) = (0i64, 0u32, 0i64);
    for (at, byte) in text.bytes().enumerate() {
        let group = byte.wrapping_sub(48);
        if group > 0x3f {
            return Err(Error::invalid(format!(
                "compressed run lengths: expected characters '0' to 'o', found byte {byte:#04x} at {at}"
            )));
        }
        // A difference of two lengths up to 2^30 has 32 bits with its sign: 7 groups of 5.
        if groups == 7 {
            return Err(Error::invalid(format!("compressed run lengths: the number ending at {at} is too long")));
        }
        value |= i64::from(group & 0x1f) << (5 * groups);
        groups += 1;
        if group & 0x20 != 0 {
            continue;
        }
        if group & 0x10 != 0 {
            value |= -1 << (5 * groups);
        }
        if counts.len() > 2 {
            value += i64::from(counts[counts.len() - 2]);
        }
        sum += value;
        if value < 0 || sum > pixels {
            return Err(Error::invalid(format!(
                "compressed run lengths: run {} of {value} pixels, ending at byte {at}, does not fit into {width} x {height}",
                counts.len()
            )));
        }
        counts.push(value as u32);
        (value, groups) = (0, 0);
    }
    if groups != 0 {
        return Err(Error::invalid("compressed run lengths: the last number is cut off"));
    }
    if sum != pixels {
        return Err(Error::invalid(format!(
            "compressed run lengths: expected a sum of {width} x {height} = {pixels} pixels, found {sum}"
        )));
    }
    Ok(counts)
}

/// COCO's compressed run lengths, the `counts` string of its annotations; `size` there is `[height, width]`.
pub fn encode_coco(mask: &Mask) -> String {
    counts_to_string(&encode_counts(mask))
}

/// The mask of COCO's compressed run lengths.
///
/// # Errors
/// As [`counts_from_string`].
pub fn decode_coco(text: &str, width: usize, height: usize) -> Result<Mask> {
    decode_counts(&counts_from_string(text, width, height)?, width, height)
}

/// Row-major pairs: `start length start length ...`, starts counted from 1 over the rows laid end to end, foreground
/// only, ascending and never touching. Empty for an empty mask. The size is not part of it.
pub fn encode_pairs(mask: &Mask) -> String {
    use std::fmt::Write;
    let mut runs = Alternations::default();
    for y in 0..mask.height() {
        runs.push(mask.row(y), mask.width());
    }
    let mut text = String::new();
    let mut position = 0u64;
    for pair in runs.finish().chunks(2) {
        let [background, foreground] = [pair[0], *pair.get(1).unwrap_or(&0)].map(u64::from);
        if foreground > 0 {
            let gap = if text.is_empty() { "" } else { " " };
            write!(text, "{gap}{} {foreground}", position + background + 1)
                .expect("a String takes all that is written");
        }
        position += background + foreground;
    }
    text
}

/// The mask of row-major pairs. Runs may touch, but must ascend.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`], naming the pair: the size is too large, something is no decimal number, a
/// start has no length, a length is 0, or a run begins before the end of the last one or ends behind the mask.
pub fn decode_pairs(text: &str, width: usize, height: usize) -> Result<Mask> {
    Mask::check_size(width, height)?;
    let pixels = (width * height) as u64;
    let mut mask = Mask::new(width, height);
    let mut tokens = text.split_ascii_whitespace();
    let mut end = 0u64;
    for pair in 0.. {
        let Some(start) = tokens.next() else { break };
        let wrong = |what: &str| Error::invalid(format!("run-length pair {pair}: {what}"));
        let number = |t: &str| {
            let digits = !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
            t.parse::<u64>().ok().filter(|_| digits).ok_or_else(|| wrong("expected two decimal numbers below 2^64"))
        };
        let start = number(start)?;
        let length = number(tokens.next().ok_or_else(|| wrong("the length is missing"))?)?;
        // From 1 to 0-based; a start of 0 fails here as well.
        let first = start.checked_sub(1).filter(|&s| s >= end).ok_or_else(|| {
            wrong(&format!("expected a start from {} on, behind the last run, found {start}", end + 1))
        })?;
        let room = pixels.saturating_sub(first);
        if length == 0 || length > room {
            return Err(wrong(&format!("expected a length of 1 to {room} from {start} on, found {length}")));
        }
        end = first + length;
        let (first, last) = (first as usize, end as usize);
        for y in first / width..last.div_ceil(width) {
            let x1 = (last - y * width).min(width);
            mask.fill(y, first.saturating_sub(y * width), x1);
        }
    }
    Ok(mask)
}

/// Collects alternating run lengths, background first, over strings of bits laid end to end.
#[derive(Default)]
struct Alternations {
    counts: Vec<u32>,
    /// Bits seen.
    position: usize,
    /// Where the current run began.
    start: usize,
    /// The last bit seen; background before the first.
    last: u64,
}

impl Alternations {
    /// Appends the first `bits` bits of `words`, lowest first. Bits behind them are ignored.
    fn push(&mut self, words: &[u64], bits: usize) {
        let end = self.position + bits;
        for &word in words {
            let n = (end - self.position).min(64);
            // A bit is set where a pixel differs from the one before it.
            let mut changes = (word ^ (word << 1 | self.last)) & (!0 >> (64 - n));
            while changes != 0 {
                let at = self.position + changes.trailing_zeros() as usize;
                // Fits: no mask has more than 65 535² < 2^32 pixels.
                self.counts.push((at - self.start) as u32);
                self.start = at;
                changes &= changes - 1;
            }
            self.last = word >> (n - 1) & 1;
            self.position += n;
        }
    }

    fn finish(mut self) -> Vec<u32> {
        if self.position > self.start {
            self.counts.push((self.position - self.start) as u32);
        }
        self.counts
    }
}

/// Columns `64 * strip ..` of the mask as strings of bits: `columns[i * h.div_ceil(64) + y / 64] >> (y % 64)`.
fn gather_columns(mask: &Mask, strip: usize, columns: &mut [u64]) {
    let n = mask.height().div_ceil(64);
    for block in 0..n {
        let mut square = [0; 64];
        for (i, y) in (block * 64..mask.height().min(block * 64 + 64)).enumerate() {
            square[i] = mask.row(y)[strip];
        }
        transpose(&mut square);
        for (i, &word) in square.iter().enumerate() {
            columns[i * n + block] = word;
        }
    }
}

/// The inverse of [`gather_columns`]. Columns behind the width must be empty, which keeps the padding bits 0.
fn scatter_columns(mask: &mut Mask, strip: usize, columns: &[u64]) {
    let n = mask.height().div_ceil(64);
    for block in 0..n {
        let mut square = std::array::from_fn(|i| columns[i * n + block]);
        transpose(&mut square);
        for (i, y) in (block * 64..mask.height().min(block * 64 + 64)).enumerate() {
            mask.row_mut(y)[strip] = square[i];
        }
    }
}

/// Transposes 64 x 64 bits in place: bit `j` of word `i` and bit `i` of word `j` change places. Six rounds swap
/// ever smaller off-diagonal squares (Warren, Hacker's Delight, 2nd ed., 7-3, lowest bit first).
fn transpose(square: &mut [u64; 64]) {
    if square.iter().all(|&w| w == 0) {
        return;
    }
    let mut size = 32;
    let mut low = 0x0000_0000_ffff_ffffu64;
    while size != 0 {
        let mut i = 0;
        while i < 64 {
            let swap = (square[i] >> size ^ square[i + size]) & low;
            square[i] ^= swap << size;
            square[i + size] ^= swap;
            // The next word whose bit `size` is 0: the upper row of the next pair.
            i = (i + size + 1) & !size;
        }
        size /= 2;
        low ^= low << size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 5 x 7 mask whose forms were worked out by hand and with pycocotools.
    fn sample() -> Mask {
        let rows = ["1000000", "0011100", "0010100", "0011100", "0000001"];
        Mask::from_fn(7, 5, |x, y| rows[y].as_bytes()[x] == b'1')
    }

    #[test]
    fn worked_example() {
        let mask = sample();
        assert_eq!(encode_pairs(&mask), "1 1 10 3 17 1 19 1 24 3 35 1");
        assert_eq!(encode_counts(&mask), [0, 1, 10, 3, 2, 1, 1, 1, 2, 3, 10, 1]);
        assert_eq!(encode_coco(&mask), "01:2HNO0128N");
        assert_eq!(decode_coco("01:2HNO0128N", 7, 5).unwrap(), mask);
        assert_eq!(decode_pairs("1 1 10 3 17 1 19 1 24 3 35 1", 7, 5).unwrap(), mask);
        assert_eq!(decode_counts(&encode_counts(&mask), 7, 5).unwrap(), mask);
        assert_eq!((mask.area(), mask.bounding_box()), (10, Some([0, 0, 7, 5])));
    }

    #[test]
    fn transpose_moves_every_bit() {
        for (i, j) in [(0, 0), (0, 63), (63, 0), (5, 40), (31, 32), (62, 1)] {
            let mut square = [0; 64];
            square[i] = 1 << j;
            transpose(&mut square);
            let mut expected = [0; 64];
            expected[j] = 1 << i;
            assert_eq!(square, expected, "bit ({i}, {j})");
        }
    }

    #[test]
    fn degenerate_sizes() {
        for (w, h) in [(0, 0), (0, 5), (5, 0)] {
            let mask = Mask::new(w, h);
            assert!(encode_counts(&mask).is_empty());
            assert_eq!(decode_counts(&[], w, h).unwrap(), mask);
            assert_eq!(decode_pairs("", w, h).unwrap(), mask);
            assert!(decode_pairs("1 1", w, h).is_err());
        }
    }

    #[test]
    fn lies_are_errors() {
        assert!(decode_counts(&[34], 7, 5).is_err());
        assert!(decode_counts(&[u32::MAX; 9], 7, 5).is_err());
        for text in ["", "S", "T", "01:2HNO0128", "01:2HNO0128N0N", "01:2HNO0128/", "ooooooooooooooo", "é"] {
            assert!(decode_coco(text, 7, 5).is_err(), "{text:?}");
        }
        for text in ["0 1", "1 0", "1", "1 1 1 1", "5 2 3 1", "36 1", "35 2", "1 -1", "+1 1", "1 1e3", "a b"] {
            assert!(decode_pairs(text, 7, 5).is_err(), "{text:?}");
        }
        assert!(decode_pairs("18446744073709551615 18446744073709551615", 7, 5).is_err());
        assert!(decode_pairs("1 99999999999999999999", 7, 5).is_err());
        assert!(decode_counts(&[1 << 31], 1 << 20, 1 << 11).is_err());
    }
}
