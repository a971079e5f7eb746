// Masks at a picture's size, one bit a pixel, every bit as the definition has it: no operation here is contracted, and
// where an exponential of another library might decide differently, the word is told to the host, which decides it.
#include "ptx/math.cuh"
#include "tile/arguments.cuh"
#include "tile/grid.cuh"

namespace {

/// The two samples of a pixel along one axis, and their weights.
struct Tap {
    u32 near, far;
    float near_weight, far_weight;
};

/// As `Taps::new` has them, `step` samples a pixel.
DEVICE Tap tap(u32 i, float step, u32 samples) {
    const float position = fmaxf(__fmaf_rn(step, static_cast<float>(i) + 0.5f, -0.5f), 0.0f);
    Tap t;
    t.near = min_u32(static_cast<u32>(position), samples - 1);
    t.far = min_u32(t.near + 1, samples - 1);
    t.far_weight = fminf(fmaxf(position - static_cast<float>(t.near), 0.0f), 1.0f);
    t.near_weight = 1.0f - t.far_weight;
    return t;
}

DEVICE float blend(const Tap& t, float near, float far) {
    return __fadd_rn(__fmul_rn(near, t.near_weight), __fmul_rn(far, t.far_weight));
}

/// A column of two samples, one below the other.
struct Column {
    float top, bottom;
};

}  // namespace

/// `y[i, j] = x resized > threshold`, a thread for 32 neighbouring pixels: they have few samples, of which each is read and
/// put through σ once.
KERNEL void LAUNCH_BOUNDS(128) cut_f32(const GRID_CONSTANT CutArgs a) {
    const size_t count = static_cast<size_t>(a.out_height) * a.line;
    for (size_t i = first_element(); i < count; i += all_threads()) {
        const u32 start = static_cast<u32>(i % a.line) * 32;
        const u32 end = min_u32(start + 32, a.out_width);
        const Tap down = tap(static_cast<u32>(i / a.line), a.down, a.height);
        const float* const top = a.x + static_cast<size_t>(down.near) * a.width;
        const float* const bottom = a.x + static_cast<size_t>(down.far) * a.width;
        const auto sample = [&](float x) { return a.sigmoid ? __fdiv_rn(1.0f, __fadd_rn(1.0f, exponential(-x))) : x; };
        const auto column = [&](u32 j) { return Column{sample(top[j]), sample(bottom[j])}; };
        // No sample is held yet.
        u32 held = a.width, bits = 0;
        bool doubtful = false;
        Column near = {0.0f, 0.0f}, far = {0.0f, 0.0f};
        for (u32 j = start; j < end; j++) {
            const Tap across = tap(j, a.across, a.width);
            if (across.near != held) {
                near = held != a.width && across.near == held + 1 ? far : column(across.near);
                far = column(across.far);
                held = across.near;
            }
            const float v = blend(down, blend(across, near.top, far.top), blend(across, near.bottom, far.bottom));
            bits |= static_cast<u32>(v > a.threshold) << (j - start);
            doubtful |= fabsf(v - a.threshold) < a.close;
        }
        a.y[i] = bits;
        if (a.sigmoid && doubtful) {
            const u32 at = atomicAdd(a.doubtful, 1u);
            if (at < a.most) a.doubtful[1 + at] = static_cast<u32>(i);
        }
    }
}
