//! The feature pyramid on the ViT's tokens (`Sam3VisionNeck`). Detector and tracker have one each.
//!
//! Upstream makes four levels (scales 4, 2, 1, 0.5) and drops the coarsest before anything reads it; it is not made
//! here.

use crate::error::Result;
use crate::model::load::Loader;
use crate::ops::{Activation, Epilogue, Linear, Ops, View};

/// Levels that are read: scales 4, 2, 1.
pub const LEVELS: usize = 3;

/// `Sam3VisionNeck` without its unused level.
pub struct Neck<O: Ops> {
    levels: [Level<O>; LEVELS],
}

/// `Sam3FPNLayer`: up-scaling, then a 1×1 and a 3×3 convolution.
struct Level<O: Ops> {
    up: Vec<Linear<O>>,
    proj1: Linear<O>,
    proj2: Linear<O>,
}

impl<O: Ops> Neck<O> {
    /// `prefix` is `detector_model.vision_encoder.neck` or `tracker_neck`.
    pub fn load(l: &Loader<'_, O>, prefix: &str) -> Result<Self> {
        // Indices into `scale_layers`: scale 4 is deconvolution, GELU, deconvolution.
        let level = |i: usize, up: &[usize]| -> Result<Level<O>> {
            let p = format!("{prefix}.fpn_layers.{i}");
            Ok(Level {
                up: up.iter().map(|j| l.deconv2x2(&format!("{p}.scale_layers.{j}"))).collect::<Result<_>>()?,
                proj1: l.linear(&format!("{p}.proj1"))?,
                proj2: l.conv3x3(&format!("{p}.proj2"))?,
            })
        };
        Ok(Self { levels: [level(0, &[0, 2])?, level(1, &[0])?, level(2, &[])?] })
    }

    /// Level `i` of the tokens `x[grid², c]`: `y[(scale·grid)², d]`, scale 4, 2 or 1. `a` and `b` hold inner maps.
    pub fn run(
        &self,
        ops: &O,
        i: usize,
        x: &O::Act,
        grid: usize,
        [a, b]: [&mut O::Act; 2],
        y: &mut O::Act,
    ) -> Result<()> {
        let level = &self.levels[i];
        let (mut from, mut to) = (a, b);
        let mut side = grid;
        for (j, up) in level.up.iter().enumerate() {
            // nn.GELU stands between the two deconvolutions of scale 4 and nowhere else.
            let act = if j + 1 < level.up.len() { Activation::Gelu } else { Activation::None };
            let input = if j == 0 { x } else { &*from };
            ops.deconv2x2(input, up, side, side, Epilogue::act(act), to)?;
            std::mem::swap(&mut from, &mut to);
            side *= 2;
        }
        let input = if level.up.is_empty() { x } else { &*from };
        ops.linear(View::new(input, level.proj1.k), &level.proj1, side * side, Epilogue::NONE, to)?;
        ops.conv3x3(to, &level.proj2, side, side, y)
    }
}
