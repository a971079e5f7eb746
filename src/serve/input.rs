//! The input of the image routes: fal's fields, and what this server adds to them.
//!
//! fal leaves open what some combinations mean. Here:
//!
//! - Without `prompt` and without any other prompt, the phrase is fal's default, "wheel". With points, boxes, masks or
//!   exemplars and without `prompt`, there is no phrase. `"prompt": ""` is no phrase; with nothing else it is an error.
//! - Phrase and objects are questions of their own, answered side by side and ranked together by score. Exemplars belong
//!   to the phrase; without one they ask for all that looks like them.
//! - Points, boxes and masks with the same `object_id` show one object. Without an id, every box is an object, and all
//!   points and `mask_url` show one object together: with the box, if it is the only one without an id.
//! - Several boxes of one object count as the box around them. Boxes that reach over the picture's edge are cut to it.
//! - A box with a `label` is an exemplar.

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{ApiError, ApiResult, FieldError};
use super::schema::{Field, Kind, optional};
use crate::{Concept, ExemplarBox, MaskPrompt, Object, Point, Prompt};

/// A box `[x0, y0, x1, y1]` and the object it belongs to, if it says one.
type OwnedBox = (Option<i64>, [f32; 4]);

/// fal's default phrase.
const WHEEL: &str = "wheel";

/// Most bytes of an address or a picture in base64: the longest body decides in the end.
const MAX_URL: usize = 96 << 20;

/// Most characters of a phrase. The text encoder reads 32 tokens; what is longer is refused there, with words.
const MAX_PROMPT: usize = 1000;

/// Most points, boxes, masks and exemplars of a request. Each object is a run of the mask decoder.
const MAX_POINTS: usize = 1000;
const MAX_BOXES: usize = 100;
const MAX_MASKS: usize = 16;

/// Most masks that are returned, as fal's.
pub const MAX_MASKS_OUT: i64 = 32;

/// Coordinates are pixels; no picture has more.
const FAR: f64 = 1e6;

fn object_id() -> Field {
    optional("object_id", Kind::Int(-1_000_000, 1_000_000), "Prompts with the same id show one object.")
}

fn frame_index() -> Field {
    optional("frame_index", Kind::Int(0, 1_000_000_000), "Only for video; ignored.")
}

fn boxed(label: bool) -> Kind {
    let side = |name, doc| optional(name, Kind::Number(-FAR, FAR), doc);
    let mut fields = vec![
        side("x_min", "Left edge, pixels."),
        side("y_min", "Upper edge, pixels."),
        side("x_max", "Right edge, pixels."),
        side("y_max", "Lower edge, pixels."),
        object_id(),
        frame_index(),
    ];
    if label {
        let doc = "Extension: makes this box an exemplar of the concept, 1 an example, 0 a counter-example.";
        fields.push(optional("label", Kind::Label, doc));
    } else {
        fields.push(optional("label", Kind::Label, "1 an example, 0 a counter-example.").or(json!(1)));
    }
    Kind::Object(fields)
}

/// Where the picture comes from: every route has these two.
pub fn picture_fields() -> Vec<Field> {
    vec![
        optional(
            "image_url",
            Kind::Text(MAX_URL),
            "The picture: a base64 data URI, the URL of an upload, or an http(s) URL where the server may fetch. JPEG, \
             PNG, WebP, GIF (first frame), AVIF, BMP or TIFF. Required unless image_id is there.",
        ),
        optional("image_id", Kind::Text(64), "Extension: a picture that was embedded before, instead of image_url."),
    ]
}

/// The input of `/image` and `/image-rle`.
pub fn image_schema() -> Kind {
    let point = Kind::Object(vec![
        optional("x", Kind::Number(-FAR, FAR), "Pixels from the left edge."),
        optional("y", Kind::Number(-FAR, FAR), "Pixels from the upper edge."),
        optional("label", Kind::Label, "1 on the object, 0 beside it.").or(json!(1)),
        object_id(),
        frame_index(),
    ]);
    let mask = Kind::Object(vec![
        optional("mask_url", Kind::Text(MAX_URL), "A picture of the mask, bright where the object is."),
        object_id(),
    ]);
    let probability = || Kind::Number(0.0, 1.0);
    let mut fields = picture_fields();
    fields.extend([
        optional("prompt", Kind::Text(MAX_PROMPT), "A phrase: every instance of what it names.").shown(json!(WHEEL)),
        optional("text_prompt", Kind::Text(MAX_PROMPT), "Deprecated: the old name of prompt."),
        optional("point_prompts", point.list(MAX_POINTS), "Clicks on objects and beside them.").or(json!([])),
        optional("box_prompts", boxed(true).list(MAX_BOXES), "Boxes round objects.").or(json!([])),
        optional("apply_mask", Kind::Bool, "Draw the masks on the picture; otherwise white on black.").or(json!(true)),
        optional("sync_mode", Kind::Bool, "Return pictures as data URIs.").or(json!(false)),
        optional("output_format", Kind::Word(&["jpeg", "png", "webp"]), "Format of returned pictures.")
            .or(json!("png")),
        optional("return_multiple_masks", Kind::Bool, "Return up to max_masks masks; otherwise the best.")
            .or(json!(false)),
        optional("max_masks", Kind::Int(1, MAX_MASKS_OUT), "Most masks, with return_multiple_masks.").or(json!(3)),
        optional("include_scores", Kind::Bool, "Fill scores.").or(json!(false)),
        optional("include_boxes", Kind::Bool, "Fill boxes.").or(json!(false)),
        optional("exemplars", boxed(false).list(MAX_BOXES), "Extension: boxes round examples of the concept.")
            .or(json!([])),
        optional("mask_url", Kind::Text(MAX_URL), "Extension: a picture of a mask that shows an object roughly."),
        optional("mask_prompts", mask.list(MAX_MASKS), "Extension: masks of several objects.").or(json!([])),
        optional(
            "mask_style",
            Kind::Word(&["overlay", "cutout"]),
            "Extension: what apply_mask draws. A tint with an \
             outline, or the object alone on transparency.",
        )
        .or(json!("overlay")),
        optional(
            "rle_format",
            Kind::Word(&["fal", "coco"]),
            "Extension: run lengths as fal sends them (one-based start \
             and length, row by row), or COCO's objects of size and compressed counts.",
        )
        .or(json!("fal")),
        optional("detection_threshold", probability(), "Extension: keeps instances of the concept scored above this.")
            .or(json!(0.5)),
        optional("mask_threshold", probability(), "Extension: a pixel above this probability is inside.")
            .or(json!(0.5)),
    ]);
    Kind::Object(fields)
}

/// The input of `/image/embed`.
pub fn embed_schema() -> Kind {
    Kind::Object(picture_fields())
}

/// The input, checked by [`image_schema`].
#[derive(Clone, Debug, Deserialize)]
pub struct ImageInput {
    pub image_url: Option<String>,
    pub image_id: Option<String>,
    prompt: Option<String>,
    text_prompt: Option<String>,
    point_prompts: Vec<PointInput>,
    box_prompts: Vec<BoxInput>,
    exemplars: Vec<BoxInput>,
    pub mask_url: Option<String>,
    pub mask_prompts: Vec<MaskInput>,
    pub apply_mask: bool,
    pub mask_style: String,
    pub sync_mode: bool,
    pub output_format: String,
    pub return_multiple_masks: bool,
    pub max_masks: usize,
    pub include_scores: bool,
    pub include_boxes: bool,
    pub rle_format: String,
    pub detection_threshold: f32,
    pub mask_threshold: f32,
}

/// A click.
#[derive(Clone, Debug, Deserialize)]
struct PointInput {
    x: Option<f32>,
    y: Option<f32>,
    label: u8,
    object_id: Option<i64>,
}

/// A box.
#[derive(Clone, Debug, Deserialize)]
struct BoxInput {
    x_min: Option<f32>,
    y_min: Option<f32>,
    x_max: Option<f32>,
    y_max: Option<f32>,
    label: Option<u8>,
    object_id: Option<i64>,
}

/// A mask.
#[derive(Clone, Debug, Deserialize)]
pub struct MaskInput {
    pub mask_url: Option<String>,
    object_id: Option<i64>,
}

/// Reads a body that was checked.
pub fn typed<T: for<'a> Deserialize<'a>>(value: Value) -> ApiResult<T> {
    // The schema has seen to every member; what fails here is the two not agreeing.
    serde_json::from_value(value).map_err(|e| ApiError::bad_request(e.to_string()))
}

/// What belongs to one object.
#[derive(Default)]
struct Group {
    id: Option<i64>,
    object: Object,
}

impl ImageInput {
    /// The prompts, for a picture of `width × height` pixels. `masks` are the pictures of [`ImageInput::mask_url`] and
    /// [`ImageInput::mask_prompts`], in that order.
    pub fn prompts(&self, width: usize, height: usize, masks: Vec<MaskPrompt>) -> ApiResult<Vec<Prompt>> {
        let mut errors = Vec::new();
        let mut prompts = Vec::new();
        let (exemplars, boxes) = self.boxes(width, height, &mut errors);
        let text = self.phrase(exemplars.is_empty() && boxes.is_empty() && masks.is_empty())?;
        if text.is_some() || !exemplars.is_empty() {
            prompts.push(Prompt::Concept(Concept { text, exemplars }));
        }
        let objects = self.objects(width, height, boxes, masks, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::fields(errors));
        }
        prompts.extend(objects.into_iter().map(|g| Prompt::Object(g.object)));
        Ok(prompts)
    }

    /// The phrase; `alone` says that there is no other prompt but points.
    fn phrase(&self, alone: bool) -> ApiResult<Option<String>> {
        let alone = alone && self.point_prompts.is_empty();
        match self.prompt.as_ref().or(self.text_prompt.as_ref()) {
            Some(text) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
            None if alone => Ok(Some(WHEEL.to_owned())),
            Some(_) if alone => {
                let msg = "Value error, expected a phrase, a point, a box, a mask or an exemplar";
                Err(ApiError::field("prompt", "value_error", msg))
            }
            _ => Ok(None),
        }
    }

    /// Exemplars, and the boxes of objects.
    fn boxes(&self, width: usize, height: usize, errors: &mut Vec<FieldError>) -> (Vec<ExemplarBox>, Vec<OwnedBox>) {
        let (mut exemplars, mut boxes) = (Vec::new(), Vec::new());
        for (name, list) in [("box_prompts", &self.box_prompts), ("exemplars", &self.exemplars)] {
            for (i, b) in list.iter().enumerate() {
                match (corners(b, width, height), b.label) {
                    (Ok(xyxy), Some(label)) => exemplars.push(ExemplarBox { xyxy, positive: label == 1 }),
                    (Ok(xyxy), None) => boxes.push((b.object_id, xyxy)),
                    (Err(msg), _) => errors.push(FieldError::new(&[name.into(), i.into()], "value_error", msg)),
                }
            }
        }
        (exemplars, boxes)
    }

    /// Objects by the rules of the module's head.
    fn objects(
        &self,
        width: usize,
        height: usize,
        boxes: Vec<(Option<i64>, [f32; 4])>,
        masks: Vec<MaskPrompt>,
        errors: &mut Vec<FieldError>,
    ) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let lone_box = boxes.iter().filter(|(id, _)| id.is_none()).count() == 1;
        for (id, b) in boxes {
            let known = id.and_then(|id| groups.iter().position(|g| g.id == Some(id)));
            let bbox = match known {
                Some(at) => &mut groups[at].object.bbox,
                None => {
                    groups.push(Group { id, ..Group::default() });
                    &mut groups.last_mut().expect("just pushed").object.bbox
                }
            };
            let [x0, y0, x1, y1] = bbox.unwrap_or(b);
            *bbox = Some([x0.min(b[0]), y0.min(b[1]), x1.max(b[2]), y1.max(b[3])]);
        }
        // The object that points and masks without an id show.
        let mut nameless = if lone_box { groups.iter().position(|g| g.id.is_none()) } else { None };
        let mut group = |groups: &mut Vec<Group>, id: Option<i64>| match id {
            Some(_) => groups.iter().position(|g| g.id == id).unwrap_or_else(|| {
                groups.push(Group { id, ..Group::default() });
                groups.len() - 1
            }),
            None => *nameless.get_or_insert_with(|| {
                groups.push(Group::default());
                groups.len() - 1
            }),
        };
        for (i, p) in self.point_prompts.iter().enumerate() {
            let (Some(x), Some(y)) = (p.x, p.y) else {
                let loc = ["point_prompts".into(), i.into()];
                errors.push(FieldError::new(&loc, "value_error", "Value error, expected x and y"));
                continue;
            };
            if !(0.0..width as f32).contains(&x) || !(0.0..height as f32).contains(&y) {
                let msg = format!("Value error, expected a place within the picture of {width}×{height} pixels");
                let error = FieldError::new(&["point_prompts".into(), i.into()], "value_error", msg);
                errors.push(error.input(json!([x, y])));
                continue;
            }
            let at = group(&mut groups, p.object_id);
            groups[at].object.points.push(Point { x, y, positive: p.label == 1 });
        }
        let ids = self.mask_url.iter().map(|_| None).chain(self.mask_prompts.iter().map(|m| m.object_id));
        for (i, (id, mask)) in ids.zip(masks).enumerate() {
            let at = group(&mut groups, id);
            if groups[at].object.mask.replace(mask).is_some() {
                let msg = "Value error, expected one mask for an object; tell objects apart by object_id";
                errors.push(FieldError::new(&["mask_prompts".into(), i.into()], "value_error", msg));
            }
        }
        groups
    }

    /// Most instances of the answer.
    pub fn limit(&self) -> usize {
        if self.return_multiple_masks { self.max_masks } else { 1 }
    }
}

/// A box's corners, cut to the picture.
fn corners(b: &BoxInput, width: usize, height: usize) -> Result<[f32; 4], String> {
    let (Some(x0), Some(y0), Some(x1), Some(y1)) = (b.x_min, b.y_min, b.x_max, b.y_max) else {
        return Err("Value error, expected x_min, y_min, x_max and y_max".into());
    };
    if x0 >= x1 || y0 >= y1 {
        return Err("Value error, expected x_min below x_max and y_min below y_max".into());
    }
    let (w, h) = (width as f32, height as f32);
    if x0 >= w || y0 >= h || x1 <= 0.0 || y1 <= 0.0 {
        return Err(format!("Value error, expected a box that touches the picture of {width}×{height} pixels"));
    }
    Ok([x0.max(0.0), y0.max(0.0), x1.min(w), y1.min(h)])
}

/// Whether one click is all there is: then several masks mean the several things it may have meant.
pub fn is_lone_click(prompts: &[Prompt]) -> bool {
    matches!(prompts, [Prompt::Object(Object { points, bbox: None, mask: None })] if points.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(body: Value) -> ApiResult<Vec<Prompt>> {
        let input: ImageInput = typed(image_schema().read(body.to_string().as_bytes())?)?;
        let mask = || MaskPrompt::Picture { pixels: vec![255].into(), width: 1, height: 1 };
        let masks = input.mask_url.iter().map(|_| mask()).chain(input.mask_prompts.iter().map(|_| mask())).collect();
        input.prompts(100, 50, masks)
    }

    fn objects(body: Value) -> Vec<Object> {
        let only = |p| if let Prompt::Object(o) = p { Some(o) } else { None };
        prompts(body).unwrap().into_iter().filter_map(only).collect()
    }

    #[test]
    fn the_default_phrase_is_for_requests_without_any_prompt() {
        let phrase = |body: Value| match prompts(body).unwrap().first() {
            Some(Prompt::Concept(c)) => c.text.clone(),
            _ => None,
        };
        let point = json!([{ "x": 1, "y": 1 }]);
        assert_eq!(phrase(json!({})).unwrap(), "wheel");
        assert_eq!(phrase(json!({ "prompt": null })).unwrap(), "wheel");
        assert_eq!(phrase(json!({ "text_prompt": " cat " })).unwrap(), "cat");
        assert_eq!(phrase(json!({ "prompt": "dog", "text_prompt": "cat", "point_prompts": point })).unwrap(), "dog");
        assert_eq!(phrase(json!({ "point_prompts": point })), None);
        assert_eq!(phrase(json!({ "prompt": "", "point_prompts": point })), None);
        let error = prompts(json!({ "prompt": " " })).unwrap_err();
        assert_eq!(error.body()["detail"][0]["loc"], json!(["body", "prompt"]));
    }

    #[test]
    fn prompts_meet_in_objects_by_their_ids() {
        let b =
            |x: u32, id: Option<u32>| json!({ "x_min": x, "y_min": 1, "x_max": x + 5, "y_max": 9, "object_id": id });
        let p = |x: u32, label: u32, id: Option<u32>| json!({ "x": x, "y": 2, "label": label, "object_id": id });
        let found = objects(json!({ "box_prompts": [b(1, None), b(20, None)], "point_prompts": [p(3, 1, None)] }));
        assert_eq!(found.len(), 3, "two boxes and the points");
        let found = objects(json!({ "box_prompts": [b(1, None)], "point_prompts": [p(3, 1, None), p(9, 0, None)] }));
        assert_eq!((found.len(), found[0].points.len(), found[0].bbox), (1, 2, Some([1.0, 1.0, 6.0, 9.0])));
        assert!(!found[0].points[1].positive);
        let found = objects(json!({
            "box_prompts": [b(1, Some(7)), b(20, Some(7)), b(40, Some(8))],
            "point_prompts": [p(3, 1, Some(8)), p(4, 1, Some(9))],
            "mask_prompts": [{ "mask_url": "x", "object_id": 7 }], "mask_url": "y",
        }));
        assert_eq!(found.len(), 4);
        assert_eq!((found[0].bbox, found[0].mask.is_some()), (Some([1.0, 1.0, 25.0, 9.0]), true));
        assert_eq!((found[1].points.len(), found[2].points.len(), found[3].mask.is_some()), (1, 1, true));
    }

    #[test]
    fn labelled_boxes_are_exemplars() {
        let b = json!({ "x_min": -5, "y_min": 1, "x_max": 500, "y_max": 9, "label": "0" });
        let plain = json!({ "x_min": 1, "y_min": 1, "x_max": 5, "y_max": 9 });
        let found = prompts(json!({ "box_prompts": [b], "exemplars": [plain] })).unwrap();
        let [Prompt::Concept(c)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(c.text, None);
        assert_eq!(c.exemplars[0], ExemplarBox { xyxy: [0.0, 1.0, 100.0, 9.0], positive: false });
        assert!(c.exemplars[1].positive);
        assert!(is_lone_click(&[Prompt::point(1.0, 1.0)]) && !is_lone_click(&found));
    }

    #[test]
    fn prompts_that_cannot_be_are_named_by_their_place() {
        for (body, place) in [
            (
                json!({ "point_prompts": [{ "x": 1, "y": 1 }, { "x": 100, "y": 1 }] }),
                json!(["body", "point_prompts", 1]),
            ),
            (json!({ "point_prompts": [{ "x": 1 }] }), json!(["body", "point_prompts", 0])),
            (
                json!({ "box_prompts": [{ "x_min": 5, "y_min": 1, "x_max": 5, "y_max": 9 }] }),
                json!(["body", "box_prompts", 0]),
            ),
            (json!({ "box_prompts": [{ "x_min": 5 }] }), json!(["body", "box_prompts", 0])),
            (
                json!({ "exemplars": [{ "x_min": 500, "y_min": 1, "x_max": 600, "y_max": 9 }] }),
                json!(["body", "exemplars", 0]),
            ),
            (json!({ "mask_url": "a", "mask_prompts": [{ "mask_url": "b" }] }), json!(["body", "mask_prompts", 1])),
        ] {
            let error = prompts(body.clone()).expect_err(&body.to_string());
            assert_eq!(error.body()["detail"][0]["loc"], place, "{body}");
        }
    }
}
