// GEMM of few rows by mma.sync (sm_80): 32 × 64 of y by 4 warps. What takes time is the way of the weights, so that steps of
// 64 of k come in four stages by cp.async, f32 activations as they are, and the steps are shared among several blocks of a
// tile: each leaves its sums in memory, and the last one adds them up, in the order of k.
#include "ptx/async.cuh"
#include "ptx/mma.cuh"
#include "tile/epilogue.cuh"

namespace gemm_few {

constexpr u32 ROWS = 32, COLUMNS = 64, STEP = 64, STAGES = 4, THREADS = 128;
// Room for rows of f32, also where they are bf16.
constexpr u32 X_BYTES = ROWS * STEP * 4, W_BYTES = COLUMNS * STEP * 2, STAGE = X_BYTES + W_BYTES;

/// Byte of a 16-byte chunk in rows of 64 bf16, so that ldmatrix finds eight rows of one chunk in different banks.
DEVICE u32 half_at(u32 row, u32 chunk) { return row * 128 + ((chunk ^ row % 8) * 16); }
/// And of 64 floats, of which half a warp reads pairs of four rows at a time: two neighbouring chunks of each.
DEVICE u32 float_at(u32 row, u32 chunk) { return row * 256 + ((chunk ^ row * 2 % 8) * 16); }

/// The left operand of 16 rows and 16 of k, rounded.
DEVICE void floats_to_operand(u32 (&x)[4], const u8* xs, u32 row, u32 k, u32 lane) {
#pragma unroll
    for (u32 e = 0; e < 4; e++) {
        const u32 r = row + lane / 4 + e % 2 * 8, column = k + lane % 4 * 2 + e / 2 * 8;
        const float2 pair = *reinterpret_cast<const float2*>(xs + float_at(r, column / 4) + column % 4 * 4);
        x[e] = cvt_bf16x2(pair.x, pair.y);
    }
}

/// Steps from `first` to `last` of a tile. `Half`: the activations are bf16.
template <bool Half>
DEVICE void multiply(const GemmArgs& a, u8* shared, u32 row0, u32 column0, u32 first, u32 last, float (&sum)[2][2][4]) {
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32;
    constexpr u32 CHUNK = Half ? 8 : 4, CHUNKS = STEP / CHUNK;
    const auto fetch = [&](u32 step) {
        if (step < last) {
            u8* const xs = shared + step % STAGES * STAGE;
            u8* const ws = xs + X_BYTES;
#pragma unroll
            for (u32 i = 0; i < ROWS * CHUNKS / THREADS; i++) {
                const u32 c = t + i * THREADS, row = c / CHUNKS, chunk = c % CHUNKS, k = step * STEP + chunk * CHUNK;
                const bool inside = row0 + row < a.m && k < a.k;
                const size_t at = inside ? static_cast<size_t>(row0 + row) * a.ldx + k : 0;
                cp_async_16(xs + (Half ? half_at(row, chunk) : float_at(row, chunk)),
                            static_cast<const u8*>(a.x) + at * (Half ? 2 : 4), inside);
            }
#pragma unroll
            for (u32 i = 0; i < COLUMNS * 8 / THREADS; i++) {
                const u32 c = t + i * THREADS, row = c / 8, chunk = c % 8, k = step * STEP + chunk * 8;
                const bool inside = column0 + row < a.n && k < a.k;
                const size_t at = inside ? static_cast<size_t>(column0 + row) * a.ldw + k : 0;
                cp_async_16(ws + half_at(row, chunk), static_cast<const u16*>(a.w) + at, inside);
            }
        }
        // Groups are counted, also those of nothing.
        cp_async_commit();
    };
#pragma unroll
    for (u32 s = 0; s + 1 < STAGES; s++) fetch(first + s);
    for (u32 step = first; step < last; step++) {
        cp_async_wait<STAGES - 2>();
        // This stage is written, and everybody is done with the one before, which the next but two takes.
        __syncthreads();
        fetch(step + STAGES - 1);
        const u8* const xs = shared + step % STAGES * STAGE;
        const u8* const ws = xs + X_BYTES;
#pragma unroll
        for (u32 kk = 0; kk < STEP / 16; kk++) {
            u32 x[2][4], w[4];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                if (Half) {
                    ldmatrix_x4(x[i], xs + half_at(i * 16 + lane % 16, kk * 2 + lane / 16));
                } else {
                    floats_to_operand(x[i], xs, i * 16, kk * 16, lane);
                }
            }
            // Matrices in the order (columns 0..8, k low), (0..8, high), (8..16, low), (8..16, high).
            ldmatrix_x4(w, ws + half_at(warp * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
#pragma unroll
                for (u32 j = 0; j < 2; j++) mma_m16n8k16_bf16(sum[i][j], x[i], w[j * 2], w[j * 2 + 1]);
            }
        }
    }
    cp_async_wait<0>();
}

/// Leaves this block's sums; true in the block that comes last, which then has those of all.
DEVICE bool join(const GemmArgs& a, u8* shared, float (&sum)[2][2][4]) {
    const u32 t = threadIdx.x, tile = blockIdx.y * gridDim.x + blockIdx.x, tiles = gridDim.x * gridDim.y;
    constexpr u32 SUMS = ROWS * COLUMNS;
    float4* const mine = reinterpret_cast<float4*>(a.partial + (static_cast<size_t>(blockIdx.z) * tiles + tile) * SUMS);
#pragma unroll
    for (u32 e = 0; e < 4; e++) {
        const float* const s = sum[e / 2][e % 2];
        float4 v;
        v.x = s[0], v.y = s[1], v.z = s[2], v.w = s[3];
        mine[e * THREADS + t] = v;
    }
    __threadfence();
    __syncthreads();
    u32* const last = reinterpret_cast<u32*>(shared);
    if (t == 0) {
        *last = atomicAdd(a.counters + tile, 1) + 1 == a.splits;
        // For the next launch, which begins when this one has ended.
        if (*last) a.counters[tile] = 0;
    }
    __syncthreads();
    if (!*last) return false;
    __threadfence();
#pragma unroll
    for (u32 e = 0; e < 16; e++) sum[e / 8][e / 4 % 2][e % 4] = 0.0f;
    for (u32 split = 0; split < a.splits; split++) {
        const float4* const from =
            reinterpret_cast<const float4*>(a.partial + (static_cast<size_t>(split) * tiles + tile) * SUMS);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            const float4 v = load_past_l1(from + e * THREADS + t);
            float* const s = sum[e / 2][e % 2];
            s[0] += v.x, s[1] += v.y, s[2] += v.z, s[3] += v.w;
        }
    }
    return true;
}

/// Bias, addend, activation, turn and store, all loads of a kind together.
DEVICE void finish(const GemmArgs& a, u32 row0, u32 column0, float (&sum)[2][2][4]) {
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const auto row = [&](u32 e) { return row0 + e / 4 * 16 + e % 2 * 8 + lane / 4; };
    const auto column = [&](u32 e) { return column0 + warp * 16 + e / 2 % 2 * 8 + lane % 4 * 2; };
    // Pair `e` of a lane.
    const auto pair = [&](u32 e) { return sum[e / 4][e / 2 % 2] + e % 2 * 2; };
    if (a.bias) {
#pragma unroll
        for (u32 e = 0; e < 8; e++) {
            float2 bias = {};
            if (column(e) < a.n) bias = *reinterpret_cast<const float2*>(a.bias + column(e));
            pair(e)[0] += bias.x, pair(e)[1] += bias.y;
        }
    }
    if (a.add) {
        const bool half = a.half & HALF_ADD;
#pragma unroll
        for (u32 e = 0; e < 8; e++) {
            float2 add = {};
            if (row(e) < a.m && column(e) < a.n) {
                add = load2(a.add, static_cast<size_t>(row(e)) * a.ld_add + column(e), half);
            }
            pair(e)[0] += add.x, pair(e)[1] += add.y;
        }
    }
    if (a.act != ACT_NONE) {
#pragma unroll
        for (u32 e = 0; e < 16; e++) sum[e / 8][e / 4 % 2][e % 4] = activate(a.act, sum[e / 8][e / 4 % 2][e % 4]);
    }
    if (a.turned) {
#pragma unroll
        for (u32 e = 0; e < 8; e++) {
            if (row(e) >= a.m || column(e) >= a.turned) continue;
            const size_t at = static_cast<size_t>(row(e)) * a.head_dim + column(e) % a.head_dim;
            turn_pair(*reinterpret_cast<const float2*>(a.angles + at), pair(e)[0], pair(e)[1]);
        }
    }
#pragma unroll
    for (u32 e = 0; e < 8; e++) {
        if (row(e) >= a.m || column(e) >= a.n) continue;
        store2(a.y, static_cast<size_t>(row(e)) * a.n + column(e), a.half & HALF_Y, pair(e)[0], pair(e)[1]);
    }
}

}  // namespace gemm_few

/// Grid: columns, rows, splits of k.
KERNEL void LAUNCH_BOUNDS(128) gemm_few_32x64x64(const GRID_CONSTANT GemmArgs a) {
    using namespace gemm_few;
    DYNAMIC_SHARED(shared);
    const u32 row0 = blockIdx.y * ROWS, column0 = blockIdx.x * COLUMNS, steps = div_up(a.k, STEP);
    const u32 share = div_up(steps, a.splits), first = blockIdx.z * share, last = min_u32(first + share, steps);
    float sum[2][2][4] = {};
    if (a.half & HALF_X) {
        multiply<true>(a, shared, row0, column0, first, last, sum);
    } else {
        multiply<false>(a, shared, row0, column0, first, last, sum);
    }
    if (a.splits > 1) {
        // The stages' memory is used anew.
        __syncthreads();
        if (!join(a, shared, sum)) return;
    }
    finish(a, row0, column0, sum);
}
