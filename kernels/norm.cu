// Layer norm, one warp a row; group norm in two kernels. Variances in two passes over what registers or the cache hold,
// since the one-pass formula loses everything where the mean is large.
#include "tile/epilogue.cuh"
#include "tile/grid.cuh"

/// Rows of a block of 256 threads.
constexpr u32 NORM_ROWS = 8;

/// Columns that a warp keeps in registers, so that the row is read once: four times eight a lane.
constexpr u32 NORM_HELD = 1024;

KERNEL void LAUNCH_BOUNDS(256) layer_norm(const GRID_CONSTANT NormArgs a) {
    const u32 row = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= a.rows) return;
    const bool half = a.half & HALF_X, to_half = a.half & HALF_Y;
    const size_t from = static_cast<size_t>(row) * a.ldx, to = static_cast<size_t>(row) * a.width;
    if (a.width <= NORM_HELD && a.width % 4 == 0 && in_groups(a.x, a.ldx, half, 4)) {
        float4 x[NORM_HELD / 128];
        float sum = 0.0f, squares = 0.0f;
#pragma unroll
        for (u32 i = 0; i < NORM_HELD / 128; i++) {
            const u32 c = i * 128 + lane * 4;
            x[i] = {};
            if (c < a.width) x[i] = load4(a.x, from + c, half);
            sum += (x[i].x + x[i].y) + (x[i].z + x[i].w);
        }
        const float mean = warp_sum(sum) / a.width;
#pragma unroll
        for (u32 i = 0; i < NORM_HELD / 128; i++) {
            if (i * 128 + lane * 4 >= a.width) continue;
            x[i].x -= mean, x[i].y -= mean, x[i].z -= mean, x[i].w -= mean;
            squares += (x[i].x * x[i].x + x[i].y * x[i].y) + (x[i].z * x[i].z + x[i].w * x[i].w);
        }
        const float scale = 1.0f / sqrtf(warp_sum(squares) / a.width + a.eps);
#pragma unroll
        for (u32 i = 0; i < NORM_HELD / 128; i++) {
            const u32 c = i * 128 + lane * 4;
            if (c >= a.width) continue;
            const float4 gamma = *reinterpret_cast<const float4*>(a.gamma + c);
            const float4 beta = *reinterpret_cast<const float4*>(a.beta + c);
            float4 y;
            y.x = activate(a.act, x[i].x * scale * gamma.x + beta.x);
            y.y = activate(a.act, x[i].y * scale * gamma.y + beta.y);
            y.z = activate(a.act, x[i].z * scale * gamma.z + beta.z);
            y.w = activate(a.act, x[i].w * scale * gamma.w + beta.w);
            store4(a.y, to + c, to_half, y);
        }
        return;
    }
    float sum = 0.0f;
    for (u32 c = lane; c < a.width; c += 32) sum += load(a.x, from + c, half);
    const float mean = warp_sum(sum) / a.width;
    float squares = 0.0f;
    for (u32 c = lane; c < a.width; c += 32) {
        const float d = load(a.x, from + c, half) - mean;
        squares += d * d;
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / a.width + a.eps);
    for (u32 c = lane; c < a.width; c += 32) {
        const float y = (load(a.x, from + c, half) - mean) * scale * a.gamma[c] + a.beta[c];
        store(a.y, to + c, to_half, activate(a.act, y));
    }
}

/// Count, mean and sum of squared deviations of one chunk of rows of one group; grid: chunks / 8, groups.
KERNEL void LAUNCH_BOUNDS(256) group_norm_partial(const GRID_CONSTANT NormArgs a) {
    const u32 chunk = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32, group = blockIdx.y;
    if (chunk >= a.chunks) return;
    const u32 channels = a.width / a.groups, rows = div_up(a.rows, a.chunks);
    const u32 first = min_u32(chunk * rows, a.rows), last = min_u32(first + rows, a.rows);
    const u32 count = (last - first) * channels;
    const size_t from = static_cast<size_t>(first) * a.width + group * channels;
    const auto element = [&](u32 i) {
        return load(a.x, from + static_cast<size_t>(i / channels) * a.width + i % channels, a.half & HALF_X);
    };
    float sum = 0.0f;
    for (u32 i = lane; i < count; i += 32) sum += element(i);
    const float mean = count ? warp_sum(sum) / count : 0.0f;
    float squares = 0.0f;
    for (u32 i = lane; i < count; i += 32) {
        const float d = element(i) - mean;
        squares += d * d;
    }
    squares = warp_sum(squares);
    if (lane == 0) {
        float* const out = a.partial + (static_cast<size_t>(group) * a.chunks + chunk) * 3;
        out[0] = static_cast<float>(count);
        out[1] = mean;
        out[2] = squares;
    }
}

/// Joins the chunks of each group (Chan, Golub and LeVeque, 1979) and normalises; grid: rows / 8.
KERNEL void LAUNCH_BOUNDS(256) group_norm_apply(const GRID_CONSTANT NormArgs a) {
    DYNAMIC_SHARED(shared);
    float* const statistics = reinterpret_cast<float*>(shared);  // [groups, 2] of mean and scale
    for (u32 group = threadIdx.x; group < a.groups; group += blockDim.x) {
        const float* const partial = a.partial + static_cast<size_t>(group) * a.chunks * 3;
        float count = 0.0f, mean = 0.0f, squares = 0.0f;
        for (u32 chunk = 0; chunk < a.chunks; chunk++) {
            const float n = partial[chunk * 3];
            if (n == 0.0f) continue;
            const float both = count + n, d = partial[chunk * 3 + 1] - mean;
            squares += partial[chunk * 3 + 2] + d * d * (count * n / both);
            mean += d * (n / both);
            count = both;
        }
        statistics[group * 2] = mean;
        statistics[group * 2 + 1] = 1.0f / sqrtf(squares / count + a.eps);
    }
    __syncthreads();
    const u32 channels = a.width / a.groups;
    const size_t first = static_cast<size_t>(blockIdx.x) * NORM_ROWS * a.width;
    const size_t end = static_cast<size_t>(a.rows) * a.width;
    for (u32 i = threadIdx.x; i < NORM_ROWS * a.width && first + i < end; i += blockDim.x) {
        const u32 c = i % a.width, group = c / channels;
        const float x = load(a.x, first + i, a.half & HALF_X);
        const float y = (x - statistics[group * 2]) * statistics[group * 2 + 1] * a.gamma[c] + a.beta[c];
        store(a.y, first + i, a.half & HALF_Y, activate(a.act, y));
    }
}
