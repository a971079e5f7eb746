//! The two-way transformer of the mask decoder (`Sam3TrackerTwoWayTransformer`, `modeling_sam3_tracker.py`): prompt
//! tokens look at the picture, and the picture at the tokens.

use crate::error::Result;
use crate::model::attention::{Attention, buffers};
use crate::model::control::Control;
use crate::model::geometry_encoder::EPS;
use crate::model::load::Loader;
use crate::model::mlp::Head;
use crate::model::scratch::Scratch;
use crate::ops::{Activation, Norm, Ops, Pattern, View};
use crate::weights::TrackerConfig;

/// `Sam3TrackerTwoWayTransformer`.
pub struct TwoWay<O: Ops> {
    d: usize,
    layers: Vec<Block<O>>,
    final_attn: Attention<O>,
    final_norm: Norm<O>,
}

/// `Sam3TrackerTwoWayAttentionBlock`, post-norm.
struct Block<O: Ops> {
    self_attn: Attention<O>,
    norm1: Norm<O>,
    to_image: Attention<O>,
    norm2: Norm<O>,
    mlp: Head<O>,
    norm3: Norm<O>,
    to_token: Attention<O>,
    norm4: Norm<O>,
}

impl<O: Ops> TwoWay<O> {
    pub fn load(l: &Loader<'_, O>, config: &TrackerConfig, d: usize) -> Result<Self> {
        let p = "tracker_model.mask_decoder.transformer";
        let layer = |i: usize| -> Result<Block<O>> {
            let p = format!("{p}.layers.{i}");
            let norm = |j: usize| l.norm(&format!("{p}.layer_norm{j}"), EPS);
            Ok(Block {
                self_attn: Attention::load(l, &format!("{p}.self_attn"), config.heads)?,
                norm1: norm(1)?,
                to_image: Attention::load(l, &format!("{p}.cross_attn_token_to_image"), config.heads)?,
                norm2: norm(2)?,
                // Upstream passes the transformer's depth as the number of linear layers.
                mlp: Head::load_feed_forward(l, &format!("{p}.mlp"), config.layers)?,
                norm3: norm(3)?,
                to_token: Attention::load(l, &format!("{p}.cross_attn_image_to_token"), config.heads)?,
                norm4: norm(4)?,
            })
        };
        Ok(Self {
            d,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            final_attn: Attention::load(l, &format!("{p}.final_attn_token_to_image"), config.heads)?,
            final_norm: l.norm(&format!("{p}.layer_norm_final_attn"), EPS)?,
        })
    }

    /// Tokens `s.tokens[n, d]` and picture `s.keys[t, d]` to tokens in `s.x` and picture in `s.keys`. The tokens as
    /// they came are the position embedding of the queries, `image_pos[t, d]` is that of the keys.
    pub fn run(
        &self,
        ops: &O,
        n: usize,
        t: usize,
        image_pos: &O::Act,
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<()> {
        let d = self.d;
        ops.copy(View::new(&s.tokens, d), n, d, &mut s.x, 0)?;
        for (i, layer) in self.layers.iter().enumerate() {
            self.block(ops, layer, i == 0, n, t, image_pos, s)?;
            control.see(ops, || format!("twoway.{i}.queries"), &s.x, n * d)?;
            control.see(ops, || format!("twoway.{i}.keys"), &s.keys, t * d)?;
        }
        self.token_to_image(ops, &self.final_attn, &self.final_norm, n, t, image_pos, s)?;
        control.see(ops, || "twoway.out".into(), &s.x, n * d)
    }

    /// `forward` of one block.
    fn block(
        &self,
        ops: &O,
        layer: &Block<O>,
        first: bool,
        n: usize,
        t: usize,
        image_pos: &O::Act,
        s: &mut Scratch<O>,
    ) -> Result<()> {
        let d = self.d;
        let norm = |norm: &Norm<O>, s: &mut Scratch<O>| {
            ops.layer_norm(View::new(&s.next, d), norm, n, Activation::None, &mut s.x)
        };
        // The first block attends without positions, and without a residual (`skip_first_layer_pe`).
        if first {
            let x = View::new(&s.x, d);
            layer.self_attn.run(ops, (x, n), (x, x, n), Pattern::Full, None, buffers!(s), &mut s.next)?;
        } else {
            ops.add(View::new(&s.x, d), View::new(&s.tokens, d), n, n, d, &mut s.hp)?;
            let (x, hp) = (View::new(&s.x, d), View::new(&s.hp, d));
            layer.self_attn.run(ops, (hp, n), (hp, x, n), Pattern::Full, Some(x), buffers!(s), &mut s.next)?;
        }
        norm(&layer.norm1, s)?;

        self.token_to_image(ops, &layer.to_image, &layer.norm2, n, t, image_pos, s)?;

        let x = View::new(&s.x, d);
        layer.mlp.run(ops, x, n, Some(x), [&mut s.mlp, &mut s.mlp2], &mut s.next)?;
        norm(&layer.norm3, s)?;

        // The picture looks at the tokens.
        ops.add(View::new(&s.x, d), View::new(&s.tokens, d), n, n, d, &mut s.hp)?;
        ops.add(View::new(&s.keys, d), View::new(image_pos, d), t, t, d, &mut s.h)?;
        let (x, hp, h, keys) =
            (View::new(&s.x, d), View::new(&s.hp, d), View::new(&s.h, d), Some(View::new(&s.keys, d)));
        layer.to_token.run(ops, (h, t), (hp, x, n), Pattern::Full, keys, buffers!(s), &mut s.next)?;
        ops.layer_norm(View::new(&s.next, d), &layer.norm4, t, Activation::None, &mut s.keys)
    }

    /// The tokens look at the picture: `x = norm(x + attention(x + tokens, keys + image_pos, keys))`.
    fn token_to_image(
        &self,
        ops: &O,
        attention: &Attention<O>,
        norm: &Norm<O>,
        n: usize,
        t: usize,
        image_pos: &O::Act,
        s: &mut Scratch<O>,
    ) -> Result<()> {
        let d = self.d;
        ops.add(View::new(&s.x, d), View::new(&s.tokens, d), n, n, d, &mut s.hp)?;
        ops.add(View::new(&s.keys, d), View::new(image_pos, d), t, t, d, &mut s.h)?;
        let (x, hp, h, keys) = (View::new(&s.x, d), View::new(&s.hp, d), View::new(&s.h, d), View::new(&s.keys, d));
        attention.run(ops, (hp, n), (h, keys, t), Pattern::Full, Some(x), buffers!(s), &mut s.next)?;
        ops.layer_norm(View::new(&s.next, d), norm, n, Activation::None, &mut s.x)
    }
}
