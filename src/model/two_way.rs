//! The two-way transformer of the mask decoder (`Sam3TrackerTwoWayTransformer`, `modeling_sam3_tracker.py`): prompt
//! tokens look at the picture, and the picture at the tokens.

use crate::error::Result;
use crate::model::attention::{Attention, Input, buffers};
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
    /// What the grid's positions add to the keys of `final_attn`, `[t, width]`.
    final_shift: O::Act,
}

/// `Sam3TrackerTwoWayAttentionBlock`, post-norm.
struct Block<O: Ops> {
    self_attn: Attention<O>,
    norm1: Norm<O>,
    to_image: Attention<O>,
    /// What the grid's positions add to the keys of `to_image`, `[t, width]`.
    key_shift: O::Act,
    norm2: Norm<O>,
    mlp: Head<O>,
    norm3: Norm<O>,
    to_token: Attention<O>,
    /// What they add to the queries of `to_token`, `[t, width]`.
    query_shift: O::Act,
    norm4: Norm<O>,
}

/// The picture as the first block meets it, and what that block makes of it before it looks at a token: the same for
/// every prompt without a mask.
pub struct Seen<O: Ops> {
    /// `[t, d]`.
    pub picture: O::Act,
    /// Keys and values of its `to_image`, queries of its `to_token`, `[t, width]`.
    keys: O::Act,
    values: O::Act,
    queries: O::Act,
}

impl<O: Ops> TwoWay<O> {
    /// `image_pos[t, d]` are the positions of the picture's side.
    pub fn load(l: &Loader<'_, O>, config: &TrackerConfig, d: usize, image_pos: &O::Act, t: usize) -> Result<Self> {
        let p = "tracker_model.mask_decoder.transformer";
        let layer = |i: usize| -> Result<Block<O>> {
            let p = format!("{p}.layers.{i}");
            let norm = |j: usize| l.norm(&format!("{p}.layer_norm{j}"), EPS);
            let mut to_image = Attention::load(l, &format!("{p}.cross_attn_token_to_image"), config.heads)?;
            let mut to_token = Attention::load(l, &format!("{p}.cross_attn_image_to_token"), config.heads)?;
            Ok(Block {
                self_attn: Attention::load(l, &format!("{p}.self_attn"), config.heads)?,
                norm1: norm(1)?,
                key_shift: to_image.fix_key_positions(l.ops, image_pos, t)?,
                to_image,
                norm2: norm(2)?,
                // Upstream passes the transformer's depth as the number of linear layers.
                mlp: Head::load_feed_forward(l, &format!("{p}.mlp"), config.layers)?,
                norm3: norm(3)?,
                query_shift: to_token.fix_query_positions(l.ops, image_pos, t)?,
                to_token,
                norm4: norm(4)?,
            })
        };
        let mut final_attn = Attention::load(l, &format!("{p}.final_attn_token_to_image"), config.heads)?;
        Ok(Self {
            d,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            final_shift: final_attn.fix_key_positions(l.ops, image_pos, t)?,
            final_attn,
            final_norm: l.norm(&format!("{p}.layer_norm_final_attn"), EPS)?,
        })
    }

    /// What every prompt on `picture[t, d]` begins with.
    pub fn see(&self, ops: &O, picture: O::Act, t: usize) -> Result<Seen<O>> {
        let mut seen = Seen { picture, keys: O::operand(), values: O::operand(), queries: O::operand() };
        if let Some(first) = self.layers.first() {
            let x = View::new(&seen.picture, self.d);
            first.to_image.keys(ops, first.shifted_keys(x), t, &mut seen.keys)?;
            first.to_image.values(ops, x.into(), t, &mut seen.values)?;
            first.to_token.queries(ops, first.shifted_queries(x), t, &mut seen.queries)?;
        }
        Ok(seen)
    }

    /// Tokens `s.tokens[n, d]` and the picture, `seen` or else `s.keys[t, d]`, to tokens in `s.x` and picture in
    /// `s.keys`. The tokens as they came are the position embedding of the queries.
    pub fn run(
        &self,
        ops: &O,
        n: usize,
        t: usize,
        mut seen: Option<&Seen<O>>,
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<()> {
        let d = self.d;
        ops.copy(View::new(&s.tokens, d), n, d, &mut s.x, 0)?;
        for (i, layer) in self.layers.iter().enumerate() {
            self.block(ops, layer, i == 0, n, t, seen.take(), s)?;
            control.see(ops, || format!("twoway.{i}.queries"), &s.x, n * d)?;
            control.see(ops, || format!("twoway.{i}.keys"), &s.keys, t * d)?;
        }
        ops.add(View::new(&s.x, d), View::new(&s.tokens, d), n, n, d, &mut s.hp)?;
        let (x, hp, v) = (View::new(&s.x, d), View::new(&s.hp, d), View::new(&s.keys, d));
        let k = Input::Shifted(v, View::new(&self.final_shift, self.final_attn.width()));
        self.final_attn.run(ops, (hp, n), (k, v, t), Pattern::Full, Some(x), buffers!(s), &mut s.next)?;
        ops.layer_norm(View::new(&s.next, d), &self.final_norm, n, Activation::None, &mut s.x)?;
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
        seen: Option<&Seen<O>>,
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

        // `x = norm(x + attention(x + tokens, keys + image_pos, keys))`
        ops.add(View::new(&s.x, d), View::new(&s.tokens, d), n, n, d, &mut s.hp)?;
        let (x, hp) = (View::new(&s.x, d), View::new(&s.hp, d));
        let picture = View::new(seen.map_or(&s.keys, |seen| &seen.picture), d);
        let (k, v) = match seen {
            Some(seen) => (layer.to_image.ready(&seen.keys), layer.to_image.ready(&seen.values)),
            None => (layer.shifted_keys(picture), picture.into()),
        };
        layer.to_image.run(ops, (hp, n), (k, v, t), Pattern::Full, Some(x), buffers!(s), &mut s.next)?;
        norm(&layer.norm2, s)?;

        let x = View::new(&s.x, d);
        layer.mlp.run(ops, x, n, Some(x), [&mut s.mlp, &mut s.mlp2], &mut s.next)?;
        norm(&layer.norm3, s)?;

        // The picture looks at the tokens.
        ops.add(View::new(&s.x, d), View::new(&s.tokens, d), n, n, d, &mut s.hp)?;
        let (x, hp) = (View::new(&s.x, d), View::new(&s.hp, d));
        let picture = View::new(seen.map_or(&s.keys, |seen| &seen.picture), d);
        let q = match seen {
            Some(seen) => layer.to_token.ready(&seen.queries),
            None => layer.shifted_queries(picture),
        };
        layer.to_token.run(ops, (q, t), (hp, x, n), Pattern::Full, Some(picture), buffers!(s), &mut s.next)?;
        ops.layer_norm(View::new(&s.next, d), &layer.norm4, t, Activation::None, &mut s.keys)
    }
}

impl<O: Ops> Block<O> {
    /// Keys of `to_image` from the picture `x[t, d]`.
    fn shifted_keys<'a>(&'a self, x: View<'a, O::Act>) -> Input<'a, O::Act> {
        Input::Shifted(x, View::new(&self.key_shift, self.to_image.width()))
    }

    /// Queries of `to_token` from the picture `x[t, d]`.
    fn shifted_queries<'a>(&'a self, x: View<'a, O::Act>) -> Input<'a, O::Act> {
        Input::Shifted(x, View::new(&self.query_shift, self.to_token.width()))
    }
}
