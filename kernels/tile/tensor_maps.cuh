// The arguments of kernels that read through the copy engine: maps of their operands, then what others take.
// `src/cuda/tensor_map.rs` mirrors them; both sides assert the sizes.
#pragma once
#include "../ptx/tma.cuh"
#include "arguments.cuh"

/// Three-dimensional maps, boxes of 64 elements in rows of 128 bytes, swizzled.
struct TmaGemmArgs {
    TensorMap x;  // [1, m, k], boxes of the tile's rows; conv3x3: [height, width, channels], boxes of its 8 × 24 pixels
    TensorMap w;  // [1, n, k], boxes of the tile's columns
    GemmArgs gemm;
};

/// Attention of heads of 64: `[height, width, heads·64]`, boxes of whole rows of a window; without windows
/// `[1, tokens, heads·64]`, boxes of the tile's tokens.
struct TmaAttentionArgs {
    TensorMap q, k, v;
    AttentionArgs attention;
    u32 windows, reserved;
};

static_assert(sizeof(TmaAttentionArgs) == 576, "as in src/cuda/tensor_map.rs");
static_assert(sizeof(TmaGemmArgs) == 384, "as in src/cuda/tensor_map.rs");
