//! The ViT backbone (`Sam3ViTModel`): patches to tokens, windowed and global layers with rotary attention.

use crate::error::Result;
use crate::model::control::{Control, Stage};
use crate::model::load::Loader;
use crate::model::mlp::Mlp;
use crate::model::positions;
use crate::model::scratch::Scratch;
use crate::ops::{Activation, Attention, Epilogue, Linear, Norm, Ops, Pattern, Rope, View};
use crate::weights::VisionConfig;

/// `Sam3ViTModel`.
pub struct Vit<O: Ops> {
    config: VisionConfig,
    patch_embed: Linear<O>,
    /// Tiled to the grid, `[t, c]`.
    position: O::Act,
    pre_norm: Norm<O>,
    layers: Vec<Layer<O>>,
    rope_window: Rope<O::Act>,
    rope_global: Rope<O::Act>,
}

/// `Sam3ViTLayer`.
struct Layer<O: Ops> {
    norm1: Norm<O>,
    qkv: Linear<O>,
    proj: Linear<O>,
    norm2: Norm<O>,
    mlp: Mlp<O>,
    /// Attends over the whole grid instead of windows.
    global: bool,
}

impl<O: Ops> Vit<O> {
    pub fn load(l: &Loader<'_, O>, config: &VisionConfig) -> Result<Self> {
        let p = "detector_model.vision_encoder.backbone";
        let (c, grid, eps) = (config.hidden_size, config.grid(), config.layer_norm_eps);
        let position = l.host(&format!("{p}.embeddings.position_embeddings"))?;
        let position = positions::tile(&position, config.pretrain_grid, grid, c);
        let head_dim = c / config.heads;
        let rope = |side: usize, scale: f32| -> Result<Rope<O::Act>> {
            let (cos, sin) = positions::rope_table(side, head_dim, config.rope_theta, scale);
            Ok(Rope { cos: l.upload(&cos)?, sin: l.upload(&sin)?, tokens: side * side })
        };
        let layer = |i: usize| -> Result<Layer<O>> {
            let p = format!("{p}.layers.{i}");
            Ok(Layer {
                norm1: l.norm(&format!("{p}.layer_norm1"), eps)?,
                qkv: l.stacked(&format!("{p}.attention."), &["q_proj", "k_proj", "v_proj"])?,
                proj: l.linear(&format!("{p}.attention.o_proj"))?,
                norm2: l.norm(&format!("{p}.layer_norm2"), eps)?,
                mlp: Mlp::load(l, &format!("{p}.mlp"), config.hidden_act)?,
                global: config.global_layers.contains(&i),
            })
        };
        Ok(Self {
            patch_embed: l.linear_no_bias(&format!("{p}.embeddings.patch_embeddings.projection"))?,
            position: l.upload(&position)?,
            pre_norm: l.norm(&format!("{p}.layer_norm"), eps)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            rope_window: rope(config.window_size, 1.0)?,
            rope_global: rope(grid, config.window_size as f32 / grid as f32)?,
            config: config.clone(),
        })
    }

    /// Pixels `s.map[s·s, 3]` to tokens `[t, c]` in `s.x`. Reports up to `total` steps of [`Stage::EncodeImage`].
    pub fn run(&self, ops: &O, s: &mut Scratch<O>, control: &Control<'_>, total: usize) -> Result<()> {
        let cfg = &self.config;
        let (side, patch, c, grid) = (cfg.image_size, cfg.patch_size, cfg.hidden_size, cfg.grid());
        let t = grid * grid;
        // Sam3ViTEmbeddings: a convolution of stride `patch`, then the tiled positions.
        control.see(ops, || "pixels".into(), &s.map, side * side * 3)?;
        ops.patches(&s.map, side, side, 3, patch, &mut s.mlp)?;
        let add = Epilogue::add(View::new(&self.position, c));
        ops.linear(View::new(&s.mlp, 3 * patch * patch), &self.patch_embed, t, add, &mut s.next)?;
        control.see(ops, || "vit.embed".into(), &s.next, t * c)?;
        ops.layer_norm(View::new(&s.next, c), &self.pre_norm, t, Activation::None, &mut s.x)?;
        control.see(ops, || "vit.pre".into(), &s.x, t * c)?;
        for (i, layer) in self.layers.iter().enumerate() {
            self.layer(ops, layer, s)?;
            control.see(ops, || format!("vit.layer.{i}"), &s.x, t * c)?;
            control.step(Stage::EncodeImage, i + 1, total)?;
        }
        Ok(())
    }

    /// `Sam3ViTLayer.forward`: `x += attention(norm1(x))`, `x += mlp(norm2(x))`.
    fn layer(&self, ops: &O, layer: &Layer<O>, s: &mut Scratch<O>) -> Result<()> {
        let cfg = &self.config;
        let (c, grid, size) = (cfg.hidden_size, cfg.grid(), cfg.window_size);
        let t = grid * grid;
        ops.layer_norm(View::new(&s.x, c), &layer.norm1, t, Activation::None, &mut s.h)?;
        ops.linear(View::new(&s.h, c), &layer.qkv, t, Epilogue::NONE, &mut s.map2)?;
        let full = Attention::full(cfg.heads, c / cfg.heads, t, t);
        let spec = if layer.global {
            Attention { rope: Some(&self.rope_global), ..full }
        } else {
            let bias = layer.qkv.b.as_ref().expect("the projections have biases");
            let (pad_k, pad_v) = (View::columns(bias, c, 3 * c), View::columns(bias, 2 * c, 3 * c));
            let pattern = Pattern::Windows { height: grid, width: grid, size, pad_k, pad_v };
            Attention { rope: Some(&self.rope_window), pattern, ..full }
        };
        let column = |i: usize| View::columns(&s.map2, i * c, 3 * c);
        ops.attention(column(0), column(1), column(2), &spec, &mut s.o)?;
        let residual = Epilogue::add(View::new(&s.x, c));
        ops.linear(View::new(&s.o, c), &layer.proj, t, residual, &mut s.next)?;
        std::mem::swap(&mut s.x, &mut s.next);
        ops.layer_norm(View::new(&s.x, c), &layer.norm2, t, Activation::None, &mut s.h)?;
        layer.mlp.run(ops, View::new(&s.h, c), View::new(&s.x, c), t, &mut s.mlp, &mut s.next)?;
        std::mem::swap(&mut s.x, &mut s.next);
        Ok(())
    }
}
