// The arguments of every kernel, one structure each: pointers first, then 32-bit numbers, so that there is no padding.
// `src/cuda/arguments.rs` mirrors them; both sides assert the sizes.
#pragma once
#include "../ptx/types.cuh"

/// What ends a GEMM or a normalisation; the numbers are `Activation`'s.
enum : u32 { ACT_NONE = 0, ACT_GELU = 1, ACT_RELU = 2 };

/// Which of the pointers are to bf16, the others being to f32: the left and right input, the addend, the output.
/// Attention: queries, keys, values, output.
enum : u32 { HALF_X = 1, HALF_W = 2, HALF_ADD = 4, HALF_Y = 8 };

/// `y[m, n] = turn(act(x · wᵀ + bias + add))`.
struct GemmArgs {
    const void* x;      // rows of k, ldx apart; conv3x3: pixels [height·width, channels]
    const void* w;      // [n, k], rows ldw apart: bf16, or f32 for the checking precision; activations for a dot
    const float* bias;  // [n] or null
    const void* add;    // rows like y's, ld_add apart, or null
    void* y;
    const float* angles;  // [m, head_dim], cosine and sine of each pair of columns, or null
    float* partial;       // where k is split: [splits, tiles, a tile's sums], see gemm_few.cu
    u32* counters;        // of blocks that are done, a tile each; 0 before and after
    u32 m, n, k, ldx, ldw, ld_add;
    u32 act;
    u32 height, width;  // convolutions: the input's grid
    u32 channels;       // conv3x3: input channels; deconv2x2: output channels
    u32 turned, head_dim;  // how many of the first columns turn, in heads of this width
    u32 half, splits;
};

/// Which keys a query sees; the numbers are the order of `Pattern`'s variants.
enum : u32 { SEE_ALL = 0, SEE_CAUSAL = 1, SEE_WINDOW = 2, SEE_BOXES = 3 };

/// `y = softmax(q·kᵀ·scale + bias)·v`; grid: blocks of queries, heads, windows.
struct AttentionArgs {
    const void *q, *k, *v;           // rows of heads·head_dim, ld? apart
    const float *pad_k, *pad_v;      // rows of heads·head_dim: keys of a window's positions, ld_pad apart, and one value
    const float *by, *bx;            // [queries - first, height or width, heads], boxes only
    void* y;                         // [queries, heads·head_dim]
    float* partial;                  // where keys are split: [splits, heads, queries, 2 + head_dim], see attention_bf16.cu
    u32 ldq, ldk, ldv;
    u32 heads, head_dim;
    u32 queries, keys;               // of one window, where there are windows
    u32 pattern, height, width, size, first;  // size: of a window; boxes: rows of the grid whose bias is kept, or 0
    u32 splits;
    float scale;
    u32 half, ld_pad;
};

struct NormArgs {
    const void* x;   // rows of width, ldx apart
    const float *gamma, *beta;
    void* y;         // [rows, width]
    float* partial;  // group norm: [groups, chunks, 3] of count, mean, sum of squared deviations
    u32 rows, width, ldx, act;
    u32 groups, chunks;
    float eps;
    u32 half;
};

/// Moving rows: `y[r, c]` from `a` and `b`.
struct RowsArgs {
    const void* a;
    const void* b;
    void* y;
    u32 rows, width, lda, ldb;
    u32 b_rows, half;
};

/// Pictures: ingestion (to a square of side `size`), patches (`size` is a patch's side), upsampling (to `out_height` ×
/// `out_width`), RoI align.
struct PictureArgs {
    const void* x;
    const void* skip;  // ingestion: the filters; upsampling: the addend; RoI align: the boxes
    void* y;
    u32 height, width, channels, size;
    u32 out_height, out_width, count, half;
};

/// Boxes of the decoder.
struct BoxArgs {
    const float *boxes, *delta;
    float *y, *y2;
    u32 count, features, height, width;
};

/// Masks at another size.
struct CutArgs {
    const float* x;  // [height, width]
    u32* y;          // [out_height, line], words of 32 pixels
    u32* doubtful;   // a count, which is 0 before, and as many indices of words, of which the first `most` are kept
    u32 height, width, out_height, out_width;
    u32 line, sigmoid, most;
    float down, across;  // samples a pixel
    float threshold, close;
    u32 reserved;
};

static_assert(sizeof(GemmArgs) == 120, "as in src/cuda/arguments.rs");
static_assert(sizeof(AttentionArgs) == 136, "as in src/cuda/arguments.rs");
static_assert(sizeof(NormArgs) == 72, "as in src/cuda/arguments.rs");
static_assert(sizeof(RowsArgs) == 48, "as in src/cuda/arguments.rs");
static_assert(sizeof(PictureArgs) == 56, "as in src/cuda/arguments.rs");
static_assert(sizeof(BoxArgs) == 48, "as in src/cuda/arguments.rs");
static_assert(sizeof(CutArgs) == 72, "as in src/cuda/arguments.rs");
