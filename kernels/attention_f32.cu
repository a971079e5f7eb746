// Attention in f32, for the checking precision: 4 warps of 4 queries, 32 keys at a time, one a lane; the softmax is
// carried along (Milakov and Gimelshein, 2018), so that scores are never written out.
#include "tile/grid.cuh"
#include "tile/heads.cuh"

namespace attention_f32 {

constexpr u32 WARPS = 4, EACH = 4, QUERIES = WARPS * EACH, KEYS = 32;

/// `Width`: the head's, rounded up to a multiple of 32.
template <u32 Width> DEVICE void run(const AttentionArgs& a) {
    // One more than the width: lanes read a column of keys.
    constexpr u32 PITCH = Width + 1;
    DYNAMIC_SHARED(shared);
    float* const qs = reinterpret_cast<float*>(shared);  // [QUERIES][PITCH]
    float* const ks = qs + QUERIES * PITCH;              // [KEYS][PITCH]
    float* const vs = ks + KEYS * PITCH;                 // [KEYS][PITCH]
    float* const ps = vs + KEYS * PITCH;                 // [QUERIES][KEYS]
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32, q0 = blockIdx.x * QUERIES;

    for (u32 e = t; e < QUERIES * Width; e += WARPS * 32)
        qs[e / Width * PITCH + e % Width] = element(a, query_head(a, q0 + e / Width), e % Width);
    float largest[EACH], sum[EACH], out[EACH][Width / 32] = {};
#pragma unroll
    for (u32 e = 0; e < EACH; e++) {
        largest[e] = -INFINITY;
        sum[e] = 0.0f;
    }
    const u32 keys = last_key(a, q0 + QUERIES);
    for (u32 k0 = 0; k0 < keys; k0 += KEYS) {
        for (u32 e = t; e < KEYS * Width; e += WARPS * 32) {
            const u32 k = e / Width, c = e % Width;
            ks[k * PITCH + c] = element(a, key_head(a, k0 + k), c);
            vs[k * PITCH + c] = element(a, value_head(a, k0 + k), c);
        }
        __syncthreads();
#pragma unroll
        for (u32 e = 0; e < EACH; e++) {
            const u32 q = warp * EACH + e;
            float product = 0.0f;
            for (u32 c = 0; c < a.head_dim; c++) product += qs[q * PITCH + c] * ks[lane * PITCH + c];
            const float s = score(a, q0 + q, k0 + lane, product);
            const float now = fmaxf(largest[e], warp_max(s));
            // A block of keys that the query does not see leaves -inf, of which no difference may be taken.
            const float shift = now == -INFINITY ? 0.0f : now, p = expf(s - shift), old = expf(largest[e] - shift);
            largest[e] = now;
            sum[e] = sum[e] * old + p;
            ps[q * KEYS + lane] = p;
#pragma unroll
            for (u32 c = 0; c < Width / 32; c++) out[e][c] *= old;
        }
        __syncwarp();
        for (u32 k = 0; k < KEYS; k++) {
#pragma unroll
            for (u32 c = 0; c < Width / 32; c++) {
                const float v = vs[k * PITCH + c * 32 + lane];
#pragma unroll
                for (u32 e = 0; e < EACH; e++) out[e][c] += ps[(warp * EACH + e) * KEYS + k] * v;
            }
        }
        // The next keys take this one's place.
        __syncthreads();
    }
#pragma unroll
    for (u32 e = 0; e < EACH; e++) {
        const u32 q = q0 + warp * EACH + e;
        const float all = warp_sum(sum[e]);
        const int row = q < a.queries ? row_of(a, q) : -1;
        if (row < 0) continue;
        float* const y = static_cast<float*>(a.y) + static_cast<size_t>(row) * a.heads * a.head_dim + blockIdx.y * a.head_dim;
#pragma unroll
        for (u32 c = 0; c < Width / 32; c++) {
            if (c * 32 + lane < a.head_dim) y[c * 32 + lane] = out[e][c] / all;
        }
    }
}

}  // namespace attention_f32

KERNEL void LAUNCH_BOUNDS(128) attention_f32_16x32_d32(const GRID_CONSTANT AttentionArgs a) { attention_f32::run<32>(a); }
KERNEL void LAUNCH_BOUNDS(128) attention_f32_16x32_d64(const GRID_CONSTANT AttentionArgs a) { attention_f32::run<64>(a); }
KERNEL void LAUNCH_BOUNDS(128) attention_f32_16x32_d128(const GRID_CONSTANT AttentionArgs a) { attention_f32::run<128>(a); }
