//! What `tests/c/tour.c` has to find, by the Rust interface, as the same stream of bytes.

use std::path::Path;

use sam3::image::{Picture, resize_bilinear_f32};
use sam3::instance::{Mask, polygon, rle};
use sam3::{
    Concept, Device, ExemplarBox, ImageEmbedding, LowResMask, MaskPrompt, Model, ModelOptions, Object, Point, Prompt,
    SegmentOptions, Segmentation, Session,
};

/// `tour.c`'s mask threshold.
const THRESHOLD: f32 = 0.45;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}

#[derive(Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn floats(&mut self, values: &[f32]) {
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    fn ints(&mut self, values: &[u32]) {
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    /// Every form, at the picture's size and at the model's, `threshold` being the one the answer was made with.
    fn mask(&mut self, mask: &Mask, low: &LowResMask, soft: &[f32], threshold: f32) {
        let (side, width, height) = (low.side(), mask.width(), mask.height());
        let small = Mask::from_fn(side, side, |x, y| low.logits()[y * side + x] > logit(threshold));
        let bytes = |soft: &[f32]| soft.iter().map(|p| (p * 255.0 + 0.5) as u8).collect::<Vec<_>>();
        let low_soft: Vec<f32> = low.logits().iter().map(|&v| sigmoid(v)).collect();
        self.0.extend(mask.to_u8());
        self.0.extend(small.to_u8());
        self.0.extend(bytes(soft));
        self.0.extend(bytes(&low_soft));
        self.floats(&resize_bilinear_f32(low.logits(), side, side, height, width));
        self.floats(low.logits());
        self.0.extend(mask.packed_bits());
        self.0.extend(small.packed_bits());
    }

    fn result(&mut self, answer: &Segmentation, threshold: f32) {
        self.ints(&[answer.instances.len() as u32]);
        for (i, found) in answer.instances.iter().enumerate() {
            let low = answer.logits(i).unwrap();
            self.ints(&[found.prompt as u32]);
            self.floats(&[found.score]);
            self.floats(&found.bbox);
            let [x0, y0, x1, y1] = found.mask.bounding_box().unwrap_or_default().map(|v| v as u32);
            self.ints(&[x0, y0, x1 - x0, y1 - y0]);
            self.0.extend(found.area().to_le_bytes());
            let above = |bound: f32| low.logits().iter().filter(|&&v| v > bound).count() as f32;
            let (inner, outer) = (above(logit(threshold) + 1.0), above(logit(threshold) - 1.0));
            self.floats(&[if outer > 0.0 { inner / outer } else { 0.0 }]);
            // Probabilities are resized for concepts, logits for objects.
            let (side, w, h) = (low.side(), answer.width, answer.height);
            let soft: Vec<f32> = if answer.prompts[found.prompt].concept {
                let small: Vec<f32> = low.logits().iter().map(|&v| sigmoid(v)).collect();
                resize_bilinear_f32(&small, side, side, h, w)
            } else {
                resize_bilinear_f32(low.logits(), side, side, h, w).into_iter().map(sigmoid).collect()
            };
            self.mask(&found.mask, low, &soft, threshold);
            self.0.extend(rle::encode_coco(&found.mask).into_bytes());
            self.0.extend(rle::encode_pairs(&found.mask).into_bytes());
            self.ints(&rle::encode_counts(&found.mask));
            let rings = polygon::contours(&found.mask, 0.5);
            for (hole, ring) in rings.outer.iter().map(|r| (0, r)).chain(rings.holes.iter().map(|r| (1, r))) {
                self.ints(&[hole]);
                self.floats(ring);
            }
        }
        for prompt in &answer.prompts {
            self.floats(&[prompt.presence]);
        }
    }
}

/// The prompts of `tour.c` on a picture of `w × h` pixels.
fn prompts(w: f32, h: f32) -> Vec<Prompt> {
    let (some, other) = ([w / 8.0, h / 8.0, w / 2.0, h / 2.0], [w / 2.0, h / 2.0, w, h]);
    let points = points(w, h);
    let mut square = [0u8; 36];
    (2..4).for_each(|y| square[6 * y + 1..6 * y + 4].fill(200));
    let exemplars = vec![ExemplarBox { xyxy: some, positive: true }, ExemplarBox { xyxy: other, positive: false }];
    let mask = MaskPrompt::Picture { pixels: square[..].into(), width: 6, height: 6 };
    vec![
        Prompt::text("cat"),
        Concept { text: None, exemplars }.into(),
        Object { points, ..Default::default() }.into(),
        Prompt::bbox(some),
        Object { mask: Some(mask), ..Default::default() }.into(),
    ]
}

fn points(w: f32, h: f32) -> Vec<Point> {
    vec![Point { x: w / 3.0, y: h / 3.0, positive: true }, Point { x: w * 0.75, y: h * 0.75, positive: false }]
}

fn options() -> SegmentOptions {
    let mut options = SegmentOptions::default();
    options.threshold = 0.01;
    options.mask_threshold = THRESHOLD;
    options.max_masks = Some(9);
    options.semantic = true;
    options.multimask = true;
    options
}

pub struct Tour {
    model: Model,
    session: Session,
    pub picture: Picture,
    pub image: ImageEmbedding,
}

impl Tour {
    pub fn new(fixture: &Path) -> Self {
        let model = Model::open(fixture, &ModelOptions::on(Device::Cpu).threads(2)).unwrap();
        let mut session = model.session();
        let picture = Picture::open(fixture.join("input.png")).unwrap();
        let image = session.encode(&picture.view()).unwrap();
        Self { model, session, picture, image }
    }

    pub fn answer(&mut self) -> Segmentation {
        let (w, h) = (self.image.width() as f32, self.image.height() as f32);
        self.session.segment(&self.image, &prompts(w, h), &options()).unwrap()
    }

    /// What the program writes to `tour.bin`.
    pub fn bytes(&mut self) -> Vec<u8> {
        let (w, h) = (self.image.width() as f32, self.image.height() as f32);
        let answer = self.answer();
        let mut out = Stream::default();
        out.ints(&[self.model.info().config.vision.image_size as u32, self.model.mask_side() as u32]);
        out.ints(&[w as u32, h as u32]);
        out.result(&answer, THRESHOLD);
        for prompt in &answer.prompts[..2] {
            let (mask, low) = (prompt.semantic.as_ref().unwrap(), prompt.semantic_logits.as_ref().unwrap());
            out.mask(mask, low, &low.probabilities(w as usize, h as usize), THRESHOLD);
        }
        let best = answer.instances.iter().position(|found| found.prompt >= 2).unwrap();
        let mask = Some(MaskPrompt::Logits(answer.logits(best).unwrap().clone()));
        let again = Object { points: points(w, h)[..1].to_vec(), mask, ..Default::default() };
        let second = self.session.segment(&self.image, &[again.into()], &SegmentOptions::default()).unwrap();
        out.result(&second, 0.5);
        out.result(&second, 0.5);
        // Six formats, as call and as job; a job of its own; from memory, lent memory and callbacks; and once more.
        for _ in 0..6 * 2 + 1 + 3 + 1 {
            out.result(&answer, THRESHOLD);
        }
        out.0
    }

    /// What `tour.cpp` writes: masks and run lengths of four instances.
    pub fn wrapped(&mut self) -> Vec<u8> {
        let (w, h) = (self.image.width() as f32, self.image.height() as f32);
        let mut options = options();
        (options.max_masks, options.multimask) = (Some(4), false);
        let prompts = [Prompt::text("cat"), Object { points: points(w, h), ..Default::default() }.into()];
        let answer = self.session.segment(&self.image, &prompts, &options).unwrap();
        assert_eq!(answer.instances.len(), 4);
        let bytes = |mask: &Mask| mask.to_u8().into_iter().chain(rle::encode_coco(mask).into_bytes());
        answer.instances.iter().flat_map(|found| bytes(&found.mask).collect::<Vec<u8>>()).collect()
    }
}
