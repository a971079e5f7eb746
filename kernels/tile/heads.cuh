// Where the rows of an attention lie: windows, their padding, the bias of boxes.
#pragma once
#include "element.cuh"

/// Row of a token of a window; -1 for one beyond the grid, which is padding.
DEVICE int row_of(const AttentionArgs& a, u32 token, u32 window) {
    if (a.pattern != SEE_WINDOW) return static_cast<int>(token);
    const u32 across = div_up(a.width, a.size);
    const u32 y = window / across * a.size + token / a.size, x = window % across * a.size + token % a.size;
    return y < a.height && x < a.width ? static_cast<int>(y * a.width + x) : -1;
}

/// In the window of this block.
DEVICE int row_of(const AttentionArgs& a, u32 token) { return row_of(a, token, blockIdx.z); }

/// Where the head of this block begins in row `row` of rows `ld` apart.
DEVICE size_t head_at(const AttentionArgs& a, u32 row, u32 ld) {
    return static_cast<size_t>(row) * ld + blockIdx.y * a.head_dim;
}

/// Where queries, keys and values of this block's head lie: the first element, and whether it is bf16; null for what is
/// zero, beyond the tokens and, of queries, at padding, whose output nobody reads.
struct Head {
    const void* from;
    size_t at;
    bool half;
};

DEVICE Head query_head(const AttentionArgs& a, u32 token) {
    const int row = token < a.queries ? row_of(a, token) : -1;
    if (row < 0) return {nullptr, 0, false};
    return {a.q, head_at(a, static_cast<u32>(row), a.ldq), (a.half & HALF_X) != 0};
}

/// Padding has a key for each position of a window.
DEVICE Head key_head(const AttentionArgs& a, u32 token) {
    if (token >= a.keys) return {nullptr, 0, false};
    const int row = row_of(a, token);
    if (row < 0) return {a.pad_k, head_at(a, token, a.ld_pad), false};
    return {a.k, head_at(a, static_cast<u32>(row), a.ldk), (a.half & HALF_W) != 0};
}

/// And one value.
DEVICE Head value_head(const AttentionArgs& a, u32 token) {
    if (token >= a.keys) return {nullptr, 0, false};
    const int row = row_of(a, token);
    if (row < 0) return {a.pad_v, head_at(a, 0, 0), false};
    return {a.v, head_at(a, static_cast<u32>(row), a.ldv), (a.half & HALF_ADD) != 0};
}

/// Element `c`, zero beyond the head.
DEVICE float element(const AttentionArgs& a, const Head& h, u32 c) {
    return h.from && c < a.head_dim ? load(h.from, h.at + c, h.half) : 0.0f;
}

/// Eight elements from `8·chunk` on, zero beyond the head.
DEVICE uint4 head8(const AttentionArgs& a, const Head& h, u32 chunk) {
    const u32 c = chunk * 8;
    uint4 none = {};
    if (!h.from || c >= a.head_dim) return none;
    const u8* const first = static_cast<const u8*>(h.from) + (h.at + c) * (h.half ? 2 : 4);
    float x[8];
    if (c + 8 <= a.head_dim && in_groups(first, 0, h.half, h.half ? 8 : 4)) {
        if (h.half) return *reinterpret_cast<const uint4*>(first);
        const float4 low = load4(h.from, h.at + c, false), high = load4(h.from, h.at + c + 4, false);
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
        x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    } else {
#pragma unroll
        for (u32 e = 0; e < 8; e++) x[e] = element(a, h, c + e);
    }
    return pack8(x);
}

/// `-inf` where the query does not see the key, otherwise the scaled score with the bias of the query's box.
DEVICE float score(const AttentionArgs& a, u32 query, u32 key, float product) {
    if (key >= a.keys || (a.pattern == SEE_CAUSAL && key > query)) return -INFINITY;
    float s = product * a.scale;
    if (a.pattern == SEE_BOXES && query >= a.first && query < a.queries) {
        const size_t box = query - a.first;
        s += a.by[(box * a.height + key / a.width) * a.heads + blockIdx.y] +
             a.bx[(box * a.width + key % a.width) * a.heads + blockIdx.y];
    }
    return s;
}

/// Keys from here on are seen by none of the queries before `end`.
DEVICE u32 last_key(const AttentionArgs& a, u32 end) {
    return a.pattern == SEE_CAUSAL ? min_u32(a.keys, end) : a.keys;
}
