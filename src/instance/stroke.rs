//! Antialiased lines: a field of distances to what has been drawn, then one blend.
//!
//! Overlapping segments of one line must not darken each other, so segments are first merged into the distance to the
//! nearest of them, and coverage is read off the distance afterwards. The same field gives the dark casing that keeps a
//! line visible on ground of its own colour.

/// RGB pixels, row-major, 3 bytes each.
pub(super) struct Canvas<'a> {
    pub rgb: &'a mut [u8],
    pub width: usize,
    pub height: usize,
}

impl Canvas<'_> {
    /// Mixes `colour` into pixel `(x, y)`; `alpha` 0 to 1.
    #[inline]
    pub fn blend(&mut self, x: usize, y: usize, colour: [u8; 3], alpha: f32) {
        let at = (y * self.width + x) * 3;
        for (p, c) in self.rgb[at..at + 3].iter_mut().zip(colour) {
            *p = (f32::from(*p) + (f32::from(c) - f32::from(*p)) * alpha + 0.5) as u8;
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub colour: [u8; 3],
    /// Pixels.
    pub width: f32,
    /// Width of the dark casing on either side, pixels.
    pub casing: f32,
}

/// Opacity of the casing.
const CASING: f32 = 0.5;

impl Line {
    /// Distance from the middle of the line to where nothing is drawn any more.
    pub fn reach(self) -> f32 {
        self.width / 2.0 + self.casing + 0.5
    }

    /// Blends one pixel whose centre is `distance` from the middle of the line.
    #[inline]
    fn blend(self, canvas: &mut Canvas<'_>, x: usize, y: usize, distance: f32) {
        let edge = self.width / 2.0 + 0.5 - distance;
        self.blend_coverage(canvas, x, y, edge.clamp(0.0, 1.0), (edge + self.casing).clamp(0.0, 1.0));
    }

    /// Blends one pixel of which the line covers `inner` and line and casing together `outer`.
    #[inline]
    pub fn blend_coverage(self, canvas: &mut Canvas<'_>, x: usize, y: usize, inner: f32, outer: f32) {
        if outer > 0.0 && inner < 1.0 {
            canvas.blend(x, y, [0; 3], outer * CASING);
        }
        if inner > 0.0 {
            canvas.blend(x, y, self.colour, inner);
        }
    }
}

/// Distances of the pixel centres of a rectangle to the nearest segment drawn, 0 to `reach` in 255 steps.
pub(super) struct Field {
    x0: usize,
    y0: usize,
    width: usize,
    height: usize,
    reach: f32,
    steps: Vec<u8>,
}

impl Field {
    /// A field for lines within `bounds` (`[x0, y0, x1, y1]`, pixel edges), cut to the canvas.
    pub fn new(canvas: &Canvas<'_>, bounds: [f32; 4], line: Line) -> Self {
        let reach = line.reach();
        let cut = |v: f32, end: usize| v.clamp(0.0, end as f32) as usize;
        let (x0, y0) =
            (cut((bounds[0] - reach).floor(), canvas.width), cut((bounds[1] - reach).floor(), canvas.height));
        let (x1, y1) = (cut((bounds[2] + reach).ceil(), canvas.width), cut((bounds[3] + reach).ceil(), canvas.height));
        let (width, height) = (x1.saturating_sub(x0), y1.saturating_sub(y0));
        Self { x0, y0, width, height, reach, steps: vec![255; width * height] }
    }

    /// Merges the segment from `a` to `b`.
    pub fn segment(&mut self, a: [f32; 2], b: [f32; 2]) {
        let (ox, oy) = (self.x0 as f32 + 0.5, self.y0 as f32 + 0.5);
        let ([ax, ay], [bx, by]) = ([a[0] - ox, a[1] - oy], [b[0] - ox, b[1] - oy]);
        let (dx, dy) = (bx - ax, by - ay);
        let inverse = 1.0 / (dx * dx + dy * dy).max(1e-12);
        let range = |p: f32, q: f32, end: usize| {
            let from = (p.min(q) - self.reach).ceil().max(0.0) as usize;
            from..((p.max(q) + self.reach).floor() + 1.0).clamp(0.0, end as f32) as usize
        };
        let (columns, scale) = (range(ax, bx, self.width), 255.0 / self.reach);
        for y in range(ay, by, self.height) {
            let py = y as f32 - ay;
            let row = &mut self.steps[y * self.width..][..self.width];
            for x in columns.clone() {
                let px = x as f32 - ax;
                let t = ((px * dx + py * dy) * inverse).clamp(0.0, 1.0);
                let (ex, ey) = (px - t * dx, py - t * dy);
                // Saturates at 255, which is the reach.
                row[x] = row[x].min(((ex * ex + ey * ey).sqrt() * scale + 0.5) as u8);
            }
        }
    }

    /// Merges a chain of segments, back to its first point if `closed`.
    pub fn chain(&mut self, points: &[[f32; 2]], closed: bool) {
        for pair in points.windows(2) {
            self.segment(pair[0], pair[1]);
        }
        match points {
            [only] => self.segment(*only, *only),
            [first, .., last] if closed => self.segment(*last, *first),
            _ => {}
        }
    }

    /// Draws the line.
    pub fn draw(&self, canvas: &mut Canvas<'_>, line: Line) {
        for y in 0..self.height {
            for x in 0..self.width {
                let step = self.steps[y * self.width + x];
                if step < 255 {
                    line.blend(canvas, self.x0 + x, self.y0 + y, f32::from(step) * (self.reach / 255.0));
                }
            }
        }
    }
}

/// A frame around the box `[x0, y0, x1, y1]`: the inner edge of the line is the box, so that what touches the box from
/// inside stays visible. Exact coverage: sides on pixel edges are crisp.
pub(super) fn frame(canvas: &mut Canvas<'_>, [x0, y0, x1, y1]: [f32; 4], line: Line) {
    let grown = |by: f32| [x0 - by, y0 - by, x1 + by, y1 + by];
    // The casing's outer edge, the line's outer and inner edges, the casing's inner edge.
    let edges = [grown(line.width + line.casing), grown(line.width), grown(0.0), grown(-line.casing)];
    let cut = |v: f32, end: usize| v.clamp(0.0, end as f32) as usize;
    let (left, right) = (cut(edges[0][0].floor(), canvas.width), cut(edges[0][2].ceil(), canvas.width));
    let (top, bottom) = (cut(edges[0][1].floor(), canvas.height), cut(edges[0][3].ceil(), canvas.height));
    // Columns strictly inside the frame, which rows between its top and bottom side skip.
    let (hole_left, hole_right) = (edges[3][0].ceil(), edges[3][2].floor());
    for y in top..bottom {
        let inside = (y as f32) >= edges[3][1].ceil() && (y as f32) + 1.0 <= edges[3][3].floor();
        let mut x = left;
        while x < right {
            if inside && (x as f32) >= hole_left && (x as f32) < hole_right {
                x = cut(hole_right, right);
                continue;
            }
            let covered = edges.map(|[a, b, c, d]| overlap(x, a, c) * overlap(y, b, d));
            line.blend_coverage(canvas, x, y, covered[1] - covered[2], covered[0] - covered[3]);
            x += 1;
        }
    }
}

/// How much of pixel `i` lies between `from` and `to`.
pub(super) fn overlap(i: usize, from: f32, to: f32) -> f32 {
    (to.min(i as f32 + 1.0) - from.max(i as f32)).clamp(0.0, 1.0)
}
