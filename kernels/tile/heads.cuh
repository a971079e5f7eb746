// Where the rows of an attention lie: windows, their padding, the rotary turn, the bias of boxes.
#pragma once
#include "arguments.cuh"

/// Row of a token; -1 for one beyond the grid, which is padding.
DEVICE int row_of(const AttentionArgs& a, u32 token) {
    if (a.pattern != SEE_WINDOW) return static_cast<int>(token);
    const u32 across = div_up(a.width, a.size);
    const u32 y = blockIdx.z / across * a.size + token / a.size, x = blockIdx.z % across * a.size + token % a.size;
    return y < a.height && x < a.width ? static_cast<int>(y * a.width + x) : -1;
}

/// Elements `2i` and `2i + 1` of a row of one head, turned by the angle of `token`; zero beyond the head.
DEVICE float2 turned(const AttentionArgs& a, const float* row, u32 token, u32 i) {
    float2 p;
    p.x = 2 * i < a.head_dim ? row[2 * i] : 0.0f;
    p.y = 2 * i + 1 < a.head_dim ? row[2 * i + 1] : 0.0f;
    if (a.cos && 2 * i < a.head_dim) {
        const size_t at = static_cast<size_t>(token) * (a.head_dim / 2) + i;
        const float cos = a.cos[at], sin = a.sin[at], x = p.x;
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
    return turned(a, a.q + static_cast<size_t>(row) * a.ldq + blockIdx.y * a.head_dim, token, i);
}

/// The pair `i` of key `token`; padding has the projection's bias.
DEVICE float2 key_pair(const AttentionArgs& a, u32 token, u32 i) {
    float2 zero;
    zero.x = zero.y = 0.0f;
    if (token >= a.keys) return zero;
    const int row = row_of(a, token);
    const float* const from = row < 0 ? a.pad_k : a.k + static_cast<size_t>(row) * a.ldk;
    return turned(a, from + blockIdx.y * a.head_dim, token, i);
}

/// Element `c` of the value of `token`.
DEVICE float value(const AttentionArgs& a, u32 token, u32 c) {
    if (token >= a.keys || c >= a.head_dim) return 0.0f;
    const int row = row_of(a, token);
    const float* const from = row < 0 ? a.pad_v : a.v + static_cast<size_t>(row) * a.ldv;
    return from[blockIdx.y * a.head_dim + c];
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
