//! The text encoder (`CLIPTextModel`, `modeling_clip.py`) and the projection to the detector's width.
//!
//! A phrase runs at its own length: attention is causal, so a token never sees the padding behind it.

use crate::error::Result;
use crate::model::control::{Control, Stage};
use crate::model::load::Loader;
use crate::model::mlp::Mlp;
use crate::model::scratch::Scratch;
use crate::ops::{Activation, Attention, Epilogue, Linear, Norm, Ops, Pattern, View};
use crate::weights::TextConfig;

/// `CLIPTextModel` and `Sam3Model.text_projection`.
pub struct TextEncoder<O: Ops> {
    config: TextConfig,
    tokens: O::Mat,
    /// `[context, c]`.
    position: O::Act,
    layers: Vec<Layer<O>>,
    final_norm: Norm<O>,
    projection: Linear<O>,
}

/// `CLIPEncoderLayer`.
struct Layer<O: Ops> {
    norm1: Norm<O>,
    qkv: Linear<O>,
    proj: Linear<O>,
    norm2: Norm<O>,
    mlp: Mlp<O>,
}

impl<O: Ops> TextEncoder<O> {
    pub fn load(l: &Loader<'_, O>, config: &TextConfig) -> Result<Self> {
        let p = "detector_model.text_encoder.text_model";
        let eps = config.layer_norm_eps;
        let layer = |i: usize| -> Result<Layer<O>> {
            let p = format!("{p}.encoder.layers.{i}");
            Ok(Layer {
                norm1: l.norm(&format!("{p}.layer_norm1"), eps)?,
                qkv: l.stacked(&format!("{p}.self_attn."), &["q_proj", "k_proj", "v_proj"])?,
                proj: l.linear(&format!("{p}.self_attn.out_proj"))?,
                norm2: l.norm(&format!("{p}.layer_norm2"), eps)?,
                mlp: Mlp::load(l, &format!("{p}.mlp"), config.hidden_act)?,
            })
        };
        Ok(Self {
            tokens: l.matrix(&format!("{p}.embeddings.token_embedding.weight"))?,
            position: l.act(&format!("{p}.embeddings.position_embedding.weight"))?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            final_norm: l.norm(&format!("{p}.final_layer_norm"), eps)?,
            projection: l.linear("detector_model.text_projection")?,
            config: config.clone(),
        })
    }

    /// Token ids, start and end mark included and at most `context`, to `y[ids, d]`.
    pub fn run(&self, ops: &O, ids: &[u32], s: &mut Scratch<O>, control: &Control<'_>, y: &mut O::Act) -> Result<()> {
        let (n, c) = (ids.len(), self.config.hidden_size);
        ops.gather(&self.tokens, ids, &mut s.h)?;
        ops.add(View::new(&s.h, c), View::new(&self.position, c), n, n, c, &mut s.x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            ops.layer_norm(View::new(&s.x, c), &layer.norm1, n, Activation::None, &mut s.h)?;
            ops.linear(View::new(&s.h, c), &layer.qkv, n, Epilogue::NONE, &mut s.q)?;
            let full = Attention::full(self.config.heads, c / self.config.heads, n, n);
            let spec = Attention { pattern: Pattern::Causal, ..full };
            let column = |i: usize| View::columns(&s.q, i * c, 3 * c);
            ops.attention(column(0), column(1), column(2), &spec, &mut s.o)?;
            ops.linear(View::new(&s.o, c), &layer.proj, n, Epilogue::add(View::new(&s.x, c)), &mut s.next)?;
            std::mem::swap(&mut s.x, &mut s.next);
            ops.layer_norm(View::new(&s.x, c), &layer.norm2, n, Activation::None, &mut s.h)?;
            layer.mlp.run(ops, View::new(&s.h, c), View::new(&s.x, c), n, &mut s.mlp, &mut s.next)?;
            std::mem::swap(&mut s.x, &mut s.next);
            control.see(ops, || format!("text.layer.{i}"), &s.x, n * c)?;
            control.step(Stage::EncodeText, i + 1, self.layers.len())?;
        }
        ops.layer_norm(View::new(&s.x, c), &self.final_norm, n, Activation::None, &mut s.h)?;
        control.see(ops, || "text.norm".into(), &s.h, n * c)?;
        ops.linear(View::new(&s.h, c), &self.projection, n, Epilogue::NONE, y)?;
        control.see(ops, || "text".into(), y, n * self.projection.n)
    }
}
