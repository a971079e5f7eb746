//! Masks as run lengths and as outlines.

use std::ffi::{CString, c_char};

use super::boundary::{call, give, given, handle_out, optional, out, release};
use super::error::{c_string, sam3_error};
use super::mask::Lent;
use super::plain::{Sized32, fill};
use super::result::sam3_result;
use crate::instance::{polygon, rle};
use crate::{Error, Result};

/// COCO's compressed run lengths, column by column: the `counts` of an annotation, whose `size` is `[height, width]`.
pub const SAM3_RLE_COCO: u32 = 0;
/// Pairs `start length`, row by row, separated by spaces; starts count from 1, only pixels inside are listed.
pub const SAM3_RLE_PAIRS: u32 = 1;

/// What an instance has lent, for an index that was checked.
fn lent(result: &sam3_result, index: u32) -> Result<&Lent> {
    let found = result.0.instances.get(index as usize);
    found.ok_or_else(|| Error::invalid(format!("instance: found none of index {index}")))
}

/// Sets `*text` to the mask of instance `index` as run lengths, `kind` being a `SAM3_RLE_` constant: ASCII, lent until
/// the result is freed. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_rle(
    result: *const sam3_result,
    index: u32,
    kind: u32,
    text: *mut *const c_char,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (result, text) = unsafe { (given(result, "result")?, out(text, "text")?) };
        let mask = &result.0.instance(index)?.mask;
        let lent = lent(result, index)?;
        let made: &CString = match kind {
            SAM3_RLE_COCO => lent.coco.get_or_init(|| c_string(&rle::encode_coco(mask))),
            SAM3_RLE_PAIRS => lent.pairs.get_or_init(|| c_string(&rle::encode_pairs(mask))),
            _ => return Err(Error::invalid(format!("kind: expected a SAM3_RLE_ constant, found {kind}"))),
        };
        text.write(made.as_ptr());
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets `*counts` and `*length` to COCO's uncompressed run lengths of instance `index`: pixels of alternating runs,
/// column by column, the first one outside the mask. Lent until the result is freed. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_rle_counts(
    result: *const sam3_result,
    index: u32,
    counts: *mut *const u32,
    length: *mut usize,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (result, counts, length) =
            unsafe { (given(result, "result")?, out(counts, "counts")?, out(length, "length")?) };
        let mask = &result.0.instance(index)?.mask;
        let made = lent(result, index)?.counts.get_or_init(|| rle::encode_counts(mask));
        counts.write(made.as_ptr());
        length.write(made.len());
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Outlines of one mask. Never changes: any thread may read it. Needs no other handle.
pub struct sam3_polygons {
    /// Whether it is a hole, and its corners.
    rings: Vec<(bool, Vec<f32>)>,
}

/// One closed outline. Set `size` to `sizeof(sam3_ring)` before the call that fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sam3_ring {
    /// `sizeof(sam3_ring)`.
    pub size: u32,
    /// 0 for the outline of a piece, clockwise on the screen; 1 for that of a hole, counter-clockwise.
    pub hole: u32,
    /// Corners.
    pub count: u64,
    /// `2 * count` floats, x and y by turns, edges of pixels as in `sam3_box`; the last corner is joined to the first.
    /// Lent until the outlines are freed.
    pub xy: *const f32,
}

// SAFETY: u32 ×2, a u64, a pointer: no padding on 64-bit targets, and on 32-bit ones the tail is never read.
unsafe impl Sized32 for sam3_ring {
    const FIRST: usize = 16 + size_of::<*const f32>();
    const NAME: &'static str = "sam3_ring";
}

/// Follows the outlines of the mask of instance `index`, pieces first, then holes. Corners nearer to the simplified
/// outline than `tolerance` pixels (finite, 0 or more) are left out; 0 keeps all. `*out` is the caller's, freed with
/// `sam3_polygons_free`; NULL after a failure. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_result_polygons(
    result: *const sam3_result,
    index: u32,
    tolerance: f32,
    out: *mut *mut sam3_polygons,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, result) = unsafe { (handle_out(out, "out")?, given(result, "result")?) };
        if !(0.0..f32::INFINITY).contains(&tolerance) {
            return Err(Error::invalid(format!("tolerance: expected 0 or more pixels, found {tolerance}")));
        }
        let found = polygon::contours(&result.0.instance(index)?.mask, tolerance);
        let outer = found.outer.into_iter().map(|ring| (false, ring));
        let holes = found.holes.into_iter().map(|ring| (true, ring));
        *out = give(sam3_polygons { rings: outer.chain(holes).collect() });
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// How many outlines there are; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_polygons_count(polygons: *const sam3_polygons) -> u32 {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { optional(polygons, "polygons") }.ok().flatten().map_or(0, |p| p.rings.len() as u32)
}

/// Fills `*ring` with outline `index`, counted from 0. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_polygons_ring(
    polygons: *const sam3_polygons,
    index: u32,
    ring: *mut sam3_ring,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (polygons, out) = unsafe { (given(polygons, "polygons")?, fill(ring, "ring")?) };
        let count = polygons.rings.len();
        let ring = polygons.rings.get(index as usize);
        let (hole, xy) = ring.ok_or_else(|| Error::invalid(format!("ring: expected 0..{count}, found {index}")))?;
        out.write(sam3_ring { size: 0, hole: u32::from(*hole), count: (xy.len() / 2) as u64, xy: xy.as_ptr() });
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Frees outlines. NULL is ignored. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_polygons_free(polygons: *mut sam3_polygons) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(polygons) }
}
