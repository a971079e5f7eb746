//! Attention with separate inputs for queries, keys and values (`Sam3Attention`, `Sam3TrackerAttention`).

use crate::error::Result;
use crate::model::load::Loader;
use crate::ops::{self, Epilogue, Linear, Ops, Pattern, Projected, View};

/// Projections of one attention. `head_dim · heads` may be smaller than the model's width (`Sam3TrackerAttention`).
pub struct Attention<O: Ops> {
    q: Linear<O>,
    k: Linear<O>,
    v: Linear<O>,
    o: Linear<O>,
    heads: usize,
    head_dim: usize,
}

/// Where queries, keys or values of an attention come from.
pub enum Input<'a, A> {
    /// Projected from these rows.
    Rows(View<'a, A>),
    /// Projected from these rows, the second added afterwards: the projection of a fixed position embedding.
    Shifted(View<'a, A>, View<'a, A>),
    /// Projected before.
    Ready(View<'a, A>),
}

impl<'a, A> From<View<'a, A>> for Input<'a, A> {
    fn from(rows: View<'a, A>) -> Self {
        Self::Rows(rows)
    }
}

/// Buffers of one attention: projected queries, keys and values, and the heads' output.
pub struct Buffers<'a, A> {
    pub q: &'a mut A,
    pub k: &'a mut A,
    pub v: &'a mut A,
    pub o: &'a mut A,
}

impl<'a, A> Input<'a, A> {
    /// As the operations take it, where `layer` is the projection.
    fn by<O: Ops<Act = A>>(self, layer: &'a Linear<O>) -> Projected<'a, O> {
        match self {
            Self::Rows(x) => Projected { from: Some((x, layer)), add: None },
            Self::Shifted(x, add) => Projected { from: Some((x, layer)), add: Some(add) },
            Self::Ready(view) => Projected { from: None, add: Some(view) },
        }
    }
}

impl<O: Ops> Attention<O> {
    pub fn load(l: &Loader<'_, O>, prefix: &str, heads: usize) -> Result<Self> {
        let q = l.linear(&format!("{prefix}.q_proj"))?;
        let head_dim = q.n / heads;
        Ok(Self {
            k: l.linear(&format!("{prefix}.k_proj"))?,
            v: l.linear(&format!("{prefix}.v_proj"))?,
            o: l.linear(&format!("{prefix}.o_proj"))?,
            q,
            heads,
            head_dim,
        })
    }

    /// `y[queries, d] = o_proj(attention(q_proj(xq), k_proj(xk), v_proj(xv))) + residual`
    pub fn run<'a>(
        &self,
        ops: &O,
        (q, queries): (impl Into<Input<'a, O::Act>>, usize),
        (k, v, keys): (impl Into<Input<'a, O::Act>>, impl Into<Input<'a, O::Act>>, usize),
        pattern: Pattern<'_, O::Act>,
        residual: Option<View<'_, O::Act>>,
        s: Buffers<'_, O::Act>,
        y: &mut O::Act,
    ) -> Result<()> {
        let qkv = [q.into().by(&self.q), k.into().by(&self.k), v.into().by(&self.v)];
        let spec = ops::Attention { pattern, ..ops::Attention::full(self.heads, self.head_dim, queries, keys) };
        ops.attend(qkv, &spec, &self.o, residual, [s.q, s.k, s.v, s.o], y)
    }

    /// Columns of all heads together.
    pub fn width(&self) -> usize {
        self.q.n
    }

    /// Queries, keys or values made before.
    pub fn ready<'b>(&self, x: &'b O::Act) -> Input<'b, O::Act> {
        Input::Ready(View::new(x, self.width()))
    }

    /// What the positions `pos[rows, d]` add to the queries, for [`Input::Shifted`]; the bias moves into it.
    pub fn fix_query_positions(&mut self, ops: &O, pos: &O::Act, rows: usize) -> Result<O::Act> {
        fix_positions(ops, &mut self.q, pos, rows)
    }

    /// Likewise for the keys.
    pub fn fix_key_positions(&mut self, ops: &O, pos: &O::Act, rows: usize) -> Result<O::Act> {
        fix_positions(ops, &mut self.k, pos, rows)
    }

    /// The keys of `x[rows, d]`, for [`Input::Ready`].
    pub fn keys(&self, ops: &O, x: Input<'_, O::Act>, rows: usize, y: &mut O::Act) -> Result<()> {
        x.by(&self.k).rows(ops, rows, y).map(drop)
    }

    /// The values of `x[rows, d]`, for [`Input::Ready`].
    pub fn values(&self, ops: &O, x: Input<'_, O::Act>, rows: usize, y: &mut O::Act) -> Result<()> {
        x.by(&self.v).rows(ops, rows, y).map(drop)
    }

    /// The queries of `x[rows, d]`, for [`Input::Ready`].
    pub fn queries(&self, ops: &O, x: Input<'_, O::Act>, rows: usize, y: &mut O::Act) -> Result<()> {
        x.by(&self.q).rows(ops, rows, y).map(drop)
    }
}

/// `pos · wᵀ + b`, the layer left without its bias.
fn fix_positions<O: Ops>(ops: &O, layer: &mut Linear<O>, pos: &O::Act, rows: usize) -> Result<O::Act> {
    let mut shift = O::Act::default();
    ops.linear(View::new(pos, layer.k), layer, rows, Epilogue::NONE, &mut shift)?;
    layer.b = None;
    Ok(shift)
}

/// The attention buffers of a [`crate::model::Scratch`].
macro_rules! buffers {
    ($s:ident) => {
        crate::model::attention::Buffers { q: &mut $s.q, k: &mut $s.k, v: &mut $s.v, o: &mut $s.o }
    };
}
pub(crate) use buffers;
