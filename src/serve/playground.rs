//! The playground's own API: a picture is sent once, prompts on it are answered compactly. The module's head
//! ([`super`]) documents it for whoever writes a page against it.

use std::sync::{Arc, PoisonError};

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Request, Response, header};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::App;
use super::error::{ApiError, ApiResult, FieldError};
use super::fal::reply;
use super::http::Ctx;
use super::input::{embed_schema, typed};
use super::pictures::{Came, Looked, Pictures};
use super::run::segment;
use super::schema::{Field, Kind, optional};
use super::source;
use crate::image::{FileFormat, encode};
use crate::instance::rle;
use crate::{Concept, ExemplarBox, MaskPrompt, Object, Point, Prompt, SegmentOptions, Segmentation};

/// Most prompts of one request, and most instances of an answer.
const MAX_PROMPTS: usize = 64;
const MAX_INSTANCES: i64 = 200;

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/images", post(take))
        .route("/api/images/{id}", get(known))
        .route("/api/images/{id}/picture", get(picture))
        .route("/api/images/{id}/segment", post(ask))
}

/// The input of `/api/images/{id}/segment`.
pub fn schema() -> Kind {
    let label = || optional("label", Kind::Label, "1 for, 0 against.").or(json!(1));
    let far = || Kind::Number(-1e6, 1e6);
    let point = Kind::Object(vec![
        Field { required: true, ..optional("x", far(), "Pixels from the left edge.") },
        Field { required: true, ..optional("y", far(), "Pixels from the upper edge.") },
        label(),
    ]);
    let exemplar = Kind::Object(vec![
        Field { required: true, ..optional("box", Kind::Numbers(4), "x0, y0, x1, y1, pixels.") },
        label(),
    ]);
    let prompt = Kind::Object(vec![
        optional("text", Kind::Text(1000), "A phrase: every instance of it."),
        optional("exemplars", exemplar.list(100), "Boxes round examples.").or(json!([])),
        optional("points", point.list(1000), "Clicks on one object and beside it.").or(json!([])),
        optional("box", Kind::Numbers(4), "A box round one object: x0, y0, x1, y1, pixels."),
        optional("mask_id", Kind::Text(64), "The mask of an earlier answer, to go on from."),
        optional("mask_url", Kind::Text(8 << 20), "A picture of a mask: a data URI or an upload."),
    ]);
    let prompts = Field {
        required: true,
        ..optional(
            "prompts",
            prompt.list(MAX_PROMPTS),
            "Questions, each answered by itself: a concept \
         (text, exemplars) or an object (points, box, mask).",
        )
    };
    Kind::Object(vec![
        prompts,
        optional("threshold", Kind::Number(0.0, 1.0), "Keeps instances of concepts scored above this.").or(json!(0.5)),
        optional("mask_threshold", Kind::Number(0.0, 1.0), "A pixel above this is inside.").or(json!(0.5)),
        optional("max_masks", Kind::Int(1, MAX_INSTANCES), "Most instances, the best.").or(json!(100)),
        optional("multimask", Kind::Bool, "Three masks for each object, for ambiguous clicks.").or(json!(false)),
        optional("keep", Kind::Bool, "Also keep the masks of concepts, to go on from by clicks.").or(json!(false)),
    ])
}

#[derive(Deserialize)]
struct Question {
    prompts: Vec<PromptInput>,
    threshold: f32,
    mask_threshold: f32,
    max_masks: usize,
    multimask: bool,
    keep: bool,
}

#[derive(Deserialize)]
struct PromptInput {
    text: Option<String>,
    exemplars: Vec<ExemplarInput>,
    points: Vec<PointInput>,
    #[serde(rename = "box")]
    bbox: Option<[f32; 4]>,
    mask_id: Option<String>,
    mask_url: Option<String>,
}

#[derive(Deserialize)]
struct ExemplarInput {
    #[serde(rename = "box")]
    bbox: [f32; 4],
    label: u8,
}

#[derive(Deserialize)]
struct PointInput {
    x: f32,
    y: f32,
    label: u8,
}

/// Takes a picture: the file itself, or JSON that says where it is.
async fn take(State(app): State<Arc<App>>, Extension(ctx): Extension<Ctx>, request: Request<Body>) -> Response<Body> {
    let taken = ctx.work(&app, Arc::default(), async |work| {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let json = content_type.is_some_and(|t| t.trim_start().to_ascii_lowercase().starts_with("application/json"));
        let (_place, body) = app.enter(request).await?;
        let (looked, came) = if json {
            let value = embed_schema().read(&body.bytes)?;
            let text = |name: &str| value.get(name).and_then(Value::as_str);
            source::picture(&app, &work, text("image_url"), text("image_id"), false).await?
        } else {
            let (looked, came) = Pictures::look(&app, body.bytes.to_vec(), "image", false).await?;
            if came == Came::Looked {
                work.notes.times(&looked.times);
            }
            (looked, came)
        };
        let mut out = shown(&looked);
        out["cached"] = (came == Came::Held).into();
        out["timings"] = work.notes.timings();
        Ok(out)
    });
    reply(taken.await)
}

fn shown(looked: &Looked) -> Value {
    json!({ "image_id": looked.id, "width": looked.picture.width(), "height": looked.picture.height() })
}

fn held(app: &App, id: &str) -> ApiResult<Arc<Looked>> {
    app.pictures.held(id).ok_or_else(|| ApiError::not_found("the picture is not held any more: send it again"))
}

/// Whether a picture is still held.
async fn known(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response<Body> {
    reply(held(&app, &id).map(|looked| shown(&looked)))
}

/// The picture, upright, as PNG: for what a page may not load itself, or no browser shows.
async fn picture(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response<Body> {
    let looked = match held(&app, &id) {
        Ok(looked) => looked,
        Err(e) => return e.response(),
    };
    let encoded = app.blocking(move || encode(&looked.picture.view(), FileFormat::Png)).await;
    match encoded.and_then(|png| png.map_err(|_| ApiError::internal())) {
        Err(e) => e.response(),
        Ok(png) => {
            let mut response = Response::new(Body::from(png));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
            response
        }
    }
}

/// Answers prompts on a picture.
async fn ask(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let answered = ctx.work(&app, Arc::default(), async |work| {
        let looked = held(&app, &id)?;
        let (_place, body) = app.enter(request).await?;
        let question: Question = typed(schema().read(&body.bytes)?)?;
        let mut prompts = Vec::with_capacity(question.prompts.len());
        for (i, input) in question.prompts.iter().enumerate() {
            let prompt = prompt(&app, input, i).await?;
            prompt.check_within(looked.picture.width(), looked.picture.height()).map_err(|e| at(i, e.to_string()))?;
            prompts.push(prompt);
        }
        let mut options = SegmentOptions::default();
        options.threshold = question.threshold;
        options.mask_threshold = question.mask_threshold;
        options.max_masks = Some(question.max_masks);
        options.multimask = question.multimask;
        let answer = segment(&app, &work, &looked, prompts, options, "prompts").await?;
        let (state, notes) = (app.clone(), work.notes.clone());
        app.blocking(move || compact(&state, &answer, question.keep, &notes.timings())).await
    });
    reply(answered.await)
}

fn at(i: usize, msg: impl Into<String>) -> ApiError {
    ApiError::fields(vec![FieldError::new(&["prompts".into(), i.into()], "value_error", msg)])
}

/// Prompt number `i`.
async fn prompt(app: &Arc<App>, input: &PromptInput, i: usize) -> ApiResult<Prompt> {
    let concept = input.text.as_ref().is_some_and(|t| !t.trim().is_empty()) || !input.exemplars.is_empty();
    let object =
        !input.points.is_empty() || input.bbox.is_some() || input.mask_id.is_some() || input.mask_url.is_some();
    match (concept, object) {
        (true, false) => {
            let exemplars =
                input.exemplars.iter().map(|e| ExemplarBox { xyxy: e.bbox, positive: e.label == 1 }).collect();
            let text = input.text.as_ref().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
            Ok(Prompt::Concept(Concept { text, exemplars }))
        }
        (false, true) => {
            let points = input.points.iter().map(|p| Point { x: p.x, y: p.y, positive: p.label == 1 }).collect();
            let mask = match (&input.mask_id, &input.mask_url) {
                (Some(id), _) => {
                    let kept = app.logits.lock().unwrap_or_else(PoisonError::into_inner).get(id);
                    let gone = || at(i, "mask_id: the mask is not held any more: ask again without it");
                    Some(MaskPrompt::Logits(kept.ok_or_else(gone)?))
                }
                (None, Some(url)) => Some(source::mask(app, url, "prompts").await?),
                (None, None) => None,
            };
            Ok(Prompt::Object(Object { points, bbox: input.bbox, mask }))
        }
        (true, true) => Err(at(i, "expected a concept (text, exemplars) or an object (points, box, mask), found both")),
        (false, false) => Err(at(i, "expected text, exemplars, points, a box or a mask, found none")),
    }
}

/// The answer: run lengths row by row, as `/image-rle` writes them.
fn compact(app: &App, answer: &Segmentation, keep: bool, timings: &Value) -> Value {
    let one = |(i, found): (usize, &crate::instance::Instance)| {
        let kept = keep || !answer.is_concept(i);
        let mask_id = answer.logits(i).filter(|_| kept).map(|l| app.keep_logits(l));
        json!({
            "score": found.score,
            "box": found.bbox,
            "area": found.area(),
            "prompt": found.prompt,
            "rle": rle::encode_pairs(&found.mask),
            "mask_id": mask_id,
        })
    };
    let instances: Vec<Value> = answer.instances.iter().enumerate().map(one).collect();
    let prompts: Vec<Value> =
        answer.prompts.iter().map(|p| json!({ "presence": p.presence, "concept": p.concept })).collect();
    json!({
        "width": answer.width,
        "height": answer.height,
        "instances": instances,
        "prompts": prompts,
        "timings": timings,
    })
}
