//! The routes of X-AnyLabeling's remote server, which its desktop program calls: `/v1/models` says what buttons to show,
//! `/v1/predict` answers with shapes.
//!
//! As with that server, commas or full stops separate concepts, and rectangles are examples (label 1) and
//! counter-examples (label 0). Points, which that server leaves out for SAM 3, show one object here.

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::App;
use super::error::{ApiError, ApiResult, FieldError, json_response};
use super::fal::reply;
use super::http::Ctx;
use super::input::typed;
use super::pictures::Looked;
use super::run::segment;
use super::schema::{Kind, optional, required};
use super::source;
use crate::instance::{Instance, Mask, polygon};
use crate::{Concept, ExemplarBox, Object, Point, Prompt, SegmentOptions};

/// The model's name in requests.
const MODEL: &str = "segment_anything_3";

/// The label the program replaces by the one its user types.
const UNNAMED: &str = "AUTOLABEL_OBJECT";

/// Most concepts of a phrase with separators, and most marks.
const MAX_CONCEPTS: usize = 32;
const MAX_MARKS: usize = 1000;

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/models", get(models)).route("/v1/predict", post(predict))
}

/// The input of `/v1/predict`.
pub fn schema() -> Kind {
    let mark = Kind::Object(vec![
        required("type", Kind::Text(32), "rectangle or point; others are left out."),
        optional("label", Kind::Int(-1, 1_000_000), "1 for, 0 against.").or(json!(1)),
        required("data", Kind::Number(-1e6, 1e6).list(1000), "x1, y1, x2, y2 or x, y, pixels."),
    ]);
    let params = Kind::Object(vec![
        optional("text_prompt", Kind::Text(1000), "Concepts, separated by commas."),
        optional("marks", mark.list(MAX_MARKS), "What was drawn.").or(json!([])),
        optional("conf_threshold", Kind::Number(0.0, 1.0), "Keeps instances scored above this; 0 is 0.5.")
            .or(json!(0.5)),
        optional("epsilon_factor", Kind::Number(0.0, 1.0), "Tolerance of outlines, in shares of their length.")
            .or(json!(0.001)),
        optional("show_boxes", Kind::Bool, "Return boxes.").or(json!(false)),
        optional("show_masks", Kind::Bool, "Return outlines.").or(json!(true)),
    ]);
    Kind::Object(vec![
        optional("model", Kind::Text(200), "Any: there is one.").or(json!(MODEL)),
        required("image", Kind::Text(96 << 20), "A data URI."),
        optional("params", params, "What is asked."),
    ])
}

#[derive(Deserialize)]
struct Input {
    image: String,
    params: Option<Params>,
}

#[derive(Deserialize)]
struct Params {
    text_prompt: Option<String>,
    marks: Vec<Mark>,
    conf_threshold: f32,
    epsilon_factor: f32,
    show_boxes: bool,
    show_masks: bool,
}

#[derive(Deserialize)]
struct Mark {
    r#type: String,
    label: i64,
    data: Vec<f32>,
}

/// What there is, and the buttons that go with it.
async fn models(State(app): State<Arc<App>>) -> Response<Body> {
    let widgets = json!([
        { "name": "edit_text", "value": null, "placeholder": "What to find: cat, red car" },
        { "name": "button_send", "value": null },
        { "name": "button_add_point", "value": null },
        { "name": "button_remove_point", "value": null },
        { "name": "add_pos_rect", "value": null },
        { "name": "add_neg_rect", "value": null },
        { "name": "button_run_rect", "value": null },
        { "name": "button_clear", "value": null },
        { "name": "button_finish_object", "value": null },
        { "name": "input_conf", "value": null },
        { "name": "edit_conf", "value": 0.5 },
        { "name": "toggle_preserve_existing_annotations", "value": false },
        { "name": "mask_fineness_slider", "value": null },
        { "name": "mask_fineness_value_label", "value": null },
    ]);
    let model = json!({
        "model_id": MODEL,
        "display_name": format!("Segment Anything 3 ({})", app.options.model_name),
        "batch_processing_mode": "text_prompt",
        "params": { "conf_threshold": 0.5, "epsilon_factor": 0.001, "show_boxes": false, "show_masks": true },
        "widgets": widgets,
    });
    let body = json!({ "success": true, "data": { MODEL: model } });
    json_response(StatusCode::OK, &body)
}

async fn predict(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    request: Request<Body>,
) -> Response<Body> {
    let done = ctx.work(&app, Arc::default(), async |work| {
        let (_place, body) = app.enter(request).await?;
        let input: Input = typed(schema().read(&body.bytes)?)?;
        let Some(params) = input.params else { return Ok(shapes(Vec::new())) };
        let bytes = source::file(&app, &input.image, "image").await?;
        let (looked, _) = super::pictures::Pictures::look(&app, bytes, "image", false).await?;
        let (prompts, labels) = prompts(&params, &looked)?;
        if prompts.is_empty() {
            return Ok(shapes(Vec::new()));
        }
        let mut options = SegmentOptions::default();
        // The program sends 0 until somebody moves its slider.
        options.threshold = if params.conf_threshold > 0.0 { params.conf_threshold } else { 0.5 };
        let answer = segment(&app, &work, &looked, prompts, options, "params").await?;
        app.blocking(move || {
            let of = |f: &Instance| drawn(f, &labels[f.prompt], &params);
            shapes(answer.instances.iter().flat_map(of).collect())
        })
        .await
    });
    reply(done.await)
}

fn shapes(list: Vec<Value>) -> Value {
    json!({ "success": true, "data": { "shapes": list, "description": "" } })
}

/// Prompts, and what each one's shapes are called.
fn prompts(params: &Params, looked: &Looked) -> ApiResult<(Vec<Prompt>, Vec<String>)> {
    let mut exemplars = Vec::new();
    let mut points = Vec::new();
    for mark in &params.marks {
        match (mark.r#type.as_str(), &mark.data[..]) {
            ("rectangle", &[x0, y0, x1, y1]) => {
                // Drawn from any corner to the opposite one.
                let xyxy = [x0.min(x1), y0.min(y1), x0.max(x1), y0.max(y1)];
                let (w, h) = (looked.picture.width() as f32, looked.picture.height() as f32);
                let inside = [xyxy[0].max(0.0), xyxy[1].max(0.0), xyxy[2].min(w), xyxy[3].min(h)];
                exemplars.push(ExemplarBox { xyxy: inside, positive: mark.label == 1 });
            }
            ("point", &[x, y]) => points.push(Point { x, y, positive: mark.label == 1 }),
            _ => {}
        }
    }
    let mut prompts = Vec::new();
    let mut labels = Vec::new();
    let text = params.text_prompt.as_deref().unwrap_or_default();
    let separator = [',', '.'].into_iter().find(|c| text.contains(*c)).unwrap_or(',');
    let mut names: Vec<&str> = Vec::new();
    for name in text.split(separator).map(str::trim).filter(|n| !n.is_empty()) {
        if !names.contains(&name) && names.len() < MAX_CONCEPTS {
            names.push(name);
        }
    }
    for name in names {
        prompts.push(Prompt::Concept(Concept { text: Some(name.to_owned()), exemplars: exemplars.clone() }));
        labels.push(name.to_owned());
    }
    if prompts.is_empty() && !exemplars.is_empty() {
        prompts.push(Prompt::Concept(Concept { text: None, exemplars }));
        labels.push(UNNAMED.to_owned());
    }
    if !points.is_empty() {
        prompts.push(Prompt::Object(Object { points, ..Object::default() }));
        labels.push(UNNAMED.to_owned());
    }
    for prompt in &prompts {
        prompt.check_within(looked.picture.width(), looked.picture.height()).map_err(|e| {
            ApiError::fields(vec![FieldError::new(&["params".into(), "marks".into()], "value_error", e.to_string())])
        })?;
    }
    Ok((prompts, labels))
}

/// The shapes of one instance.
fn drawn(found: &Instance, label: &str, params: &Params) -> Vec<Value> {
    let shape = |kind: &str, points: Vec<[f32; 2]>| json!({ "label": label, "shape_type": kind, "points": points, "score": found.score });
    let mut out = Vec::new();
    if params.show_masks {
        out.extend(outline(&found.mask, params.epsilon_factor).map(|p| shape("polygon", p)));
    }
    if params.show_boxes {
        let [x0, y0, x1, y1] = found.bbox;
        out.push(shape("rectangle", vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]));
    }
    out
}

/// The largest piece's ring, closed, no farther from the exact one than `factor` of its length.
fn outline(mask: &Mask, factor: f32) -> Option<Vec<[f32; 2]>> {
    let largest = |tolerance: f32| {
        let rings = polygon::contours(mask, tolerance).outer;
        rings.into_iter().max_by(|a, b| area(a).total_cmp(&area(b)))
    };
    let exact = largest(0.0)?;
    let ring = if factor > 0.0 { largest(factor * length(&exact))? } else { exact };
    let mut points: Vec<[f32; 2]> = ring.chunks_exact(2).map(|p| [p[0], p[1]]).collect();
    points.extend(points.first().copied());
    Some(points)
}

/// Pairs of neighbouring vertices, the last with the first.
fn edges(ring: &[f32]) -> impl Iterator<Item = ([f32; 2], [f32; 2])> + '_ {
    let points = ring.chunks_exact(2).map(|p| [p[0], p[1]]);
    points.clone().zip(points.clone().skip(1).chain(points.take(1)))
}

fn area(ring: &[f32]) -> f32 {
    edges(ring).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f32>().abs() / 2.0
}

fn length(ring: &[f32]) -> f32 {
    edges(ring).map(|(a, b)| (b[0] - a[0]).hypot(b[1] - a[1])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_are_closed_rings_of_the_largest_piece() {
        let mask = Mask::from_fn(20, 10, |x, y| (x < 2 && y < 2) || ((5..15).contains(&x) && (2..8).contains(&y)));
        for factor in [0.0, 0.001, 0.01] {
            let ring = outline(&mask, factor).unwrap();
            assert_eq!((ring.len(), ring[0]), (5, ring[4]), "{ring:?}");
            assert!(ring.contains(&[5.0, 2.0]) && ring.contains(&[15.0, 8.0]));
        }
        assert!(outline(&Mask::new(5, 5), 0.001).is_none());
        assert_eq!(length(&[0.0, 0.0, 3.0, 0.0, 3.0, 4.0]), 12.0);
        assert_eq!(area(&[0.0, 0.0, 3.0, 0.0, 3.0, 4.0]), 6.0);
    }
}
