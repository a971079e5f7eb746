// Reading the operands of a GEMM: rows of an activation, or the patches of a 3×3 convolution, never written out.
#pragma once
#include "element.cuh"

constexpr size_t NOWHERE = ~static_cast<size_t>(0);

/// Where element `(i, k)` of the left operand lies; `NOWHERE` outside of the matrix and of the picture.
template <bool Conv> DEVICE size_t operand_at(const GemmArgs& a, u32 i, u32 k) {
    if (i >= a.m || k >= a.k) return NOWHERE;
    if (!Conv) return static_cast<size_t>(i) * a.ldx + k;
    // k is (ky, kx, channel); the tap lies at (y + ky - 1, x + kx - 1).
    const u32 tap = k / a.channels, channel = k % a.channels;
    const u32 y = i / a.width + tap / 3, x = i % a.width + tap % 3;
    if (y < 1 || y > a.height || x < 1 || x > a.width) return NOWHERE;
    return (static_cast<size_t>(y - 1) * a.width + x - 1) * a.channels + channel;
}

template <bool Conv> DEVICE float operand(const GemmArgs& a, u32 i, u32 k) {
    const size_t at = operand_at<Conv>(a, i, k);
    return at == NOWHERE ? 0.0f : load(a.x, at, a.half & HALF_X);
}

/// Whether elements `(i, k .. k + 8)` are neighbours in memory, or all outside. `k` is a multiple of 8.
template <bool Conv> DEVICE bool together(const GemmArgs& a, u32 k) {
    return Conv ? a.channels % 8 == 0 : k + 8 <= a.k || k >= a.k;
}

/// Elements `(i, k .. k + 8)` one by one. Rolled, since it is long and rare; the inner loop keeps `out` in registers.
template <bool Conv> DEVICE void operand8_apart(const GemmArgs& a, u32 i, u32 k, float (&out)[8]) {
#pragma unroll 1
    for (u32 e = 0; e < 8; e++) {
        const float x = operand<Conv>(a, i, k + e);
#pragma unroll
        for (u32 s = 0; s < 8; s++) out[s] = s == e ? x : out[s];
    }
}

/// Elements `(i, k .. k + 8)` of an operand of f32, by two 16-byte loads where their address allows it.
template <bool Conv> DEVICE void operand8(const GemmArgs& a, u32 i, u32 k, float (&out)[8]) {
    if (together<Conv>(a, k)) {
        const size_t at = operand_at<Conv>(a, i, k);
        const float* const from = static_cast<const float*>(a.x) + at;
        if (at == NOWHERE || reinterpret_cast<size_t>(from) % 16 == 0) {
            float4 low = {}, high = {};
            if (at != NOWHERE) {
                low = *reinterpret_cast<const float4*>(from);
                high = *reinterpret_cast<const float4*>(from + 4);
            }
            out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
            out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
            return;
        }
    }
    operand8_apart<Conv>(a, i, k, out);
}
