//! `config.json` as plain numbers: every dimension of a checkpoint, checked once.
//!
//! Three kinds of checkpoint are understood, told apart by `model_type`: `sam3_video` (the published one: detector and
//! tracker), `sam3` (a bare `Sam3Model`) and `sam3_tracker` or `sam3_tracker_video` (a bare tracker). Defaults for
//! missing fields are upstream's (`configuration_sam3.py`, `configuration_sam3_tracker.py`), since `save_pretrained`
//! may omit them.

/// The activation of an MLP, named as upstream names it in `hidden_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenAct {
    /// Exact GELU, `x·Φ(x)` with the error function.
    Gelu,
    /// `max(x, 0)`.
    Relu,
}

/// All dimensions of one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The image encoder, shared by detector and tracker.
    pub vision: VisionConfig,
    /// Concept prompts; absent in a bare `Sam3TrackerModel`.
    pub detector: Option<DetectorConfig>,
    /// Object prompts (clicks, boxes, masks); absent in a bare `Sam3Model`.
    pub tracker: Option<TrackerConfig>,
    /// Where the weights come from, in words: the member `sam3_origin`, which upstream does not know and ignores.
    pub origin: Option<String>,
}

impl Config {
    /// Whether [`Config::origin`] says that nobody trained the weights: it begins with `random`, as in the checkpoints
    /// that tests and measurements make. Times are then true and masks are not.
    pub fn is_random(&self) -> bool {
        self.origin.as_deref().is_some_and(|o| o.starts_with("random"))
    }
}

/// ViT backbone and its feature pyramid (`Sam3VisionConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Side of the square model input, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels; divides `image_size`.
    pub patch_size: usize,
    /// Width of the ViT.
    pub hidden_size: usize,
    /// Width of its MLPs.
    pub intermediate_size: usize,
    /// Number of ViT layers.
    pub layers: usize,
    /// Heads; `hidden_size / heads` is a multiple of 4, two axes of rotated pairs.
    pub heads: usize,
    /// Side of an attention window, tokens.
    pub window_size: usize,
    /// Layers that attend over the whole grid instead of windows; rising, below `layers`.
    pub global_layers: Vec<usize>,
    /// Side of the grid the position embeddings were made for, tokens; they are tiled to the real grid.
    pub pretrain_grid: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Of the ViT's layer norms.
    pub layer_norm_eps: f32,
    /// Of the ViT's MLPs.
    pub hidden_act: HiddenAct,
    /// Width of the feature pyramid and of everything behind it.
    pub fpn_hidden_size: usize,
    /// Scale of each pyramid level against the token grid, fine to coarse: all or some of 4, 2, 1, 0.5. A detector has
    /// at least two of them and never reads the last; a tracker has 4, 2, 1 and perhaps 0.5, which it does not read.
    pub scale_factors: Vec<f32>,
}

impl VisionConfig {
    /// Side of the token grid.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// Everything behind the image encoder that answers concept prompts (`Sam3Config`).
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorConfig {
    /// The CLIP text encoder.
    pub text: TextConfig,
    /// The exemplar (box) encoder.
    pub geometry: GeometryConfig,
    /// The DETR encoder, which fuses prompt and picture.
    pub encoder: TransformerConfig,
    /// The DETR decoder.
    pub decoder: TransformerConfig,
    /// Object queries of the decoder.
    pub queries: usize,
    /// Heads of the mask decoder's prompt cross-attention.
    pub mask_heads: usize,
    /// Stages of the pixel decoder in the weights. One is used between each two of the levels that the detector reads,
    /// `scale_factors.len() - 2` in all, since it drops the last level; the others are never run.
    pub upsampling_stages: usize,
}

/// `CLIPTextConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width of the MLPs.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// Longest phrase, tokens, start and end mark included.
    pub context: usize,
    /// Output width of CLIP's own projection, which the detector does not use.
    pub projection_dim: usize,
    /// Of all layer norms.
    pub layer_norm_eps: f32,
    /// Of the MLPs.
    pub hidden_act: HiddenAct,
}

/// `Sam3GeometryEncoderConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct GeometryConfig {
    /// Its transformer layers.
    pub transformer: TransformerConfig,
    /// Side of the pooled box features.
    pub roi_size: usize,
}

/// A stack of transformer layers of width `fpn_hidden_size`.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformerConfig {
    /// Number of layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// Width of the MLPs.
    pub intermediate_size: usize,
    /// Of the MLPs.
    pub hidden_act: HiddenAct,
}

/// Prompt encoder and mask decoder for clicks (`Sam3TrackerConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct TrackerConfig {
    /// Channels of the mask prompt's embedding before its last projection.
    pub mask_input_channels: usize,
    /// Rows of the point embedding: background, foreground, box corners.
    pub point_embeddings: usize,
    /// Of the mask prompt's norms.
    pub prompt_layer_norm_eps: f32,
    /// Of the mask prompt's embedding.
    pub prompt_act: HiddenAct,
    /// Width of the two-way transformer's MLPs.
    pub mlp_dim: usize,
    /// Linear layers in one of those MLPs: upstream passes the decoder's `num_hidden_layers`.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// Cross-attention works at `fpn_hidden_size / downsample`.
    pub attention_downsample_rate: usize,
    /// Masks of the ambiguity output.
    pub multimask_outputs: usize,
    /// Linear layers of the IoU head.
    pub iou_head_depth: usize,
    /// Width of the IoU head.
    pub iou_head_hidden_dim: usize,
    /// Whether an unstable single mask is replaced by the best of the ambiguity output.
    pub dynamic_multimask: bool,
    /// Logit margin of the stability score.
    pub stability_delta: f32,
    /// Stability below this triggers the replacement.
    pub stability_thresh: f32,
}
