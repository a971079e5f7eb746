//! Attention with separate inputs for queries, keys and values (`Sam3Attention`, `Sam3TrackerAttention`).

use crate::error::Result;
use crate::model::load::Loader;
use crate::ops::{self, Epilogue, Linear, Ops, Pattern, View};

/// Projections of one attention. `head_dim · heads` may be smaller than the model's width (`Sam3TrackerAttention`).
pub struct Attention<O: Ops> {
    q: Linear<O>,
    k: Linear<O>,
    v: Linear<O>,
    o: Linear<O>,
    heads: usize,
    head_dim: usize,
}

/// Buffers of one attention: projected queries, keys and values, and the heads' output.
pub struct Buffers<'a, A> {
    pub q: &'a mut A,
    pub k: &'a mut A,
    pub v: &'a mut A,
    pub o: &'a mut A,
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
    pub fn run(
        &self,
        ops: &O,
        (xq, queries): (View<'_, O::Act>, usize),
        (xk, xv, keys): (View<'_, O::Act>, View<'_, O::Act>, usize),
        pattern: Pattern<'_, O::Act>,
        residual: Option<View<'_, O::Act>>,
        s: Buffers<'_, O::Act>,
        y: &mut O::Act,
    ) -> Result<()> {
        ops.linear(xq, &self.q, queries, Epilogue::NONE, s.q)?;
        ops.linear(xk, &self.k, keys, Epilogue::NONE, s.k)?;
        ops.linear(xv, &self.v, keys, Epilogue::NONE, s.v)?;
        let width = self.q.n;
        let spec = ops::Attention { pattern, ..ops::Attention::full(self.heads, self.head_dim, queries, keys) };
        ops.attention(View::new(s.q, width), View::new(s.k, width), View::new(s.v, width), &spec, s.o)?;
        let ep = Epilogue { add: residual, ..Epilogue::NONE };
        ops.linear(View::new(s.o, width), &self.o, queries, ep, y)
    }
}

/// The attention buffers of a [`crate::model::Scratch`].
macro_rules! buffers {
    ($s:ident) => {
        crate::model::attention::Buffers { q: &mut $s.q, k: &mut $s.k, v: &mut $s.v, o: &mut $s.o }
    };
}
pub(crate) use buffers;
