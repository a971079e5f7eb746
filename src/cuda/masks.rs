//! Masks at a picture's size.
//!
//! The kernel blends as the definition does, bit for bit. Its σ may differ, since its exponential is another than the
//! library's; words with a pixel so close to the threshold that this might decide are listed, and decided here. On a mask
//! of 12 megapixels that is a word or none: along its edge, some 10⁴ pixels, σ changes by a hundredth a pixel.

use super::CudaOps;
use super::arguments::{CutArgs, dim};
use crate::error::Result;
use crate::image::Taps;
use crate::ops::{Compared, Cut};

/// Words of 32 pixels that are listed. Where there are more, every pixel of the mask is decided here: that is a map with
/// next to nothing but the threshold in it.
const MOST: usize = 1023;

/// Bytes of device memory that several masks share.
const AT_ONCE: usize = 64 << 20;

pub(super) fn cut(ops: &CudaOps, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()> {
    let ([height, width], [rows, columns], line) = (cut.from, cut.to, 2 * cut.line());
    if masks.is_empty() || rows * columns == 0 {
        return Ok(());
    }
    // So many at once as fit: the bits of a picture may be 128 MiB, of which there is room for one. Bits come first, aligned to
    // their words of 64, then the lists, then the maps.
    let [bits, list, map] = [rows * line, 1 + MOST, height * width].map(|n| n * size_of::<u32>());
    let at_once = (AT_ONCE / (bits + list + map)).clamp(1, masks.len());
    let mut memory = ops.device.allocate(at_once * (bits + list + map))?;
    let (lists, maps) = (at_once * bits, at_once * (bits + list));
    let f = &ops.functions.cut;
    let mut taps = None;
    let mut found = vec![0u32; at_once * (1 + MOST)];
    for masks in masks.chunks_mut(at_once) {
        found.fill(0);
        memory.write(lists, &found)?;
        for (i, (logits, words)) in masks.iter().enumerate() {
            assert_eq!(logits.len(), height * width, "samples of a map of {height}×{width}");
            assert_eq!(words.len(), rows * line / 2, "the words of a mask of {columns} x {rows}");
            memory.write(maps + i * map, logits)?;
            let args = CutArgs {
                x: memory.address() + (maps + i * map) as u64,
                y: memory.address() + (i * bits) as u64,
                doubtful: memory.address() + (lists + i * list) as u64,
                height: dim(height),
                width: dim(width),
                out_height: dim(rows),
                out_width: dim(columns),
                line: dim(line),
                sigmoid: u32::from(cut.compared == Compared::Sigmoid),
                most: dim(MOST),
                down: height as f32 / rows as f32,
                across: width as f32 / columns as f32,
                threshold: cut.threshold,
                close: Cut::CLOSE,
                reserved: 0,
            };
            ops.device.launch(f, ops.blocks(rows * line, f.threads), &args)?;
        }
        memory.read(lists, &mut found)?;
        for (i, (logits, words)) in masks.iter_mut().enumerate() {
            memory.read(i * bits, words)?;
            if cut.compared == Compared::Sigmoid {
                let taps = taps.get_or_insert_with(|| cut.taps());
                settle(cut, taps, logits, words, &found[i * (1 + MOST)..][..1 + MOST]);
            }
        }
    }
    Ok(())
}

/// Decides the words of a mask that the kernel listed: their number, and which they are.
fn settle(cut: &Cut, taps: &[Taps; 2], logits: &[f32], words: &mut [u64], found: &[u32]) {
    let ([rows, columns], line, count) = (cut.to, 2 * cut.line(), found[0] as usize);
    let mut decide = |word: usize, sample: &dyn Fn(usize) -> f32| {
        let (y, first) = (word / line, word % line * 32);
        for x in first..columns.min(first + 32) {
            let (word, bit) = (&mut words[y * line / 2 + x / 64], x % 64);
            *word = *word & !(1 << bit) | u64::from(cut.decide(taps, x, y, sample)) << bit;
        }
    };
    if let Some(listed) = found[1..].get(..count) {
        listed.iter().for_each(|&word| decide(word as usize, &|i| cut.compared.exact(logits[i])));
    } else {
        let exact: Vec<f32> = logits.iter().map(|&x| cut.compared.exact(x)).collect();
        (0..rows * line).for_each(|word| decide(word, &|i| exact[i]));
    }
}
