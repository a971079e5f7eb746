// Threads over elements, and sums over warps.
#pragma once
#include "../ptx/types.cuh"

/// The first element of this thread in a loop over all threads of the grid.
DEVICE size_t first_element() { return static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE size_t all_threads() { return static_cast<size_t>(gridDim.x) * blockDim.x; }

DEVICE float warp_sum(float x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}

DEVICE float warp_max(float x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}
