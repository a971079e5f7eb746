//! One caller's way to the model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::engine::Model;
use crate::engine::backend::{Features, RESIZE, Running};
use crate::engine::postprocess::{self, Resize};
use crate::error::{Error, Result};
use crate::image::{ImageView, resize_antialias_f32};
use crate::instance::{Instance, Mask};
use crate::model::{Control, Exemplar, Masks, ObjectPrompt, Progress, Stage, Wanted, missing_part};
use crate::options::SegmentOptions;
use crate::prompt::{Concept, LowResMask, MaskPrompt, Object, Prompt};
use crate::segmentation::{PromptAnswer, RawTensor, Segmentation, Timings};

/// The phrase upstream puts beside exemplars that come without one (`Sam3Processor._resolve_text_prompts`).
const VISUAL: &str = "visual";

/// Logit of a pixel inside a mask prompt; outside it is the negative. Upstream turns a user's mask into logits by
/// `20·m - 10` (`Sam3TrackerVideoModel._use_mask_as_output`).
const MASK_PROMPT_LOGIT: f32 = 10.0;

type ProgressFn = Box<dyn Fn(Progress) -> bool + Send + Sync>;
type TraceFn = Box<dyn Fn(&str, &[f32]) + Send + Sync>;

/// The scratch memory and hooks of one caller. Movable between threads, one call at a time.
pub struct Session {
    model: Model,
    running: Box<dyn Running>,
    cancel: Arc<AtomicBool>,
    progress: Option<ProgressFn>,
    trace: Option<TraceFn>,
    timings: Timings,
}

/// Cancels the running call of its session from another thread.
#[derive(Clone, Debug)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// The running call returns [`crate::ErrorKind::Cancelled`] at its next step. Without one, nothing happens: a call
    /// that starts later is not cancelled.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A picture the model has looked at. Cheap to clone; usable from every session of its model, from several threads.
#[derive(Clone)]
pub struct ImageEmbedding {
    model: Model,
    features: Features,
    width: usize,
    height: usize,
}

impl ImageEmbedding {
    /// Columns of the picture.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of the picture.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Bytes this holds on the device, at 4 per value: what a cache of embeddings counts. Back ends with narrower values
    /// hold less.
    ///
    /// With `t` tokens of a grid and `d` channels, the detector keeps its pyramid, `(16 + 4 + 1)·t·d` values. The tracker
    /// keeps two levels squeezed to `d/8` and `d/4` channels, one whole with and one without the embedding of no mask,
    /// `(16/8 + 4/4 + 2)·t·d`, and what the first block makes of that, three projections to `d/downsample`.
    pub fn bytes(&self) -> usize {
        let config = &self.model.info().config;
        let (t, d) = (config.vision.grid().pow(2), config.vision.fpn_hidden_size);
        let detector = if config.detector.is_some() { 21 * d } else { 0 };
        let tracker = config.tracker.as_ref().map_or(0, |c| 5 * d + 3 * d / c.attention_downsample_rate.max(1));
        t * (detector + tracker) * size_of::<f32>()
    }
}

impl std::fmt::Debug for ImageEmbedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageEmbedding({}×{})", self.width, self.height)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Instances of one prompt with their logits.
type Found = Vec<(Instance, LowResMask)>;

impl Session {
    pub(super) fn new(model: Model, running: Box<dyn Running>) -> Self {
        let cancel = Arc::default();
        Self { model, running, cancel, progress: None, trace: None, timings: Timings::default() }
    }

    /// The model this session belongs to.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A handle that cancels this session's calls from other threads.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle(self.cancel.clone())
    }

    /// Calls `f` after each step of a call, on the calling thread; `false` cancels the call.
    pub fn on_progress(&mut self, f: impl Fn(Progress) -> bool + Send + Sync + 'static) {
        self.progress = Some(Box::new(f));
    }

    /// Calls `f` with the name and the values of every intermediate result, under upstream's names: for comparing with
    /// another implementation. Slow.
    pub fn on_trace(&mut self, f: impl Fn(&str, &[f32]) + Send + Sync + 'static) {
        self.trace = Some(Box::new(f));
    }

    /// Ends what [`Session::on_trace`] began.
    pub fn off_trace(&mut self) {
        self.trace = None;
    }

    /// Time spent per stage since the session was made or last asked.
    pub fn take_timings(&mut self) -> Timings {
        for (name, took) in self.running.take_times() {
            self.timings.add(name, took);
        }
        std::mem::take(&mut self.timings)
    }

    /// Looks at a picture once, for any number of prompts: resize to the model's square, ViT, feature pyramids.
    pub fn encode(&mut self, picture: &ImageView<'_>) -> Result<ImageEmbedding> {
        self.begin();
        self.look(picture, Wanted::ALL)
    }

    fn look(&mut self, picture: &ImageView<'_>, wanted: Wanted) -> Result<ImageEmbedding> {
        self.timings.add(RESIZE, Duration::ZERO);
        self.running.ingest(picture)?;
        let features = self.stage(Stage::EncodeImage, |run, control| run.encode_image(wanted, control))?;
        let (width, height) = (picture.width(), picture.height());
        Ok(ImageEmbedding { model: self.model.clone(), features, width, height })
    }

    /// Answers all `prompts` on one picture. Each is a question of its own: two phrases are two concepts.
    ///
    /// Fails with [`crate::ErrorKind::InvalidArgument`] for no prompt, an empty one, one outside the picture, a phrase
    /// longer than the model reads, or a picture of another model; with [`crate::ErrorKind::Unsupported`] for prompts
    /// this checkpoint has no weights for.
    pub fn segment(
        &mut self,
        image: &ImageEmbedding,
        prompts: &[Prompt],
        options: &SegmentOptions,
    ) -> Result<Segmentation> {
        self.begin();
        self.check(image.width, image.height, prompts, options)?;
        if !image.model.is(&self.model) {
            return Err(Error::invalid("this picture was encoded by another model"));
        }
        self.answer(image, prompts, options)
    }

    /// [`Session::encode`] and [`Session::segment`] in one. Wrong prompts and options are refused before the picture is
    /// looked at.
    pub fn run(
        &mut self,
        picture: &ImageView<'_>,
        prompts: &[Prompt],
        options: &SegmentOptions,
    ) -> Result<Segmentation> {
        self.begin();
        self.check(picture.width(), picture.height(), prompts, options)?;
        // The embedding stays in here, so it needs no more than these prompts read.
        let wanted = Wanted {
            concepts: prompts.iter().any(|p| matches!(p, Prompt::Concept(_))),
            objects: prompts.iter().any(|p| matches!(p, Prompt::Object(_))),
        };
        let image = self.look(picture, wanted)?;
        self.answer(&image, prompts, options)
    }

    /// A cancellation belongs to the call it meets.
    fn begin(&mut self) {
        self.cancel.store(false, Ordering::Relaxed);
    }

    /// Everything about a question that can be wrong before any work.
    fn check(&self, width: usize, height: usize, prompts: &[Prompt], options: &SegmentOptions) -> Result<()> {
        options.check()?;
        if prompts.is_empty() {
            return Err(Error::invalid(
                "expected at least one prompt (text, exemplar, point, box or mask), found none",
            ));
        }
        Mask::check_size(width, height)?;
        let config = &self.model.info().config;
        for prompt in prompts {
            prompt.check(width, height, self.model.mask_side())?;
            match prompt {
                Prompt::Concept(_) if config.detector.is_none() => {
                    return Err(missing_part("detector", "text and exemplars"));
                }
                Prompt::Object(_) if config.tracker.is_none() => {
                    return Err(missing_part("tracker", "points, boxes and masks"));
                }
                // Too long a phrase shows only when it is tokenised.
                Prompt::Concept(concept) => self.model.tokens(phrase(concept)).map(drop)?,
                Prompt::Object(_) => {}
            }
        }
        Ok(())
    }

    /// Answers prompts that passed [`Session::check`].
    fn answer(&mut self, image: &ImageEmbedding, prompts: &[Prompt], options: &SegmentOptions) -> Result<Segmentation> {
        let mut found: Found = Vec::new();
        let mut answers = Vec::with_capacity(prompts.len());
        for (index, prompt) in prompts.iter().enumerate() {
            let (instances, answer) = match prompt {
                Prompt::Concept(concept) => self.concept(image, concept, index, options)?,
                Prompt::Object(object) => self.object(image, object, index, options)?,
            };
            found.extend(instances);
            answers.push(answer);
        }
        found.sort_by(|a, b| b.0.score.total_cmp(&a.0.score));
        found.truncate(options.max_masks.unwrap_or(usize::MAX));
        let (instances, low_res) = found.into_iter().unzip();
        Ok(Segmentation { width: image.width, height: image.height, instances, prompts: answers, low_res })
    }

    /// Runs and times one stage under this session's hooks.
    fn stage<T>(&mut self, stage: Stage, f: impl FnOnce(&mut dyn Running, &Control<'_>) -> Result<T>) -> Result<T> {
        let control = Control {
            cancel: Some(&self.cancel),
            progress: self.progress.as_ref().map(|f| &**f as _),
            trace: self.trace.as_ref().map(|f| &**f as _),
        };
        control.step(stage, 0, 1)?;
        // Its place among the others; what it took is known later (`take_timings`).
        self.timings.add(stage.name(), Duration::ZERO);
        f(&mut *self.running, &control)
    }

    /// Features of a phrase, from the model's cache where it has them.
    fn text(&mut self, phrase: &str) -> Result<Features> {
        if let Some(known) = self.model.known_text(phrase) {
            return Ok(known);
        }
        let ids = self.model.tokens(phrase)?;
        let features = self.stage(Stage::EncodeText, |run, control| run.encode_text(&ids, control))?;
        self.model.keep_text(phrase, features.clone());
        Ok(features)
    }

    fn concept(
        &mut self,
        image: &ImageEmbedding,
        concept: &Concept,
        index: usize,
        options: &SegmentOptions,
    ) -> Result<(Found, PromptAnswer)> {
        let text = self.text(phrase(concept))?;
        let (w, h) = (image.width as f32, image.height as f32);
        let exemplars: Vec<Exemplar> = concept
            .exemplars
            .iter()
            .map(|e| {
                // Sam3Processor: normalise the corners, then centre and size.
                let [x0, y0, x1, y1] = [e.xyxy[0] / w, e.xyxy[1] / h, e.xyxy[2] / w, e.xyxy[3] / h];
                Exemplar { cxcywh: [(x0 + x1) / 2.0, (y0 + y1) / 2.0, x1 - x0, y1 - y0], positive: e.positive }
            })
            .collect();
        let grounding =
            self.stage(Stage::Ground, |run, control| run.ground(&image.features, &text, &exemplars, control))?;
        check_finite([grounding.logits.as_slice(), &[grounding.presence], grounding.boxes.as_flattened()])?;
        let presence = postprocess::sigmoid(grounding.presence);
        let scores: Vec<f32> = grounding.logits.iter().map(|&l| postprocess::sigmoid(l) * presence).collect();
        let kept = postprocess::best(&scores, options.threshold, options.max_masks);
        let side = self.model.mask_side();
        let queries: Vec<usize> = if options.raw { (0..scores.len()).collect() } else { kept.clone() };
        let want_semantic = options.semantic || options.raw;
        let Masks { queries: masks, semantic } = self.stage(Stage::Masks, |run, control| {
            run.masks(&image.features, &grounding, &queries, want_semantic, control)
        })?;
        check_finite(masks.iter().chain(&semantic).map(Vec::as_slice))?;
        let start = Instant::now();
        let resize = Resize::new(side, image.width, image.height, |cut, masks| self.model.cut(cut, masks))?;
        let logits = |i: usize, query: usize| masks[if options.raw { query } else { i }].as_slice();
        let maps = kept.iter().enumerate().map(|(i, &query)| logits(i, query));
        // The semantic mask comes last.
        let mut cut =
            resize.concepts(maps.chain(semantic.as_deref().filter(|_| options.semantic)), options.mask_threshold)?;
        let semantic_mask = if cut.len() > kept.len() { cut.pop() } else { None };
        let mut found = Vec::with_capacity(kept.len());
        for ((i, &query), mask) in kept.iter().enumerate().zip(cut) {
            let [x0, y0, x1, y1] = grounding.boxes[query];
            let bbox = [x0 * w, y0 * h, x1 * w, y1 * h];
            let low_res = LowResMask::new(logits(i, query), side)?;
            found.push((Instance { score: scores[query], bbox, mask, prompt: index }, low_res));
        }
        let kept_semantic = semantic.as_ref().filter(|_| options.semantic);
        let semantic_logits = kept_semantic.map(|l| LowResMask::new(l.as_slice(), side)).transpose()?;
        self.timings.add("postprocess", start.elapsed());
        let raw = match semantic {
            Some(semantic) if options.raw => {
                let n = scores.len();
                let boxes = grounding.boxes.concat();
                vec![
                    RawTensor { name: "pred_logits", shape: vec![1, n], values: grounding.logits },
                    RawTensor { name: "pred_boxes", shape: vec![1, n, 4], values: boxes },
                    RawTensor { name: "presence_logits", shape: vec![1, 1], values: vec![grounding.presence] },
                    RawTensor { name: "pred_masks", shape: vec![1, n, side, side], values: masks.concat() },
                    RawTensor { name: "semantic_seg", shape: vec![1, 1, side, side], values: semantic },
                ]
            }
            _ => Vec::new(),
        };
        Ok((found, PromptAnswer { presence, semantic: semantic_mask, semantic_logits, concept: true, raw }))
    }

    fn object(
        &mut self,
        image: &ImageEmbedding,
        object: &Object,
        index: usize,
        options: &SegmentOptions,
    ) -> Result<(Found, PromptAnswer)> {
        let side = self.model.mask_side();
        // Sam3TrackerProcessor: pixels of the picture to pixels of the model's square.
        let square = self.model.info().config.vision.image_size as f32;
        let (sx, sy) = (square / image.width as f32, square / image.height as f32);
        let prompt = ObjectPrompt {
            points: object.points.iter().map(|p| ([p.x * sx, p.y * sy], p.positive)).collect(),
            bbox: object.bbox.map(|[x0, y0, x1, y1]| [x0 * sx, y0 * sy, x1 * sx, y1 * sy]),
            mask: object.mask.as_ref().map(|m| mask_logits(m, side)),
        };
        let multimask = options.multimask;
        let answer =
            self.stage(Stage::Segment, |run, control| run.segment(&image.features, &prompt, multimask, control))?;
        check_finite([answer.ious.as_slice(), &[answer.object_score]])?;
        check_finite(answer.masks.iter().map(Vec::as_slice))?;
        let start = Instant::now();
        let resize = Resize::new(side, image.width, image.height, |cut, masks| self.model.cut(cut, masks))?;
        let masks = resize.objects(answer.masks.iter().map(Vec::as_slice), options.mask_threshold)?;
        let mut found = Vec::with_capacity(answer.masks.len());
        for ((logits, &score), mask) in answer.masks.iter().zip(&answer.ious).zip(masks) {
            let bbox = mask.bounding_box().map_or([0.0; 4], |b| b.map(|v| v as f32));
            let low_res = LowResMask::new(logits.as_slice(), side)?;
            found.push((Instance { score, bbox, mask, prompt: index }, low_res));
        }
        self.timings.add("postprocess", start.elapsed());
        let mut raw = Vec::new();
        if options.raw {
            let m = answer.ious.len();
            let score = vec![answer.object_score];
            raw = vec![
                RawTensor { name: "pred_masks", shape: vec![1, 1, m, side, side], values: answer.masks.concat() },
                RawTensor { name: "iou_scores", shape: vec![1, 1, m], values: answer.ious },
                RawTensor { name: "object_score_logits", shape: vec![1, 1, 1], values: score },
            ];
        }
        let presence = postprocess::sigmoid(answer.object_score);
        Ok((found, PromptAnswer { presence, semantic: None, semantic_logits: None, concept: false, raw }))
    }
}

/// What the text encoder reads for a concept.
fn phrase(concept: &Concept) -> &str {
    concept.text.as_deref().filter(|t| !t.trim().is_empty()).unwrap_or(VISUAL)
}

/// Weights that are damaged within a valid file show here and nowhere else.
fn check_finite<'a>(values: impl IntoIterator<Item = &'a [f32]>) -> Result<()> {
    match values.into_iter().flatten().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(v) => {
            Err(Error::checkpoint(format!("expected finite outputs, found {v}: the checkpoint's weights are damaged")))
        }
    }
}

/// A mask prompt as logits at the model's resolution. A picture becomes ± [`MASK_PROMPT_LOGIT`] and is then resized as
/// upstream resizes `input_masks`: bilinear, antialiased.
fn mask_logits(mask: &MaskPrompt, side: usize) -> Vec<f32> {
    match mask {
        MaskPrompt::Logits(m) => m.logits().to_vec(),
        MaskPrompt::Picture { pixels, width, height } => {
            let logits: Vec<f32> =
                pixels.iter().map(|&v| if v >= 128 { MASK_PROMPT_LOGIT } else { -MASK_PROMPT_LOGIT }).collect();
            if (*height, *width) == (side, side) {
                return logits;
            }
            resize_antialias_f32(&logits, *height, *width, side, side)
        }
    }
}
