//! Object prompts: clicks, a box, a mask (`Sam3TrackerModel`, `modeling_sam3_tracker.py`). Prompt encoder, two-way
//! transformer and mask decoder, on the tracker's own neck.

use crate::error::Result;
use crate::model::control::{Control, Stage};
use crate::model::load::Loader;
use crate::model::mask_head::download_row;
use crate::model::mlp::{Head, activation};
use crate::model::positions;
use crate::model::scratch::Scratch;
use crate::model::two_way::{Seen, TwoWay};
use crate::ops::{Activation, Epilogue, Linear, Norm, Ops, View};
use crate::weights::{Config, TrackerConfig};

/// `Sam3TrackerLayerNorm`'s default.
const UPSCALE_EPS: f32 = 1e-6;

/// One object's prompt, in pixels of the model's square input.
#[derive(Clone, Debug, Default)]
pub struct ObjectPrompt {
    /// Clicks `(x, y)`, and whether they are on the object.
    pub points: Vec<([f32; 2], bool)>,
    /// A box, xyxy.
    pub bbox: Option<[f32; 4]>,
    /// Low-resolution mask logits `[4·grid, 4·grid]`.
    pub mask: Option<Vec<f32>>,
}

/// The answer for one object.
#[derive(Clone, Debug)]
pub struct ObjectAnswer {
    /// Mask logits `[(4·grid)²]`, one mask or the ambiguity output.
    pub masks: Vec<Vec<f32>>,
    /// Predicted IoU of each, 0..=1.
    pub ious: Vec<f32>,
    /// Logit of the object being there at all.
    pub object_score: f32,
}

/// What the mask decoder needs of a picture.
pub struct TrackerFeatures<O: Ops> {
    /// `conv_s0` of the finest level `[16t, d/8]`.
    pub s0: O::Act,
    /// `conv_s1` of the middle level `[4t, d/4]`.
    pub s1: O::Act,
    /// The level of scale 1 `[t, d]`.
    pub embed: O::Act,
    /// The beginning of every prompt without a mask.
    plain: Seen<O>,
}

/// Prompt encoder and mask decoder.
pub struct Interactive<O: Ops> {
    config: TrackerConfig,
    d: usize,
    grid: usize,
    image_size: f32,
    /// Frequencies of the point encoding `[2, d/2]`.
    gaussian: Vec<f32>,
    point_embed: Vec<f32>,
    not_a_point: Vec<f32>,
    no_mask: O::Act,
    mask_embed: MaskEmbed<O>,
    /// Position encoding of the grid `[t, d]`.
    image_pos: O::Act,
    /// Object score, IoU and mask tokens `[2 + masks, d]`.
    output_tokens: O::Act,
    two_way: TwoWay<O>,
    conv_s0: Linear<O>,
    conv_s1: Linear<O>,
    upscale1: Linear<O>,
    upscale_norm: Norm<O>,
    upscale2: Linear<O>,
    hyper: Vec<Head<O>>,
    iou_head: Head<O>,
    object_head: Head<O>,
}

/// `Sam3TrackerMaskEmbedding`.
struct MaskEmbed<O: Ops> {
    conv1: Linear<O>,
    norm1: Norm<O>,
    conv2: Linear<O>,
    norm2: Norm<O>,
    conv3: Linear<O>,
    act: Activation,
}

impl<O: Ops> Interactive<O> {
    pub fn load(l: &Loader<'_, O>, config: &Config, tracker: &TrackerConfig) -> Result<Self> {
        let (d, grid) = (config.vision.fpn_hidden_size, config.vision.grid());
        let pe = "tracker_model.prompt_encoder";
        let md = "tracker_model.mask_decoder";
        let mut output_tokens = Vec::new();
        for token in ["obj_score_token", "iou_token", "mask_tokens"] {
            output_tokens.extend(l.host(&format!("{md}.{token}.weight"))?);
        }
        let image_gaussian = l.host("tracker_model.shared_image_embedding.positional_embedding")?;
        let eps = tracker.prompt_layer_norm_eps;
        let mask_embed = MaskEmbed {
            conv1: l.linear(&format!("{pe}.mask_embed.conv1"))?,
            norm1: l.norm(&format!("{pe}.mask_embed.layer_norm1"), eps)?,
            conv2: l.linear(&format!("{pe}.mask_embed.conv2"))?,
            norm2: l.norm(&format!("{pe}.mask_embed.layer_norm2"), eps)?,
            conv3: l.linear(&format!("{pe}.mask_embed.conv3"))?,
            act: activation(tracker.prompt_act),
        };
        let image_pos = l.upload(&positions::fourier_map(grid, &image_gaussian))?;
        let hyper = |i: usize| Head::load_feed_forward(l, &format!("{md}.output_hypernetworks_mlps.{i}"), 3);
        Ok(Self {
            d,
            grid,
            image_size: config.vision.image_size as f32,
            gaussian: l.host(&format!("{pe}.shared_embedding.positional_embedding"))?,
            point_embed: l.host(&format!("{pe}.point_embed.weight"))?,
            not_a_point: l.host(&format!("{pe}.not_a_point_embed.weight"))?,
            no_mask: l.act(&format!("{pe}.no_mask_embed.weight"))?,
            mask_embed,
            output_tokens: l.upload(&output_tokens)?,
            two_way: TwoWay::load(l, tracker, d, &image_pos, grid * grid)?,
            image_pos,
            conv_s0: l.linear(&format!("{md}.conv_s0"))?,
            conv_s1: l.linear(&format!("{md}.conv_s1"))?,
            upscale1: l.deconv2x2(&format!("{md}.upscale_conv1"))?,
            upscale_norm: l.norm(&format!("{md}.upscale_layer_norm"), UPSCALE_EPS)?,
            upscale2: l.deconv2x2(&format!("{md}.upscale_conv2"))?,
            hyper: (0..=tracker.multimask_outputs).map(hyper).collect::<Result<_>>()?,
            iou_head: Head::load_feed_forward(l, &format!("{md}.iou_prediction_head"), tracker.iou_head_depth)?,
            object_head: Head::load_feed_forward(l, &format!("{md}.pred_obj_score_head"), 3)?,
            config: tracker.clone(),
        })
    }

    /// The neck's levels as the mask decoder reads them (`get_image_features`). `level` makes level `i` in a buffer of
    /// the scratch that it is handed; the two fine ones are not kept.
    ///
    /// `no_memory_embedding` is not added: upstream adds it to the last of four levels and then reads the first three,
    /// so it never reaches a single picture's answer.
    pub fn features(
        &self,
        ops: &O,
        s: &mut Scratch<O>,
        mut level: impl FnMut(&mut Scratch<O>, usize, &mut O::Act) -> Result<()>,
        control: &Control<'_>,
    ) -> Result<TrackerFeatures<O>> {
        let (d, t) = (self.d, self.grid * self.grid);
        let mut fine = std::mem::take(&mut s.mlp);
        let mut reduced = |i: usize, by: &Linear<O>, rows: usize| -> Result<O::Act> {
            let mut to = O::operand();
            level(s, i, &mut fine)?;
            ops.linear(View::new(&fine, d), by, rows, Epilogue::NONE, &mut to)?;
            Ok(to)
        };
        let (s0, s1) = (reduced(0, &self.conv_s0, 16 * t)?, reduced(1, &self.conv_s1, 4 * t)?);
        s.mlp = fine;
        let (mut embed, mut plain) = (O::Act::default(), O::Act::default());
        level(s, 2, &mut embed)?;
        ops.add(View::new(&embed, d), View::new(&self.no_mask, d), 1, t, d, &mut plain)?;
        control.see(ops, || "tracker.s0".into(), &s0, 2 * t * d)?;
        control.see(ops, || "tracker.s1".into(), &s1, t * d)?;
        control.see(ops, || "tracker.top".into(), &embed, t * d)?;
        control.see(ops, || "tracker.pe".into(), &self.image_pos, t * d)?;
        Ok(TrackerFeatures { s0, s1, embed, plain: self.two_way.see(ops, plain, t)? })
    }

    /// Point, box and padding tokens `[n, d]` (`_embed_points`, `_embed_boxes`), on the host: they are few.
    fn sparse(&self, prompt: &ObjectPrompt) -> Vec<f32> {
        let d = self.d;
        // At most two corners and two pads beside the points.
        let mut out = Vec::with_capacity((prompt.points.len() + 4) * d);
        let mut embed = |[x, y]: [f32; 2], row: usize| {
            // Upstream shifts to the pixel's centre, boxes as well.
            let start = out.len();
            let at = [(x + 0.5) / self.image_size, (y + 0.5) / self.image_size];
            positions::fourier(at, &self.gaussian, &mut out);
            let kind = &self.point_embed[row * d..][..d];
            out[start..].iter_mut().zip(kind).for_each(|(o, k)| *o += k);
        };
        for &(at, positive) in &prompt.points {
            embed(at, positive.into());
        }
        if let Some([x0, y0, x1, y1]) = prompt.bbox {
            embed([x0, y0], 2);
            embed([x1, y1], 3);
        }
        // Points are padded with one empty point, a box likewise; a prompt of neither is an empty point and its pad.
        let empty = if prompt.points.is_empty() && prompt.bbox.is_none() { 2 } else { 1 };
        for _ in 0..empty {
            out.extend_from_slice(&self.not_a_point);
        }
        out
    }

    /// `image + dense prompt embedding` of a mask in `s.keys[t, d]`.
    fn dense(&self, ops: &O, mask: &[f32], image: &O::Act, s: &mut Scratch<O>, control: &Control<'_>) -> Result<()> {
        let (d, t) = (self.d, self.grid * self.grid);
        // Sam3TrackerMaskEmbedding: two convolutions of stride 2, norms over channels, a 1×1 convolution.
        let (m, side) = (&self.mask_embed, 4 * self.grid);
        ops.upload(mask, &mut s.map)?;
        ops.patches(&s.map, side, side, 1, 2, &mut s.mlp)?;
        let c1 = m.conv1.n;
        ops.linear(View::new(&s.mlp, 4), &m.conv1, 4 * t, Epilogue::NONE, &mut s.h)?;
        ops.layer_norm(View::new(&s.h, c1), &m.norm1, 4 * t, m.act, &mut s.map)?;
        ops.patches(&s.map, side / 2, side / 2, c1, 2, &mut s.mlp)?;
        let c2 = m.conv2.n;
        ops.linear(View::new(&s.mlp, 4 * c1), &m.conv2, t, Epilogue::NONE, &mut s.h)?;
        ops.layer_norm(View::new(&s.h, c2), &m.norm2, t, m.act, &mut s.map)?;
        ops.linear(View::new(&s.map, c2), &m.conv3, t, Epilogue::NONE, &mut s.h)?;
        control.see(ops, || "dense".into(), &s.h, t * d)?;
        ops.add(View::new(image, d), View::new(&s.h, d), t, t, d, &mut s.keys)
    }

    /// One object's masks. With `multimask` the three-mask output, else one mask, which is the single-mask token's or,
    /// where that is unstable, the best of the three (`_dynamic_multimask_via_stability`).
    pub fn segment(
        &self,
        ops: &O,
        image: &TrackerFeatures<O>,
        prompt: &ObjectPrompt,
        multimask: bool,
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<ObjectAnswer> {
        let (d, t) = (self.d, self.grid * self.grid);
        let sparse = self.sparse(prompt);
        ops.upload(&sparse, &mut s.small)?;
        control.see(ops, || "sparse".into(), &s.small, sparse.len())?;
        let outputs = 2 + self.hyper.len();
        let n = outputs + sparse.len() / d;
        ops.copy(View::new(&self.output_tokens, d), outputs, d, &mut s.tokens, 0)?;
        ops.copy(View::new(&s.small, d), n - outputs, d, &mut s.tokens, outputs * d)?;
        let seen = match &prompt.mask {
            Some(mask) => self.dense(ops, mask, &image.embed, s, control).map(|()| None)?,
            None => Some(&image.plain),
        };
        self.two_way.run(ops, n, t, seen, s, control)?;
        self.upscale(ops, image, s)?;
        control.see(ops, || "upscaled".into(), &s.map, 16 * t * d / 8)?;

        for (i, head) in self.hyper.iter().enumerate() {
            let inner = [&mut s.mlp, &mut s.mlp2];
            head.run(ops, View::skip(&s.x, 2 + i, d), 1, None, inner, &mut s.small)?;
            ops.copy(View::new(&s.small, d / 8), 1, d / 8, &mut s.mask_embed, i * d / 8)?;
        }
        let masks = self.hyper.len();
        ops.dot(View::new(&s.mask_embed, d / 8), masks, View::new(&s.map, d / 8), 16 * t, d / 8, &mut s.masks)?;
        let inner = [&mut s.mlp, &mut s.mlp2];
        self.iou_head.run(ops, View::skip(&s.x, 1, d), 1, None, inner, &mut s.small)?;
        let mut ious = vec![0.0; masks];
        ops.download(&s.small, 0, &mut ious)?;
        ious.iter_mut().for_each(|v| *v = 1.0 / (1.0 + (-*v).exp()));
        let inner = [&mut s.mlp, &mut s.mlp2];
        self.object_head.run(ops, View::new(&s.x, d), 1, None, inner, &mut s.small)?;
        let mut object_score = [0.0];
        ops.download(&s.small, 0, &mut object_score)?;
        let (masks, ious) = self.select(ops, &s.masks, ious, multimask)?;
        control.step(Stage::Segment, 1, 1)?;
        Ok(ObjectAnswer { masks, ious, object_score: object_score[0] })
    }

    /// `upscale_conv1 … upscale_conv2` of `s.keys[t, d]` to `s.map[16t, d/8]`.
    fn upscale(&self, ops: &O, image: &TrackerFeatures<O>, s: &mut Scratch<O>) -> Result<()> {
        let (d, grid) = (self.d, self.grid);
        let skip = Epilogue::add(View::new(&image.s1, d / 4));
        ops.deconv2x2(&s.keys, &self.upscale1, grid, grid, skip, &mut s.map)?;
        let rows = 4 * grid * grid;
        ops.layer_norm(View::new(&s.map, d / 4), &self.upscale_norm, rows, Activation::Gelu, &mut s.map2)?;
        let skip = Epilogue { act: Activation::Gelu, ..Epilogue::add(View::new(&image.s0, d / 8)) };
        ops.deconv2x2(&s.map2, &self.upscale2, 2 * grid, 2 * grid, skip, &mut s.map)
    }

    /// The masks the caller asked for and their IoUs, of the single-mask token's (first) and the ambiguity output's (the
    /// others); no others are fetched.
    fn select(
        &self,
        ops: &O,
        masks: &O::Act,
        mut ious: Vec<f32>,
        multimask: bool,
    ) -> Result<(Vec<Vec<f32>>, Vec<f32>)> {
        let pixels = 16 * self.grid * self.grid;
        if multimask {
            ious.remove(0);
            let rows = (1..=ious.len()).map(|i| download_row(ops, masks, i, pixels));
            return Ok((rows.collect::<Result<_>>()?, ious));
        }
        let mut mask = download_row(ops, masks, 0, pixels)?;
        let mut chosen = 0;
        if self.config.dynamic_multimask && stability(&mask, self.config.stability_delta) < self.config.stability_thresh
        {
            // The first of equals, as torch.argmax.
            chosen = (1..ious.len()).fold(1, |best, i| if ious[i] > ious[best] { i } else { best });
            ops.download(masks, chosen * pixels, &mut mask)?;
        }
        Ok((vec![mask], vec![ious[chosen]]))
    }
}

/// IoU between the mask at `+delta` and at `-delta`; 1 for an empty mask (`_get_stability_scores`).
fn stability(logits: &[f32], delta: f32) -> f32 {
    let inner = logits.iter().filter(|&&v| v > delta).count();
    let outer = logits.iter().filter(|&&v| v > -delta).count();
    if outer == 0 { 1.0 } else { inner as f32 / outer as f32 }
}

#[cfg(test)]
mod tests {
    use super::stability;

    #[test]
    fn stability_of_empty_sharp_and_soft_masks() {
        assert_eq!(stability(&[-1.0, -2.0], 0.05), 1.0);
        assert_eq!(stability(&[1.0, -2.0], 0.05), 1.0);
        assert_eq!(stability(&[1.0, 0.0, 0.01, -1.0], 0.05), 1.0 / 3.0);
    }
}
