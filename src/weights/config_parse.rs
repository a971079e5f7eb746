//! Reading and checking `config.json`.
//!
//! The rest of the crate multiplies these numbers without looking at them again, so this is the one place that bounds
//! them: nothing is zero, everything divides where the model divides, and no product of dimensions overflows.
//! Whatever could make a small file ask for a large allocation (the token grid, the window) has its own cap; all other
//! dimensions are paid for in bytes by the checkpoint, whose tensors must have exactly these shapes.
//!
//! Defaults of absent fields are those of transformers 5.23: `configuration_sam3.py`, `configuration_sam3_tracker.py`,
//! `configuration_sam3_tracker_video.py`, `configuration_sam3_video.py`, `configuration_clip.py`.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::config::*;
use super::json::{Node, show};
use super::quote::shorten;
use crate::error::{Error, Result};

/// Longest `config.json` that is looked at. A full-size one has 12 kB.
pub(super) const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Any width of a layer. Two of them, squared kernels and element sizes multiplied stay far below 2^63.
const WIDTH: RangeInclusive<usize> = 1..=65_536;
/// Layers of one stack; the published model has 32. Bounds the table of expected tensors to some 10^4 rows.
const LAYERS: RangeInclusive<usize> = 1..=256;
/// Side of the token grid, tokens: 72 in the published model. Activations grow with its square and no file pays for it;
/// kernels are built for no more.
const MAX_GRID: usize = 256;
/// Side of an attention window, tokens: 24 in the published model. The grid is padded to a multiple of it.
const WINDOW: RangeInclusive<usize> = 1..=512;
/// Depths of small heads and counts of mask tokens: 2 to 4 in the published model.
const SMALL: RangeInclusive<usize> = 1..=64;
/// Every layer norm's epsilon.
const EPS: RangeInclusive<f64> = 1e-12..=1e-1;

impl Config {
    /// Parses and checks the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// `Checkpoint` for text that is not JSON or a value out of bounds, `Unsupported` for a well-formed configuration
    /// of something else: another `model_type`, activation, rotary type, a rectangular input. Each names the path of
    /// the value inside the JSON, what was expected and what was found.
    pub fn from_json(text: &str) -> Result<Config> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(Error::checkpoint(format!(
                "expected at most {MAX_CONFIG_BYTES} bytes of configuration, found {}",
                text.len()
            )));
        }
        let value: Value = serde_json::from_str(text).map_err(|e| Error::checkpoint("expected JSON").with_source(e))?;
        let Value::Object(fields) = &value else {
            return Err(Error::checkpoint(format!("expected a JSON object, found {}", show(&value))));
        };
        let root = Node { path: String::new(), fields: Some(fields) };
        let origin = origin(&root)?;
        match root.model_type(&["sam3_video", "sam3", "sam3_tracker", "sam3_tracker_video"], None)? {
            "sam3_video" => {
                let (d, t) = (root.child("detector_config")?, root.child("tracker_config")?);
                d.model_type(&["sam3"], Some("sam3"))?;
                t.model_type(&["sam3_tracker_video", "sam3_tracker"], Some("sam3_tracker_video"))?;
                let vision = vision(&d)?;
                agree(&t, &vision, &self::vision(&t)?)?;
                root.same("image_size", vision.image_size)?;
                let detector = Some(detector(&d, &vision)?);
                let tracker = Some(tracker(&t, &vision)?);
                Ok(Config { vision, detector, tracker, origin })
            }
            "sam3" => {
                let vision = vision(&root)?;
                let detector = Some(detector(&root, &vision)?);
                Ok(Config { vision, detector, tracker: None, origin })
            }
            _ => {
                let vision = vision(&root)?;
                let tracker = Some(tracker(&root, &vision)?);
                Ok(Config { vision, detector: None, tracker, origin })
            }
        }
    }
}

/// `sam3_origin`, this project's own member: words for people, made fit for a terminal.
fn origin(root: &Node) -> Result<Option<String>> {
    const KEY: &str = "sam3_origin";
    match root.get(KEY) {
        None => Ok(None),
        Some(Value::String(s)) => Ok(Some(shorten(s))),
        Some(other) => Err(root.wrong(KEY, "a text", show(other))),
    }
}

/// `vision_config` of `owner`. Upstream: `Sam3VisionConfig`, `Sam3ViTConfig`.
fn vision(owner: &Node) -> Result<VisionConfig> {
    let neck = owner.child("vision_config")?;
    neck.model_type(&["sam3_vision_model"], Some("sam3_vision_model"))?;
    let vit = neck.child("backbone_config")?;
    vit.model_type(&["sam3_vit_model"], Some("sam3_vit_model"))?;

    let image_size = vit.side("image_size", 1008)?;
    let patch_size = vit.side("patch_size", 14)?;
    let pretrain = vit.side("pretrain_image_size", 336)?;
    vit.divides("image_size", image_size, patch_size, "patch_size")?;
    let grid = image_size / patch_size;
    if grid > MAX_GRID {
        return Err(vit.wrong("image_size", format!("at most {MAX_GRID} patches of {patch_size}"), image_size));
    }
    // Upstream floors here: a few pixels of the pre-training picture beyond the last whole patch mean nothing.
    let pretrain_grid = pretrain / patch_size;
    if pretrain_grid == 0 {
        return Err(vit.wrong("pretrain_image_size", format!("at least patch_size ({patch_size})"), pretrain));
    }
    for node in [owner, &neck] {
        node.same("image_size", image_size)?;
    }
    if vit.uint("num_channels", 3, 1..=65_536)? != 3 {
        return Err(vit.unsupported("num_channels", "3", vit.get("num_channels")));
    }

    let hidden_size = vit.uint("hidden_size", 1024, WIDTH)?;
    let heads = vit.heads("num_attention_heads", 16, "hidden_size", hidden_size)?;
    if !(hidden_size / heads).is_multiple_of(4) {
        return Err(vit.wrong(
            "hidden_size",
            format!("a multiple of 4 per head ({heads} heads): two axes of rotated pairs"),
            hidden_size,
        ));
    }
    let layers = vit.uint("num_hidden_layers", 32, LAYERS)?;

    let fpn_hidden_size = neck.uint("fpn_hidden_size", 256, WIDTH)?;
    // Eight groups in the pixel decoder's norms, and an eighth of the width in the tracker's mask features.
    neck.divides("fpn_hidden_size", fpn_hidden_size, 8, "8")?;
    Ok(VisionConfig {
        image_size,
        patch_size,
        hidden_size,
        intermediate_size: vit.uint("intermediate_size", 4736, WIDTH)?,
        layers,
        heads,
        window_size: vit.uint("window_size", 24, WINDOW)?,
        global_layers: global_layers(&vit, layers)?,
        pretrain_grid,
        rope_theta: rope_theta(&vit)?,
        layer_norm_eps: vit.float("layer_norm_eps", 1e-6, EPS)?,
        hidden_act: vit.act("hidden_act", "gelu")?,
        fpn_hidden_size,
        scale_factors: scale_factors(&neck)?,
    })
}

/// `global_attn_indexes`: sorted, without repetition, and without numbers that no layer has.
fn global_layers(vit: &Node, layers: usize) -> Result<Vec<usize>> {
    const KEY: &str = "global_attn_indexes";
    let Some(list) = vit.list(KEY, 256)? else {
        return Ok([7, 15, 23, 31].into_iter().filter(|&l| l < layers).collect());
    };
    let mut out = Vec::with_capacity(list.len());
    for value in list {
        // As upstream, which writes its default of four into the files of models of any depth.
        match value.as_u64() {
            Some(l) if l < layers as u64 => out.push(l as usize),
            Some(_) => {}
            None => return Err(vit.wrong(KEY, "layer numbers", show(value))),
        }
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

/// `rope_parameters: {rope_theta, rope_type}` of transformers 5, or `rope_theta` beside the other fields as before.
fn rope_theta(vit: &Node) -> Result<f32> {
    // Base 1 rotates every pair alike; above 1e12 the slowest pairs stand still in f32.
    let range = 1.0..=1e12;
    let flat = f64::from(vit.float("rope_theta", 10_000.0, range.clone())?);
    let rope = vit.child("rope_parameters")?;
    match rope.get("rope_type") {
        None => {}
        Some(Value::String(s)) if s == "axial" => {}
        other => return Err(rope.unsupported("rope_type", "\"axial\"", other)),
    }
    rope.float("rope_theta", flat, range)
}

/// `scale_factors`: a strictly falling selection of 4, 2, 1, 0.5.
fn scale_factors(neck: &Node) -> Result<Vec<f32>> {
    const KEY: &str = "scale_factors";
    const KNOWN: [f64; 4] = [4.0, 2.0, 1.0, 0.5];
    let Some(list) = neck.list(KEY, KNOWN.len())? else {
        return Ok(KNOWN.map(|s| s as f32).to_vec());
    };
    if list.is_empty() {
        return Err(neck.unsupported(KEY, "at least one of 4, 2, 1, 0.5", neck.get(KEY)));
    }
    let mut out: Vec<f32> = Vec::with_capacity(list.len());
    for value in list {
        match value.as_f64() {
            // All four are exact in f32.
            Some(s) if KNOWN.contains(&s) && out.last().is_none_or(|&l| f64::from(l) > s) => out.push(s as f32),
            _ => return Err(neck.unsupported(KEY, "falling values out of 4, 2, 1, 0.5", neck.get(KEY))),
        }
    }
    Ok(out)
}

/// The tracker's own `vision_config` describes the detector's backbone once more; upstream builds it from either.
fn agree(tracker: &Node, ours: &VisionConfig, theirs: &VisionConfig) -> Result<()> {
    let neck = tracker.child("vision_config")?;
    let vit = neck.child("backbone_config")?;
    let differs = |node: &Node, key: &str, a: String, b: String| {
        if a == b { Ok(()) } else { Err(node.wrong(key, format!("{a} as in detector_config"), b)) }
    };
    macro_rules! check {
        ($node:expr, $key:literal, $field:ident) => {
            differs($node, $key, format!("{:?}", ours.$field), format!("{:?}", theirs.$field))?
        };
    }
    check!(&vit, "image_size", image_size);
    check!(&vit, "patch_size", patch_size);
    check!(&vit, "hidden_size", hidden_size);
    check!(&vit, "intermediate_size", intermediate_size);
    check!(&vit, "num_hidden_layers", layers);
    check!(&vit, "num_attention_heads", heads);
    check!(&vit, "window_size", window_size);
    check!(&vit, "global_attn_indexes", global_layers);
    check!(&vit, "pretrain_image_size", pretrain_grid);
    check!(&vit, "rope_theta", rope_theta);
    check!(&vit, "layer_norm_eps", layer_norm_eps);
    check!(&vit, "hidden_act", hidden_act);
    check!(&neck, "fpn_hidden_size", fpn_hidden_size);
    check!(&neck, "scale_factors", scale_factors);
    Ok(())
}

/// Upstream: `Sam3Config`.
fn detector(d: &Node, vision: &VisionConfig) -> Result<DetectorConfig> {
    let fpn = vision.fpn_hidden_size;
    if vision.scale_factors.len() < 2 {
        let neck = d.child("vision_config")?;
        // `Sam3Model.forward` drops the last level and works on the others.
        return Err(neck.unsupported("scale_factors", "at least 2 levels", neck.get("scale_factors")));
    }
    let geometry_node = d.child("geometry_encoder_config")?;
    let geometry = GeometryConfig {
        transformer: transformer(&geometry_node, 3, fpn)?,
        roi_size: geometry_node.uint("roi_size", 7, SMALL)?,
    };
    let encoder = transformer(&d.child("detr_encoder_config")?, 6, fpn)?;
    let decoder_node = d.child("detr_decoder_config")?;
    let decoder = transformer(&decoder_node, 6, fpn)?;
    let mask = d.child("mask_decoder_config")?;
    mask.equals_fpn("hidden_size", fpn)?;
    let upsampling_stages = mask.uint("num_upsampling_stages", 3, SMALL)?;
    // The decoder walks from the second-to-last level to the first, one stage between each two of them.
    let used = vision.scale_factors.len() - 2;
    if upsampling_stages < used {
        return Err(mask.wrong("num_upsampling_stages", format!("at least {used}"), upsampling_stages));
    }
    Ok(DetectorConfig {
        text: text(&d.child("text_config")?)?,
        geometry,
        encoder,
        decoder,
        queries: decoder_node.uint("num_queries", 200, WIDTH)?,
        mask_heads: mask.heads("num_attention_heads", 8, "hidden_size", fpn)?,
        upsampling_stages,
    })
}

/// Upstream: `CLIPTextConfig`. An absent `text_config` means the one SAM 3 was trained with; a present one has CLIP's
/// defaults for its absent fields, which are other numbers (`SubConfigSpec.create_subconfig`).
fn text(t: &Node) -> Result<TextConfig> {
    t.model_type(&["clip_text_model"], Some("clip_text_model"))?;
    let or = |sam3: usize, clip: usize| if t.fields.is_some() { clip } else { sam3 };
    let hidden_size = t.uint("hidden_size", or(1024, 512), WIDTH)?;
    Ok(TextConfig {
        vocab_size: t.uint("vocab_size", 49_408, 1..=1 << 24)?,
        hidden_size,
        intermediate_size: t.uint("intermediate_size", or(4096, 2048), WIDTH)?,
        layers: t.uint("num_hidden_layers", or(24, 12), LAYERS)?,
        heads: t.heads("num_attention_heads", or(16, 8), "hidden_size", hidden_size)?,
        // Two of them are the start and the end mark.
        context: t.uint("max_position_embeddings", or(32, 77), 2..=65_536)?,
        projection_dim: t.uint("projection_dim", 512, WIDTH)?,
        layer_norm_eps: t.float("layer_norm_eps", 1e-5, EPS)?,
        hidden_act: t.act("hidden_act", if t.fields.is_some() { "quick_gelu" } else { "gelu" })?,
    })
}

/// Upstream: `Sam3GeometryEncoderConfig`, `Sam3DETREncoderConfig`, `Sam3DETRDecoderConfig`. Their `layer_norm_eps` is
/// not read: the layers leave it at PyTorch's 1e-5.
fn transformer(t: &Node, layers: usize, fpn: usize) -> Result<TransformerConfig> {
    t.equals_fpn("hidden_size", fpn)?;
    // `attribute_map` of the DETR configurations lets both names stand for the depth.
    let key = if t.get("num_layers").is_none() && t.get("num_hidden_layers").is_some() {
        "num_hidden_layers"
    } else {
        "num_layers"
    };
    Ok(TransformerConfig {
        layers: t.uint(key, layers, LAYERS)?,
        heads: t.heads("num_attention_heads", 8, "hidden_size", fpn)?,
        intermediate_size: t.uint("intermediate_size", 2048, WIDTH)?,
        hidden_act: t.act("hidden_act", "relu")?,
    })
}

/// Upstream: `Sam3TrackerConfig`, `Sam3TrackerVideoConfig`; the video memory's fields have no part in image inference.
fn tracker(t: &Node, vision: &VisionConfig) -> Result<TrackerConfig> {
    let fpn = vision.fpn_hidden_size;
    if !vision.scale_factors.starts_with(&[4.0, 2.0, 1.0]) {
        let neck = t.child("vision_config")?;
        // The mask decoder adds levels 0 and 1 to features it upsampled four and two times from level 2.
        return Err(neck.unsupported("scale_factors", "4, 2, 1 first", neck.get("scale_factors")));
    }
    let prompt = t.child("prompt_encoder_config")?;
    prompt.equals_fpn("hidden_size", fpn)?;
    for (key, default, ours) in [("image_size", 1008, vision.image_size), ("patch_size", 14, vision.patch_size)] {
        let found = prompt.side(key, default)?;
        if found != ours {
            return Err(prompt.wrong(key, format!("{ours} as in the backbone"), found));
        }
    }
    let mask_input_channels = prompt.uint("mask_input_channels", 16, WIDTH)?;
    prompt.divides("mask_input_channels", mask_input_channels, 4, "4")?;

    let mask = t.child("mask_decoder_config")?;
    mask.equals_fpn("hidden_size", fpn)?;
    let heads = mask.heads("num_attention_heads", 8, "hidden_size", fpn)?;
    let rate = mask.uint("attention_downsample_rate", 2, 1..=65_536)?;
    if !fpn.is_multiple_of(rate) || !(fpn / rate).is_multiple_of(heads) {
        let expected = format!("a divisor of hidden_size ({fpn}) that leaves a multiple of {heads} heads");
        return Err(mask.wrong("attention_downsample_rate", expected, rate));
    }
    Ok(TrackerConfig {
        mask_input_channels,
        // Background, foreground and the two corners of a box.
        point_embeddings: prompt.uint("num_point_embeddings", 4, 4..=64)?,
        prompt_layer_norm_eps: prompt.float("layer_norm_eps", 1e-6, EPS)?,
        prompt_act: prompt.act("hidden_act", "gelu")?,
        mlp_dim: mask.uint("mlp_dim", 2048, WIDTH)?,
        layers: mask.uint("num_hidden_layers", 2, SMALL)?,
        heads,
        attention_downsample_rate: rate,
        multimask_outputs: mask.uint("num_multimask_outputs", 3, SMALL)?,
        iou_head_depth: mask.uint("iou_head_depth", 3, SMALL)?,
        iou_head_hidden_dim: mask.uint("iou_head_hidden_dim", 256, WIDTH)?,
        dynamic_multimask: mask.flag("dynamic_multimask_via_stability", true)?,
        stability_delta: mask.float("dynamic_multimask_stability_delta", 0.05, 0.0..=1e6)?,
        stability_thresh: mask.float("dynamic_multimask_stability_thresh", 0.98, 0.0..=1.0)?,
    })
}
