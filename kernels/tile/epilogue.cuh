// What follows a sum.
#pragma once
#include "arguments.cuh"

/// `x·Φ(x)`, exact form.
DEVICE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

DEVICE float activate(u32 act, float x) {
    if (act == ACT_GELU) return gelu(x);
    // Not fmaxf, which drops a NaN.
    if (act == ACT_RELU) return x < 0.0f ? 0.0f : x;
    return x;
}

/// Writes element `(i, j)` of a product: where a transposed convolution's lands differs, the rest is the same.
template <bool Deconv> DEVICE void finish(const GemmArgs& a, u32 i, u32 j, float sum) {
    if (i >= a.m || j >= a.n) return;
    size_t row = i;
    u32 column = j, width = a.n;
    if (Deconv) {
        // Column (dy, dx, channel) of pixel (y, x) belongs to pixel (2y + dy, 2x + dx).
        const u32 quarter = j / a.channels;
        column = j % a.channels;
        width = a.channels;
        row = static_cast<size_t>(i / a.width * 2 + quarter / 2) * (2 * a.width) + i % a.width * 2 + quarter % 2;
    }
    if (a.bias) sum += a.bias[j];
    if (a.add) sum += a.add[row * a.ld_add + column];
    a.y[row * width + column] = activate(a.act, sum);
}
