//! The stages of SAM 3, each of which a session calls: encode a picture, encode a phrase, ground a concept, segment an
//! object. Results that later prompts reuse stay on the device.

use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageView;
use crate::model::control::{Control, Stage};
use crate::model::decoder::Decoder;
use crate::model::fusion::Fusion;
use crate::model::geometry_encoder::GeometryEncoder;
use crate::model::interactive::{Interactive, ObjectAnswer, ObjectPrompt, TrackerFeatures};
use crate::model::load::Loader;
use crate::model::mask_head::{MaskHead, Scoring};
use crate::model::neck::{LEVELS, Neck};
use crate::model::positions;
use crate::model::scratch::Scratch;
use crate::model::text_encoder::TextEncoder;
use crate::model::vit::Vit;
use crate::ops::{Ops, View};
use crate::weights::{Checkpoint, Config};

/// A box round one example of a concept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// Normalised centre and size.
    pub cxcywh: [f32; 4],
    /// An example, or a counter-example.
    pub positive: bool,
}

/// The kinds of prompts that a picture is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Phrases and exemplars.
    pub concepts: bool,
    /// Clicks, boxes and masks.
    pub objects: bool,
}

impl Wanted {
    /// All of them.
    pub const ALL: Self = Self { concepts: true, objects: true };
}

/// An encoded picture.
pub struct ImageFeatures<O: Ops> {
    /// The detector's pyramid, `[16t, d]`, `[4t, d]`, `[t, d]`.
    detector: Option<[O::Act; LEVELS]>,
    tracker: Option<TrackerFeatures<O>>,
}

/// An encoded phrase.
pub struct TextFeatures<O: Ops> {
    /// `[len, d]`.
    tokens: O::Act,
    len: usize,
}

/// The detector's answer to one concept prompt, for every query.
#[derive(Clone, Debug)]
pub struct Grounding {
    /// Class logits.
    pub logits: Vec<f32>,
    /// Boxes, normalised xyxy.
    pub boxes: Vec<[f32; 4]>,
    /// Logit of the concept being in the picture at all.
    pub presence: f32,
    /// Rows of the prompt in the scratch, for [`Sam3::masks`].
    prompt_tokens: usize,
}

/// Masks of the detector at its own resolution, `4·grid` a side.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    /// Logits of each chosen query.
    pub queries: Vec<Vec<f32>>,
    /// Logits of the concept as a whole, if asked for.
    pub semantic: Option<Vec<f32>>,
}

/// The detector's parts.
struct Detector<O: Ops> {
    neck: Neck<O>,
    text: TextEncoder<O>,
    geometry: GeometryEncoder<O>,
    fusion: Fusion<O>,
    decoder: Decoder<O>,
    scoring: Scoring<O>,
    mask_head: MaskHead<O>,
    /// Sine position embedding of the grid `[t, d]`.
    vision_pos: O::Act,
}

/// All weights of one checkpoint on one back end.
pub struct Sam3<O: Ops> {
    config: Config,
    vit: Vit<O>,
    detector: Option<Detector<O>>,
    tracker: Option<(Neck<O>, Interactive<O>)>,
}

impl<O: Ops> Sam3<O> {
    /// Hands every weight that `config` asks for to `ops`. The checkpoint is verified.
    pub fn load(ops: &O, checkpoint: &Checkpoint) -> Result<Self> {
        let config = checkpoint.config().clone();
        let l = Loader { ops, checkpoint };
        let scales = &config.vision.scale_factors;
        if scales[..] != [4.0, 2.0, 1.0, 0.5] {
            let message = format!("vision_config.scale_factors: expected [4, 2, 1, 0.5], found {scales:?}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let (d, grid) = (config.vision.fpn_hidden_size, config.vision.grid());
        let detector = |c: &crate::weights::DetectorConfig| -> Result<Detector<O>> {
            Ok(Detector {
                neck: Neck::load(&l, "detector_model.vision_encoder.neck")?,
                text: TextEncoder::load(&l, &c.text)?,
                geometry: GeometryEncoder::load(&l, &c.geometry, d)?,
                fusion: Fusion::load(&l, &c.encoder, d)?,
                decoder: Decoder::load(&l, c, d)?,
                scoring: Scoring::load(&l, d)?,
                mask_head: MaskHead::load(&l, c, d)?,
                vision_pos: l.upload(&positions::sine_map(grid, d))?,
            })
        };
        let tracker = |c| -> Result<_> { Ok((Neck::load(&l, "tracker_neck")?, Interactive::load(&l, &config, c)?)) };
        Ok(Self {
            vit: Vit::load(&l, &config.vision)?,
            detector: config.detector.as_ref().map(detector).transpose()?,
            tracker: config.tracker.as_ref().map(tracker).transpose()?,
            config,
        })
    }

    /// A picture of any size to the model's square of pixels, `s.map[s·s, 3]`, for [`Sam3::encode_image`].
    pub fn ingest(&self, ops: &O, picture: &ImageView<'_>, s: &mut Scratch<O>) -> Result<()> {
        ops.ingest(picture, self.config.vision.image_size, &mut s.map)
    }

    /// The pixels in `s.map`, to the features that prompts of the `wanted` kinds read.
    pub fn encode_image(
        &self,
        ops: &O,
        wanted: Wanted,
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<ImageFeatures<O>> {
        let (grid, d) = (self.config.vision.grid(), self.config.vision.fpn_hidden_size);
        let detector = self.detector.as_ref().filter(|_| wanted.concepts);
        let tracker = self.tracker.as_ref().filter(|_| wanted.objects);
        let layers = self.config.vision.layers;
        let total = layers + LEVELS * (usize::from(detector.is_some()) + usize::from(tracker.is_some()));
        self.vit.run(ops, s, control, total)?;
        // Up to six products read the tokens: as operands, which may take half the bytes.
        let c = self.config.vision.hidden_size;
        ops.copy(View::new(&s.x, c), grid * grid, c, &mut s.h, 0)?;
        let mut done = layers;
        let mut level = |neck: &Neck<O>, name: &str, s: &mut Scratch<O>, i: usize, to: &mut O::Act| {
            neck.run(ops, i, &s.h, grid, [&mut s.map, &mut s.map2], to)?;
            control.see(ops, || format!("{name}.{i}"), to, (grid << (2 - i)).pow(2) * d)?;
            done += 1;
            control.step(Stage::EncodeImage, done, total)
        };
        let mut features = ImageFeatures { detector: None, tracker: None };
        if let Some(detector) = detector {
            // The coarsest begins a residual stream; the finer ones are added to maps on their way up.
            let mut levels = [O::operand(), O::operand(), O::Act::default()];
            for (i, to) in levels.iter_mut().enumerate() {
                level(&detector.neck, "neck", s, i, to)?;
            }
            features.detector = Some(levels);
        }
        if let Some((neck, interactive)) = tracker {
            let level = |s: &mut Scratch<O>, i: usize, to: &mut O::Act| level(neck, "tracker_neck", s, i, to);
            features.tracker = Some(interactive.features(ops, s, level, control)?);
        }
        Ok(features)
    }

    /// Token ids, at most the text encoder's context, to features.
    pub fn encode_text(
        &self,
        ops: &O,
        ids: &[u32],
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<TextFeatures<O>> {
        let mut tokens = O::Act::default();
        self.detector()?.text.run(ops, ids, s, control, &mut tokens)?;
        Ok(TextFeatures { tokens, len: ids.len() })
    }

    /// All instances of a concept: a phrase, and exemplars if there are any (`Sam3Model.forward`). Query states stay in
    /// `s` for [`Sam3::masks`].
    pub fn ground(
        &self,
        ops: &O,
        image: &ImageFeatures<O>,
        text: &TextFeatures<O>,
        exemplars: &[Exemplar],
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<Grounding> {
        let det = self.detector()?;
        let grid = self.config.vision.grid();
        let levels = image.detector.as_ref().ok_or_else(foreign_image)?;
        let p = self.prompt(ops, det, &levels[LEVELS - 1], text, exemplars, s, control)?;
        let total = det.fusion.depth() + det.decoder.depth();
        det.fusion.run(ops, &levels[LEVELS - 1], &det.vision_pos, grid * grid, p, s, control, total)?;
        let steps = (det.fusion.depth(), total);
        let presence = det.decoder.run(ops, &det.vision_pos, grid, p, s, control, steps)?;
        let n = det.decoder.queries();
        let logits = det.scoring.run(ops, n, p, s)?;
        let mut cxcywh = vec![0.0; n * 4];
        ops.download(&s.boxes, 0, &mut cxcywh)?;
        let boxes = cxcywh
            .chunks_exact(4)
            .map(|b| [b[0] - 0.5 * b[2], b[1] - 0.5 * b[3], b[0] + 0.5 * b[2], b[1] + 0.5 * b[3]])
            .collect();
        Ok(Grounding { logits, boxes, presence, prompt_tokens: p })
    }

    /// The prompt in `s.prompt[p, d]`: text tokens, then exemplar tokens. Returns `p`.
    fn prompt(
        &self,
        ops: &O,
        det: &Detector<O>,
        vision: &O::Act,
        text: &TextFeatures<O>,
        exemplars: &[Exemplar],
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<usize> {
        let (grid, d) = (self.config.vision.grid(), self.config.vision.fpn_hidden_size);
        let mut p = text.len;
        ops.copy(View::new(&text.tokens, d), p, d, &mut s.prompt, 0)?;
        if !exemplars.is_empty() {
            let n = exemplars.len() + 1;
            control.see(ops, || "neck_pos.2".into(), &det.vision_pos, grid * grid * d)?;
            let mut tokens = std::mem::take(&mut s.fused);
            det.geometry.run(ops, exemplars, vision, &det.vision_pos, grid, s, control, &mut tokens)?;
            control.see(ops, || "geometry".into(), &tokens, n * d)?;
            ops.copy(View::new(&tokens, d), n, d, &mut s.prompt, p * d)?;
            s.fused = tokens;
            p += n;
        }
        control.see(ops, || "prompt".into(), &s.prompt, p * d)?;
        Ok(p)
    }

    /// Masks of the chosen queries of `grounding`, which must be the last on this scratch. Nothing is computed if nothing
    /// is asked for.
    pub fn masks(
        &self,
        ops: &O,
        image: &ImageFeatures<O>,
        grounding: &Grounding,
        queries: &[usize],
        semantic: bool,
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<Masks> {
        if queries.is_empty() && !semantic {
            control.step(Stage::Masks, 1, 1)?;
            return Ok(Masks::default());
        }
        let head = &self.detector()?.mask_head;
        let levels = image.detector.as_ref().ok_or_else(foreign_image)?;
        let (grid, pixels) = (self.config.vision.grid(), self.mask_side().pow(2));
        head.embed_pixels(ops, levels, grid, grounding.prompt_tokens, s, control)?;
        let queries = head.masks(ops, queries, pixels, s)?;
        let semantic = if semantic { Some(head.semantic(ops, pixels, s)?) } else { None };
        control.step(Stage::Masks, 1, 1)?;
        Ok(Masks { queries, semantic })
    }

    /// One object by clicks, a box or a mask (`Sam3TrackerModel.forward`).
    pub fn segment(
        &self,
        ops: &O,
        image: &ImageFeatures<O>,
        prompt: &ObjectPrompt,
        multimask: bool,
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<ObjectAnswer> {
        let (_, interactive) =
            self.tracker.as_ref().ok_or_else(|| missing_part("tracker", "points, boxes and masks"))?;
        let features = image.tracker.as_ref().ok_or_else(foreign_image)?;
        interactive.segment(ops, features, prompt, multimask, s, control)
    }

    /// Side of a low-resolution mask.
    pub fn mask_side(&self) -> usize {
        4 * self.config.vision.grid()
    }

    fn detector(&self) -> Result<&Detector<O>> {
        self.detector.as_ref().ok_or_else(|| missing_part("detector", "text and exemplars"))
    }
}

/// The error of asking a checkpoint for what it has no weights for.
pub fn missing_part(part: &str, prompts: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("this checkpoint has no {part}, so it cannot answer {prompts}"))
}

fn foreign_image() -> Error {
    Error::invalid("this picture was encoded by another model")
}
