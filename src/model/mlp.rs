//! The small multi-layer perceptrons that SAM 3 uses everywhere.

use crate::error::Result;
use crate::model::load::Loader;
use crate::ops::{Activation, Epilogue, Linear, Ops, View};
use crate::weights::HiddenAct;

/// The operations' name of a configured activation.
pub fn activation(act: HiddenAct) -> Activation {
    match act {
        HiddenAct::Gelu => Activation::Gelu,
        HiddenAct::Relu => Activation::Relu,
    }
}

/// Two layers with a residual: the transformers' feed-forward part (`Sam3MLP`, `CLIPMLP`).
pub struct Mlp<O: Ops> {
    fc1: Linear<O>,
    fc2: Linear<O>,
    act: Activation,
}

impl<O: Ops> Mlp<O> {
    pub fn load(l: &Loader<'_, O>, prefix: &str, act: HiddenAct) -> Result<Self> {
        Ok(Self {
            fc1: l.linear(&format!("{prefix}.fc1"))?,
            fc2: l.linear(&format!("{prefix}.fc2"))?,
            act: activation(act),
        })
    }

    /// `y[rows, d] = residual + fc2(act(fc1(x)))`; `inner` holds `[rows, mlp]`.
    pub fn run(
        &self,
        ops: &O,
        x: View<'_, O::Act>,
        residual: View<'_, O::Act>,
        rows: usize,
        inner: &mut O::Act,
        y: &mut O::Act,
    ) -> Result<()> {
        ops.linear(x, &self.fc1, rows, Epilogue::act(self.act), inner)?;
        ops.linear(View::new(inner, self.fc2.k), &self.fc2, rows, Epilogue::add(residual), y)
    }
}

/// Two or more layers with ReLU between them and none after the last (`Sam3DecoderMLP`, `Sam3MaskEmbedder`,
/// `Sam3TrackerFeedForward`).
pub struct Head<O: Ops> {
    layers: Vec<Linear<O>>,
}

impl<O: Ops> Head<O> {
    /// The layers `prefix + name`, first to last.
    pub fn load(l: &Loader<'_, O>, prefix: &str, names: &[&str]) -> Result<Self> {
        let layers = names.iter().map(|n| l.linear(&format!("{prefix}.{n}"))).collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// A `Sam3TrackerFeedForward` of `depth` layers: `proj_in`, `layers.{i}`, `proj_out`; upstream has no fewer than
    /// the first and the last.
    pub fn load_feed_forward(l: &Loader<'_, O>, prefix: &str, depth: usize) -> Result<Self> {
        let inner: Vec<String> = (0..depth.saturating_sub(2)).map(|i| format!("layers.{i}")).collect();
        let mut names = vec!["proj_in"];
        names.extend(inner.iter().map(String::as_str));
        names.push("proj_out");
        Self::load(l, prefix, &names)
    }

    /// Outputs of the last layer.
    pub fn width(&self) -> usize {
        self.layers[self.layers.len() - 1].n
    }

    /// `y[rows, n]` of `x[rows, k]`; `add` joins the last layer's result. `a` and `b` hold inner activations.
    pub fn run(
        &self,
        ops: &O,
        x: View<'_, O::Act>,
        rows: usize,
        add: Option<View<'_, O::Act>>,
        [a, b]: [&mut O::Act; 2],
        y: &mut O::Act,
    ) -> Result<()> {
        let (last, inner) = self.layers.split_last().expect("a head has layers");
        let (mut from, mut to) = (a, b);
        for (i, layer) in inner.iter().enumerate() {
            let input = if i == 0 { x } else { View::new(from, layer.k) };
            ops.linear(input, layer, rows, Epilogue::act(Activation::Relu), to)?;
            std::mem::swap(&mut from, &mut to);
        }
        let input = if inner.is_empty() { x } else { View::new(from, last.k) };
        ops.linear(input, last, rows, Epilogue { add, ..Epilogue::NONE }, y)
    }
}
