// Where the rows of an attention lie: windows, their padding, the rotary turn, the bias of boxes.
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

/// Elements `2i` and `2i + 1` of a head that begins at element `at` of `from`, turned by the angle of `token`; zero
/// beyond the head.
DEVICE float2 turned(const AttentionArgs& a, const void* from, size_t at, bool half, u32 token, u32 i) {
    float2 p;
    p.x = 2 * i < a.head_dim ? load(from, at + 2 * i, half) : 0.0f;
    p.y = 2 * i + 1 < a.head_dim ? load(from, at + 2 * i + 1, half) : 0.0f;
    if (a.cos && 2 * i < a.head_dim) {
        const size_t angle = static_cast<size_t>(token) * (a.head_dim / 2) + i;
        const float cos = a.cos[angle], sin = a.sin[angle], x = p.x;
        p.x = x * cos - p.y * sin;
        p.y = p.y * cos + x * sin;
    }
    return p;
}

/// The pair `i` of query `token`, zero beyond the queries and at padding, whose output nobody reads.
DEVICE float2 query_pair(const AttentionArgs& a, u32 token, u32 i) {
    const int row = token < a.queries ? row_of(a, token) : -1;
    float2 zero;
    zero.x = zero.y = 0.0f;
    if (row < 0) return zero;
    return turned(a, a.q, head_at(a, static_cast<u32>(row), a.ldq), a.half & HALF_X, token, i);
}

/// The pair `i` of key `token`; padding has the projection's bias.
DEVICE float2 key_pair(const AttentionArgs& a, u32 token, u32 i) {
    float2 zero;
    zero.x = zero.y = 0.0f;
    if (token >= a.keys) return zero;
    const int row = row_of(a, token);
    if (row < 0) return turned(a, a.pad_k, head_at(a, 0, 0), false, token, i);
    return turned(a, a.k, head_at(a, static_cast<u32>(row), a.ldk), a.half & HALF_W, token, i);
}

/// Element `c` of the value of `token`.
DEVICE float value(const AttentionArgs& a, u32 token, u32 c) {
    if (token >= a.keys || c >= a.head_dim) return 0.0f;
    const int row = row_of(a, token);
    if (row < 0) return a.pad_v[head_at(a, 0, 0) + c];
    return load(a.v, head_at(a, static_cast<u32>(row), a.ldv) + c, a.half & HALF_ADD);
}

/// Eight elements of a head that begins at element `at` of `from`, from `8·chunk` on, turned by the angle of `token` where
/// `turn`; zero beyond the head.
DEVICE uint4 head8(const AttentionArgs& a, const void* from, size_t at, bool half, bool turn, u32 token, u32 chunk) {
    const u32 c = chunk * 8;
    uint4 none = {};
    if (c >= a.head_dim) return none;
    float x[8];
    if (c + 8 <= a.head_dim && in_groups(static_cast<const u8*>(from) + (at + c) * (half ? 2 : 4), 0, half, half ? 8 : 4)) {
        if (half && !(turn && a.cos)) return *reinterpret_cast<const uint4*>(static_cast<const u16*>(from) + at + c);
        const float4 low = load4(from, at + c, half), high = load4(from, at + c + 4, half);
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
        x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    } else {
#pragma unroll
        for (u32 e = 0; e < 8; e++) x[e] = c + e < a.head_dim ? load(from, at + c + e, half) : 0.0f;
    }
    if (turn && a.cos) {
        const size_t angle = static_cast<size_t>(token) * (a.head_dim / 2) + c / 2;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            if (c + 2 * i >= a.head_dim) continue;
            const float cos = a.cos[angle + i], sin = a.sin[angle + i], even = x[2 * i], odd = x[2 * i + 1];
            x[2 * i] = even * cos - odd * sin;
            x[2 * i + 1] = odd * cos + even * sin;
        }
    }
    return pack8(x);
}

/// Of query `token` of a window: zero beyond the queries and at padding, whose output nobody reads.
DEVICE uint4 query8(const AttentionArgs& a, u32 token, u32 chunk) {
    const int row = token < a.queries ? row_of(a, token) : -1;
    uint4 none = {};
    if (row < 0) return none;
    return head8(a, a.q, head_at(a, static_cast<u32>(row), a.ldq), a.half & HALF_X, true, token, chunk);
}

/// Of key `token`; padding has the projection's bias.
DEVICE uint4 key8(const AttentionArgs& a, u32 token, u32 chunk) {
    uint4 none = {};
    if (token >= a.keys) return none;
    const int row = row_of(a, token);
    if (row < 0) return head8(a, a.pad_k, head_at(a, 0, 0), false, true, token, chunk);
    return head8(a, a.k, head_at(a, static_cast<u32>(row), a.ldk), a.half & HALF_W, true, token, chunk);
}

/// Of value `token`.
DEVICE uint4 value8(const AttentionArgs& a, u32 token, u32 chunk) {
    uint4 none = {};
    if (token >= a.keys) return none;
    const int row = row_of(a, token);
    if (row < 0) return head8(a, a.pad_v, head_at(a, 0, 0), false, false, token, chunk);
    return head8(a, a.v, head_at(a, static_cast<u32>(row), a.ldv), a.half & HALF_ADD, false, token, chunk);
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
