// Elements of activations, which are f32 or bf16 in memory and f32 in registers.
#pragma once
#include "arguments.cuh"

DEVICE float load(const void* from, size_t i, bool half) {
    return half ? bf16_to_f32(static_cast<const u16*>(from)[i]) : static_cast<const float*>(from)[i];
}

DEVICE void store(void* to, size_t i, bool half, float x) {
    if (half) {
        static_cast<u16*>(to)[i] = static_cast<u16>(cvt_bf16x2(x, 0.0f));
    } else {
        static_cast<float*>(to)[i] = x;
    }
}

/// Whether all groups of `count` elements lie aligned to their size: rows from `p` on, `stride` apart.
DEVICE bool in_groups(const void* p, u32 stride, bool half, u32 count) {
    return stride % count == 0 && reinterpret_cast<size_t>(p) % (count * (half ? 2 : 4)) == 0;
}

/// Elements `i` and `i + 1`, aligned to both.
DEVICE float2 load2(const void* from, size_t i, bool half) {
    if (!half) return *reinterpret_cast<const float2*>(static_cast<const float*>(from) + i);
    const u32 pair = *reinterpret_cast<const u32*>(static_cast<const u16*>(from) + i);
    float2 r;
    r.x = __uint_as_float(pair << 16);
    r.y = __uint_as_float(pair & 0xffff0000u);
    return r;
}

DEVICE void store2(void* to, size_t i, bool half, float x, float y) {
    if (half) {
        *reinterpret_cast<u32*>(static_cast<u16*>(to) + i) = cvt_bf16x2(x, y);
    } else {
        float2 pair;
        pair.x = x;
        pair.y = y;
        *reinterpret_cast<float2*>(static_cast<float*>(to) + i) = pair;
    }
}

/// Elements `i .. i + 4`, aligned to all.
DEVICE float4 load4(const void* from, size_t i, bool half) {
    if (!half) return *reinterpret_cast<const float4*>(static_cast<const float*>(from) + i);
    const uint2 pairs = *reinterpret_cast<const uint2*>(static_cast<const u16*>(from) + i);
    float4 r;
    r.x = __uint_as_float(pairs.x << 16);
    r.y = __uint_as_float(pairs.x & 0xffff0000u);
    r.z = __uint_as_float(pairs.y << 16);
    r.w = __uint_as_float(pairs.y & 0xffff0000u);
    return r;
}

DEVICE void store4(void* to, size_t i, bool half, const float4& x) {
    if (half) {
        uint2 pairs;
        pairs.x = cvt_bf16x2(x.x, x.y);
        pairs.y = cvt_bf16x2(x.z, x.w);
        *reinterpret_cast<uint2*>(static_cast<u16*>(to) + i) = pairs;
    } else {
        *reinterpret_cast<float4*>(static_cast<float*>(to) + i) = x;
    }
}

/// Eight floats to 16 bytes of bf16.
DEVICE uint4 pack8(const float (&x)[8]) {
    uint4 r;
    r.x = cvt_bf16x2(x[0], x[1]);
    r.y = cvt_bf16x2(x[2], x[3]);
    r.z = cvt_bf16x2(x[4], x[5]);
    r.w = cvt_bf16x2(x[6], x[7]);
    return r;
}
