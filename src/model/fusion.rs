//! The DETR encoder (`Sam3DetrEncoder`): picture tokens look at each other and at the prompt.

use crate::error::Result;
use crate::model::attention::{Attention, buffers};
use crate::model::control::{Control, Stage};
use crate::model::geometry_encoder::EPS;
use crate::model::load::Loader;
use crate::model::mlp::Mlp;
use crate::model::scratch::Scratch;
use crate::ops::{Activation, Norm, Ops, Pattern, View};
use crate::weights::TransformerConfig;

/// `Sam3DetrEncoder`.
pub struct Fusion<O: Ops> {
    d: usize,
    layers: Vec<Layer<O>>,
}

/// `Sam3DetrEncoderLayer`, pre-norm.
struct Layer<O: Ops> {
    norm1: Norm<O>,
    self_attn: Attention<O>,
    norm2: Norm<O>,
    cross_attn: Attention<O>,
    norm3: Norm<O>,
    mlp: Mlp<O>,
}

impl<O: Ops> Fusion<O> {
    pub fn load(l: &Loader<'_, O>, config: &TransformerConfig, d: usize) -> Result<Self> {
        let layer = |i: usize| -> Result<Layer<O>> {
            let p = format!("detector_model.detr_encoder.layers.{i}");
            Ok(Layer {
                norm1: l.norm(&format!("{p}.layer_norm1"), EPS)?,
                self_attn: Attention::load(l, &format!("{p}.self_attn"), config.heads)?,
                norm2: l.norm(&format!("{p}.layer_norm2"), EPS)?,
                cross_attn: Attention::load(l, &format!("{p}.cross_attn"), config.heads)?,
                norm3: l.norm(&format!("{p}.layer_norm3"), EPS)?,
                mlp: Mlp::load(l, &format!("{p}.mlp"), config.hidden_act)?,
            })
        };
        Ok(Self { d, layers: (0..config.layers).map(layer).collect::<Result<_>>()? })
    }

    /// Number of layers, for progress.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// `vision[t, d]` and `s.prompt[p, d]` to `s.fused[t, d]`; `vision_pos[t, d]` joins queries and keys.
    pub fn run(
        &self,
        ops: &O,
        vision: &O::Act,
        vision_pos: &O::Act,
        t: usize,
        p: usize,
        s: &mut Scratch<O>,
        control: &Control<'_>,
        total: usize,
    ) -> Result<()> {
        let d = self.d;
        ops.copy(View::new(vision, d), t, d, &mut s.x, 0)?;
        for (i, layer) in self.layers.iter().enumerate() {
            ops.layer_norm(View::new(&s.x, d), &layer.norm1, t, Activation::None, &mut s.h)?;
            ops.add(View::new(&s.h, d), View::new(vision_pos, d), t, t, d, &mut s.hp)?;
            let (h, hp, x) = (View::new(&s.h, d), View::new(&s.hp, d), Some(View::new(&s.x, d)));
            layer.self_attn.run(ops, (hp, t), (hp, h, t), Pattern::Full, x, buffers!(s), &mut s.next)?;
            std::mem::swap(&mut s.x, &mut s.next);

            ops.layer_norm(View::new(&s.x, d), &layer.norm2, t, Activation::None, &mut s.h)?;
            let (h, x, prompt) = (View::new(&s.h, d), Some(View::new(&s.x, d)), View::new(&s.prompt, d));
            layer.cross_attn.run(ops, (h, t), (prompt, prompt, p), Pattern::Full, x, buffers!(s), &mut s.next)?;
            std::mem::swap(&mut s.x, &mut s.next);

            ops.layer_norm(View::new(&s.x, d), &layer.norm3, t, Activation::None, &mut s.h)?;
            layer.mlp.run(ops, View::new(&s.h, d), View::new(&s.x, d), t, &mut s.mlp, &mut s.next)?;
            std::mem::swap(&mut s.x, &mut s.next);
            control.see(ops, || format!("fusion.{i}"), &s.x, t * d)?;
            control.step(Stage::Ground, i + 1, total)?;
        }
        std::mem::swap(&mut s.x, &mut s.fused);
        Ok(())
    }
}
