// GEMM in f32 by FFMA, for the checking precision: 64×64 tiles of y, 16 of k at a time, 16 elements a thread.
#include "tile/epilogue.cuh"
#include "tile/operand.cuh"

namespace gemm_f32 {

constexpr u32 TILE = 64, STEP = 16, THREADS = 256;
/// One more column than the tile, or the transposing stores would meet in one bank.
constexpr u32 PITCH = TILE + 1;

template <bool Conv, bool Deconv> DEVICE void run(const GemmArgs& a) {
    DYNAMIC_SHARED(shared);
    float* const xs = reinterpret_cast<float*>(shared);  // [STEP][PITCH]
    float* const ws = xs + STEP * PITCH;                 // [STEP][PITCH]
    const u32 t = threadIdx.x, row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
    const float* const w = static_cast<const float*>(a.w);
    const u32 ty = t / 16, tx = t % 16;

    float sum[4][4] = {};
    for (u32 k0 = 0; k0 < a.k; k0 += STEP) {
        for (u32 e = t; e < TILE * STEP; e += THREADS) {
            const u32 r = e / STEP, k = e % STEP;
            xs[k * PITCH + r] = operand<Conv>(a, row0 + r, k0 + k);
            const u32 j = column0 + r;
            ws[k * PITCH + r] = j < a.n && k0 + k < a.k ? w[static_cast<size_t>(j) * a.ldw + k0 + k] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (u32 k = 0; k < STEP; k++) {
            float x[4], y[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                x[i] = xs[k * PITCH + ty + 16 * i];
                y[i] = ws[k * PITCH + tx + 16 * i];
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) sum[i][j] += x[i] * y[j];
            }
        }
        __syncthreads();
    }
    // Through shared memory, 16 rows at a time: a thread then has two columns, which turn together, and the epilogue
    // stands in the code once.
    const bool pairs = in_pairs<Deconv>(a);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) xs[ty * TILE + tx + 16 * j] = sum[i][j];
        __syncthreads();
#pragma unroll 1
        for (u32 e = 2 * t; e < 16 * TILE; e += 2 * THREADS)
            finish2<Deconv>(a, row0 + 16 * i + e / TILE, column0 + e % TILE, xs[e], xs[e + 1], pairs);
        __syncthreads();
    }
}

}  // namespace gemm_f32

// One block a multiprocessor: left alone, the compiler spills for the sake of more.
KERNEL void LAUNCH_BOUNDS(256, 1) gemm_f32_64x64x16(const GRID_CONSTANT GemmArgs a) { gemm_f32::run<false, false>(a); }
KERNEL void LAUNCH_BOUNDS(256, 1) conv3x3_f32_64x64x16(const GRID_CONSTANT GemmArgs a) { gemm_f32::run<true, false>(a); }
KERNEL void LAUNCH_BOUNDS(256, 1) deconv2x2_f32_64x64x16(const GRID_CONSTANT GemmArgs a) { gemm_f32::run<false, true>(a); }
