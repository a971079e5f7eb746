//! The DETR decoder (`Sam3DetrDecoder`): object queries and a presence token look at prompt and picture, and refine a
//! box per query layer by layer.

use crate::error::Result;
use crate::model::attention::{Attention, buffers};
use crate::model::control::{Control, Stage};
use crate::model::geometry_encoder::EPS;
use crate::model::load::Loader;
use crate::model::mlp::{Head, Mlp};
use crate::model::scratch::Scratch;
use crate::ops::{Activation, Norm, Ops, Pattern, View};
use crate::weights::DetectorConfig;

/// Presence logits are clamped to ± this (`clamp_presence_logit_max_val`).
const PRESENCE_CLAMP: f32 = 10.0;

/// `Sam3DetrDecoder`.
pub struct Decoder<O: Ops> {
    d: usize,
    heads: usize,
    queries: usize,
    /// Presence token, then query embeddings `[queries + 1, d]`.
    embed: O::Act,
    /// `σ` of the reference points, cxcywh `[queries, 4]`.
    boxes: O::Act,
    /// The presence token's: zeros `[d]`.
    no_position: O::Act,
    layers: Vec<Layer<O>>,
    output_norm: Norm<O>,
    box_head: Head<O>,
    presence_norm: Norm<O>,
    presence_head: Head<O>,
    ref_point_head: Head<O>,
    rpb_x: Head<O>,
    rpb_y: Head<O>,
}

/// `Sam3DetrDecoderLayer`, post-norm.
struct Layer<O: Ops> {
    self_attn: Attention<O>,
    self_norm: Norm<O>,
    text_attn: Attention<O>,
    text_norm: Norm<O>,
    vision_attn: Attention<O>,
    vision_norm: Norm<O>,
    mlp: Mlp<O>,
    mlp_norm: Norm<O>,
}

impl<O: Ops> Decoder<O> {
    pub fn load(l: &Loader<'_, O>, config: &DetectorConfig, d: usize) -> Result<Self> {
        let p = "detector_model.detr_decoder";
        let (queries, heads) = (config.queries, config.decoder.heads);
        let mut embed = l.host(&format!("{p}.presence_token.weight"))?;
        embed.extend(l.host(&format!("{p}.query_embed.weight"))?);
        let boxes = l.host(&format!("{p}.reference_points.weight"))?;
        let boxes: Vec<f32> = boxes.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect();
        let layer = |i: usize| -> Result<Layer<O>> {
            let p = format!("{p}.layers.{i}");
            Ok(Layer {
                self_attn: Attention::load(l, &format!("{p}.self_attn"), heads)?,
                self_norm: l.norm(&format!("{p}.self_attn_layer_norm"), EPS)?,
                text_attn: Attention::load(l, &format!("{p}.text_cross_attn"), heads)?,
                text_norm: l.norm(&format!("{p}.text_cross_attn_layer_norm"), EPS)?,
                vision_attn: Attention::load(l, &format!("{p}.vision_cross_attn"), heads)?,
                vision_norm: l.norm(&format!("{p}.vision_cross_attn_layer_norm"), EPS)?,
                mlp: Mlp::load(l, &format!("{p}.mlp"), config.decoder.hidden_act)?,
                mlp_norm: l.norm(&format!("{p}.mlp_layer_norm"), EPS)?,
            })
        };
        let head = |name: &str, layers: &[&str]| Head::load(l, &format!("{p}.{name}"), layers);
        let (two, three) = (["layer1", "layer2"], ["layer1", "layer2", "layer3"]);
        Ok(Self {
            d,
            heads,
            queries,
            embed: l.upload(&embed)?,
            boxes: l.upload(&boxes)?,
            no_position: l.upload(&vec![0.0; d])?,
            layers: (0..config.decoder.layers).map(layer).collect::<Result<_>>()?,
            output_norm: l.norm(&format!("{p}.output_layer_norm"), EPS)?,
            box_head: head("box_head", &three)?,
            presence_norm: l.norm(&format!("{p}.presence_layer_norm"), EPS)?,
            presence_head: head("presence_head", &three)?,
            ref_point_head: head("ref_point_head", &two)?,
            rpb_x: head("box_rpb_embed_x", &two)?,
            rpb_y: head("box_rpb_embed_y", &two)?,
        })
    }

    /// Number of layers, for progress.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Number of object queries.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// `s.fused[grid², d]` and `s.prompt[p, d]` to normalised query states in `s.queries[queries, d]` and boxes,
    /// normalised cxcywh, in `s.boxes`. Returns the presence logit.
    pub fn run(
        &self,
        ops: &O,
        vision_pos: &O::Act,
        grid: usize,
        p: usize,
        s: &mut Scratch<O>,
        control: &Control<'_>,
        steps: (usize, usize),
    ) -> Result<f32> {
        let (d, n, t) = (self.d, self.queries, grid * grid);
        ops.copy(View::new(&self.embed, d), n + 1, d, &mut s.x, 0)?;
        ops.copy(View::new(&self.boxes, 4), n, 4, &mut s.boxes, 0)?;
        ops.add(View::new(&s.fused, d), View::new(vision_pos, d), t, t, d, &mut s.fused_pos)?;
        control.see(ops, || "reference_boxes.0".into(), &s.boxes, n * 4)?;
        for (i, layer) in self.layers.iter().enumerate() {
            self.positions(ops, grid, s)?;
            self.layer(ops, layer, grid, p, s)?;
            // Box refinement on the normalised query states, without the presence token.
            ops.layer_norm(View::skip(&s.x, 1, d), &self.output_norm, n, Activation::None, &mut s.queries)?;
            let inner = [&mut s.mlp, &mut s.mlp2];
            self.box_head.run(ops, View::new(&s.queries, d), n, None, inner, &mut s.delta)?;
            ops.box_refine(&s.delta, &s.boxes, n, &mut s.boxes_next)?;
            std::mem::swap(&mut s.boxes, &mut s.boxes_next);
            control.see(ops, || format!("decoder.{i}"), &s.x, (n + 1) * d)?;
            control.see(ops, || format!("reference_boxes.{}", i + 1), &s.boxes, n * 4)?;
            control.step(Stage::Ground, steps.0 + i + 1, steps.1)?;
        }
        ops.layer_norm(View::new(&s.x, d), &self.presence_norm, 1, Activation::None, &mut s.h)?;
        let inner = [&mut s.mlp, &mut s.mlp2];
        self.presence_head.run(ops, View::new(&s.h, d), 1, None, inner, &mut s.small)?;
        let mut presence = [0.0];
        ops.download(&s.small, 0, &mut presence)?;
        Ok(presence[0].clamp(-PRESENCE_CLAMP, PRESENCE_CLAMP))
    }

    /// What a layer needs of the current boxes: query positions (`ref_point_head`) and the box bias
    /// (`_get_rpb_matrix`, kept as its two summands).
    fn positions(&self, ops: &O, grid: usize, s: &mut Scratch<O>) -> Result<()> {
        let (d, n) = (self.d, self.queries);
        ops.box_sine(&s.boxes, n, d / 2, &mut s.sine)?;
        let inner = [&mut s.mlp, &mut s.mlp2];
        self.ref_point_head.run(ops, View::new(&s.sine, 2 * d), n, None, inner, &mut s.h)?;
        // The presence token has no position: a zero row in front.
        ops.copy(View::new(&self.no_position, d), 1, d, &mut s.query_pos, 0)?;
        ops.copy(View::new(&s.h, d), n, d, &mut s.query_pos, d)?;
        ops.box_deltas(&s.boxes, n, grid, grid, &mut s.dx, &mut s.dy)?;
        for (head, from, to) in [(&self.rpb_x, &s.dx, &mut s.bx), (&self.rpb_y, &s.dy, &mut s.by)] {
            head.run(ops, View::new(from, 2), n * grid, None, [&mut s.mlp, &mut s.mlp2], to)?;
        }
        Ok(())
    }

    /// `Sam3DetrDecoderLayer.forward` on `s.x[queries + 1, d]`.
    fn layer(&self, ops: &O, layer: &Layer<O>, grid: usize, p: usize, s: &mut Scratch<O>) -> Result<()> {
        let (d, n, t) = (self.d, self.queries + 1, grid * grid);
        let pos = |s: &mut Scratch<O>| ops.add(View::new(&s.x, d), View::new(&s.query_pos, d), n, n, d, &mut s.hp);
        let norm = |norm: &Norm<O>, s: &mut Scratch<O>| {
            ops.layer_norm(View::new(&s.next, d), norm, n, Activation::None, &mut s.x)
        };
        pos(s)?;
        let (x, hp) = (View::new(&s.x, d), View::new(&s.hp, d));
        layer.self_attn.run(ops, (hp, n), (hp, x, n), Pattern::Full, Some(x), buffers!(s), &mut s.next)?;
        norm(&layer.self_norm, s)?;

        pos(s)?;
        let (x, hp, prompt) = (View::new(&s.x, d), View::new(&s.hp, d), View::new(&s.prompt, d));
        layer.text_attn.run(ops, (hp, n), (prompt, prompt, p), Pattern::Full, Some(x), buffers!(s), &mut s.next)?;
        norm(&layer.text_norm, s)?;

        pos(s)?;
        let (x, hp) = (View::new(&s.x, d), View::new(&s.hp, d));
        let kv = (View::new(&s.fused_pos, d), View::new(&s.fused, d), t);
        let boxes = Pattern::Boxes { height: grid, width: grid, first: 1, by: &s.by, bx: &s.bx };
        debug_assert_eq!(self.rpb_x.width(), self.heads);
        layer.vision_attn.run(ops, (hp, n), kv, boxes, Some(x), buffers!(s), &mut s.next)?;
        norm(&layer.vision_norm, s)?;

        layer.mlp.run(ops, View::new(&s.x, d), View::new(&s.x, d), n, &mut s.mlp, &mut s.next)?;
        norm(&layer.mlp_norm, s)
    }
}
