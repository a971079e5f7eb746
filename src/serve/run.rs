//! The three image routes, from a body to the JSON that answers it: whoever asks, the sync routes or the queue.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use serde_json::{Value, json};

use super::app::{App, Work};
use super::error::{ApiError, ApiResult};
use super::input::{self, ImageInput, is_lone_click, typed};
use super::pictures::{Looked, failed};
use super::render;
use super::source::{self, encode_base64};
use crate::{Prompt, SegmentOptions, Segmentation};

/// What an endpoint answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Pictures of masks.
    Image,
    /// Run lengths.
    Rle,
    /// Features.
    Embed,
}

/// The endpoints by their paths.
pub const ENDPOINTS: [(&str, Endpoint); 6] = [
    ("fal-ai/sam-3/image", Endpoint::Image),
    ("fal-ai/sam-3/image-rle", Endpoint::Rle),
    ("fal-ai/sam-3/image/embed", Endpoint::Embed),
    ("fal-ai/sam-3-1/image", Endpoint::Image),
    ("fal-ai/sam-3-1/image-rle", Endpoint::Rle),
    ("fal-ai/sam-3-1/image/embed", Endpoint::Embed),
];

impl Endpoint {
    /// Checks the form of `body`, before it waits for its turn.
    pub fn check(self, body: &[u8]) -> ApiResult<()> {
        let schema = if self == Self::Embed { input::embed_schema() } else { input::image_schema() };
        schema.read(body).map(drop)
    }

    /// Answers `body`.
    pub async fn run(self, app: &Arc<App>, work: &Arc<Work>, body: Bytes) -> ApiResult<Value> {
        match self {
            Self::Embed => embed(app, work, body).await,
            Self::Image | Self::Rle => image(self, app, work, body).await,
        }
    }
}

async fn image(endpoint: Endpoint, app: &Arc<App>, work: &Arc<Work>, body: Bytes) -> ApiResult<Value> {
    let input: ImageInput = typed(input::image_schema().read(&body)?)?;
    drop(body);
    if endpoint == Endpoint::Image && input.apply_mask && input.mask_style == "cutout" && input.output_format == "jpeg"
    {
        let msg = "Value error, a JPEG cannot hold transparency: use png or webp with mask_style cutout";
        return Err(ApiError::field("output_format", "value_error", msg));
    }
    let (url, id) = (input.image_url.as_deref(), input.image_id.as_deref());
    // Masks first: they are cheap to refuse, and a look is not.
    let mut masks = Vec::new();
    for (field, url) in input
        .mask_url
        .iter()
        .map(|u| ("mask_url", Some(u)))
        .chain(input.mask_prompts.iter().map(|m| ("mask_prompts", m.mask_url.as_ref())))
    {
        let url = url.ok_or_else(|| ApiError::field(field, "missing", "Field required: mask_url"))?;
        masks.push(source::mask(app, url, field).await?);
    }
    let (looked, _) = source::picture(app, work, url, id, false).await?;
    let prompts = input.prompts(looked.picture.width(), looked.picture.height(), masks)?;
    let mut options = SegmentOptions::default();
    options.threshold = input.detection_threshold;
    options.mask_threshold = input.mask_threshold;
    options.max_masks = Some(input.limit());
    options.multimask = input.return_multiple_masks && is_lone_click(&prompts);
    let answer = segment(app, work, &looked, prompts, options, "prompt").await?;

    let start = Instant::now();
    let (held, job) = (app.clone(), work.clone());
    let mut out = app
        .blocking(move || match endpoint {
            Endpoint::Image => render::images(&held, &job, &looked, &answer, &input),
            _ => Ok(render::run_lengths(&answer, &input)),
        })
        .await??;
    work.notes.times(&[("render", start.elapsed()), ("total", work.start.elapsed())]);
    out["timings"] = work.notes.timings();
    Ok(out)
}

/// Answers prompts on a picture. `field` is where errors say the prompts stood.
pub async fn segment(
    app: &Arc<App>,
    work: &Work,
    looked: &Arc<Looked>,
    prompts: Vec<Prompt>,
    options: SegmentOptions,
    field: &str,
) -> ApiResult<Segmentation> {
    let (held, count) = (looked.clone(), prompts.len());
    let run = app.pool.run(&work.ticket, move |session| session.segment(&held.embedding, &prompts, &options));
    let (answer, times) = run.await.map_err(|f| failed(f, field))?;
    work.notes.times(&times);
    let took = super::pictures::total(&times).as_secs_f64();
    work.notes.say(format!("{} masks for {count} prompts in {took:.3} s", answer.instances.len()));
    Ok(answer)
}

/// The coarsest feature map of a picture, `[tokens, channels]` row by row, as fal's undocumented field, with what it
/// takes to read it beside.
async fn embed(app: &Arc<App>, work: &Arc<Work>, body: Bytes) -> ApiResult<Value> {
    let value = input::embed_schema().read(&body)?;
    drop(body);
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let (looked, _) = source::picture(app, work, text("image_url"), text("image_id"), true).await?;
    let vision = &app.model.info().config.vision;
    let (grid, channels) = (vision.grid(), vision.fpn_hidden_size);
    let shared = looked.clone();
    let encoded = app
        .blocking(move || {
            let values = shared.vector.get()?;
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            Some(encode_base64(&bytes))
        })
        .await?
        .ok_or_else(ApiError::internal)?;
    work.notes.times(&[("total", work.start.elapsed())]);
    Ok(json!({
        "embedding_b64": encoded,
        "shape": [grid, grid, channels],
        "dtype": "float32",
        "layout": "height, width, channels; little-endian",
        "model": app.options.model_name,
        "image_id": looked.id,
        "width": looked.picture.width(),
        "height": looked.picture.height(),
        "timings": work.notes.timings(),
    }))
}
