// Reading the left operand of a GEMM: rows of an activation, or the patches of a 3×3 convolution, never written out.
#pragma once
#include "arguments.cuh"

/// Element `(i, k)`; zero outside of the matrix and of the picture.
template <bool Conv> DEVICE float operand(const GemmArgs& a, u32 i, u32 k) {
    if (i >= a.m || k >= a.k) return 0.0f;
    if (!Conv) return a.x[static_cast<size_t>(i) * a.ldx + k];
    // k is (ky, kx, channel); the tap lies at (y + ky - 1, x + kx - 1).
    const u32 tap = k / a.channels, channel = k % a.channels;
    const u32 y = i / a.width + tap / 3, x = i % a.width + tap % 3;
    if (y < 1 || y > a.height || x < 1 || x > a.width) return 0.0f;
    return a.x[(static_cast<size_t>(y - 1) * a.width + x - 1) * a.channels + channel];
}

/// Elements `(i, k .. k + 8)`, by two 16-byte loads where their address allows it. `k` is a multiple of 8.
template <bool Conv> DEVICE void operand8(const GemmArgs& a, u32 i, u32 k, float (&out)[8]) {
    const float* from = nullptr;
    if (i < a.m && k + 8 <= a.k) {
        if (!Conv) {
            from = a.x + static_cast<size_t>(i) * a.ldx + k;
        } else if (a.channels % 8 == 0) {
            const u32 tap = k / a.channels, channel = k % a.channels;
            const u32 y = i / a.width + tap / 3, x = i % a.width + tap % 3;
            if (y >= 1 && y <= a.height && x >= 1 && x <= a.width)
                from = a.x + (static_cast<size_t>(y - 1) * a.width + x - 1) * a.channels + channel;
        }
    }
    if (from && reinterpret_cast<size_t>(from) % 16 == 0) {
        const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
        out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
        out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
        return;
    }
    // Rolled, since it is long and rare; the inner loop keeps `out` in registers.
#pragma unroll 1
    for (u32 e = 0; e < 8; e++) {
        const float x = operand<Conv>(a, i, k + e);
#pragma unroll
        for (u32 s = 0; s < 8; s++) out[s] = s == e ? x : out[s];
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
