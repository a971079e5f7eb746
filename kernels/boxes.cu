// Boxes of the decoder, `[n, 4]` as normalised cxcywh. A few hundred numbers: accuracy is all that counts.
#include "tile/arguments.cuh"
#include "tile/grid.cuh"

/// `sign(d)·log2(|8d| + 1) / log2(8)`
DEVICE float log_scaled(float d) { return copysignf(log2f(fabsf(8.0f * d) + 1.0f) / 3.0f, d); }

/// `y[n, block, i]`: sine or cosine of the angle of cy, cx, w, h
KERNEL void LAUNCH_BOUNDS(128) box_sine_f32(const GRID_CONSTANT BoxArgs a) {
    const u32 e = static_cast<u32>(first_element());
    if (e >= a.count * 4 * a.features) return;
    const u32 i = e % a.features, block = e / a.features % 4, n = e / a.features / 4;
    // Blocks are cy, cx, w, h; boxes are cx, cy, w, h.
    const float t = a.boxes[n * 4 + (block < 2 ? 1 - block : block)];
    const float exponent = static_cast<float>(i / 2 * 2) / static_cast<float>(a.features);
    const float angle = 6.28318530717958648f * t / powf(10000.0f, exponent);
    a.y[e] = i % 2 == 0 ? sinf(angle) : cosf(angle);
}

/// `y[n, width, 2]` and `y2[n, height, 2]`
KERNEL void LAUNCH_BOUNDS(128) box_deltas_f32(const GRID_CONSTANT BoxArgs a) {
    const u32 e = static_cast<u32>(first_element()), lines = a.width + a.height;
    if (e >= a.count * lines * 2) return;
    const u32 edge = e % 2, line = e / 2 % lines, n = e / 2 / lines;
    const float* const box = a.boxes + n * 4;
    const float side = edge == 0 ? -0.5f : 0.5f;
    if (line < a.width) {
        const float d = static_cast<float>(line) / static_cast<float>(a.width) - (box[0] + side * box[2]);
        a.y[(n * a.width + line) * 2 + edge] = log_scaled(d);
    } else {
        const u32 i = line - a.width;
        const float d = static_cast<float>(i) / static_cast<float>(a.height) - (box[1] + side * box[3]);
        a.y2[(n * a.height + i) * 2 + edge] = log_scaled(d);
    }
}

/// `y = σ(delta + σ⁻¹(boxes))` of `count` boxes
KERNEL void LAUNCH_BOUNDS(128) box_refine_f32(const GRID_CONSTANT BoxArgs a) {
    const u32 e = static_cast<u32>(first_element());
    if (e >= a.count * 4) return;
    const float epsilon = 1e-3f;
    // Comparisons keep a NaN where fminf and fmaxf would hide it.
    float x = a.boxes[e];
    x = x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x;
    const float odds = (x < epsilon ? epsilon : x) / (1.0f - x < epsilon ? epsilon : 1.0f - x);
    a.y[e] = 1.0f / (1.0f + expf(-(a.delta[e] + logf(odds))));
}
