//! The closed list of fused operations SAM 3 is made of.
//!
//! `model/` is written once over [`Ops`]; `reference`, `cpu` and `cuda` implement it and know nothing of the
//! model. An operation stands here because the model calls it, and is as coarse as the fusion that pays: bias,
//! activation, residual, rotary embedding, window partition and box bias are parameters, not operations of their own.
//! There is no broadcasting, no shape inference and no tensor type: an activation is a flat buffer, and every call
//! states its dimensions.
//!
//! Conventions, fixed once:
//! - Activations are row-major `[rows, width]` in f32 semantics; a picture `[h, w, c]` is `[h·w, c]`, token-major.
//! - Weight matrices are `[n, k]`, output by input, as checkpoints store them.
//! - All lengths, offsets and strides count elements.
//! - Outputs are written from element 0, grown with [`Ops::reserve`] by the callee, and never alias an input; `&mut`
//!   says so. Elements of an output buffer behind the written ones keep unspecified values.
//! - Calls enqueue; only [`Ops::download`] and [`Ops::cut`] wait. The model never branches on device data.
//!
//! Dimensions that do not fit their buffers are a defect of the caller: implementations assert, they return errors only
//! for what a correct program can meet (memory, device).

mod cut;

use std::time::{Duration, Instant};

pub use cut::{Compared, Cut};

use crate::error::Result;
use crate::image::ImageView;
use crate::weights::HostTensor;

/// What follows the accumulation of a GEMM or a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// Exact GELU, `x·Φ(x) = x/2·(1 + erf(x/√2))`; the tanh form is not what SAM 3 was trained with.
    Gelu,
    /// `max(x, 0)`.
    Relu,
}

/// Rows inside an activation: row `r` starts at `offset + r·stride`.
pub struct View<'a, A> {
    /// The buffer.
    pub buf: &'a A,
    /// First element of row 0.
    pub offset: usize,
    /// Elements between the starts of two rows; at least the row's width.
    pub stride: usize,
}

impl<'a, A> View<'a, A> {
    /// Contiguous rows of `width` elements from the buffer's start.
    pub fn new(buf: &'a A, width: usize) -> Self {
        Self { buf, offset: 0, stride: width }
    }

    /// The columns from `column` on, of rows `stride` apart.
    pub fn columns(buf: &'a A, column: usize, stride: usize) -> Self {
        Self { buf, offset: column, stride }
    }

    /// Contiguous rows of `width` elements, without the first `rows`.
    pub fn skip(buf: &'a A, rows: usize, width: usize) -> Self {
        Self { buf, offset: rows * width, stride: width }
    }
}

impl<A> Clone for View<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for View<'_, A> {}

/// `y = turn(act(acc + bias + add))`.
pub struct Epilogue<'a, A> {
    /// Added before the activation: a residual, a skip connection, a position embedding. Same rows as the output.
    pub add: Option<View<'a, A>>,
    /// Applied to each element.
    pub act: Activation,
    /// Applied last; of [`Ops::linear`] only.
    pub turn: Option<Turn<'a, A>>,
}

impl<'a, A> Epilogue<'a, A> {
    /// Bias only.
    pub const NONE: Self = Self { add: None, act: Activation::None, turn: None };

    /// Bias, then the activation.
    pub fn act(act: Activation) -> Self {
        Self { act, ..Self::NONE }
    }

    /// Bias, then the rows of `x`.
    pub fn add(x: View<'a, A>) -> Self {
        Self { add: Some(x), ..Self::NONE }
    }

    /// Bias, then the turn.
    pub fn turn(turn: Turn<'a, A>) -> Self {
        Self { turn: Some(turn), ..Self::NONE }
    }
}

/// Rotary embedding of a projection to heads: of row `r` of the output, columns `(a, b) = (2i, 2i + 1)` of each head
/// become `(a·cos - b·sin, b·cos + a·sin)`, with the cosine and sine of that row and of `i`.
///
/// Queries and keys are turned once where they are made, before they are rounded, so that an attention reads them as they
/// lie.
pub struct Turn<'a, A> {
    /// `[rows, head_dim]`, `(cos, sin)` of each pair beside each other, as the pair itself is.
    pub angles: &'a A,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Columns of the output that turn, the first ones: a multiple of `head_dim`.
    pub columns: usize,
}

impl<A> Turn<'_, A> {
    /// Asserts what is said above, of an output of `n` columns.
    pub(crate) fn check(&self, n: usize) {
        let Self { head_dim, columns, .. } = *self;
        assert!(head_dim > 0 && head_dim % 2 == 0, "a rotary embedding turns pairs; the head's width is {head_dim}");
        assert!(columns % head_dim == 0 && columns <= n, "{columns} of {n} columns turn, in heads of {head_dim}");
    }
}

impl<A> Clone for Turn<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Turn<'_, A> {}

/// A weight matrix `[n, k]` with its bias.
pub struct Linear<O: Ops> {
    /// `[n, k]` in the back end's own layout.
    pub w: O::Mat,
    /// `[n]`.
    pub b: Option<O::Act>,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

/// Scale and shift of a layer or group norm over `width` channels.
pub struct Norm<O: Ops> {
    /// `[width]`.
    pub gamma: O::Act,
    /// `[width]`.
    pub beta: O::Act,
    /// Added to the variance.
    pub eps: f32,
    /// Channels.
    pub width: usize,
}

/// Which keys a query sees.
pub enum Pattern<'a, A> {
    /// All.
    Full,
    /// Those at or before the query's position; `queries == keys`.
    Causal,
    /// Those in the query's window of a token grid `[height, width]`, `queries == keys == height·width`.
    ///
    /// Windows are `size × size`, from the top left. Where the grid is no multiple of `size`, upstream pads the
    /// normalised tokens with zeros before the projections, so a padded position holds the projections' biases as its
    /// key and value and takes part in the softmax; its own output is dropped.
    Windows {
        /// Rows of the grid.
        height: usize,
        /// Columns of the grid.
        width: usize,
        /// Side of a window.
        size: usize,
        /// What padded positions hold; `None` where the grid is a multiple of the window.
        padding: Option<Padding<'a, A>>,
    },
    /// All, with an additive bias from a box per query (upstream's `_get_rpb_matrix`): for query `q ≥ first` and the
    /// key at `(y, x)` of the grid, head `h`, `bias = by[q - first, y, h] + bx[q - first, x, h]`; queries before
    /// `first` (the presence token) have none.
    Boxes {
        /// Rows of the key grid.
        height: usize,
        /// Columns of the key grid; `keys == height·width`.
        width: usize,
        /// First query that has a box.
        first: usize,
        /// `[queries - first, height, heads]`.
        by: &'a A,
        /// `[queries - first, width, heads]`.
        bx: &'a A,
    },
}

/// Keys and values of the positions of windows that hang over the grid.
pub struct Padding<'a, A> {
    /// `[size², heads·head_dim]`: a key for each position of a window, since a rotary turn makes them differ.
    pub k: View<'a, A>,
    /// The value of all of them, one row of `heads·head_dim`.
    pub v: View<'a, A>,
}

impl<A> Clone for Padding<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Padding<'_, A> {}

/// One multi-head attention, `o = softmax(q·kᵀ·scale + bias)·v` for each head.
pub struct Attention<'a, A> {
    /// Heads; head `h` owns columns `h·head_dim ..` of `q`, `k`, `v` and `o`.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of `q` and `o`.
    pub queries: usize,
    /// Rows of `k` and `v`.
    pub keys: usize,
    /// Multiplies the scores; `1/√head_dim`.
    pub scale: f32,
    /// Which keys a query sees.
    pub pattern: Pattern<'a, A>,
}

impl<A> Attention<'_, A> {
    /// Plain attention between `queries` and `keys`, scaled by `1/√head_dim`.
    pub fn full(heads: usize, head_dim: usize, queries: usize, keys: usize) -> Self {
        let scale = 1.0 / (head_dim as f32).sqrt();
        Self { heads, head_dim, queries, keys, scale, pattern: Pattern::Full }
    }
}

/// [`Ops::stage`] of a back end whose calls are done when they return.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let result = work()?;
    Ok((result, start.elapsed()))
}

/// Queries, keys or values of [`Ops::attend`]: the projection of some rows, other rows added to it, or those alone.
pub struct Projected<'a, O: Ops> {
    /// Rows `[rows, k]` and their projection to all heads, `[heads·head_dim, k]`.
    pub from: Option<(View<'a, O::Act>, &'a Linear<O>)>,
    /// Rows `[rows, heads·head_dim]`.
    pub add: Option<View<'a, O::Act>>,
}

impl<'a, O: Ops> Projected<'a, O> {
    /// The rows themselves, made in `to` unless they are there.
    ///
    /// # Panics
    /// If there are none.
    pub fn rows<'b>(self, ops: &O, rows: usize, to: &'b mut O::Act) -> Result<View<'b, O::Act>>
    where
        'a: 'b,
    {
        let Some((x, by)) = self.from else { return Ok(self.add.expect("rows to attend with or to")) };
        ops.linear(x, by, rows, Epilogue { add: self.add, ..Epilogue::NONE }, to)?;
        Ok(View::new(to, by.n))
    }
}

/// [`Ops::attend`] by the operations it is made of.
pub fn attend_in_steps<O: Ops>(
    ops: &O,
    [q, k, v]: [Projected<'_, O>; 3],
    spec: &Attention<'_, O::Act>,
    o: &Linear<O>,
    residual: Option<View<'_, O::Act>>,
    inner: [&mut O::Act; 4],
    y: &mut O::Act,
) -> Result<()> {
    let [made_q, made_k, made_v, heads] = inner;
    let q = q.rows(ops, spec.queries, made_q)?;
    let k = k.rows(ops, spec.keys, made_k)?;
    let v = v.rows(ops, spec.keys, made_v)?;
    ops.attention(q, k, v, spec, heads)?;
    ops.linear(View::new(heads, o.k), o, spec.queries, Epilogue { add: residual, ..Epilogue::NONE }, y)
}

/// The operations. Formulas use `y` for the output; shapes are in brackets.
pub trait Ops: Send + Sync + Sized + 'static {
    /// A flat buffer of activations. `Default` is the empty buffer, without device memory.
    type Act: Default + Send + Sync + 'static;
    /// A weight matrix in the layout this back end multiplies by.
    type Mat: Send + Sync + 'static;
    /// When some work began and ended.
    type Clock: Send + 'static;

    // Stages.

    /// Runs `work`, whose calls may be enqueued together when it ends, or when it waits or copies; nothing that is still
    /// held back happens if it fails.
    fn stage<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Self::Clock)>;

    /// What the work of a stage took, once it has ended.
    fn elapsed(&self, clock: Self::Clock) -> Result<Duration>;

    // Memory.

    /// The empty buffer for what only products, attention, norms and sums read, never the residual stream: an
    /// implementation may keep its elements in fewer bits.
    fn operand() -> Self::Act {
        Self::Act::default()
    }

    /// Makes `act` hold at least `len` elements; does nothing if it does. Contents are unspecified after growth.
    fn reserve(&self, act: &mut Self::Act, len: usize) -> Result<()>;

    /// Copies `src` to the start of `dst`, growing it.
    fn upload(&self, src: &[f32], dst: &mut Self::Act) -> Result<()>;

    /// Copies `dst.len()` consecutive elements from `offset` of `src`, after all work enqueued before.
    fn download(&self, src: &Self::Act, offset: usize, dst: &mut [f32]) -> Result<()>;

    /// Takes a weight matrix: the rows of all `parts`, each `[n_i, k]`, stacked. May keep the tensors' mapping instead
    /// of a copy.
    fn matrix(&self, parts: &[HostTensor]) -> Result<Self::Mat>;

    // Dense layers.

    /// `y[m, n] = epilogue(x[m, k] · wᵀ + b)`
    fn linear(
        &self,
        x: View<'_, Self::Act>,
        l: &Linear<Self>,
        m: usize,
        ep: Epilogue<'_, Self::Act>,
        y: &mut Self::Act,
    ) -> Result<()>;

    /// `y[m, n] = a[m, k] · b[n, k]ᵀ` of two activations: mask embeddings by pixels, queries by the pooled text.
    fn dot(
        &self,
        a: View<'_, Self::Act>,
        m: usize,
        b: View<'_, Self::Act>,
        n: usize,
        k: usize,
        y: &mut Self::Act,
    ) -> Result<()>;

    /// 3×3 convolution, stride 1, zero padding 1, on `x[h·w, cin]`; `l` is `[cout, 9·cin]` in the order `(ky, kx, cin)`.
    fn conv3x3(&self, x: &Self::Act, l: &Linear<Self>, h: usize, w: usize, y: &mut Self::Act) -> Result<()>;

    /// 2×2 transposed convolution, stride 2, of `x[h·w, cin]` to `y[2h·2w, cout]`; `l` is `[4·cout, cin]` in the order
    /// `(dy, dx, cout)`, its bias `[4·cout]` likewise. The epilogue's rows are those of `y`.
    fn deconv2x2(
        &self,
        x: &Self::Act,
        l: &Linear<Self>,
        h: usize,
        w: usize,
        ep: Epilogue<'_, Self::Act>,
        y: &mut Self::Act,
    ) -> Result<()>;

    /// Multi-head attention; `y[queries, heads·head_dim]`. Heads own equal column blocks of all four.
    fn attention(
        &self,
        q: View<'_, Self::Act>,
        k: View<'_, Self::Act>,
        v: View<'_, Self::Act>,
        spec: &Attention<'_, Self::Act>,
        y: &mut Self::Act,
    ) -> Result<()>;

    /// An attention with its projections, `y[queries, n] = o(attention(q, k, v)) + residual`. `inner` hold queries, keys,
    /// values and the heads' output where they are made; where an implementation does without, it leaves them alone.
    fn attend(
        &self,
        qkv: [Projected<'_, Self>; 3],
        spec: &Attention<'_, Self::Act>,
        o: &Linear<Self>,
        residual: Option<View<'_, Self::Act>>,
        inner: [&mut Self::Act; 4],
        y: &mut Self::Act,
    ) -> Result<()> {
        attend_in_steps(self, qkv, spec, o, residual, inner, y)
    }

    // Normalisation.

    /// `y = act((x - mean) / √(var + eps) · gamma + beta)` over each row of `x[rows, width]`; biased variance.
    fn layer_norm(
        &self,
        x: View<'_, Self::Act>,
        norm: &Norm<Self>,
        rows: usize,
        act: Activation,
        y: &mut Self::Act,
    ) -> Result<()>;

    /// As [`Ops::layer_norm`], with statistics over all rows and the `width / groups` channels of each group.
    fn group_norm(
        &self,
        x: &Self::Act,
        norm: &Norm<Self>,
        groups: usize,
        rows: usize,
        act: Activation,
        y: &mut Self::Act,
    ) -> Result<()>;

    // Moving and mixing rows.

    /// `y[rows, width] = a[r] + b[r mod b_rows]`
    fn add(
        &self,
        a: View<'_, Self::Act>,
        b: View<'_, Self::Act>,
        b_rows: usize,
        rows: usize,
        width: usize,
        y: &mut Self::Act,
    ) -> Result<()>;

    /// `y[offset ..] = x[rows, width]`, contiguous. Grows `y` without losing what stands before `offset`.
    fn copy(&self, x: View<'_, Self::Act>, rows: usize, width: usize, y: &mut Self::Act, offset: usize) -> Result<()>;

    /// `y[i] = table[ids[i]]`, rows of a weight matrix. Ids are within the table: the tokenizer checked them.
    fn gather(&self, table: &Self::Mat, ids: &[u32], y: &mut Self::Act) -> Result<()>;

    /// `y[width] = mean over rows of x[rows, width]`
    fn mean_rows(&self, x: View<'_, Self::Act>, rows: usize, width: usize, y: &mut Self::Act) -> Result<()>;

    // Pictures.

    /// A picture of any size as the model's square, `y[side·side, 3] = (v - 127.5) / 127.5` of the samples `v` that
    /// [`crate::image::resize`] makes of it: upstream's resize, rescale and normalise in one, every bit.
    fn ingest(&self, picture: &ImageView<'_>, side: usize, y: &mut Self::Act) -> Result<()>;

    /// Cuts each map of finite logits, making all words of its mask, `[rows, columns.div_ceil(64)]`: pixel `x` is bit
    /// `x % 64` of word `x / 64`, and bits beyond the columns are zero. Every bit is that of `Cut::decide`, of
    /// [`Compared::exact`]. Both are on the host, since an answer has the logits, too, which are few beside a mask's
    /// pixels. Waits.
    fn cut(&self, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()>;

    /// Cuts `x[h·w, c]` into `p × p` patches, `y[(h/p)·(w/p), c·p·p]` in the order `(c, dy, dx)` of a convolution's
    /// kernel, so that a convolution of stride `p` is a [`Ops::linear`].
    fn patches(&self, x: &Self::Act, h: usize, w: usize, c: usize, p: usize, y: &mut Self::Act) -> Result<()>;

    /// `y[oh·ow, c] = x[⌊i·h/oh⌋, ⌊j·w/ow⌋] + skip[i, j]`: nearest upsampling with its skip connection.
    fn upsample_add(
        &self,
        x: &Self::Act,
        h: usize,
        w: usize,
        skip: &Self::Act,
        oh: usize,
        ow: usize,
        c: usize,
        y: &mut Self::Act,
    ) -> Result<()>;

    /// RoI align (`torchvision.ops.roi_align`, `aligned=False`, adaptive sampling) of `x[h·w, c]` at `boxes`, xyxy in
    /// units of the grid: `y[n, c·size·size]` in the order `(c, y, x)`.
    fn roi_align(
        &self,
        x: &Self::Act,
        h: usize,
        w: usize,
        c: usize,
        boxes: &[[f32; 4]],
        size: usize,
        y: &mut Self::Act,
    ) -> Result<()>;

    // Boxes of the decoder, `[n, 4]` as normalised cxcywh.

    /// Sine embedding, `y[n, 4·features]`: blocks for cy, cx, w, h; in a block, element `i` of value `t` is
    /// `sin` (even `i`) or `cos` (odd `i`) of `2π·t / 10000^(2⌊i/2⌋ / features)` (upstream's `encode_boxes`).
    fn box_sine(&self, boxes: &Self::Act, n: usize, features: usize, y: &mut Self::Act) -> Result<()>;

    /// Log-scaled distances of grid lines to box edges, `e(d) = sign(d)·log2(|8d| + 1) / log2(8)`:
    /// `dx[n·width, 2]` of `x/width` to left and right, `dy[n·height, 2]` of `y/height` to top and bottom.
    fn box_deltas(
        &self,
        boxes: &Self::Act,
        n: usize,
        height: usize,
        width: usize,
        dx: &mut Self::Act,
        dy: &mut Self::Act,
    ) -> Result<()>;

    /// `y[n, 4] = σ(delta + σ⁻¹(boxes))` with upstream's clamp of `σ⁻¹`: `ln(max(x, ε) / max(1 - x, ε))`, `ε = 10⁻³`,
    /// `x` clamped to 0..1.
    fn box_refine(&self, delta: &Self::Act, boxes: &Self::Act, n: usize, y: &mut Self::Act) -> Result<()>;
}
