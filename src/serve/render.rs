//! Answers as fal writes them: pictures of masks, run lengths, scores and boxes.

use axum::body::Bytes;
use serde_json::{Value, json};

use super::app::{App, Work};
use super::error::{ApiError, ApiResult};
use super::input::ImageInput;
use super::pictures::Looked;
use super::source::encode_base64;
use crate::image::{FileFormat, ImageView, PixelFormat, encode};
use crate::instance::{Instance, Mask, cutout, draw, rle};
use crate::{Error, Segmentation};

/// A format, its type and its ending.
fn format(name: &str) -> (FileFormat, &'static str, &'static str) {
    match name {
        "jpeg" => (FileFormat::Jpeg, "image/jpeg", "jpg"),
        "webp" => (FileFormat::WebP, "image/webp", "webp"),
        _ => (FileFormat::Png, "image/png", "png"),
    }
}

/// `[cx, cy, w, h]` in shares of the picture.
pub fn cxcywh(found: &Instance, width: usize, height: usize) -> [f32; 4] {
    let [x0, y0, x1, y1] = found.bbox;
    let (w, h) = (width as f32, height as f32);
    [(x0 + x1) / 2.0 / w, (y0 + y1) / 2.0 / h, (x1 - x0) / w, (y1 - y0) / h]
}

/// Members that pictures and run lengths have in common.
fn common(answer: &Segmentation, input: &ImageInput) -> Value {
    let boxes: Vec<[f32; 4]> = answer.instances.iter().map(|i| cxcywh(i, answer.width, answer.height)).collect();
    let scores: Vec<f32> = answer.instances.iter().map(|i| i.score).collect();
    let metadata: Vec<Value> =
        boxes.iter().zip(&scores).enumerate().map(|(i, (b, s))| json!({ "index": i, "score": s, "box": b })).collect();
    json!({
        "metadata": metadata,
        "scores": input.include_scores.then_some(scores),
        "boxes": input.include_boxes.then_some(boxes),
        "width": answer.width,
        "height": answer.height,
    })
}

/// The output of `/image-rle`: text for one mask, a list otherwise and where nothing was found.
pub fn run_lengths(answer: &Segmentation, input: &ImageInput) -> Value {
    let one = |mask: &Mask| match input.rle_format.as_str() {
        "coco" => json!({ "size": [mask.height(), mask.width()], "counts": rle::encode_coco(mask) }),
        _ => rle::encode_pairs(mask).into(),
    };
    let mut all: Vec<Value> = answer.instances.iter().map(|i| one(&i.mask)).collect();
    let mut out = common(answer, input);
    out["rle"] = match all.len() {
        1 if !input.return_multiple_masks => all.remove(0),
        _ => all.into(),
    };
    out["boundingbox_frames_zip"] = Value::Null;
    out
}

/// The output of `/image`.
pub fn images(app: &App, work: &Work, looked: &Looked, answer: &Segmentation, input: &ImageInput) -> ApiResult<Value> {
    let sink = Sink { app, work, input };
    let masks: Vec<&Mask> = answer.instances.iter().map(|i| &i.mask).collect();
    let mut pictures = Vec::with_capacity(masks.len());
    for (i, mask) in masks.iter().enumerate() {
        if work.ticket.is_over() {
            return Err(ApiError::cancelled());
        }
        pictures.push(sink.picture(&format!("mask_{i}"), looked, &[(i, *mask)])?);
    }
    let image = match (&masks[..], input.apply_mask) {
        ([], _) => Value::Null,
        // One mask, or the best of several, is the preview.
        ([_], _) | (_, false) => pictures[0].clone(),
        (many, true) => {
            let items: Vec<(usize, &Mask)> = many.iter().copied().enumerate().collect();
            sink.picture("image", looked, &items)?
        }
    };
    let mut out = common(answer, input);
    out["image"] = image;
    out["masks"] = pictures.into();
    Ok(out)
}

/// Where pictures go: into the store, or into the answer.
struct Sink<'a> {
    app: &'a App,
    work: &'a Work,
    input: &'a ImageInput,
}

impl Sink<'_> {
    /// Draws masks with their ranks the way the request asks for, and hands the file on.
    fn picture(&self, name: &str, looked: &Looked, masks: &[(usize, &Mask)]) -> ApiResult<Value> {
        let (width, height) = (looked.picture.width(), looked.picture.height());
        let (pixels, layout) = match (self.input.apply_mask, self.input.mask_style.as_str()) {
            (false, _) => (masks[0].1.to_u8(), PixelFormat::Gray8),
            (true, "cutout") => (cut(looked, masks).map_err(inside)?, PixelFormat::Rgba8),
            (true, _) => (tint(looked, masks).map_err(inside)?, PixelFormat::Rgb8),
        };
        let (format, content_type, ending) = format(&self.input.output_format);
        let view = ImageView::new(&pixels, width, height, width * layout.bytes_per_pixel(), layout).map_err(inside)?;
        // WebP has a longest side, which is the caller's choice to meet.
        let file = encode(&view, format).map_err(|e| ApiError::engine(&e, "output_format"))?;
        let (size, file_name) = (file.len(), format!("{name}.{ending}"));
        let url = if self.input.sync_mode {
            format!("data:{content_type};base64,{}", encode_base64(&file))
        } else {
            let path = self.app.files.keep(&file_name, content_type, Bytes::from(file))?;
            format!("{}{path}", self.work.base)
        };
        Ok(json!({
            "url": url,
            "content_type": content_type,
            "file_name": file_name,
            "file_size": size,
            "width": width,
            "height": height,
        }))
    }
}

/// Masks are of the picture they were found in: whatever fails here is a defect.
fn inside(e: Error) -> ApiError {
    ApiError::engine(&Error::new(crate::ErrorKind::Internal, e.to_string()), "image_url")
}

/// The picture with tinted and outlined masks, the best on top.
fn tint(looked: &Looked, masks: &[(usize, &Mask)]) -> crate::Result<Vec<u8>> {
    let mut rgb = looked.picture.pixels().to_vec();
    let items: Vec<draw::Item<'_>> = masks
        .iter()
        .rev()
        .map(|&(rank, mask)| draw::Item { mask, bbox: None, colour: draw::colour(rank), score: None })
        .collect();
    draw::overlay(&mut rgb, looked.picture.width(), looked.picture.height(), &items, draw::Style::default())?;
    Ok(rgb)
}

/// What the masks cover together, the rest transparent.
fn cut(looked: &Looked, masks: &[(usize, &Mask)]) -> crate::Result<Vec<u8>> {
    let (width, height) = (looked.picture.width(), looked.picture.height());
    let mut union = Mask::new(width, height);
    for (_, mask) in masks {
        for y in 0..height {
            mask.runs(y).for_each(|(x0, x1)| union.fill(y, x0, x1));
        }
    }
    Ok(cutout::cutout(looked.picture.pixels(), &union)?.pixels)
}
