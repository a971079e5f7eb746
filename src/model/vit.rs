//! The ViT backbone (`Sam3ViTModel`): patches to tokens, windowed and global layers with rotary attention.

use crate::error::Result;
use crate::model::control::{Control, Stage};
use crate::model::load::Loader;
use crate::model::mlp::Mlp;
use crate::model::positions;
use crate::model::scratch::Scratch;
use crate::ops::{Activation, Attention, Epilogue, Linear, Norm, Ops, Padding, Pattern, Turn, View};
use crate::weights::VisionConfig;

/// `Sam3ViTModel`.
pub struct Vit<O: Ops> {
    config: VisionConfig,
    patch_embed: Linear<O>,
    /// Tiled to the grid, `[t, c]`.
    position: O::Act,
    pre_norm: Norm<O>,
    layers: Vec<Layer<O>>,
    /// Rotary angles of all tokens in layers with windows, `[t, head_dim]`.
    angles_window: O::Act,
    /// Of those without.
    angles_global: O::Act,
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
    /// Turned keys of padded positions, `[size², c]`, where windows hang over the grid.
    pad_k: Option<O::Act>,
}

impl<O: Ops> Vit<O> {
    pub fn load(l: &Loader<'_, O>, config: &VisionConfig) -> Result<Self> {
        let p = "detector_model.vision_encoder.backbone";
        let (c, grid, eps) = (config.hidden_size, config.grid(), config.layer_norm_eps);
        let position = l.host(&format!("{p}.embeddings.position_embeddings"))?;
        let position = positions::tile(&position, config.pretrain_grid, grid, c);
        let head_dim = c / config.heads;
        let size = config.window_size;
        let window = positions::angles(size, head_dim, config.rope_theta, 1.0);
        let global = positions::angles(grid, head_dim, config.rope_theta, size as f32 / grid as f32);
        let layer = |i: usize| -> Result<Layer<O>> {
            let p = format!("{p}.layers.{i}");
            let global = config.global_layers.contains(&i);
            let pad_k = (!global && grid % size != 0).then(|| {
                let bias = l.host(&format!("{p}.attention.k_proj.bias"))?;
                l.upload(&positions::turns(&bias, &window, head_dim))
            });
            Ok(Layer {
                norm1: l.norm(&format!("{p}.layer_norm1"), eps)?,
                qkv: l.stacked(&format!("{p}.attention."), &["q_proj", "k_proj", "v_proj"])?,
                proj: l.linear(&format!("{p}.attention.o_proj"))?,
                norm2: l.norm(&format!("{p}.layer_norm2"), eps)?,
                mlp: Mlp::load(l, &format!("{p}.mlp"), config.hidden_act)?,
                global,
                pad_k: pad_k.transpose()?,
            })
        };
        Ok(Self {
            patch_embed: l.linear_no_bias(&format!("{p}.embeddings.patch_embeddings.projection"))?,
            position: l.upload(&position)?,
            pre_norm: l.norm(&format!("{p}.layer_norm"), eps)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            angles_window: l.upload(&positions::tile(&window, size, grid, head_dim))?,
            angles_global: l.upload(&global)?,
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
        // Queries and keys turn; values, the last third, do not.
        let (head_dim, angles) = (c / cfg.heads, if layer.global { &self.angles_global } else { &self.angles_window });
        let turn = Epilogue::turn(Turn { angles, head_dim, columns: 2 * c });
        ops.linear(View::new(&s.h, c), &layer.qkv, t, turn, &mut s.map2)?;
        let mut spec = Attention::full(cfg.heads, head_dim, t, t);
        if !layer.global {
            let bias = layer.qkv.b.as_ref().expect("the projections have biases");
            let v = View::columns(bias, 2 * c, 3 * c);
            let padding = layer.pad_k.as_ref().map(|k| Padding { k: View::new(k, c), v });
            spec.pattern = Pattern::Windows { height: grid, width: grid, size, padding };
        }
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
