//! The routes of Roboflow's `inference-sdk`, in the shapes that its version 1.8 sends and expects.
//!
//! Boxes of concepts are `x, y, width, height` from the corner or `x0, y0, x1, y1`; boxes of objects are `x, y, width,
//! height` with `x, y` their centre, as that server has it for SAM 2 and kept it.

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::{App, Work};
use super::error::{ApiError, ApiResult, FieldError};
use super::fal::reply;
use super::http::Ctx;
use super::input::typed;
use super::pictures::{Looked, Pictures};
use super::run::segment;
use super::schema::{Kind, optional, required};
use super::source;
use crate::instance::{Instance, polygon, rle};
use crate::{Concept, ExemplarBox, Object, Point, Prompt, SegmentOptions};

/// Most prompts of a request.
const MAX_PROMPTS: usize = 64;

/// How far outlines may be from the mask, pixels.
const TOLERANCE: f32 = 1.0;

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/sam3/embed_image", post(embed))
        .route("/sam3/concept_segment", post(concept))
        .route("/sam3/visual_segment", post(visual))
}

fn image() -> Kind {
    let value = required("value", Kind::Text(96 << 20), "Base64 of the file, or its URL.");
    Kind::Object(vec![optional("type", Kind::Word(&["base64", "url"]), "What value is.").or(json!("base64")), value])
}

/// The input of `/sam3/embed_image`.
pub fn embed_schema() -> Kind {
    Kind::Object(vec![
        required("image", image(), "The picture."),
        optional("image_id", Kind::Text(256), "A name to be given back; pictures are known by their content."),
    ])
}

/// The input of `/sam3/concept_segment`.
pub fn concept_schema() -> Kind {
    let side = |name| optional(name, Kind::Number(-1e6, 1e6), "Pixels.");
    let bbox = Kind::Object(["x", "y", "width", "height", "x0", "y0", "x1", "y1"].map(side).to_vec());
    let prompt = Kind::Object(vec![
        optional("type", Kind::Word(&["text", "visual"]), "What the prompt is."),
        optional("text", Kind::Text(1000), "A phrase."),
        optional("boxes", bbox.list(100), "Boxes round examples.").or(json!([])),
        optional("box_labels", Kind::Label.list(100), "1 an example, 0 a counter-example.").or(json!([])),
        optional("output_prob_thresh", Kind::Number(0.0, 1.0), "This prompt's own threshold."),
    ]);
    Kind::Object(vec![
        required("image", image(), "The picture."),
        required("prompts", prompt.list(MAX_PROMPTS), "Concepts."),
        optional("output_prob_thresh", Kind::Number(0.0, 1.0), "Keeps instances scored above this.").or(json!(0.5)),
        optional("nms_iou_threshold", Kind::Number(0.0, 1.0), "Drops masks that overlap a better one by more."),
        optional("format", Kind::Word(&["polygon", "json", "rle"]), "Form of masks.").or(json!("polygon")),
    ])
}

/// The input of `/sam3/visual_segment`. The client wraps its prompts once more, other callers do not.
pub fn visual_schema() -> Kind {
    Kind::Object(vec![
        required("image", image(), "The picture."),
        required("prompts", Kind::Any(256 << 10), "Objects: a list of {box, points}, or {\"prompts\": [...]}."),
        optional("multimask_output", Kind::Bool, "Choose the best of three masks for each object.").or(json!(true)),
        optional("format", Kind::Word(&["polygon", "json", "rle"]), "Form of masks.").or(json!("polygon")),
    ])
}

/// One object, as the client writes it.
fn object_schema() -> Kind {
    let side = |name| required(name, Kind::Number(-1e6, 1e6), "Pixels.");
    let point = Kind::Object(vec![side("x"), side("y"), optional("positive", Kind::Bool, "On it.").or(json!(true))]);
    let bbox = Kind::Object(["x", "y", "width", "height"].map(side).to_vec());
    Kind::Object(vec![
        optional("box", bbox, "Round the object, by its centre."),
        optional("points", point.list(1000), "On the object and beside it.").or(json!([])),
    ])
    .list(MAX_PROMPTS)
}

#[derive(Deserialize)]
struct PromptInput {
    r#type: Option<String>,
    text: Option<String>,
    boxes: Vec<BoxInput>,
    box_labels: Vec<u8>,
    output_prob_thresh: Option<f32>,
}

#[derive(Deserialize)]
struct BoxInput {
    x: Option<f32>,
    y: Option<f32>,
    width: Option<f32>,
    height: Option<f32>,
    x0: Option<f32>,
    y0: Option<f32>,
    x1: Option<f32>,
    y1: Option<f32>,
}

#[derive(Deserialize)]
struct ObjectInput {
    r#box: Option<CentredBox>,
    points: Vec<PointInput>,
}

#[derive(Deserialize)]
struct CentredBox {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

#[derive(Deserialize)]
struct PointInput {
    x: f32,
    y: f32,
    positive: bool,
}

impl BoxInput {
    fn xyxy(&self) -> Option<[f32; 4]> {
        match (self.x0, self.y0, self.x1, self.y1) {
            (Some(x0), Some(y0), Some(x1), Some(y1)) => Some([x0, y0, x1, y1]),
            _ => {
                let (x, y) = (self.x?, self.y?);
                Some([x, y, x + self.width?, y + self.height?])
            }
        }
    }
}

/// The picture of a request, looked at.
async fn picture(app: &Arc<App>, work: &Work, input: &Value) -> ApiResult<Arc<Looked>> {
    let value = input["image"]["value"].as_str().unwrap_or_default();
    let wrong = || ApiError::field("image", "image_load_error", "expected the base64 of a picture");
    let bytes = match input["image"]["type"].as_str() {
        Some("url") => source::file(app, value, "image").await?,
        _ if value.starts_with("data:") => source::file(app, value, "image").await?,
        _ => source::decode_base64(value).ok_or_else(wrong)?,
    };
    let (looked, _) = Pictures::look(app, bytes, "image", false).await?;
    work.notes.times(&looked.times);
    Ok(looked)
}

async fn embed(State(app): State<Arc<App>>, Extension(ctx): Extension<Ctx>, request: Request<Body>) -> Response<Body> {
    let done = ctx.work(&app, Arc::default(), async |work| {
        let (_place, body) = app.enter(request).await?;
        let input = embed_schema().read(&body.bytes)?;
        let looked = picture(&app, &work, &input).await?;
        let name = input["image_id"].as_str().unwrap_or(&looked.id);
        Ok(json!({ "image_id": name, "time": work.start.elapsed().as_secs_f64() }))
    });
    reply(done.await)
}

async fn concept(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    request: Request<Body>,
) -> Response<Body> {
    let done = ctx.work(&app, Arc::default(), async |work| {
        let (_place, body) = app.enter(request).await?;
        let input = concept_schema().read(&body.bytes)?;
        let asked: Vec<PromptInput> = typed(input["prompts"].clone())?;
        let general = number(&input["output_prob_thresh"]).unwrap_or(0.5);
        let thresholds: Vec<f32> = asked.iter().map(|p| p.output_prob_thresh.unwrap_or(general)).collect();
        let looked = picture(&app, &work, &input).await?;
        let prompts =
            asked.iter().enumerate().map(|(i, p)| concept_of(p, i, &looked)).collect::<ApiResult<Vec<_>>>()?;
        let mut options = SegmentOptions::default();
        options.threshold = thresholds.iter().copied().fold(1.0, f32::min);
        let mut answer = segment(&app, &work, &looked, prompts, options, "prompts").await?;
        answer.instances.retain(|i| i.score > thresholds[i.prompt]);
        let (overlap, rle) = (number(&input["nms_iou_threshold"]), input["format"] == "rle");
        app.blocking(move || {
            if let Some(most) = overlap {
                suppress(&mut answer.instances, f64::from(most));
            }
            let results: Vec<Value> = asked
                .iter()
                .enumerate()
                .map(|(i, p)| {
                    let of = answer.instances.iter().filter(|f| f.prompt == i);
                    let boxes = Some(p.boxes.len()).filter(|n| *n > 0);
                    json!({
                        "prompt_index": i,
                        "echo": { "prompt_index": i, "type": p.r#type, "text": p.text, "num_boxes": boxes },
                        "predictions": of.map(|f| prediction(f, rle)).collect::<Vec<_>>(),
                    })
                })
                .collect();
            json!({ "prompt_results": results, "time": work.start.elapsed().as_secs_f64() })
        })
        .await
    });
    reply(done.await)
}

async fn visual(State(app): State<Arc<App>>, Extension(ctx): Extension<Ctx>, request: Request<Body>) -> Response<Body> {
    let done = ctx.work(&app, Arc::default(), async |work| {
        let (_place, body) = app.enter(request).await?;
        let input = visual_schema().read(&body.bytes)?;
        let list = input["prompts"].get("prompts").unwrap_or(&input["prompts"]);
        let asked: Vec<ObjectInput> = typed(object_schema().read(list.to_string().as_bytes())?)?;
        let looked = picture(&app, &work, &input).await?;
        let prompts: Vec<Prompt> = asked.iter().map(object_of).collect();
        for (i, prompt) in prompts.iter().enumerate() {
            let within = prompt.check_within(looked.picture.width(), looked.picture.height());
            within.map_err(|e| at(i, e.to_string()))?;
        }
        let (count, rle) = (prompts.len(), input["format"] == "rle");
        let mut options = SegmentOptions::default();
        options.multimask = input["multimask_output"] == true;
        let answer = segment(&app, &work, &looked, prompts, options, "prompts").await?;
        app.blocking(move || {
            // Instances come best first: the first of a prompt is its best.
            let best = (0..count).filter_map(|i| answer.instances.iter().find(|f| f.prompt == i));
            let predictions: Vec<Value> = best.map(|f| prediction(f, rle)).collect();
            json!({ "predictions": predictions, "time": work.start.elapsed().as_secs_f64() })
        })
        .await
    });
    reply(done.await)
}

fn number(value: &Value) -> Option<f32> {
    value.as_f64().map(|v| v as f32)
}

fn at(i: usize, msg: impl Into<String>) -> ApiError {
    ApiError::fields(vec![FieldError::new(&["prompts".into(), i.into()], "value_error", msg)])
}

fn concept_of(input: &PromptInput, i: usize, looked: &Looked) -> ApiResult<Prompt> {
    if !input.box_labels.is_empty() && input.box_labels.len() != input.boxes.len() {
        return Err(at(i, "box_labels must match boxes length when provided"));
    }
    let mut exemplars = Vec::with_capacity(input.boxes.len());
    for (k, b) in input.boxes.iter().enumerate() {
        let xyxy = b.xyxy().ok_or_else(|| at(i, "expected boxes of x, y, width, height or of x0, y0, x1, y1"))?;
        exemplars.push(ExemplarBox { xyxy, positive: input.box_labels.get(k).is_none_or(|l| *l == 1) });
    }
    let text = input.text.as_ref().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
    let prompt = Prompt::Concept(Concept { text, exemplars });
    prompt.check_within(looked.picture.width(), looked.picture.height()).map_err(|e| at(i, e.to_string()))?;
    Ok(prompt)
}

fn object_of(input: &ObjectInput) -> Prompt {
    let corners = |b: &CentredBox| {
        let (w, h) = (b.width / 2.0, b.height / 2.0);
        [b.x - w, b.y - h, b.x + w, b.y + h]
    };
    Prompt::Object(Object {
        points: input.points.iter().map(|p| Point { x: p.x, y: p.y, positive: p.positive }).collect(),
        bbox: input.r#box.as_ref().map(corners),
        mask: None,
    })
}

/// Drops what overlaps a better one, whichever prompts they answer. Instances come best first.
fn suppress(instances: &mut Vec<Instance>, most: f64) {
    let mut kept: Vec<Instance> = Vec::with_capacity(instances.len());
    for found in instances.drain(..) {
        if kept.iter().all(|k| k.mask.iou(&found.mask) <= most) {
            kept.push(found);
        }
    }
    *instances = kept;
}

fn prediction(found: &Instance, as_rle: bool) -> Value {
    let (masks, format) = if as_rle {
        let size = [found.mask.height(), found.mask.width()];
        (json!({ "size": size, "counts": rle::encode_coco(&found.mask) }), "rle")
    } else {
        let contours = polygon::contours(&found.mask, TOLERANCE);
        let ring = |r: &Vec<f32>| r.chunks_exact(2).map(|p| [p[0] as i64, p[1] as i64]).collect::<Vec<_>>();
        (json!(contours.outer.iter().map(ring).collect::<Vec<_>>()), "polygon")
    };
    json!({ "masks": masks, "confidence": found.score, "format": format })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Mask;

    #[test]
    fn boxes_come_in_three_forms() {
        let of = |v: Value| {
            let body = json!({ "image": { "value": "" }, "prompts": [{ "boxes": [v] }] }).to_string();
            let input = concept_schema().read(body.as_bytes()).unwrap();
            let prompts: Vec<PromptInput> = typed(input["prompts"].clone()).unwrap();
            prompts[0].boxes[0].xyxy()
        };
        assert_eq!(of(json!({ "x": 1, "y": 2, "width": 3, "height": 4 })), Some([1.0, 2.0, 4.0, 6.0]));
        assert_eq!(of(json!({ "x0": 1, "y0": 2, "x1": 3, "y1": 4 })), Some([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(of(json!({ "x": 1, "y": 2 })), None);
        let list = json!([{ "box": { "x": 10, "y": 10, "width": 4, "height": 2 } }]).to_string();
        let objects: Vec<ObjectInput> = typed(object_schema().read(list.as_bytes()).unwrap()).unwrap();
        let Prompt::Object(o) = object_of(&objects[0]) else { panic!() };
        assert_eq!(o.bbox, Some([8.0, 9.0, 12.0, 11.0]));
    }

    #[test]
    fn overlapping_masks_are_suppressed_across_prompts() {
        let found = |prompt, x0: usize| Instance {
            score: 1.0,
            bbox: [0.0; 4],
            mask: Mask::from_fn(10, 1, |x, _| x >= x0 && x < x0 + 5),
            prompt,
        };
        let mut all = vec![found(0, 0), found(1, 1), found(1, 5)];
        suppress(&mut all, 0.5);
        assert_eq!(all.iter().map(|f| f.prompt).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(prediction(&all[0], true)["masks"]["size"], json!([1, 10]));
        assert!(prediction(&all[0], false)["masks"][0].as_array().unwrap().len() >= 3);
    }
}
