// Pixels, patches, upsampling, and RoI align.
#include "tile/element.cuh"
#include "tile/grid.cuh"

/// `y[i] = (rgb[i] - 127.5) / 127.5` of `count` bytes
KERNEL void LAUNCH_BOUNDS(256) ingest_f32(const GRID_CONSTANT PictureArgs a) {
    const u8* const rgb = static_cast<const u8*>(a.x);
    for (size_t i = first_element(); i < a.count; i += all_threads())
        static_cast<float*>(a.y)[i] = (rgb[i] - 127.5f) / 127.5f;
}

/// `y[(i, j), (c, dy, dx)] = x[(i·p + dy, j·p + dx), c]`
KERNEL void LAUNCH_BOUNDS(256) patches_f32(const GRID_CONSTANT PictureArgs a) {
    const u32 p = a.size, across = a.width / p;
    const size_t count = static_cast<size_t>(a.height) * a.width * a.channels;
    for (size_t i = first_element(); i < count; i += all_threads()) {
        const u32 length = a.channels * p * p, patch = static_cast<u32>(i / length);
        const u32 e = static_cast<u32>(i % length), c = e / (p * p), dy = e / p % p, dx = e % p;
        const size_t pixel = static_cast<size_t>(patch / across * p + dy) * a.width + patch % across * p + dx;
        static_cast<float*>(a.y)[i] = load(a.x, pixel * a.channels + c, a.half & HALF_X);
    }
}

/// `y[i, j] = x[⌊i·h/oh⌋, ⌊j·w/ow⌋] + skip[i, j]`
KERNEL void LAUNCH_BOUNDS(256) upsample_add(const GRID_CONSTANT PictureArgs a) {
    const size_t count = static_cast<size_t>(a.out_height) * a.out_width * a.channels;
    for (size_t i = first_element(); i < count; i += all_threads()) {
        const u32 pixel = static_cast<u32>(i / a.channels), c = static_cast<u32>(i % a.channels);
        const u32 row = pixel / a.out_width * a.height / a.out_height;
        const u32 column = pixel % a.out_width * a.width / a.out_width;
        const float x = load(a.x, (static_cast<size_t>(row) * a.width + column) * a.channels + c, a.half & HALF_X);
        store(a.y, i, a.half & HALF_Y, x + load(a.skip, i, a.half & HALF_ADD));
    }
}

namespace {

/// The two lines of an axis that a position lies between.
struct Between {
    u32 low, high;
    float part;
    bool inside;
};

DEVICE Between between(float position, u32 length) {
    Between b = {0, 0, 0.0f, false};
    if (position < -1.0f || position > static_cast<float>(length)) return b;
    b.inside = true;
    position = fmaxf(position, 0.0f);
    b.low = static_cast<u32>(position);
    if (b.low + 1 >= length) {
        b.low = b.high = length - 1;
    } else {
        b.high = b.low + 1;
        b.part = position - static_cast<float>(b.low);
    }
    return b;
}

/// One axis of a box in equal bins, positions rounded as upstream rounds them: the number of samples and whether one is
/// outside hang on them, so nothing here may be contracted.
struct Bins {
    float start, bin;
    u32 grid;
};

DEVICE Bins bins(float start, float end, u32 size) {
    Bins b;
    b.start = start;
    b.bin = __fdiv_rn(fmaxf(__fadd_rn(end, -start), 1.0f), static_cast<float>(size));
    b.grid = static_cast<u32>(ceilf(b.bin));
    return b;
}

DEVICE float sample_at(const Bins& b, u32 i, u32 s) {
    const float whole = __fadd_rn(b.start, __fmul_rn(static_cast<float>(i), b.bin));
    const float part = __fdiv_rn(__fmul_rn(static_cast<float>(s) + 0.5f, b.bin), static_cast<float>(b.grid));
    return __fadd_rn(whole, part);
}

}  // namespace

/// `y[n, c, i, j]`: the mean of the bilinear samples of bin `(i, j)` of box `n`; a thread per element, neighbouring
/// threads on neighbouring channels.
KERNEL void LAUNCH_BOUNDS(128, 8) roi_align_f32(const GRID_CONSTANT PictureArgs a) {
    const u32 size = a.size, bins_of_box = size * size;
    const size_t count = static_cast<size_t>(a.count) * bins_of_box * a.channels;
    for (size_t e = first_element(); e < count; e += all_threads()) {
        const u32 c = static_cast<u32>(e % a.channels);
        const u32 bin = static_cast<u32>(e / a.channels % bins_of_box);
        const u32 n = static_cast<u32>(e / a.channels / bins_of_box);
        const float* const box = static_cast<const float*>(a.skip) + n * 4;
        const Bins across = bins(box[0], box[2], size), down = bins(box[1], box[3], size);
        float sum = 0.0f;
        for (u32 sy = 0; sy < down.grid; sy++) {
            const Between y = between(sample_at(down, bin / size, sy), a.height);
            if (!y.inside) continue;
            for (u32 sx = 0; sx < across.grid; sx++) {
                const Between z = between(sample_at(across, bin % size, sx), a.width);
                if (!z.inside) continue;
                const auto pixel = [&](u32 i, u32 j) {
                    return load(a.x, (static_cast<size_t>(i) * a.width + j) * a.channels + c, a.half & HALF_X);
                };
                const float top = pixel(y.low, z.low) * (1.0f - z.part) + pixel(y.low, z.high) * z.part;
                const float bottom = pixel(y.high, z.low) * (1.0f - z.part) + pixel(y.high, z.high) * z.part;
                sum += top * (1.0f - y.part) + bottom * y.part;
            }
        }
        static_cast<float*>(a.y)[(static_cast<size_t>(n) * a.channels + c) * bins_of_box + bin] =
            sum / static_cast<float>(down.grid * across.grid);
    }
}
