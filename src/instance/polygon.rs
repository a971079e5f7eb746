//! Outlines of masks as polygons in pixel-edge coordinates.
//!
//! The border is followed along the cracks between pixels: vertices are pixel corners, every edge has foreground on its
//! right, and the polygon encloses whole pixels. Filling all rings of [`contours`] by the even-odd rule at pixel
//! centres therefore gives the mask back bit by bit, which borders through pixel centres (OpenCV's `findContours`)
//! cannot do: they lose half a pixel all around, and one-pixel lines altogether.
//!
//! Pixels that touch at a corner belong together (8-connected foreground, 4-connected background, as in OpenCV), so a
//! ring may touch itself at a corner but never crosses itself.

use super::Mask;

/// The rings of a mask, each flat as COCO writes polygons: `[x1, y1, x2, y2, ...]` in pixels, `(0, 0)` being the outer
/// corner of the first pixel, the last vertex joined to the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contours {
    /// One ring around each connected piece, clockwise as seen on the screen. This is COCO's `segmentation`, which has
    /// no way to say "hole".
    pub outer: Vec<Vec<f32>>,
    /// One ring around each hole, counter-clockwise.
    pub holes: Vec<Vec<f32>>,
}

/// All rings of the mask, simplified with `tolerance` pixels: no vertex of the exact ring is farther than that from the
/// ring that stands for it (Douglas and Peucker). 0 keeps the exact ring, whose vertices are its corners.
///
/// Every ring keeps at least three vertices, so that no piece and no hole gets lost.
pub fn contours(mask: &Mask, tolerance: f32) -> Contours {
    let mut found = Contours::default();
    trace(mask, |ring| {
        let hole = signed_area(ring) < 0;
        let simplified = if tolerance > 0.0 { simplify(ring, tolerance) } else { ring.to_vec() };
        let flat = simplified.iter().flat_map(|&[x, y]| [x as f32, y as f32]).collect();
        if hole { found.holes.push(flat) } else { found.outer.push(flat) }
    });
    found
}

/// A pixel corner, `[x, y]`; at most [`super::MAX_SIDE`] each.
pub(super) type Corner = [i32; 2];

/// Right, down, left, up on the screen: adding 1 turns right.
const STEPS: [Corner; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];
const UP: usize = 3;

/// Hands every ring to `ring`, in the order of its topmost, leftmost edge: the corners where it turns.
pub(super) fn trace(mask: &Mask, mut ring: impl FnMut(&[Corner])) {
    // Every ring, of a piece or of a hole, goes up along the left side of some pixel: those sides are its seeds.
    let mut seen = Mask::new(mask.width(), mask.height());
    let mut corners = Vec::new();
    for y in 0..mask.height() {
        let mut left_of = 0;
        for i in 0..mask.row_words() {
            let word = mask.row(y)[i];
            let sides = word & !(word << 1 | left_of);
            left_of = word >> 63;
            // The ring that starts at one seed may pass others of the same word.
            loop {
                let open = sides & !seen.row(y)[i];
                if open == 0 {
                    break;
                }
                corners.clear();
                follow(mask, &mut seen, i * 64 + open.trailing_zeros() as usize, y, &mut corners);
                ring(&corners);
            }
        }
    }
}

/// Follows the ring that goes up along the left side of pixel `(x, y)`, marking all such sides it passes.
fn follow(mask: &Mask, seen: &mut Mask, x: usize, y: usize, corners: &mut Vec<Corner>) {
    let (width, height) = (mask.width() as i32, mask.height() as i32);
    let pixel =
        |x: i32, y: i32| (0..width).contains(&x) && (0..height).contains(&y) && mask.get(x as usize, y as usize);
    let start = [x as i32, y as i32 + 1];
    let (mut at, mut heading) = (start, UP);
    loop {
        if heading == UP {
            seen.set(at[0] as usize, at[1] as usize - 1, true);
        }
        let [dx, dy] = STEPS[heading];
        at = [at[0] + dx, at[1] + dy];
        // The two pixels ahead, left and right of the line: a corner plus a step from it to a pixel's centre, halved.
        // Turning left where the left one is foreground joins pixels that touch at this corner.
        let ahead = |side: i32| {
            let [px, py] = [dx - side * dy, dy + side * dx];
            pixel(at[0] + (px - 1) / 2, at[1] + (py - 1) / 2)
        };
        let turn = if ahead(-1) {
            3
        } else if ahead(1) {
            0
        } else {
            1
        };
        if turn != 0 {
            corners.push(at);
            heading = (heading + turn) % 4;
        }
        if at == start && heading == UP {
            return;
        }
    }
}

/// Twice the area enclosed, positive if clockwise on the screen.
fn signed_area(ring: &[Corner]) -> i64 {
    let next = ring.iter().cycle().skip(1);
    ring.iter().zip(next).map(|(a, b)| i64::from(a[0]) * i64::from(b[1]) - i64::from(b[0]) * i64::from(a[1])).sum()
}

/// Douglas and Peucker on a closed ring: it is cut at its first vertex and at the one farthest from that.
fn simplify(ring: &[Corner], tolerance: f32) -> Vec<Corner> {
    let n = ring.len();
    let limit = f64::from(tolerance).powi(2);
    let far = (0..n).max_by_key(|&i| square_length(ring[0], ring[i])).unwrap_or(0);
    let mut keep = vec![false; n];
    keep[0] = true;
    keep[far] = true;
    // Spans between kept vertices, `to` counted on beyond `n` for the one that passes vertex 0.
    let mut spans = vec![(0, far), (far, n)];
    while let Some((from, to)) = spans.pop() {
        if let Some((at, distance)) = farthest(ring, from, to)
            && distance > limit
        {
            keep[at] = true;
            spans.extend([(from, at), (at, to)]);
        }
    }
    if keep.iter().filter(|&&k| k).count() < 3 {
        // All within the tolerance of one line; a ring encloses area, so some vertex lies off it.
        let sides = [farthest(ring, 0, far), farthest(ring, far, n)];
        if let Some((at, _)) = sides.into_iter().flatten().max_by(|a, b| a.1.total_cmp(&b.1)) {
            keep[at] = true;
        }
    }
    ring.iter().zip(keep).filter_map(|(&corner, k)| k.then_some(corner)).collect()
}

/// The vertex strictly between `from` and `to` farthest from the segment that joins them, and its squared distance.
fn farthest(ring: &[Corner], from: usize, to: usize) -> Option<(usize, f64)> {
    let (a, b) = (ring[from], ring[to % ring.len()]);
    let [dx, dy] = [b[0] - a[0], b[1] - a[1]].map(f64::from);
    let length = dx * dx + dy * dy;
    (from + 1..to)
        .map(|i| {
            let [px, py] = [ring[i][0] - a[0], ring[i][1] - a[1]].map(f64::from);
            let t = if length > 0.0 { ((px * dx + py * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
            (i, (px - t * dx).powi(2) + (py - t * dy).powi(2))
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

fn square_length(a: Corner, b: Corner) -> i64 {
    i64::from(a[0] - b[0]).pow(2) + i64::from(a[1] - b[1]).pow(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> Mask {
        Mask::from_fn(rows[0].len(), rows.len(), |x, y| rows[y].as_bytes()[x] == b'#')
    }

    #[test]
    fn one_pixel_is_its_square() {
        let found = contours(&mask(&["...", ".#.", "..."]), 0.0);
        assert_eq!(found.outer, [[1.0, 1.0, 2.0, 1.0, 2.0, 2.0, 1.0, 2.0]]);
        assert!(found.holes.is_empty());
        assert_eq!(contours(&Mask::new(9, 9), 0.0), Contours::default());
    }

    #[test]
    fn holes_run_the_other_way() {
        let found = contours(&mask(&["###", "#.#", "###"]), 0.0);
        assert_eq!(found.outer, [[0.0, 0.0, 3.0, 0.0, 3.0, 3.0, 0.0, 3.0]]);
        assert_eq!(found.holes.len(), 1);
        assert_eq!(found.holes[0].len(), 8);
    }

    #[test]
    fn corners_join_the_foreground() {
        assert_eq!(contours(&mask(&["#.", ".#"]), 0.0).outer.len(), 1);
        assert_eq!(contours(&mask(&[".#", "#."]), 0.0).outer.len(), 1);
        // The background inside is closed off by pixels that touch at corners only.
        let ring = contours(&mask(&[".#.", "#.#", ".#."]), 0.0);
        assert_eq!((ring.outer.len(), ring.holes.len()), (1, 1));
    }

    #[test]
    fn simplifying_keeps_within_tolerance() {
        let disc = Mask::from_fn(201, 201, |x, y| (x as i32 - 100).pow(2) + (y as i32 - 100).pow(2) < 90 * 90);
        let exact = contours(&disc, 0.0);
        for tolerance in [0.5, 1.0, 2.0, 8.0, 1000.0] {
            let simple = contours(&disc, tolerance);
            let n = simple.outer[0].len() / 2;
            assert!(n >= 3 && n < exact.outer[0].len() / 2, "{n} vertices at {tolerance}");
            for v in exact.outer[0].chunks(2) {
                let distance = (0..n).map(|i| to_segment(v, &simple.outer[0], i)).fold(f32::MAX, f32::min);
                assert!(distance <= tolerance + 1e-3, "{v:?} is {distance} from the ring at tolerance {tolerance}");
            }
        }
    }

    fn to_segment(p: &[f32], ring: &[f32], i: usize) -> f32 {
        let j = (2 * i + 2) % ring.len();
        let (ax, ay, bx, by) = (ring[2 * i], ring[2 * i + 1], ring[j], ring[j + 1]);
        let (dx, dy) = (bx - ax, by - ay);
        let t = (((p[0] - ax) * dx + (p[1] - ay) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
        (p[0] - ax - t * dx).hypot(p[1] - ay - t * dy)
    }
}
