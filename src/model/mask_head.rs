//! Scores and masks of the detector: `Sam3DotProductScoring` and `Sam3MaskDecoder`.

use crate::error::Result;
use crate::model::attention::{Attention, buffers};
use crate::model::control::{Control, Stage};
use crate::model::geometry_encoder::EPS;
use crate::model::load::Loader;
use crate::model::mlp::Head;
use crate::model::neck::LEVELS;
use crate::model::scratch::Scratch;
use crate::ops::{Activation, Epilogue, Linear, Norm, Ops, Pattern, View};
use crate::weights::DetectorConfig;

/// Class logits are clamped to ± this (`clamp_max_val`).
const SCORE_CLAMP: f32 = 12.0;

/// Groups of the pixel decoder's norms (`nn.GroupNorm(8, …)`).
const GROUPS: usize = 8;

/// `Sam3DotProductScoring`.
pub struct Scoring<O: Ops> {
    d: usize,
    text_mlp: Head<O>,
    text_norm: Norm<O>,
    text_proj: Linear<O>,
    query_proj: Linear<O>,
}

impl<O: Ops> Scoring<O> {
    pub fn load(l: &Loader<'_, O>, d: usize) -> Result<Self> {
        let p = "detector_model.dot_product_scoring";
        Ok(Self {
            d,
            text_mlp: Head::load(l, &format!("{p}.text_mlp"), &["layer1", "layer2"])?,
            text_norm: l.norm(&format!("{p}.text_mlp_out_norm"), EPS)?,
            text_proj: l.linear(&format!("{p}.text_proj"))?,
            query_proj: l.linear(&format!("{p}.query_proj"))?,
        })
    }

    /// Class logits of `s.queries[n, d]` against `s.prompt[p, d]`.
    pub fn run(&self, ops: &O, n: usize, p: usize, s: &mut Scratch<O>) -> Result<Vec<f32>> {
        let d = self.d;
        let prompt = View::new(&s.prompt, d);
        self.text_mlp.run(ops, prompt, p, Some(prompt), [&mut s.mlp, &mut s.mlp2], &mut s.next)?;
        ops.layer_norm(View::new(&s.next, d), &self.text_norm, p, Activation::None, &mut s.h)?;
        ops.mean_rows(View::new(&s.h, d), p, d, &mut s.small)?;
        ops.linear(View::new(&s.small, d), &self.text_proj, 1, Epilogue::NONE, &mut s.k)?;
        ops.linear(View::new(&s.queries, d), &self.query_proj, n, Epilogue::NONE, &mut s.q)?;
        ops.dot(View::new(&s.q, d), n, View::new(&s.k, d), 1, d, &mut s.small)?;
        let mut logits = vec![0.0; n];
        ops.download(&s.small, 0, &mut logits)?;
        let scale = 1.0 / (d as f32).sqrt();
        Ok(logits.into_iter().map(|v| (v * scale).clamp(-SCORE_CLAMP, SCORE_CLAMP)).collect())
    }
}

/// `Sam3MaskDecoder`.
pub struct MaskHead<O: Ops> {
    d: usize,
    prompt_norm: Norm<O>,
    prompt_attn: Attention<O>,
    /// `Sam3PixelDecoder`: a 3×3 convolution and a group norm per step up. Published weights hold a third step, which
    /// upstream never runs.
    steps: Vec<(Linear<O>, Norm<O>)>,
    embedder: Head<O>,
    instance: Linear<O>,
    semantic: Linear<O>,
}

impl<O: Ops> MaskHead<O> {
    pub fn load(l: &Loader<'_, O>, config: &DetectorConfig, d: usize) -> Result<Self> {
        let p = "detector_model.mask_decoder";
        let step = |i: usize| -> Result<_> {
            let conv = l.conv3x3(&format!("{p}.pixel_decoder.conv_layers.{i}"))?;
            Ok((conv, l.norm(&format!("{p}.pixel_decoder.norms.{i}"), EPS)?))
        };
        Ok(Self {
            d,
            prompt_norm: l.norm(&format!("{p}.prompt_cross_attn_norm"), EPS)?,
            prompt_attn: Attention::load(l, &format!("{p}.prompt_cross_attn"), config.mask_heads)?,
            steps: (0..LEVELS - 1).map(step).collect::<Result<_>>()?,
            embedder: Head::load(l, &format!("{p}.mask_embedder.layers"), &["0", "1", "2"])?,
            instance: l.linear(&format!("{p}.instance_projection"))?,
            semantic: l.linear(&format!("{p}.semantic_projection"))?,
        })
    }

    /// The pixel embedding at four times the grid, `s.map[16t, d]`, and its projection, `s.map2[16t, d]`, from `s.fused`,
    /// `s.prompt` and the pyramid.
    pub fn embed_pixels(
        &self,
        ops: &O,
        levels: &[O::Act; LEVELS],
        grid: usize,
        p: usize,
        s: &mut Scratch<O>,
        control: &Control<'_>,
    ) -> Result<()> {
        let (d, t) = (self.d, grid * grid);
        ops.layer_norm(View::new(&s.fused, d), &self.prompt_norm, t, Activation::None, &mut s.h)?;
        let (h, prompt, fused) = (View::new(&s.h, d), View::new(&s.prompt, d), Some(View::new(&s.fused, d)));
        let kv = (prompt, prompt, p);
        self.prompt_attn.run(ops, (h, t), kv, Pattern::Full, fused, buffers!(s), &mut s.pixels)?;
        let mut side = grid;
        for (i, (conv, norm)) in self.steps.iter().enumerate() {
            let skip = &levels[LEVELS - 2 - i];
            let up = 2 * side;
            ops.upsample_add(&s.pixels, side, side, skip, up, up, d, &mut s.map)?;
            ops.conv3x3(&s.map, conv, up, up, &mut s.map2)?;
            // The last map stays where it was made: there is no third buffer of its size.
            let to = if i + 1 == self.steps.len() { &mut s.map } else { &mut s.pixels };
            ops.group_norm(&s.map2, norm, GROUPS, up * up, Activation::Relu, to)?;
            side = up;
            control.step(Stage::Masks, i + 1, self.steps.len() + 1)?;
        }
        control.see(ops, || "pixel_embed".into(), &s.map, side * side * d)?;
        ops.linear(View::new(&s.map, d), &self.instance, side * side, Epilogue::NONE, &mut s.map2)
    }

    /// Mask logits `[pixels]` of each chosen row of `s.queries`, after [`MaskHead::embed_pixels`].
    pub fn masks(&self, ops: &O, chosen: &[usize], pixels: usize, s: &mut Scratch<O>) -> Result<Vec<Vec<f32>>> {
        let d = self.d;
        for (i, &q) in chosen.iter().enumerate() {
            ops.copy(View::skip(&s.queries, q, d), 1, d, &mut s.h, i * d)?;
        }
        let n = chosen.len();
        if n == 0 {
            return Ok(Vec::new());
        }
        self.embedder.run(ops, View::new(&s.h, d), n, None, [&mut s.mlp, &mut s.mlp2], &mut s.mask_embed)?;
        ops.dot(View::new(&s.mask_embed, d), n, View::new(&s.map2, d), pixels, d, &mut s.masks)?;
        (0..n).map(|i| download_row(ops, &s.masks, i, pixels)).collect()
    }

    /// Semantic logits `[pixels]`, after [`MaskHead::embed_pixels`].
    pub fn semantic(&self, ops: &O, pixels: usize, s: &mut Scratch<O>) -> Result<Vec<f32>> {
        ops.linear(View::new(&s.map, self.d), &self.semantic, pixels, Epilogue::NONE, &mut s.small)?;
        download_row(ops, &s.small, 0, pixels)
    }
}

/// Row `row`, of `width` elements, on the host.
pub fn download_row<O: Ops>(ops: &O, act: &O::Act, row: usize, width: usize) -> Result<Vec<f32>> {
    let mut to = vec![0.0; width];
    ops.download(act, row * width, &mut to)?;
    Ok(to)
}
