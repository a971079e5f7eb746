// What follows a sum.
#pragma once
#include "../ptx/math.cuh"
#include "element.cuh"

/// `x·Φ(x)`, exact form, by the complement of erf in 16 instructions where erff takes some 40: Abramowitz and Stegun,
/// 7.1.26, whose error of 1.5e-7 is that of a rounding of 1 + erf in f32.
DEVICE float gelu(float x) {
    const float z = fabsf(x) * 0.70710678118654752f, t = rcp(1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    // Half of erfc(z): what Φ lacks to 1 on the right, and all of it on the left.
    const float rest = 0.5f * p * t * ex2(z * z * -1.44269504088896341f);
    return x < 0.0f ? x * rest : x - x * rest;
}

/// The same for a result that is rounded to bf16: `Φ(-|x|)` as a power of two whose exponent is a polynomial, within 1.2e-4 of
/// it (minimax on 0 to 5.6, beyond which the result is less than 1e-7; the leading coefficient is negative, so that larger
/// ones come to 0), a sixteenth of the rounding, in half of the instructions and one approximation instead of two.
DEVICE float gelu_rounded(float x) {
    const float z = fabsf(x);
    float p = -0.0002847063879f;
    p = p * z + 0.005487564951f;
    p = p * z - 0.04711347818f;
    p = p * z - 0.4656290710f;
    p = p * z - 1.148472548f;
    p = p * z - 1.000174165f;
    const float rest = x * ex2(p);
    return x < 0.0f ? rest : x - rest;
}

DEVICE float activate(u32 act, float x) {
    if (act == ACT_GELU) return gelu(x);
    // Not fmaxf, which drops a NaN.
    if (act == ACT_RELU) return x < 0.0f ? 0.0f : x;
    return x;
}

/// Of a result that is rounded to bf16, if it is a GELU.
DEVICE float activate_rounded(u32 act, float x) { return act == ACT_GELU ? gelu_rounded(x) : activate(act, x); }

/// Where an element of a product lands.
struct Place {
    size_t row;
    u32 column, width;
};

/// Of a transposed convolution, column `(dy, dx, channel)` of pixel `(y, x)` belongs to pixel `(2y + dy, 2x + dx)`.
template <bool Deconv> DEVICE Place place(const GemmArgs& a, u32 i, u32 j) {
    Place p = {i, j, a.n};
    if (Deconv) {
        const u32 quarter = j / a.channels;
        p.column = j % a.channels;
        p.width = a.channels;
        p.row = static_cast<size_t>(i / a.width * 2 + quarter / 2) * (2 * a.width) + i % a.width * 2 + quarter % 2;
    }
    return p;
}

/// Element `(i, j)` of a product before the turn.
template <bool Deconv> DEVICE float finished(const GemmArgs& a, u32 i, u32 j, float sum) {
    const Place p = place<Deconv>(a, i, j);
    if (a.bias) sum += a.bias[j];
    if (a.add) sum += load(a.add, p.row * a.ld_add + p.column, a.half & HALF_ADD);
    return activate(a.act, sum);
}

/// Turns a pair of columns by `angle`, its cosine and sine.
DEVICE void turn_pair(const float2& angle, float& x, float& y) {
    const float before = x;
    x = before * angle.x - y * angle.y;
    y = y * angle.x + before * angle.y;
}

/// Whether elements in an even and the next column lie together, in y and in what is added: the same for all of a product.
template <bool Deconv> DEVICE bool in_pairs(const GemmArgs& a) {
    const u32 width = Deconv ? a.channels : a.n;
    return width % 2 == 0 && (!a.add || in_groups(a.add, a.ld_add, a.half & HALF_ADD, 2));
}

/// Writes elements `(i, j)` and `(i, j + 1)` of a product, as far as they are there; `j` is even, and `pairs` is
/// `in_pairs`.
template <bool Deconv> DEVICE void finish2(const GemmArgs& a, u32 i, u32 j, float x, float y, bool pairs) {
    if (i >= a.m || j >= a.n) return;
    const Place p = place<Deconv>(a, i, j);
    const bool second = j + 1 < a.n;
    if (pairs) {
        if (a.bias) {
            const float2 bias = *reinterpret_cast<const float2*>(a.bias + j);
            x += bias.x;
            y += bias.y;
        }
        if (a.add) {
            const float2 add = load2(a.add, p.row * a.ld_add + p.column, a.half & HALF_ADD);
            x += add.x;
            y += add.y;
        }
        x = activate(a.act, x);
        y = activate(a.act, y);
    } else {
        x = finished<Deconv>(a, i, j, x);
        if (second) y = finished<Deconv>(a, i, j + 1, y);
    }
    if (!Deconv && j < a.turned) {
        const size_t angle = static_cast<size_t>(i) * a.head_dim + j % a.head_dim;
        turn_pair(*reinterpret_cast<const float2*>(a.angles + angle), x, y);
    }
    if (pairs) {
        store2(a.y, p.row * p.width + p.column, a.half & HALF_Y, x, y);
    } else {
        store(a.y, p.row * p.width + p.column, a.half & HALF_Y, x);
        if (second) {
            const Place q = place<Deconv>(a, i, j + 1);
            store(a.y, q.row * q.width + q.column, a.half & HALF_Y, y);
        }
    }
}
