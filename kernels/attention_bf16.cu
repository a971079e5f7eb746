// Attention on tensor cores by mma.sync (sm_80), after FlashAttention-2 (Dao, 2023): 4 warps of 16 queries, 64 keys at a
// time; scores, softmax and the output's sums in f32 registers. Queries and keys are turned and rounded on their way to
// shared memory.
#include "ptx/mma.cuh"
#include "tile/heads.cuh"

namespace attention_bf16 {

constexpr u32 QUERIES = 64, KEYS = 64, THREADS = 128;
constexpr float LOG2E = 1.44269504088896341f;

/// Byte of a 16-byte chunk in rows of `Width` bf16, so that eight rows of one chunk lie in different banks.
template <u32 Width> DEVICE u32 chunk_at(u32 row, u32 chunk) {
    const u32 turn = Width == 32 ? row / 2 % 4 : row % 8;
    return row * Width * 2 + ((chunk ^ turn) * 16);
}

/// `Width`: the head's, rounded up to 32, 64 or 128.
template <u32 Width> DEVICE void run(const AttentionArgs& a) {
    DYNAMIC_SHARED(shared);
    u8* const qs = shared;                    // [QUERIES][Width]
    u8* const ks = qs + QUERIES * Width * 2;  // [KEYS][Width]
    u8* const vs = ks + KEYS * Width * 2;     // [KEYS][Width]
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32, q0 = blockIdx.x * QUERIES;

    const auto put = [&](u8* to, u32 row, u32 i, float x, float y) {
        *reinterpret_cast<u32*>(to + chunk_at<Width>(row, i / 4) + i % 4 * 4) = cvt_bf16x2(x, y);
    };
    for (u32 e = t; e < QUERIES * Width / 2; e += THREADS) {
        const u32 q = e / (Width / 2), i = e % (Width / 2);
        const float2 pair = query_pair(a, q0 + q, i);
        put(qs, q, i, pair.x, pair.y);
    }
    __syncthreads();
    u32 q[Width / 16][4];
#pragma unroll
    for (u32 c = 0; c < Width / 16; c++)
        ldmatrix_x4(q[c], qs + chunk_at<Width>(warp * 16 + lane % 16, c * 2 + lane / 16));

    float out[Width / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    const u32 keys = last_key(a, q0 + QUERIES);
    for (u32 k0 = 0; k0 < keys; k0 += KEYS) {
        for (u32 e = t; e < KEYS * Width / 2; e += THREADS) {
            const u32 k = e / (Width / 2), i = e % (Width / 2);
            const float2 pair = key_pair(a, k0 + k, i);
            put(ks, k, i, pair.x, pair.y);
            put(vs, k, i, value(a, k0 + k, 2 * i), value(a, k0 + k, 2 * i + 1));
        }
        __syncthreads();
        float s[KEYS / 8][4] = {};
#pragma unroll
        for (u32 c = 0; c < Width / 16; c++) {
#pragma unroll
            for (u32 j = 0; j < KEYS / 16; j++) {
                u32 k[4];
                ldmatrix_x4(k, ks + chunk_at<Width>(j * 16 + lane % 8 + lane / 16 * 8, c * 2 + lane / 8 % 2));
                mma_m16n8k16_bf16(s[2 * j], q[c], k[0], k[1]);
                mma_m16n8k16_bf16(s[2 * j + 1], q[c], k[2], k[3]);
            }
        }
        float now[2] = {largest[0], largest[1]}, old[2];
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                const u32 query = q0 + warp * 16 + lane / 4 + e / 2 * 8;
                s[j][e] = score(a, query, k0 + j * 8 + lane % 4 * 2 + e % 2, s[j][e]);
                now[e / 2] = fmaxf(now[e / 2], s[j][e]);
            }
        }
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            // Four lanes hold a row.
            now[h] = fmaxf(now[h], __shfl_xor_sync(0xffffffffu, now[h], 1));
            now[h] = fmaxf(now[h], __shfl_xor_sync(0xffffffffu, now[h], 2));
            // A block of keys that the query does not see leaves -inf, of which no difference may be taken.
            const float shift = now[h] == -INFINITY ? 0.0f : now[h];
            old[h] = exp2f((largest[h] - shift) * LOG2E);
            largest[h] = now[h];
            now[h] = shift;
            sum[h] *= old[h];
        }
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                s[j][e] = exp2f((s[j][e] - now[e / 2]) * LOG2E);
                sum[e / 2] += s[j][e];
            }
        }
#pragma unroll
        for (u32 c = 0; c < Width / 8; c++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) out[c][e] *= old[e / 2];
        }
#pragma unroll
        for (u32 j = 0; j < KEYS / 16; j++) {
            // The scores' accumulators are, rounded, the left operand of the next product.
            const u32 p[4] = {cvt_bf16x2(s[2 * j][0], s[2 * j][1]), cvt_bf16x2(s[2 * j][2], s[2 * j][3]),
                              cvt_bf16x2(s[2 * j + 1][0], s[2 * j + 1][1]),
                              cvt_bf16x2(s[2 * j + 1][2], s[2 * j + 1][3])};
#pragma unroll
            for (u32 c = 0; c < Width / 16; c++) {
                u32 v[4];
                ldmatrix_x4_trans(v, vs + chunk_at<Width>(j * 16 + lane % 16, c * 2 + lane / 16));
                mma_m16n8k16_bf16(out[2 * c], p, v[0], v[1]);
                mma_m16n8k16_bf16(out[2 * c + 1], p, v[2], v[3]);
            }
        }
        // The next keys take this one's place.
        __syncthreads();
    }
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
        sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
        const u32 query = q0 + warp * 16 + lane / 4 + h * 8;
        const int row = query < a.queries ? row_of(a, query) : -1;
        if (row < 0) continue;
        float* const y = a.y + static_cast<size_t>(row) * a.heads * a.head_dim + blockIdx.y * a.head_dim;
#pragma unroll
        for (u32 c = 0; c < Width / 8; c++) {
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                const u32 column = c * 8 + lane % 4 * 2 + e;
                if (column < a.head_dim) y[column] = out[c][h * 2 + e] / sum[h];
            }
        }
    }
}

}  // namespace attention_bf16

KERNEL void LAUNCH_BOUNDS(128) attention_bf16_64x64_d32(const GRID_CONSTANT AttentionArgs a) {
    attention_bf16::run<32>(a);
}
KERNEL void LAUNCH_BOUNDS(128) attention_bf16_64x64_d64(const GRID_CONSTANT AttentionArgs a) {
    attention_bf16::run<64>(a);
}
KERNEL void LAUNCH_BOUNDS(128) attention_bf16_64x64_d128(const GRID_CONSTANT AttentionArgs a) {
    attention_bf16::run<128>(a);
}
