//! The table of every tensor that SAM 3 reads to answer prompts about a picture.
//!
//! One row describes one module of upstream (`Linear`, `LayerNorm`, …) under the name it has in the published
//! checkpoint, with symbolic axes that [`Config`] resolves. Model code asks for tensors by these names only; how a
//! particular file spells them is the business of `layout.rs`.
//!
//! In a name, `{a|b}` stands for each of the alternatives and `{counter}` for each number of its range, which a function
//! below the table derives from the configuration.
//!
//! Left out, because picture inference never reads them: the tracker's memory (`memory_attention.*`,
//! `memory_encoder.*`, `memory_temporal_positional_encoding`, `object_pointer_proj.*`, `mask_downsample.*`,
//! `no_memory_positional_encoding`, `no_object_pointer`, `occlusion_spatial_embedding_parameter`,
//! `temporal_positional_encoding_projection_layer.*`). Rows marked [`Need::Optional`] are in every file that upstream
//! writes and are not read either; they are listed so that generated checkpoints are complete, and checked if present.

use super::config::Config;

/// The part of the model that reads a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The ViT, shared by detector and tracker.
    Vision,
    /// Concept prompts.
    Detector,
    /// Object prompts.
    Tracker,
}

/// Whether a checkpoint may lack a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Inference reads it.
    Required,
    /// Inference never reads it; the row says why.
    Optional,
}

/// One expected tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name in the published layout.
    pub name: String,
    /// Axes, outermost first.
    pub shape: Vec<usize>,
    /// Who reads it.
    pub part: Part,
    /// Whether it may be absent.
    pub need: Need,
}

/// An axis in terms of the configuration.
#[derive(Clone, Copy)]
enum Dim {
    /// A plain number.
    N(usize),
    Patch,
    PretrainTokens,
    Vit,
    VitHalf,
    VitQuarter,
    VitMlp,
    Fpn,
    FpnHalf,
    FpnQuarter,
    FpnEighth,
    FpnTwice,
    FpnPlus2,
    Vocab,
    Context,
    Text,
    TextMlp,
    TextProjection,
    GeometryMlp,
    Roi,
    EncoderMlp,
    DecoderMlp,
    DecoderHeads,
    Queries,
    MaskInput,
    MaskInputQuarter,
    Points,
    MaskTokens,
    TwoWayMlp,
    /// Width inside the tracker's cross-attention.
    TwoWayInner,
    Iou,
}

/// What a module holds, after PyTorch's shapes.
enum Kind {
    /// `weight [out, in]`, `bias [out]`.
    Linear(Dim, Dim),
    /// `weight [d]`, `bias [d]`: layer and group norms.
    Norm(Dim),
    /// `weight [out, in, k, k]`, `bias [out]`.
    Conv(Dim, Dim, Dim),
    /// Transposed convolution with kernel and stride 2: `weight [in, out, 2, 2]`, `bias [out]`.
    Up2(Dim, Dim),
    /// The name is that of the tensor itself.
    Tensor(&'static [Dim]),
}

struct Row {
    name: &'static str,
    kind: Kind,
    part: Part,
    need: Need,
}

const fn row(part: Part, name: &'static str, kind: Kind) -> Row {
    Row { name, kind, part, need: Need::Required }
}

const fn spare(part: Part, name: &'static str, kind: Kind) -> Row {
    Row { name, kind, part, need: Need::Optional }
}

use Dim::*;
use Kind::*;
use Part::{Detector, Tracker, Vision};

#[rustfmt::skip]
static ROWS: &[Row] = &[
    // Sam3ViTModel
    row(Vision, "detector_model.vision_encoder.backbone.embeddings.patch_embeddings.projection.weight", Tensor(&[Vit, N(3), Patch, Patch])),
    row(Vision, "detector_model.vision_encoder.backbone.embeddings.position_embeddings", Tensor(&[N(1), PretrainTokens, Vit])),
    row(Vision, "detector_model.vision_encoder.backbone.layer_norm", Norm(Vit)),
    row(Vision, "detector_model.vision_encoder.backbone.layers.{vit}.{layer_norm1|layer_norm2}", Norm(Vit)),
    row(Vision, "detector_model.vision_encoder.backbone.layers.{vit}.attention.{q_proj|k_proj|v_proj|o_proj}", Linear(Vit, Vit)),
    row(Vision, "detector_model.vision_encoder.backbone.layers.{vit}.mlp.fc1", Linear(VitMlp, Vit)),
    row(Vision, "detector_model.vision_encoder.backbone.layers.{vit}.mlp.fc2", Linear(Vit, VitMlp)),

    // Sam3VisionNeck of the detector; Sam3Model.forward drops the last level.
    row(Detector, "detector_model.vision_encoder.neck.fpn_layers.{read4}.scale_layers.0", Up2(Vit, VitHalf)),
    row(Detector, "detector_model.vision_encoder.neck.fpn_layers.{read4}.scale_layers.2", Up2(VitHalf, VitQuarter)),
    row(Detector, "detector_model.vision_encoder.neck.fpn_layers.{read4}.proj1", Conv(Fpn, VitQuarter, N(1))),
    row(Detector, "detector_model.vision_encoder.neck.fpn_layers.{read2}.scale_layers.0", Up2(Vit, VitHalf)),
    row(Detector, "detector_model.vision_encoder.neck.fpn_layers.{read2}.proj1", Conv(Fpn, VitHalf, N(1))),
    row(Detector, "detector_model.vision_encoder.neck.fpn_layers.{read1}.proj1", Conv(Fpn, Vit, N(1))),
    row(Detector, "detector_model.vision_encoder.neck.fpn_layers.{read}.proj2", Conv(Fpn, Fpn, N(3))),
    spare(Detector, "detector_model.vision_encoder.neck.fpn_layers.{last2}.scale_layers.0", Up2(Vit, VitHalf)),
    spare(Detector, "detector_model.vision_encoder.neck.fpn_layers.{last2}.proj1", Conv(Fpn, VitHalf, N(1))),
    spare(Detector, "detector_model.vision_encoder.neck.fpn_layers.{last1}.proj1", Conv(Fpn, Vit, N(1))),
    spare(Detector, "detector_model.vision_encoder.neck.fpn_layers.{last}.proj2", Conv(Fpn, Fpn, N(3))),

    // CLIPTextModelWithProjection; its own projection serves the pooled output, which SAM 3 overwrites.
    row(Detector, "detector_model.text_encoder.text_model.embeddings.token_embedding.weight", Tensor(&[Vocab, Text])),
    row(Detector, "detector_model.text_encoder.text_model.embeddings.position_embedding.weight", Tensor(&[Context, Text])),
    row(Detector, "detector_model.text_encoder.text_model.encoder.layers.{text}.{layer_norm1|layer_norm2}", Norm(Text)),
    row(Detector, "detector_model.text_encoder.text_model.encoder.layers.{text}.self_attn.{q_proj|k_proj|v_proj|out_proj}", Linear(Text, Text)),
    row(Detector, "detector_model.text_encoder.text_model.encoder.layers.{text}.mlp.fc1", Linear(TextMlp, Text)),
    row(Detector, "detector_model.text_encoder.text_model.encoder.layers.{text}.mlp.fc2", Linear(Text, TextMlp)),
    row(Detector, "detector_model.text_encoder.text_model.final_layer_norm", Norm(Text)),
    spare(Detector, "detector_model.text_encoder.text_projection.weight", Tensor(&[TextProjection, Text])),
    row(Detector, "detector_model.text_projection", Linear(Fpn, Text)),

    // Sam3GeometryEncoder
    row(Detector, "detector_model.geometry_encoder.label_embed.weight", Tensor(&[N(2), Fpn])),
    row(Detector, "detector_model.geometry_encoder.cls_embed.weight", Tensor(&[N(1), Fpn])),
    row(Detector, "detector_model.geometry_encoder.boxes_direct_project", Linear(Fpn, N(4))),
    row(Detector, "detector_model.geometry_encoder.boxes_pool_project", Conv(Fpn, Fpn, Roi)),
    row(Detector, "detector_model.geometry_encoder.boxes_pos_enc_project", Linear(Fpn, FpnPlus2)),
    row(Detector, "detector_model.geometry_encoder.{vision_layer_norm|prompt_layer_norm|output_layer_norm}", Norm(Fpn)),
    row(Detector, "detector_model.geometry_encoder.final_proj", Linear(Fpn, Fpn)),
    row(Detector, "detector_model.geometry_encoder.layers.{geometry}.{layer_norm1|layer_norm2|layer_norm3}", Norm(Fpn)),
    row(Detector, "detector_model.geometry_encoder.layers.{geometry}.{self_attn|cross_attn}.{q_proj|k_proj|v_proj|o_proj}", Linear(Fpn, Fpn)),
    row(Detector, "detector_model.geometry_encoder.layers.{geometry}.mlp.fc1", Linear(GeometryMlp, Fpn)),
    row(Detector, "detector_model.geometry_encoder.layers.{geometry}.mlp.fc2", Linear(Fpn, GeometryMlp)),

    // Sam3DetrEncoder
    row(Detector, "detector_model.detr_encoder.layers.{encoder}.{layer_norm1|layer_norm2|layer_norm3}", Norm(Fpn)),
    row(Detector, "detector_model.detr_encoder.layers.{encoder}.{self_attn|cross_attn}.{q_proj|k_proj|v_proj|o_proj}", Linear(Fpn, Fpn)),
    row(Detector, "detector_model.detr_encoder.layers.{encoder}.mlp.fc1", Linear(EncoderMlp, Fpn)),
    row(Detector, "detector_model.detr_encoder.layers.{encoder}.mlp.fc2", Linear(Fpn, EncoderMlp)),

    // Sam3DetrDecoder
    row(Detector, "detector_model.detr_decoder.layers.{decoder}.{self_attn|text_cross_attn|vision_cross_attn}.{q_proj|k_proj|v_proj|o_proj}", Linear(Fpn, Fpn)),
    row(Detector, "detector_model.detr_decoder.layers.{decoder}.{self_attn|text_cross_attn|vision_cross_attn|mlp}_layer_norm", Norm(Fpn)),
    row(Detector, "detector_model.detr_decoder.layers.{decoder}.mlp.fc1", Linear(DecoderMlp, Fpn)),
    row(Detector, "detector_model.detr_decoder.layers.{decoder}.mlp.fc2", Linear(Fpn, DecoderMlp)),
    row(Detector, "detector_model.detr_decoder.{output_layer_norm|presence_layer_norm}", Norm(Fpn)),
    row(Detector, "detector_model.detr_decoder.query_embed.weight", Tensor(&[Queries, Fpn])),
    row(Detector, "detector_model.detr_decoder.reference_points.weight", Tensor(&[Queries, N(4)])),
    row(Detector, "detector_model.detr_decoder.presence_token.weight", Tensor(&[N(1), Fpn])),
    row(Detector, "detector_model.detr_decoder.{box_head|presence_head}.{layer1|layer2}", Linear(Fpn, Fpn)),
    row(Detector, "detector_model.detr_decoder.box_head.layer3", Linear(N(4), Fpn)),
    row(Detector, "detector_model.detr_decoder.presence_head.layer3", Linear(N(1), Fpn)),
    row(Detector, "detector_model.detr_decoder.ref_point_head.layer1", Linear(Fpn, FpnTwice)),
    row(Detector, "detector_model.detr_decoder.ref_point_head.layer2", Linear(Fpn, Fpn)),
    row(Detector, "detector_model.detr_decoder.{box_rpb_embed_x|box_rpb_embed_y}.layer1", Linear(Fpn, N(2))),
    row(Detector, "detector_model.detr_decoder.{box_rpb_embed_x|box_rpb_embed_y}.layer2", Linear(DecoderHeads, Fpn)),

    // Sam3DotProductScoring; its MLP has the DETR decoder's inner width.
    row(Detector, "detector_model.dot_product_scoring.text_mlp.layer1", Linear(DecoderMlp, Fpn)),
    row(Detector, "detector_model.dot_product_scoring.text_mlp.layer2", Linear(Fpn, DecoderMlp)),
    row(Detector, "detector_model.dot_product_scoring.text_mlp_out_norm", Norm(Fpn)),
    row(Detector, "detector_model.dot_product_scoring.{text_proj|query_proj}", Linear(Fpn, Fpn)),

    // Sam3MaskDecoder; the pixel decoder has a stage between each two levels it is given, and spare ones beyond.
    row(Detector, "detector_model.mask_decoder.pixel_decoder.conv_layers.{stage}", Conv(Fpn, Fpn, N(3))),
    row(Detector, "detector_model.mask_decoder.pixel_decoder.norms.{stage}", Norm(Fpn)),
    spare(Detector, "detector_model.mask_decoder.pixel_decoder.conv_layers.{spare_stage}", Conv(Fpn, Fpn, N(3))),
    spare(Detector, "detector_model.mask_decoder.pixel_decoder.norms.{spare_stage}", Norm(Fpn)),
    row(Detector, "detector_model.mask_decoder.mask_embedder.layers.{three}", Linear(Fpn, Fpn)),
    row(Detector, "detector_model.mask_decoder.instance_projection", Conv(Fpn, Fpn, N(1))),
    row(Detector, "detector_model.mask_decoder.semantic_projection", Conv(N(1), Fpn, N(1))),
    row(Detector, "detector_model.mask_decoder.prompt_cross_attn.{q_proj|k_proj|v_proj|o_proj}", Linear(Fpn, Fpn)),
    row(Detector, "detector_model.mask_decoder.prompt_cross_attn_norm", Norm(Fpn)),

    // Sam3VisionNeck of the tracker; its levels are 4, 2, 1, and a 0.5 that nothing reads.
    row(Tracker, "tracker_neck.fpn_layers.0.scale_layers.0", Up2(Vit, VitHalf)),
    row(Tracker, "tracker_neck.fpn_layers.0.scale_layers.2", Up2(VitHalf, VitQuarter)),
    row(Tracker, "tracker_neck.fpn_layers.0.proj1", Conv(Fpn, VitQuarter, N(1))),
    row(Tracker, "tracker_neck.fpn_layers.1.scale_layers.0", Up2(Vit, VitHalf)),
    row(Tracker, "tracker_neck.fpn_layers.1.proj1", Conv(Fpn, VitHalf, N(1))),
    row(Tracker, "tracker_neck.fpn_layers.2.proj1", Conv(Fpn, Vit, N(1))),
    row(Tracker, "tracker_neck.fpn_layers.{three}.proj2", Conv(Fpn, Fpn, N(3))),
    spare(Tracker, "tracker_neck.fpn_layers.{fourth_level}.proj1", Conv(Fpn, Vit, N(1))),
    spare(Tracker, "tracker_neck.fpn_layers.{fourth_level}.proj2", Conv(Fpn, Fpn, N(3))),

    // Sam3TrackerModel. The two tables of random frequencies are equal in the published checkpoint, but upstream keeps
    // and reads both: one for prompts, one for the picture's positions.
    row(Tracker, "tracker_model.no_memory_embedding", Tensor(&[N(1), N(1), Fpn])),
    row(Tracker, "tracker_model.shared_image_embedding.positional_embedding", Tensor(&[N(2), FpnHalf])),
    row(Tracker, "tracker_model.prompt_encoder.shared_embedding.positional_embedding", Tensor(&[N(2), FpnHalf])),
    row(Tracker, "tracker_model.prompt_encoder.point_embed.weight", Tensor(&[Points, Fpn])),
    row(Tracker, "tracker_model.prompt_encoder.{no_mask_embed|not_a_point_embed}.weight", Tensor(&[N(1), Fpn])),
    row(Tracker, "tracker_model.prompt_encoder.mask_embed.conv1", Conv(MaskInputQuarter, N(1), N(2))),
    row(Tracker, "tracker_model.prompt_encoder.mask_embed.conv2", Conv(MaskInput, MaskInputQuarter, N(2))),
    row(Tracker, "tracker_model.prompt_encoder.mask_embed.conv3", Conv(Fpn, MaskInput, N(1))),
    row(Tracker, "tracker_model.prompt_encoder.mask_embed.layer_norm1", Norm(MaskInputQuarter)),
    row(Tracker, "tracker_model.prompt_encoder.mask_embed.layer_norm2", Norm(MaskInput)),

    // Sam3TrackerMaskDecoder
    row(Tracker, "tracker_model.mask_decoder.{iou_token|obj_score_token}.weight", Tensor(&[N(1), Fpn])),
    row(Tracker, "tracker_model.mask_decoder.mask_tokens.weight", Tensor(&[MaskTokens, Fpn])),
    row(Tracker, "tracker_model.mask_decoder.transformer.layers.{two_way}.self_attn.{q_proj|k_proj|v_proj|o_proj}", Linear(Fpn, Fpn)),
    row(Tracker, "tracker_model.mask_decoder.transformer.layers.{two_way}.{cross_attn_token_to_image|cross_attn_image_to_token}.{q_proj|k_proj|v_proj}", Linear(TwoWayInner, Fpn)),
    row(Tracker, "tracker_model.mask_decoder.transformer.layers.{two_way}.{cross_attn_token_to_image|cross_attn_image_to_token}.o_proj", Linear(Fpn, TwoWayInner)),
    row(Tracker, "tracker_model.mask_decoder.transformer.layers.{two_way}.{layer_norm1|layer_norm2|layer_norm3|layer_norm4}", Norm(Fpn)),
    row(Tracker, "tracker_model.mask_decoder.transformer.layers.{two_way}.mlp.proj_in", Linear(TwoWayMlp, Fpn)),
    row(Tracker, "tracker_model.mask_decoder.transformer.layers.{two_way}.mlp.layers.{two_way_inner}", Linear(TwoWayMlp, TwoWayMlp)),
    row(Tracker, "tracker_model.mask_decoder.transformer.layers.{two_way}.mlp.proj_out", Linear(Fpn, TwoWayMlp)),
    row(Tracker, "tracker_model.mask_decoder.transformer.final_attn_token_to_image.{q_proj|k_proj|v_proj}", Linear(TwoWayInner, Fpn)),
    row(Tracker, "tracker_model.mask_decoder.transformer.final_attn_token_to_image.o_proj", Linear(Fpn, TwoWayInner)),
    row(Tracker, "tracker_model.mask_decoder.transformer.layer_norm_final_attn", Norm(Fpn)),
    row(Tracker, "tracker_model.mask_decoder.upscale_conv1", Up2(Fpn, FpnQuarter)),
    row(Tracker, "tracker_model.mask_decoder.upscale_conv2", Up2(FpnQuarter, FpnEighth)),
    row(Tracker, "tracker_model.mask_decoder.upscale_layer_norm", Norm(FpnQuarter)),
    row(Tracker, "tracker_model.mask_decoder.conv_s0", Conv(FpnEighth, Fpn, N(1))),
    row(Tracker, "tracker_model.mask_decoder.conv_s1", Conv(FpnQuarter, Fpn, N(1))),
    row(Tracker, "tracker_model.mask_decoder.output_hypernetworks_mlps.{mask_token}.{proj_in|layers.0}", Linear(Fpn, Fpn)),
    row(Tracker, "tracker_model.mask_decoder.output_hypernetworks_mlps.{mask_token}.proj_out", Linear(FpnEighth, Fpn)),
    row(Tracker, "tracker_model.mask_decoder.iou_prediction_head.proj_in", Linear(Iou, Fpn)),
    row(Tracker, "tracker_model.mask_decoder.iou_prediction_head.layers.{iou_inner}", Linear(Iou, Iou)),
    row(Tracker, "tracker_model.mask_decoder.iou_prediction_head.proj_out", Linear(MaskTokens, Iou)),
    row(Tracker, "tracker_model.mask_decoder.pred_obj_score_head.{proj_in|layers.0}", Linear(Fpn, Fpn)),
    row(Tracker, "tracker_model.mask_decoder.pred_obj_score_head.proj_out", Linear(N(1), Fpn)),
];

/// The numbers that `{counter}` stands for. Empty ranges make their row vanish.
///
/// `read4`, `last2`, … are the index of the pyramid level of that scale if the detector reads it, or if it is the last
/// one, which the detector computes nothing from.
fn range(counter: &str, c: &Config) -> std::ops::Range<usize> {
    let scales = &c.vision.scale_factors;
    let read = scales.len().saturating_sub(1);
    let among = |levels: std::ops::Range<usize>, scale: f32| {
        let found = levels.clone().find(|&i| scales[i] == scale);
        found.map_or(0..0, |i| i..i + 1)
    };
    // A row is only expanded if its part is there, so an absent part's zeros are never seen.
    let d = |f: fn(&super::config::DetectorConfig) -> usize| c.detector.as_ref().map_or(0, f);
    let t = |f: fn(&super::config::TrackerConfig) -> usize| c.tracker.as_ref().map_or(0, f);
    let used_stages = scales.len().saturating_sub(2);
    match counter {
        "vit" => 0..c.vision.layers,
        "read" => 0..read,
        "read4" => among(0..read, 4.0),
        "read2" => among(0..read, 2.0),
        "read1" => among(0..read, 1.0),
        "last" => read..scales.len(),
        "last2" => among(read..scales.len(), 2.0),
        // Level 0.5 pools and then is shaped like level 1.
        "last1" => match among(read..scales.len(), 1.0) {
            r if r.is_empty() => among(read..scales.len(), 0.5),
            r => r,
        },
        "fourth_level" => 3..scales.len().max(3),
        "text" => 0..d(|d| d.text.layers),
        "geometry" => 0..d(|d| d.geometry.transformer.layers),
        "encoder" => 0..d(|d| d.encoder.layers),
        "decoder" => 0..d(|d| d.decoder.layers),
        "stage" => 0..used_stages,
        "spare_stage" => used_stages..d(|d| d.upsampling_stages),
        "three" => 0..3,
        "mask_token" => 0..t(|t| t.multimask_outputs + 1),
        "two_way" => 0..t(|t| t.layers),
        "two_way_inner" => 0..t(|t| t.layers.saturating_sub(2)),
        "iou_inner" => 0..t(|t| t.iou_head_depth.saturating_sub(2)),
        other => unreachable!("manifest counter {other}"),
    }
}

fn resolve(dim: Dim, c: &Config) -> usize {
    let (v, fpn) = (&c.vision, c.vision.fpn_hidden_size);
    let d = |f: fn(&super::config::DetectorConfig) -> usize| c.detector.as_ref().map_or(0, f);
    let t = |f: fn(&super::config::TrackerConfig) -> usize| c.tracker.as_ref().map_or(0, f);
    match dim {
        N(n) => n,
        Patch => v.patch_size,
        PretrainTokens => v.pretrain_grid * v.pretrain_grid,
        Vit => v.hidden_size,
        VitHalf => v.hidden_size / 2,
        VitQuarter => v.hidden_size / 4,
        VitMlp => v.intermediate_size,
        Fpn => fpn,
        FpnHalf => fpn / 2,
        FpnQuarter => fpn / 4,
        FpnEighth => fpn / 8,
        FpnTwice => fpn * 2,
        FpnPlus2 => fpn + 2,
        Vocab => d(|d| d.text.vocab_size),
        Context => d(|d| d.text.context),
        Text => d(|d| d.text.hidden_size),
        TextMlp => d(|d| d.text.intermediate_size),
        TextProjection => d(|d| d.text.projection_dim),
        GeometryMlp => d(|d| d.geometry.transformer.intermediate_size),
        Roi => d(|d| d.geometry.roi_size),
        EncoderMlp => d(|d| d.encoder.intermediate_size),
        DecoderMlp => d(|d| d.decoder.intermediate_size),
        DecoderHeads => d(|d| d.decoder.heads),
        Queries => d(|d| d.queries),
        MaskInput => t(|t| t.mask_input_channels),
        MaskInputQuarter => t(|t| t.mask_input_channels / 4),
        Points => t(|t| t.point_embeddings),
        MaskTokens => t(|t| t.multimask_outputs + 1),
        TwoWayMlp => t(|t| t.mlp_dim),
        TwoWayInner => fpn / c.tracker.as_ref().map_or(1, |t| t.attention_downsample_rate),
        Iou => t(|t| t.iou_head_hidden_dim),
    }
}

/// Every tensor of the table that a model of this configuration has, required or not, in the table's order.
pub fn entries(config: &Config) -> Vec<Entry> {
    let mut out = Vec::new();
    for row in ROWS {
        let present = match row.part {
            Vision => true,
            Detector => config.detector.is_some(),
            Tracker => config.tracker.is_some(),
        };
        if !present {
            continue;
        }
        let mut names = Vec::new();
        expand(row.name, String::new(), config, &mut names);
        for name in names {
            for (suffix, dims) in tensors(&row.kind) {
                out.push(Entry {
                    name: format!("{name}{suffix}"),
                    shape: dims.iter().map(|&d| resolve(d, config)).collect(),
                    part: row.part,
                    need: row.need,
                });
            }
        }
    }
    out
}

/// Published names and shapes of a complete checkpoint of this configuration, for tests and tools that make one.
pub fn expected(config: &Config) -> Vec<(String, Vec<usize>)> {
    entries(config).into_iter().map(|e| (e.name, e.shape)).collect()
}

/// Suffixes and axes of a module's tensors.
fn tensors(kind: &Kind) -> Vec<(&'static str, Vec<Dim>)> {
    match *kind {
        Linear(out, input) => vec![(".weight", vec![out, input]), (".bias", vec![out])],
        Norm(d) => vec![(".weight", vec![d]), (".bias", vec![d])],
        Conv(out, input, k) => vec![(".weight", vec![out, input, k, k]), (".bias", vec![out])],
        Up2(input, out) => vec![(".weight", vec![input, out, N(2), N(2)]), (".bias", vec![out])],
        Tensor(dims) => vec![("", dims.to_vec())],
    }
}

/// Appends every reading of `template` to `out`, each behind `done`.
fn expand(template: &str, mut done: String, config: &Config, out: &mut Vec<String>) {
    let Some((before, rest)) = template.split_once('{') else {
        done.push_str(template);
        out.push(done);
        return;
    };
    let Some((inside, after)) = rest.split_once('}') else {
        unreachable!("manifest name {template}");
    };
    done.push_str(before);
    if inside.contains('|') {
        for choice in inside.split('|') {
            expand(after, format!("{done}{choice}"), config, out);
        }
    } else {
        for i in range(inside, config) {
            expand(after, format!("{done}{i}"), config, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Config {
        Config::from_json(r#"{"model_type": "sam3_video", "tracker_config": {}, "detector_config": {}}"#).unwrap()
    }

    /// The numbers are those of `Sam3VideoModel(Sam3VideoConfig())` in transformers 5.23, whose state dictionary,
    /// without the video memory, was written as sorted lines `name [shape]`, counted and hashed with 64-bit FNV-1a.
    #[test]
    fn names_and_shapes_are_upstreams() {
        let mut table = expected(&published());
        table.sort();
        let count = |prefix: &str| {
            let group = table.iter().filter(|(n, _)| n.starts_with(prefix));
            group.fold((0, 0), |(n, p), (_, s)| (n + 1, p + s.iter().product::<usize>()))
        };
        for (prefix, tensors, parameters) in [
            ("detector_model.detr_decoder.", 247, 11_575_093),
            ("detector_model.detr_encoder.", 156, 9_472_512),
            ("detector_model.dot_product_scoring.", 10, 1_182_976),
            ("detector_model.geometry_encoder.", 94, 8_083_456),
            ("detector_model.mask_decoder.", 32, 2_298_881),
            ("detector_model.text_encoder.", 389, 353_462_272),
            ("detector_model.text_projection.", 2, 262_400),
            ("detector_model.vision_encoder.backbone.", 516, 446_236_672),
            ("detector_model.vision_encoder.neck.", 22, 7_802_112),
            ("tracker_model.", 147, 4_222_097),
            ("tracker_neck.", 22, 7_802_112),
            ("", 1637, 852_400_583),
        ] {
            assert_eq!(count(prefix), (tensors, parameters), "{prefix}");
        }
        let hash = table
            .iter()
            .flat_map(|(n, s)| format!("{n} {s:?}\n").into_bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        assert_eq!(hash, 0x245f_1402_8dda_13b9);
    }

    #[test]
    fn parts_follow_the_configuration() {
        let both = published();
        let detector = Config { tracker: None, ..both.clone() };
        let tracker = Config { detector: None, ..both.clone() };
        let names = |c: &Config| entries(c).into_iter().map(|e| e.name).collect::<std::collections::BTreeSet<_>>();
        let (d, t, b) = (names(&detector), names(&tracker), names(&both));
        assert_eq!(b.len(), entries(&both).len(), "a name is listed twice");
        assert_eq!(d.union(&t).cloned().collect::<std::collections::BTreeSet<_>>(), b);
        // They share the backbone and nothing else.
        assert!(d.intersection(&t).all(|n| n.starts_with("detector_model.vision_encoder.backbone.")));
    }

    #[test]
    fn only_unread_levels_are_optional() {
        let optional = |c: &Config| {
            let spare = entries(c).into_iter().filter(|e| e.need == Need::Optional);
            spare.map(|e| e.name).filter(|n| n.ends_with(".weight")).collect::<Vec<_>>()
        };
        let mut c = published();
        assert_eq!(
            optional(&c),
            [
                "detector_model.vision_encoder.neck.fpn_layers.3.proj1.weight",
                "detector_model.vision_encoder.neck.fpn_layers.3.proj2.weight",
                "detector_model.text_encoder.text_projection.weight",
                "detector_model.mask_decoder.pixel_decoder.conv_layers.2.weight",
                "detector_model.mask_decoder.pixel_decoder.norms.2.weight",
                "tracker_neck.fpn_layers.3.proj1.weight",
                "tracker_neck.fpn_layers.3.proj2.weight",
            ]
        );
        // Without level 0.5 the detector drops level 1, which the tracker still reads.
        c.vision.scale_factors = vec![4.0, 2.0, 1.0];
        let left = optional(&c);
        assert!(left.contains(&"detector_model.vision_encoder.neck.fpn_layers.2.proj1.weight".to_owned()), "{left:?}");
        assert!(left.contains(&"detector_model.mask_decoder.pixel_decoder.norms.1.weight".to_owned()), "{left:?}");
        assert!(!left.iter().any(|n| n.starts_with("tracker_neck.")), "{left:?}");
        c.vision.scale_factors = vec![4.0, 2.0];
        let last = entries(&c).into_iter().filter(|e| e.name.contains("vision_encoder.neck.fpn_layers.1."));
        assert_eq!(last.map(|e| e.need).collect::<Vec<_>>(), [Need::Optional; 6]);
    }
}
