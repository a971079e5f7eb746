//! Pictures: pixels, patches, upsampling, pooled boxes, masks.

use sam3::Result;
use sam3::image::{ImageView, PixelFormat};
use sam3::ops::{Compared, Cut, Ops};

use super::harness::{Case, EPS, Rng, Rows, Suite, Tolerance, sizes};

struct Ingest {
    size: [usize; 2],
    side: usize,
    format: PixelFormat,
    /// Bytes between rows.
    gap: usize,
    pixels: Vec<u8>,
}

impl Ingest {
    fn new(rng: &mut Rng, size: [usize; 2], side: usize, format: PixelFormat, gap: usize) -> Self {
        let bytes = size[1] * (size[0] * format.bytes_per_pixel() + gap);
        Self { size, side, format, gap, pixels: (0..bytes).map(|_| rng.next() as u8).collect() }
    }
}

impl Case for Ingest {
    fn op(&self) -> &'static str {
        "ingest"
    }

    fn shape(&self) -> String {
        format!("{:?} {:?} +{} to {}", self.size, self.format, self.gap, self.side)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.side * self.side * 3]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let [w, h] = self.size;
        let stride = w * self.format.bytes_per_pixel() + self.gap;
        ops.ingest(&ImageView::new(&self.pixels, w, h, stride, self.format)?, self.side, &mut y[0])
    }

    /// The resize is arithmetic of integers, and of the rest one division rounds, once.
    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }
}

struct Masks {
    cut: Cut,
    maps: Vec<Vec<f32>>,
}

impl Case for Masks {
    fn op(&self) -> &'static str {
        "cut"
    }

    fn shape(&self) -> String {
        format!("{:?} of {}", self.cut, self.maps.len())
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.maps.len() * self.cut.to[0] * self.cut.line() * 64]
    }

    /// A number for each bit, those beyond the columns included.
    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let words = self.cut.to[0] * self.cut.line();
        let mut masks = vec![vec![u64::MAX; words]; self.maps.len()];
        let mut tasks: Vec<_> =
            self.maps.iter().map(Vec::as_slice).zip(masks.iter_mut().map(Vec::as_mut_slice)).collect();
        ops.cut(&self.cut, &mut tasks)?;
        let bits = masks.iter().flatten().flat_map(|word| (0..64).map(move |bit| (word >> bit & 1) as f32));
        ops.upload(&bits.collect::<Vec<_>>(), &mut y[0])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }
}

struct Patches {
    h: usize,
    w: usize,
    p: usize,
    x: Rows,
}

impl Case for Patches {
    fn op(&self) -> &'static str {
        "patches"
    }

    fn shape(&self) -> String {
        format!("{}×{}×{} in {}", self.h, self.w, self.x.width, self.p)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.h * self.w * self.x.width]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let x = self.x.operand(ops)?;
        ops.patches(&x, self.h, self.w, self.x.width, self.p, &mut y[0])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }
}

struct Upsample {
    from: [usize; 2],
    to: [usize; 2],
    x: Rows,
    skip: Rows,
}

impl Case for Upsample {
    fn op(&self) -> &'static str {
        "upsample_add"
    }

    fn shape(&self) -> String {
        format!("{:?} to {:?}, {} channels", self.from, self.to, self.x.width)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.skip.rows * self.skip.width]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let (x, skip) = (self.x.operand(ops)?, self.skip.operand(ops)?);
        let ([h, w], [oh, ow]) = (self.from, self.to);
        ops.upsample_add(&x, h, w, &skip, oh, ow, self.x.width, &mut y[0])
    }

    /// One addition, rounded once.
    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }
}

struct Roi {
    h: usize,
    w: usize,
    size: usize,
    x: Rows,
    boxes: Vec<[f32; 4]>,
}

impl Case for Roi {
    fn op(&self) -> &'static str {
        "roi_align"
    }

    fn shape(&self) -> String {
        format!("{}×{}×{}, {} bins, boxes {:?}", self.h, self.w, self.x.width, self.size, self.boxes)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.boxes.len() * self.x.width * self.size * self.size]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let x = self.x.operand(ops)?;
        ops.roi_align(&x, self.h, self.w, self.x.width, &self.boxes, self.size, &mut y[0])
    }

    /// A position is at most `h` or `w` and takes about four roundings; between two grid lines the picture changes by up
    /// to `2·max|x|`. The weights and the four products round once each, and the mean over `s` samples behaves as an
    /// inner product with `1/s`, of non-random signs but a common magnitude: `√s` roundings.
    fn tolerance(&self) -> Tolerance {
        let samples = self.boxes.iter().map(|b| {
            let grid = |a: f32, b: f32| f64::from((b - a).max(1.0) / self.size as f32).ceil();
            grid(b[0], b[2]) * grid(b[1], b[3])
        });
        let samples = samples.fold(1.0, f64::max);
        let position = 4.0 * EPS * (self.h + self.w) as f64 * 2.0;
        Tolerance { abs: self.x.max() * (position + EPS * (8.0 + samples.sqrt())), rel: EPS }
    }
}

pub fn all<O: Ops>(suite: &mut Suite<O>) {
    let rng = &mut Rng::new(7);
    let all = Ingest { size: [16, 16], side: 16, format: PixelFormat::Gray8, gap: 0, pixels: (0..=255).collect() };
    suite.check(&all);
    let rgb = PixelFormat::Rgb8;
    for side in [1, 2, 14, 31, 64] {
        for size in [[1, 1], [2, 1], [1, 3], [5, 4], [63, 65], [64, 64], [1, 400], [400, 1], [129, 67], [3, 1000]] {
            suite.check(&Ingest::new(rng, size, side, rgb, 0));
        }
    }
    for size in [[10_000, 1], [1, 10_000], [10_000, 2], [501, 499]] {
        suite.check(&Ingest::new(rng, size, 33, rgb, 0));
    }
    use PixelFormat::{Bgr8, Bgra8, Bgrx8, Gray8, Rgba8, Rgbx8};
    for format in [rgb, Bgr8, Rgba8, Bgra8, Gray8, Rgbx8, Bgrx8] {
        for gap in [0, 5] {
            suite.check(&Ingest::new(rng, [23, 17], 20, format, gap));
        }
    }
    masks(suite, rng);

    for p in [1, 2, 3, 4, 5, 7, 8, 14, 16, 17] {
        for c in [1, 2, 3, 4, 5] {
            let (h, w) = (p * (1 + rng.below(4)), p * (1 + rng.below(4)));
            suite.check(&Patches { h, w, p, x: Rows::packed(h * w, c, || rng.signed()) });
        }
    }
    suite.check(&Patches { h: 28, w: 1008, p: 14, x: Rows::packed(28 * 1008, 3, || rng.signed()) });

    let grids = [[1, 1], [1, 2], [2, 1], [3, 4], [5, 3], [8, 8], [9, 7]];
    for c in sizes() {
        let from = rng.pick(&grids);
        // Doubled, and to a grid that is no multiple, smaller ones included.
        for to in [[2 * from[0], 2 * from[1]], from, [1 + rng.below(17), 1 + rng.below(17)]] {
            let x = Rows::packed(from[0] * from[1], c, || rng.signed());
            let skip = Rows::packed(to[0] * to[1], c, || rng.signed());
            suite.check(&Upsample { from, to, x, skip });
        }
    }
    let x = Rows::packed(36 * 36, 256, || rng.signed());
    suite.check(&Upsample { from: [36, 36], to: [72, 72], x, skip: Rows::packed(72 * 72, 256, || rng.signed()) });

    rois(suite, rng);
}

fn masks<O: Ops>(suite: &mut Suite<O>, rng: &mut Rng) {
    // Maps with much close to the threshold, and some that are next to nothing else.
    let mut map = |len: usize, kind: usize| -> Vec<f32> {
        let noise = (0..len).map(|_| rng.signed());
        match kind {
            0 => noise.map(|v| 8.0 * v).collect(),
            // Every one of them and of their blends is within a rounding or two of σ = 1/2.
            1 => noise.map(|v| 1e-6 * v).collect(),
            2 => (0..len).map(|i| if i % 7 == 3 { 1e-7 } else { 4.0 - (i % 5) as f32 }).collect(),
            // Where σ is next to nothing or to all.
            3 => noise.map(|v| 120.0 * v).collect(),
            _ => vec![0.0; len],
        }
    };
    let sizes = [([1, 1], [1, 1]), ([1, 1], [3, 70]), ([2, 3], [5, 64]), ([24, 24], [24, 24]), ([24, 24], [61, 129])];
    let shrunk = [([24, 20], [7, 5]), ([9, 31], [40, 1]), ([31, 9], [1, 200]), ([5, 6], [0, 9]), ([5, 6], [9, 0])];
    for (from, to) in sizes.into_iter().chain(shrunk) {
        for (compared, threshold) in [
            (Compared::Sigmoid, 0.5),
            (Compared::Sigmoid, 0.31),
            (Compared::Sigmoid, 0.0),
            (Compared::Sigmoid, 1.0),
            (Compared::Values, 0.0),
            (Compared::Values, -1.3),
            (Compared::Values, f32::INFINITY),
            (Compared::Values, f32::NEG_INFINITY),
        ] {
            let maps = (0..5).map(|kind| map(from[0] * from[1], kind)).collect();
            suite.check(&Masks { cut: Cut { from, to, compared, threshold }, maps });
        }
    }
    // As of the published model, at a photograph's size: some words in doubt, and more than are listed.
    for (compared, threshold) in [(Compared::Sigmoid, 0.5), (Compared::Values, 0.0)] {
        let maps = [0, 1].map(|kind| map(288 * 288, kind)).into();
        suite.check(&Masks { cut: Cut { from: [288, 288], to: [433, 650], compared, threshold }, maps });
    }
    let cut = Cut { from: [4, 4], to: [9, 9], compared: Compared::Sigmoid, threshold: 0.5 };
    suite.check(&Masks { cut, maps: Vec::new() });
}

fn rois<O: Ops>(suite: &mut Suite<O>, rng: &mut Rng) {
    // Corners on eighths of a cell: bins and samples fall where f32 has them exactly, so that whether a sample is
    // outside, and how many there are, is no matter of rounding.
    let corner =
        |rng: &mut Rng, len: usize, beyond: usize| rng.below(8 * (len + 2 * beyond) + 1) as f32 / 8.0 - beyond as f32;
    for [h, w] in [[1, 1], [1, 5], [6, 1], [4, 4], [7, 9], [16, 12]] {
        for size in [1, 2, 4, 8] {
            for c in [1, 3, 8, 17] {
                let mut boxes = vec![
                    [0.0, 0.0, w as f32, h as f32],
                    // Smaller than a cell, of no size, reversed.
                    [0.25, 0.5, 0.5, 0.625],
                    [0.5, 0.5, 0.5, 0.5],
                    [1.0, 1.0, 0.0, 0.0],
                    // All around, and wholly outside.
                    [-3.0, -3.0, w as f32 + 3.0, h as f32 + 3.0],
                    [w as f32 + 4.0, h as f32 + 4.0, w as f32 + 6.0, h as f32 + 6.0],
                ];
                for beyond in [0, 0, 2] {
                    let (x0, y0) = (corner(rng, w, beyond), corner(rng, h, beyond));
                    boxes.push([x0, y0, x0.max(corner(rng, w, beyond)), y0.max(corner(rng, h, beyond))]);
                }
                suite.check(&Roi { h, w, size, x: Rows::packed(h * w, c, || rng.signed()), boxes });
            }
        }
    }
    suite.check(&Roi { h: 4, w: 3, size: 7, x: Rows::packed(12, 8, || rng.signed()), boxes: Vec::new() });
    // Bins of a seventh and of a third, within the picture.
    for size in [3, 7] {
        let boxes = vec![[0.3, 1.1, 10.7, 9.9], [2.0, 3.0, 9.0, 10.0], [5.21, 0.02, 6.07, 12.4]];
        suite.check(&Roi { h: 13, w: 11, size, x: Rows::packed(13 * 11, 24, || rng.signed()), boxes });
    }
    // The exemplar encoder of the published model, on fewer channels.
    let boxes = vec![[10.4, 20.7, 40.2, 66.1], [0.0, 0.0, 72.0, 72.0], [70.3, 70.1, 71.9, 71.8]];
    suite.check(&Roi { h: 72, w: 72, size: 7, x: Rows::packed(72 * 72, 64, || rng.signed()), boxes });
}
