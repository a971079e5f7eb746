// Attention on tensor cores by mma.sync (sm_80), after FlashAttention-2 (Dao, 2023): 4 warps of 16 queries, 64 keys at a
// time; scores, softmax and the output's sums in f32 registers. What is f32 is rounded on its way to shared memory. Where
// queries are few and keys many, the keys are split among blocks, and `attention_join` adds up. A launch of few blocks is a
// chain of waits for memory: rows that lie as they should are fetched without a look at where each element is.
#include "ptx/math.cuh"
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

/// Eight elements of a head of bf16, zero beyond the tokens and the head.
DEVICE uint4 plain8(const AttentionArgs& a, const void* from, u32 ld, u32 token, u32 count, u32 chunk) {
    uint4 x = {};
    if (token < count && chunk * 8 < a.head_dim) {
        const size_t at = static_cast<size_t>(token) * ld + blockIdx.y * a.head_dim + chunk * 8;
        x = *reinterpret_cast<const uint4*>(static_cast<const u16*>(from) + at);
    }
    return x;
}

/// Whether all rows are of bf16 in aligned groups of eight, and follow each other.
DEVICE bool is_plain(const AttentionArgs& a) {
    const u32 half = HALF_X | HALF_W | HALF_ADD;
    return a.pattern != SEE_WINDOW && (a.half & half) == half && a.head_dim % 8 == 0 && in_groups(a.q, a.ldq, true, 8) &&
           in_groups(a.k, a.ldk, true, 8) && in_groups(a.v, a.ldv, true, 8);
}

/// The bias of boxes, of this block's queries and head and its share of the keys: by columns of the grid, and by the rows
/// from `top` on. What lies in memory for all heads together is fetched once, and not for every key.
struct BoxBias {
    float *columns, *rows;
    u32 top;

    METHOD BoxBias() : columns(nullptr), rows(nullptr), top(0) {}
    METHOD BoxBias(const AttentionArgs& a, u8* shared, u32 q0, u32 first) {
        columns = reinterpret_cast<float*>(shared);
        rows = columns + QUERIES * a.width;
        top = first / a.width;
        for (u32 i = threadIdx.x; i < QUERIES * a.width; i += THREADS)
            columns[i] = value(a, a.bx, q0 + i / a.width, i % a.width, a.width);
        for (u32 i = threadIdx.x; i < QUERIES * a.size; i += THREADS)
            rows[i] = value(a, a.by, q0 + i / a.size, top + i % a.size, a.height);
    }
    /// In powers of two, as scores are.
    METHOD static float value(const AttentionArgs& a, const float* from, u32 query, u32 line, u32 lines) {
        if (query < a.first || query >= a.queries || line >= lines) return 0.0f;
        return from[(static_cast<size_t>(query - a.first) * lines + line) * a.heads + blockIdx.y] * LOG2E;
    }
};

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
    const bool plain = is_plain(a);
    uint4 first_q[EACH];
    if (plain) {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            const u32 e = t + i * THREADS;
            first_q[i] = plain8(a, a.q, a.ldq, q0 + e / ROW, a.queries, e % ROW);
        }
    } else {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            const u32 e = t + i * THREADS;
            first_q[i] = head8(a, query_head(a, q0 + e / ROW), e % ROW);
        }
    }
    // Scores are in powers of two.
    const float scale = a.scale * LOG2E;
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
        if (plain) {
#pragma unroll
            for (u32 i = 0; i < EACH; i++) {
                const u32 e = t + i * THREADS;
                next_k[i] = plain8(a, a.k, a.ldk, k0 + e / ROW, a.keys, e % ROW);
                next_v[i] = plain8(a, a.v, a.ldv, k0 + e / ROW, a.keys, e % ROW);
            }
            return;
        }
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            const u32 e = t + i * THREADS;
            next_k[i] = head8(a, key_head(a, k0 + e / ROW), e % ROW);
            next_v[i] = head8(a, value_head(a, k0 + e / ROW), e % ROW);
        }
    };
    if (AHEAD && first < keys) fetch(first);
    // The first keys are on their way before the queries are there.
#pragma unroll
    for (u32 i = 0; i < EACH; i++) put(qs, t + i * THREADS, first_q[i]);
    const bool boxes = a.pattern == SEE_BOXES, staged = boxes && a.size;
    const BoxBias bias = staged ? BoxBias(a, vs + KEYS * Width * 2, q0, first) : BoxBias();
    __syncthreads();
    u32 q[Width / 16][4];
#pragma unroll
    for (u32 c = 0; c < Width / 16; c++)
        ldmatrix_x4(q[c], qs + chunk_at<Width>(warp * 16 + lane % 16, c * 2 + lane / 16));
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
        // Of a lane's element: its query among the block's, and its key among these.
        const auto query_of = [&](u32 e) { return warp * 16 + lane / 4 + e / 2 * 8; };
        const auto key_of = [&](u32 j, u32 e) { return j * 8 + lane % 4 * 2 + e % 2; };
        if (staged) {
            // Blocks of keys go over the end of a row of the grid once at most: the host sees to it.
            const u32 y0 = k0 / a.width - bias.top, x0 = k0 % a.width;
#pragma unroll
            for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    const u32 x = x0 + key_of(j, e), over = x >= a.width;
                    s[j][e] = s[j][e] * scale + (bias.columns[query_of(e) * a.width + x - (over ? a.width : 0u)] +
                                                 bias.rows[query_of(e) * a.size + y0 + over]);
                }
            }
        } else if (boxes) {
#pragma unroll
            for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++)
                    s[j][e] = score(a, q0 + query_of(e), k0 + key_of(j, e), s[j][e]) * LOG2E;
            }
        } else {
#pragma unroll
            for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) s[j][e] *= scale;
            }
        }
        // Only the last keys of all, and those about the diagonal, have some that are not seen.
        const bool causal = a.pattern == SEE_CAUSAL;
        if (k0 + KEYS > a.keys || (causal && k0 + KEYS > q0)) {
#pragma unroll
            for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    const u32 key = k0 + key_of(j, e);
                    if (key >= a.keys || (causal && key > q0 + query_of(e))) s[j][e] = -INFINITY;
                }
            }
        }
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) now[e / 2] = fmaxf(now[e / 2], s[j][e]);
        }
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            // Four lanes hold a row.
            now[h] = fmaxf(now[h], __shfl_xor_sync(0xffffffffu, now[h], 1));
            now[h] = fmaxf(now[h], __shfl_xor_sync(0xffffffffu, now[h], 2));
            // A block of keys that the query does not see leaves -inf, of which no difference may be taken.
            const float shift = now[h] == -INFINITY ? 0.0f : now[h];
            old[h] = ex2(largest[h] - shift);
            largest[h] = now[h];
            now[h] = shift;
            sum[h] *= old[h];
        }
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                s[j][e] = ex2(s[j][e] - now[e / 2]);
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

/// Joins the shares of the keys: `Σ out·2^(largest - L) / Σ sum·2^(largest - L)`, `L` the largest of all; an element a
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
            const float factor = ex2(from[0] - largest);
            out += from[2 + column] * factor;
            sum += from[1] * factor;
        }
        store(a.y, i, a.half & HALF_Y, out / sum);
    }
}
