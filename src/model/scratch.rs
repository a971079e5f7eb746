//! Every intermediate buffer, named once.
//!
//! Buffers grow to the largest size asked of them and stay, so a warm call allocates nothing. Names say the role, not
//! the stage: stages run one after the other and share them. Shapes in comments are those of the ViT layers and of the
//! transformers behind it (`t` tokens of the grid, `c` the ViT's width, `d` the width behind the neck, `p` prompt
//! tokens, `q` queries with the presence token). Buffers made by [`Ops::operand`] hold what goes into products and
//! attention; the others hold the residual stream, boxes and results.

use crate::ops::Ops;

/// Scratch of one session.
pub struct Scratch<O: Ops> {
    /// Hidden states of the running stage: `[t, c]`, `[tokens, text width]`, `[t, d]`, `[q, d]`.
    pub x: O::Act,
    /// Where the next hidden states are made before they are swapped with `x`; same shapes.
    pub next: O::Act,
    /// Normalised hidden states, input of projections; same shapes.
    pub h: O::Act,
    /// `h` plus position embeddings; same shapes.
    pub hp: O::Act,
    /// Queries `[t, d]`, or the stacked projections of the text encoder.
    pub q: O::Act,
    /// Keys `[t, d]`.
    pub k: O::Act,
    /// Values `[t, d]`.
    pub v: O::Act,
    /// Attention output `[t, c]`.
    pub o: O::Act,
    /// Inner activations of an MLP `[t, mlp]`, and the pixel patches `[t, 3·patch²]`.
    pub mlp: O::Act,
    /// Inner activations of a three-layer head.
    pub mlp2: O::Act,
    /// Feature maps on their way up: `[4t, c/2]`, `[16t, d]`. Masks are made from the last of them.
    pub map: O::Act,
    /// Likewise, the other of two; and the stacked projections of the ViT `[t, 3c]`, which is done before maps are made.
    pub map2: O::Act,

    /// Prompt of the detector: valid text tokens, then exemplars `[p, d]`.
    pub prompt: O::Act,
    /// Fused picture tokens `[t, d]`.
    pub fused: O::Act,
    /// `fused` plus position embeddings `[t, d]`.
    pub fused_pos: O::Act,
    /// Boxes of the queries, normalised cxcywh `[q - 1, 4]`.
    pub boxes: O::Act,
    /// Boxes after refinement `[q - 1, 4]`.
    pub boxes_next: O::Act,
    /// Change of the boxes before the sigmoid `[q - 1, 4]`.
    pub delta: O::Act,
    /// Sine embedding of the boxes `[q - 1, 2d]`.
    pub sine: O::Act,
    /// Position embedding of the queries, first row (presence) zero `[q, d]`.
    pub query_pos: O::Act,
    /// Log distances of grid columns to box edges `[(q - 1)·w, 2]`.
    pub dx: O::Act,
    /// Log distances of grid rows to box edges `[(q - 1)·h, 2]`.
    pub dy: O::Act,
    /// Box bias of grid columns `[q - 1, w, heads]`.
    pub bx: O::Act,
    /// Box bias of grid rows `[q - 1, h, heads]`.
    pub by: O::Act,
    /// Normalised query states of the last decoder layer `[q - 1, d]`.
    pub queries: O::Act,
    /// Pixel embedding on its way up: `[t, d]`, `[4t, d]`.
    pub pixels: O::Act,
    /// Mask embeddings of the chosen queries `[n, d]`.
    pub mask_embed: O::Act,
    /// Small results on their way to the host.
    pub small: O::Act,

    /// Point and output tokens of the mask decoder `[tokens, d]`, kept as their own position embedding.
    pub tokens: O::Act,
    /// Picture side of the mask decoder `[t, d]`.
    pub keys: O::Act,
    /// Mask logits `[masks, 16t]`.
    pub masks: O::Act,
}

impl<O: Ops> Default for Scratch<O> {
    fn default() -> Self {
        Self {
            x: Default::default(),
            next: Default::default(),
            h: O::operand(),
            hp: O::operand(),
            q: O::operand(),
            k: O::operand(),
            v: O::operand(),
            o: O::operand(),
            mlp: O::operand(),
            mlp2: O::operand(),
            map: O::operand(),
            map2: O::operand(),
            prompt: Default::default(),
            fused: Default::default(),
            fused_pos: O::operand(),
            boxes: Default::default(),
            boxes_next: Default::default(),
            delta: Default::default(),
            sine: Default::default(),
            query_pos: Default::default(),
            dx: Default::default(),
            dy: Default::default(),
            bx: Default::default(),
            by: Default::default(),
            queries: Default::default(),
            pixels: Default::default(),
            mask_embed: O::operand(),
            small: Default::default(),
            tokens: Default::default(),
            keys: Default::default(),
            masks: Default::default(),
        }
    }
}
