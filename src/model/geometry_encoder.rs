//! The exemplar encoder (`Sam3GeometryEncoder`): boxes drawn round examples, as prompt tokens.

use crate::error::Result;
use crate::model::attention::{Attention, buffers};
use crate::model::control::Control;
use crate::model::load::Loader;
use crate::model::mlp::Mlp;
use crate::model::positions;
use crate::model::sam3::Exemplar;
use crate::model::scratch::Scratch;
use crate::ops::{Activation, Epilogue, Linear, Norm, Ops, Pattern, View};
use crate::weights::GeometryConfig;

/// `nn.LayerNorm`'s default, which everything behind the neck uses; the configured value is for the ViT alone.
pub const EPS: f32 = 1e-5;

/// `Sam3GeometryEncoder`.
pub struct GeometryEncoder<O: Ops> {
    d: usize,
    roi_size: usize,
    label_embed: O::Mat,
    cls_embed: O::Act,
    direct: Linear<O>,
    pool: Linear<O>,
    position: Linear<O>,
    vision_norm: Norm<O>,
    final_proj: Linear<O>,
    prompt_norm: Norm<O>,
    layers: Vec<Layer<O>>,
    output_norm: Norm<O>,
}

/// `Sam3GeometryEncoderLayer`.
struct Layer<O: Ops> {
    norm1: Norm<O>,
    self_attn: Attention<O>,
    norm2: Norm<O>,
    cross_attn: Attention<O>,
    norm3: Norm<O>,
    mlp: Mlp<O>,
}

impl<O: Ops> GeometryEncoder<O> {
    pub fn load(l: &Loader<'_, O>, config: &GeometryConfig, d: usize) -> Result<Self> {
        let p = "detector_model.geometry_encoder";
        let t = &config.transformer;
        let layer = |i: usize| -> Result<Layer<O>> {
            let p = format!("{p}.layers.{i}");
            Ok(Layer {
                norm1: l.norm(&format!("{p}.layer_norm1"), EPS)?,
                self_attn: Attention::load(l, &format!("{p}.self_attn"), t.heads)?,
                norm2: l.norm(&format!("{p}.layer_norm2"), EPS)?,
                cross_attn: Attention::load(l, &format!("{p}.cross_attn"), t.heads)?,
                norm3: l.norm(&format!("{p}.layer_norm3"), EPS)?,
                mlp: Mlp::load(l, &format!("{p}.mlp"), t.hidden_act)?,
            })
        };
        Ok(Self {
            d,
            roi_size: config.roi_size,
            label_embed: l.matrix(&format!("{p}.label_embed.weight"))?,
            cls_embed: l.act(&format!("{p}.cls_embed.weight"))?,
            direct: l.linear(&format!("{p}.boxes_direct_project"))?,
            pool: l.linear(&format!("{p}.boxes_pool_project"))?,
            position: l.linear(&format!("{p}.boxes_pos_enc_project"))?,
            vision_norm: l.norm(&format!("{p}.vision_layer_norm"), EPS)?,
            final_proj: l.linear(&format!("{p}.final_proj"))?,
            prompt_norm: l.norm(&format!("{p}.prompt_layer_norm"), EPS)?,
            layers: (0..t.layers).map(layer).collect::<Result<_>>()?,
            output_norm: l.norm(&format!("{p}.output_layer_norm"), EPS)?,
        })
    }

    /// Boxes to `y[boxes + 1, d]`, the class token last. `vision[grid², d]` is the pyramid's level of scale 1 and
    /// `vision_pos` its position embedding.
    pub fn run(
        &self,
        ops: &O,
        exemplars: &[Exemplar],
        vision: &O::Act,
        vision_pos: &O::Act,
        grid: usize,
        s: &mut Scratch<O>,
        control: &Control<'_>,
        y: &mut O::Act,
    ) -> Result<()> {
        let (d, t) = (self.d, grid * grid);
        self.embed(ops, exemplars, vision, grid, s)?;
        let n = exemplars.len() + 1;
        control.see(ops, || "geometry.embed".into(), &s.x, n * d)?;
        ops.add(View::new(vision, d), View::new(vision_pos, d), t, t, d, &mut s.fused_pos)?;
        for (i, layer) in self.layers.iter().enumerate() {
            ops.layer_norm(View::new(&s.x, d), &layer.norm1, n, Activation::None, &mut s.h)?;
            let h = View::new(&s.h, d);
            let x = Some(View::new(&s.x, d));
            layer.self_attn.run(ops, (h, n), (h, h, n), Pattern::Full, x, buffers!(s), &mut s.next)?;
            std::mem::swap(&mut s.x, &mut s.next);
            ops.layer_norm(View::new(&s.x, d), &layer.norm2, n, Activation::None, &mut s.h)?;
            let kv = (View::new(&s.fused_pos, d), View::new(vision, d), t);
            let x = Some(View::new(&s.x, d));
            layer.cross_attn.run(ops, (View::new(&s.h, d), n), kv, Pattern::Full, x, buffers!(s), &mut s.next)?;
            std::mem::swap(&mut s.x, &mut s.next);
            ops.layer_norm(View::new(&s.x, d), &layer.norm3, n, Activation::None, &mut s.h)?;
            layer.mlp.run(ops, View::new(&s.h, d), View::new(&s.x, d), n, &mut s.mlp, &mut s.next)?;
            std::mem::swap(&mut s.x, &mut s.next);
            control.see(ops, || format!("geometry.layer.{i}"), &s.x, n * d)?;
        }
        ops.layer_norm(View::new(&s.x, d), &self.output_norm, n, Activation::None, y)
    }

    /// `_encode_boxes`, the class token and the norm before the layers: `s.x[boxes + 1, d]`.
    fn embed(&self, ops: &O, exemplars: &[Exemplar], vision: &O::Act, grid: usize, s: &mut Scratch<O>) -> Result<()> {
        let (d, n, r) = (self.d, exemplars.len(), self.roi_size);
        // Four terms are summed: the coordinates, the pooled picture, the position, the label.
        let boxes: Vec<f32> = exemplars.iter().flat_map(|e| e.cxcywh).collect();
        ops.upload(&boxes, &mut s.small)?;
        ops.linear(View::new(&s.small, 4), &self.direct, n, Epilogue::NONE, &mut s.x)?;

        ops.layer_norm(View::new(vision, d), &self.vision_norm, grid * grid, Activation::None, &mut s.h)?;
        let side = grid as f32;
        let corners: Vec<[f32; 4]> = exemplars
            .iter()
            .map(|Exemplar { cxcywh: [cx, cy, w, h], .. }| {
                [cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h].map(|v| v * side)
            })
            .collect();
        ops.roi_align(&s.h, grid, grid, d, &corners, r, &mut s.mlp)?;
        let sum = Epilogue::add(View::new(&s.x, d));
        ops.linear(View::new(&s.mlp, d * r * r), &self.pool, n, sum, &mut s.next)?;

        let mut positions = Vec::with_capacity(n * (d + 2));
        for e in exemplars {
            positions::sine_box(e.cxcywh, d, &mut positions);
        }
        ops.upload(&positions, &mut s.small)?;
        let sum = Epilogue::add(View::new(&s.next, d));
        ops.linear(View::new(&s.small, d + 2), &self.position, n, sum, &mut s.x)?;

        let labels: Vec<u32> = exemplars.iter().map(|e| e.positive.into()).collect();
        ops.gather(&self.label_embed, &labels, &mut s.h)?;
        ops.add(View::new(&s.x, d), View::new(&s.h, d), n, n, d, &mut s.next)?;

        ops.copy(View::new(&self.cls_embed, d), 1, d, &mut s.next, n * d)?;
        ops.linear(View::new(&s.next, d), &self.final_proj, n + 1, Epilogue::NONE, &mut s.h)?;
        ops.layer_norm(View::new(&s.h, d), &self.prompt_norm, n + 1, Activation::None, &mut s.x)
    }
}
