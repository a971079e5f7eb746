//! Masks at a picture's size.
//!
//! The kernel blends as the definition does, bit for bit. Its σ may differ, since its exponential is another than the
//! library's; words with a pixel so close to the threshold that this might decide are listed, and decided here. On a mask
//! of 12 megapixels that is a word or none: along its edge, some 10⁴ pixels, σ changes by a hundredth a pixel.

use super::CudaOps;
use super::arguments::{CutArgs, dim};
use crate::error::Result;
use crate::ops::{Compared, Cut};

/// Words of 32 pixels that are listed. Where there are more, every pixel of the mask is decided here: that is a map with
/// next to nothing but the threshold in it.
const MOST: usize = 1023;

pub(super) fn cut(ops: &CudaOps, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()> {
    let ([height, width], [rows, columns], line) = (cut.from, cut.to, 2 * cut.line());
    if masks.is_empty() || rows * columns == 0 {
        return Ok(());
    }
    // One after the other, through the same memory: the bits of a picture may be 128 MiB. They come first, aligned to
    // their words of 64.
    let list = rows * line * size_of::<u32>();
    let map = list + (1 + MOST) * size_of::<u32>();
    let mut memory = ops.device.allocate(map + height * width * size_of::<f32>())?;
    let args = CutArgs {
        x: memory.address() + map as u64,
        y: memory.address(),
        doubtful: memory.address() + list as u64,
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
    let f = &ops.functions.cut;
    let mut taps = None;
    for (logits, words) in masks {
        assert_eq!(logits.len(), height * width, "samples of a map of {height}×{width}");
        assert_eq!(words.len(), rows * line / 2, "the words of a mask of {columns} x {rows}");
        memory.write(map, logits)?;
        memory.write(list, &[0u32])?;
        ops.device.launch(f, ops.blocks(rows * line, f.threads), &args)?;
        memory.read(0, words)?;
        if cut.compared == Compared::Values {
            continue;
        }
        let mut found = [0u32; 1 + MOST];
        memory.read(list, &mut found)?;
        let count = found[0] as usize;
        if count == 0 {
            continue;
        }
        let taps = taps.get_or_insert_with(|| cut.taps());
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
    Ok(())
}
