// Attention on tensor cores by mma.sync (sm_80), after FlashAttention-2 (Dao, 2023): 4 warps of 16 queries, 64 keys at a
// time; scores, softmax and the output's sums in f32 registers. What is f32 is rounded on its way to shared memory. Where
// queries are few and keys many, the keys are split among blocks, and `attention_join` adds up.
#include "ptx/mma.cuh"
#include "tile/grid.cuh"
#include "tile/heads.cuh"

namespace attention_bf16 {

constexpr u32 QUERIES = 64, KEYS = 64, THREADS = 128;
constexpr float LOG2E = 1.44269504088896341f;

/// Byte of a 16-byte chunk in rows of `Width` bf16, so that eight rows of one chunk lie in different banks.
template <u32 Width> DEVICE u32 chunk_at(u32 row, u32 chunk) {
    const u32 turn = Width == 32 ? row / 2 % 4 : row % 8;
    return row * Width * 2 + ((chunk ^ turn) * 16);
}

/// Where a share of the keys leaves its largest score, its sum of exponentials and its output before the division.
DEVICE size_t partial_at(const AttentionArgs& a, u32 split, u32 head, u32 query) {
    return ((static_cast<size_t>(split) * a.heads + head) * a.queries + query) * (2 + a.head_dim);
}

/// `Width`: the head's, rounded up to 32, 64 or 128.
template <u32 Width> DEVICE void run(const AttentionArgs& a) {
    DYNAMIC_SHARED(shared);
    u8* const qs = shared;                    // [QUERIES][Width]
    u8* const ks = qs + QUERIES * Width * 2;  // [KEYS][Width]
    u8* const vs = ks + KEYS * Width * 2;     // [KEYS][Width]
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32, q0 = blockIdx.x * QUERIES;

    constexpr u32 ROW = Width / 8, EACH = KEYS * ROW / THREADS;
    const auto put = [&](u8* to, u32 e, const uint4& x) {
        *reinterpret_cast<uint4*>(to + chunk_at<Width>(e / ROW, e % ROW)) = x;
    };
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 e = t + i * THREADS;
        put(qs, e, head8(a, query_head(a, q0 + e / ROW), e % ROW));
    }
    __syncthreads();
    u32 q[Width / 16][4];
#pragma unroll
    for (u32 c = 0; c < Width / 16; c++)
        ldmatrix_x4(q[c], qs + chunk_at<Width>(warp * 16 + lane % 16, c * 2 + lane / 16));

    float out[Width / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    u32 first = 0, keys = last_key(a, q0 + QUERIES);
    if (a.splits > 1) {
        // This block's share of the keys; the host gives each at least one.
        const u32 share = div_up(div_up(a.keys, KEYS), a.splits) * KEYS;
        first = blockIdx.z * share;
        keys = min_u32(keys, first + share);
    }
    // The next keys and values wait in registers while these are multiplied, if there are registers left.
    constexpr bool AHEAD = Width <= 64;
    uint4 next_k[EACH], next_v[EACH];
    const auto fetch = [&](u32 k0) {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            const u32 e = t + i * THREADS;
            next_k[i] = head8(a, key_head(a, k0 + e / ROW), e % ROW);
            next_v[i] = head8(a, value_head(a, k0 + e / ROW), e % ROW);
        }
    };
    if (AHEAD && first < keys) fetch(first);
    for (u32 k0 = first; k0 < keys; k0 += KEYS) {
        if (!AHEAD) fetch(k0);
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            put(ks, t + i * THREADS, next_k[i]);
            put(vs, t + i * THREADS, next_v[i]);
        }
        __syncthreads();
        if (AHEAD && k0 + KEYS < keys) fetch(k0 + KEYS);
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
        if (a.splits > 1) {
            if (query >= a.queries) continue;
            float* const to = a.partial + partial_at(a, blockIdx.z, blockIdx.y, query);
            if (lane % 4 == 0) {
                to[0] = largest[h];
                to[1] = sum[h];
            }
#pragma unroll
            for (u32 c = 0; c < Width / 8; c++) {
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    const u32 column = c * 8 + lane % 4 * 2 + e;
                    if (column < a.head_dim) to[2 + column] = out[c][h * 2 + e];
                }
            }
            continue;
        }
        const int row = query < a.queries ? row_of(a, query) : -1;
        if (row < 0) continue;
        const size_t at = head_at(a, static_cast<u32>(row), a.heads * a.head_dim);
        const bool half = a.half & HALF_Y;
        const float scale = 1.0f / sum[h];
#pragma unroll
        for (u32 c = 0; c < Width / 8; c++) {
            const u32 column = c * 8 + lane % 4 * 2;
            const float x = out[c][h * 2] * scale, y = out[c][h * 2 + 1] * scale;
            if (a.head_dim % 2 == 0) {
                if (column < a.head_dim) store2(a.y, at + column, half, x, y);
            } else {
                if (column < a.head_dim) store(a.y, at + column, half, x);
                if (column + 1 < a.head_dim) store(a.y, at + column + 1, half, y);
            }
        }
    }
}

}  // namespace attention_bf16

KERNEL void LAUNCH_BOUNDS(128) attention_bf16_64x64_d32(const GRID_CONSTANT AttentionArgs a) {
    attention_bf16::run<32>(a);
}
// Two blocks a multiprocessor are asked for: left alone, the compiler spills for the sake of three.
KERNEL void LAUNCH_BOUNDS(128, 2) attention_bf16_64x64_d64(const GRID_CONSTANT AttentionArgs a) {
    attention_bf16::run<64>(a);
}
KERNEL void LAUNCH_BOUNDS(128) attention_bf16_64x64_d128(const GRID_CONSTANT AttentionArgs a) {
    attention_bf16::run<128>(a);
}

/// Joins the shares of the keys: `Σ out·e^(largest - L) / Σ sum·e^(largest - L)`, `L` the largest of all; an element a
/// thread. Those who see none of a share's keys leave `-inf`, whose factor is 0.
KERNEL void LAUNCH_BOUNDS(256) attention_join(const GRID_CONSTANT AttentionArgs a) {
    using namespace attention_bf16;
    const u32 columns = a.heads * a.head_dim;
    const size_t count = static_cast<size_t>(a.queries) * columns;
    for (size_t i = first_element(); i < count; i += all_threads()) {
        const u32 query = static_cast<u32>(i / columns), head = static_cast<u32>(i % columns) / a.head_dim;
        const u32 column = static_cast<u32>(i % a.head_dim);
        float largest = -INFINITY;
        for (u32 s = 0; s < a.splits; s++) largest = fmaxf(largest, a.partial[partial_at(a, s, head, query)]);
        float out = 0.0f, sum = 0.0f;
        for (u32 s = 0; s < a.splits; s++) {
            const float* const from = a.partial + partial_at(a, s, head, query);
            const float factor = exp2f((from[0] - largest) * LOG2E);
            out += from[2 + column] * factor;
            sum += from[1] * factor;
        }
        store(a.y, i, a.half & HALF_Y, out / sum);
    }
}
