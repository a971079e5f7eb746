// Pixels, patches, upsampling, and RoI align.
#include "tile/element.cuh"
#include "tile/grid.cuh"

namespace {

/// The triangle filter of one axis in fixed point, as `src/cuda/picture.rs` lays it out.
struct Filter {
    const u32* spans;  // of each output sample: the first input sample, their number, and where its weights begin
    const short* weights;
    u32 precision;
};

/// Rounded to nearest, as on the processor: bit for bit.
DEVICE int level(int sum, u32 precision) {
    const int v = sum >> precision;
    return v < 0 ? 0 : v > 255 ? 255 : v;
}

}  // namespace

/// `y[i, j] = (v - 127.5) / 127.5`, `v` being `x[height, width]` of packed RGB resized to `size` × `size`: each input row
/// across, rounded to a byte, and those down. A thread a pixel: rows that two output rows share are resampled twice, which
/// costs less than a picture of the intermediate bytes would.
KERNEL void LAUNCH_BOUNDS(256) ingest_f32(const GRID_CONSTANT PictureArgs a) {
    const u32 side = a.size;
    const u32* const tables = static_cast<const u32*>(a.skip);
    const short* const weights = reinterpret_cast<const short*>(tables + 2 + 6 * static_cast<size_t>(side));
    const Filter across = {tables + 2, weights, tables[0]}, down = {tables + 2 + 3 * side, weights, tables[1]};
    for (size_t i = first_element(); i < static_cast<size_t>(side) * side; i += all_threads()) {
        const u32* const columns = across.spans + 3 * (i % side);
        const u32* const rows = down.spans + 3 * (i / side);
        const int half_across = 1 << across.precision >> 1, half_down = 1 << down.precision >> 1;
        int red = half_down, green = half_down, blue = half_down;
        for (u32 r = 0; r < rows[1]; r++) {
            const size_t first = static_cast<size_t>(rows[0] + r) * a.width + columns[0];
            const u8* pixel = static_cast<const u8*>(a.x) + first * 3;
            int sums[3] = {half_across, half_across, half_across};
            for (u32 c = 0; c < columns[1]; c++, pixel += 3) {
                const int weight = across.weights[columns[2] + c];
                sums[0] += weight * pixel[0];
                sums[1] += weight * pixel[1];
                sums[2] += weight * pixel[2];
            }
            const int weight = down.weights[rows[2] + r];
            red += weight * level(sums[0], across.precision);
            green += weight * level(sums[1], across.precision);
            blue += weight * level(sums[2], across.precision);
        }
        float* const y = static_cast<float*>(a.y) + i * 3;
        y[0] = __fdiv_rn(static_cast<float>(level(red, down.precision)) - 127.5f, 127.5f);
        y[1] = __fdiv_rn(static_cast<float>(level(green, down.precision)) - 127.5f, 127.5f);
        y[2] = __fdiv_rn(static_cast<float>(level(blue, down.precision)) - 127.5f, 127.5f);
    }
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
    if (a.channels % 4 == 0) {
        for (size_t i = first_element() * 4; i < count; i += all_threads() * 4) {
            const u32 pixel = static_cast<u32>(i / a.channels), c = static_cast<u32>(i % a.channels);
            const u32 row = pixel / a.out_width * a.height / a.out_height;
            const u32 column = pixel % a.out_width * a.width / a.out_width;
            const size_t at = (static_cast<size_t>(row) * a.width + column) * a.channels + c;
            const float4 x = load4(a.x, at, a.half & HALF_X), skip = load4(a.skip, i, a.half & HALF_ADD);
            float4 y;
            y.x = x.x + skip.x, y.y = x.y + skip.y, y.z = x.z + skip.z, y.w = x.w + skip.w;
            store4(a.y, i, a.half & HALF_Y, y);
        }
        return;
    }
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
