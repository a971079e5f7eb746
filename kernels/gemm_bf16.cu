// GEMM on tensor cores by mma.sync (sm_80): bf16 operands, f32 sums. Weights and activations of bf16 come to shared
// memory by cp.async; activations of f32 are rounded on their way through registers. Two stages of 32 of k.
#include "ptx/async.cuh"
#include "ptx/mma.cuh"
#include "tile/epilogue.cuh"
#include "tile/operand.cuh"

namespace gemm_bf16 {

constexpr u32 STEP = 32;

/// Byte of a 16-byte chunk in rows of 64 bytes. Rows 2r and 2r + 1 share a line of 128 bytes; the XOR spreads the same
/// chunk of eight rows over all banks, so that ldmatrix meets no conflict.
DEVICE u32 chunk_at(u32 row, u32 chunk) { return row * 64 + ((chunk ^ (row / 2 % 4)) * 16); }

/// Elements `(i, k .. k + 8)` of an operand of bf16 to shared memory: by cp.async where they lie together and aligned.
template <bool Conv> DEVICE void half8(const GemmArgs& a, u32 i, u32 k, u8* to) {
    if (together<Conv>(a, k)) {
        const size_t at = operand_at<Conv>(a, i, k);
        if (at == NOWHERE) {
            *reinterpret_cast<uint4*>(to) = {};
            return;
        }
        const u16* const x = static_cast<const u16*>(a.x) + at;
        if (reinterpret_cast<size_t>(x) % 16 == 0) return cp_async_16(to, x, true);
    }
    float apart[8];
    operand8_apart<Conv>(a, i, k, apart);
    *reinterpret_cast<uint4*>(to) = pack8(apart);
}

/// `Tile × Tile` of y by `Tile / 32 · Tile / 32 / Area` warps, each `32·Area × 32`. `Dot`: w is an activation.
template <u32 Tile, u32 Area, bool Conv, bool Deconv, bool Dot> DEVICE void run(const GemmArgs& a) {
    constexpr u32 WARPS_M = Tile / (32 * Area), WARPS_N = Tile / 32, THREADS = WARPS_M * WARPS_N * 32;
    constexpr u32 CHUNKS = Tile * 4 / THREADS;
    constexpr u32 OPERAND = Tile * STEP * 2, STAGE = 2 * OPERAND;
    static_assert(Tile * 4 % THREADS == 0, "threads share the chunks of a tile evenly");
    DYNAMIC_SHARED(shared);
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32;
    const u32 row0 = blockIdx.y * Tile, column0 = blockIdx.x * Tile;
    const u32 wm = warp % WARPS_M * 32 * Area, wn = warp / WARPS_M * 32;
    const u32 steps = div_up(a.k, STEP);

    GemmArgs b = a;  // the right operand of a dot, read like the left one
    if (Dot) {
        b.x = a.w;
        b.m = a.n;
        b.ldx = a.ldw;
        b.half = a.half & HALF_W ? u32(HALF_X) : 0u;
    }
    // An operand of f32 passes through registers, so that its loads overlap the products of the step before.
    float xr[CHUNKS][8], wr[Dot ? CHUNKS : 1][8];
    const auto fetch = [&](u32 step) {
        u8* const xs = shared + step % 2 * STAGE;
        u8* const ws = xs + OPERAND;
#pragma unroll
        for (u32 i = 0; i < CHUNKS; i++) {
            const u32 c = t + i * THREADS, row = c / 4, k = step * STEP + c % 4 * 8;
            if (a.half & HALF_X) {
                half8<Conv>(a, row0 + row, k, xs + chunk_at(row, c % 4));
            } else {
                operand8<Conv>(a, row0 + row, k, xr[i]);
            }
            if (Dot && b.half) {
                half8<false>(b, column0 + row, k, ws + chunk_at(row, c % 4));
            } else if (Dot) {
                operand8<false>(b, column0 + row, k, wr[Dot ? i : 0]);
            } else {
                const u16* const w = static_cast<const u16*>(a.w);
                const bool inside = column0 + row < a.n && k < a.ldw;
                cp_async_16(ws + chunk_at(row, c % 4), inside ? w + static_cast<size_t>(column0 + row) * a.ldw + k : w,
                            inside);
            }
        }
        cp_async_commit();
    };
    const auto store = [&](u32 step) {
        u8* const xs = shared + step % 2 * STAGE;
#pragma unroll
        for (u32 i = 0; i < CHUNKS; i++) {
            const u32 c = t + i * THREADS, at = chunk_at(c / 4, c % 4);
            if (!(a.half & HALF_X)) *reinterpret_cast<uint4*>(xs + at) = pack8(xr[i]);
            if (Dot && !b.half) *reinterpret_cast<uint4*>(xs + OPERAND + at) = pack8(wr[Dot ? i : 0]);
        }
    };

    float sum[2 * Area][4][4] = {};
    if (steps) {
        fetch(0);
        store(0);
    }
    for (u32 step = 0; step < steps; step++) {
        cp_async_wait<0>();
        // This stage is written, and everybody is done with the other one.
        __syncthreads();
        const bool more = step + 1 < steps;
        if (more) fetch(step + 1);
        const u8* const xs = shared + step % 2 * STAGE;
        const u8* const ws = xs + OPERAND;
#pragma unroll
        for (u32 kk = 0; kk < 2; kk++) {
            u32 x[2 * Area][4], w[2][4];
#pragma unroll
            for (u32 i = 0; i < 2 * Area; i++)
                ldmatrix_x4(x[i], xs + chunk_at(wm + i * 16 + lane % 16, kk * 2 + lane / 16));
            // Matrices in the order (columns 0..8, k low), (0..8, high), (8..16, low), (8..16, high).
#pragma unroll
            for (u32 j = 0; j < 2; j++)
                ldmatrix_x4(w[j], ws + chunk_at(wn + j * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
#pragma unroll
            for (u32 i = 0; i < 2 * Area; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++)
                    mma_m16n8k16_bf16(sum[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
            }
        }
        if (more) store(step + 1);
    }
    // Through shared memory, 64 rows at a time: neighbouring threads then write neighbouring columns, and the epilogue
    // stands in the code once.
    float* const tile = reinterpret_cast<float*>(shared);
    static_assert(64 * Tile * 4 == 2 * STAGE, "64 rows of sums take the place of the stages");
    const bool pairs = in_pairs<Deconv>(a);
    for (u32 pass = 0; pass < Tile / 64; pass++) {
        __syncthreads();
        if (wm / 64 == pass) {
#pragma unroll
            for (u32 i = 0; i < 2 * Area; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
#pragma unroll
                    for (u32 e = 0; e < 4; e++) {
                        const u32 row = wm % 64 + i * 16 + lane / 4 + e / 2 * 8;
                        tile[row * Tile + wn + j * 8 + lane % 4 * 2 + e % 2] = sum[i][j][e];
                    }
                }
            }
        }
        __syncthreads();
#pragma unroll 1
        for (u32 e = 2 * t; e < 64 * Tile; e += 2 * THREADS)
            finish2<Deconv>(a, row0 + pass * 64 + e / Tile, column0 + e % Tile, tile[e], tile[e + 1], pairs);
    }
}

}  // namespace gemm_bf16

// 64×64 by 4 warps, for few tiles; 128×128 by 8 warps.
KERNEL void LAUNCH_BOUNDS(128) gemm_bf16_64x64x32(const GRID_CONSTANT GemmArgs a) {
    gemm_bf16::run<64, 1, false, false, false>(a);
}
KERNEL void LAUNCH_BOUNDS(256, 2) gemm_bf16_128x128x32(const GRID_CONSTANT GemmArgs a) {
    gemm_bf16::run<128, 2, false, false, false>(a);
}
KERNEL void LAUNCH_BOUNDS(128) dot_bf16_64x64x32(const GRID_CONSTANT GemmArgs a) {
    gemm_bf16::run<64, 1, false, false, true>(a);
}
KERNEL void LAUNCH_BOUNDS(128) conv3x3_bf16_64x64x32(const GRID_CONSTANT GemmArgs a) {
    gemm_bf16::run<64, 1, true, false, false>(a);
}
KERNEL void LAUNCH_BOUNDS(256, 2) conv3x3_bf16_128x128x32(const GRID_CONSTANT GemmArgs a) {
    gemm_bf16::run<128, 2, true, false, false>(a);
}
KERNEL void LAUNCH_BOUNDS(128) deconv2x2_bf16_64x64x32(const GRID_CONSTANT GemmArgs a) {
    gemm_bf16::run<64, 1, false, true, false>(a);
}
