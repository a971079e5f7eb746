// Layer norm, one warp a row; group norm in two kernels. Variances in two passes over data that the cache holds, since
// the one-pass formula loses everything where the mean is large.
#include "tile/epilogue.cuh"
#include "tile/grid.cuh"

/// Rows of a block of 256 threads.
constexpr u32 NORM_ROWS = 8;

KERNEL void LAUNCH_BOUNDS(256) layer_norm_f32(const GRID_CONSTANT NormArgs a) {
    const u32 row = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= a.rows) return;
    const float* const x = a.x + static_cast<size_t>(row) * a.ldx;
    float sum = 0.0f;
    for (u32 c = lane; c < a.width; c += 32) sum += x[c];
    const float mean = warp_sum(sum) / a.width;
    float squares = 0.0f;
    for (u32 c = lane; c < a.width; c += 32) squares += (x[c] - mean) * (x[c] - mean);
    const float scale = 1.0f / sqrtf(warp_sum(squares) / a.width + a.eps);
    for (u32 c = lane; c < a.width; c += 32) {
        const float y = (x[c] - mean) * scale * a.gamma[c] + a.beta[c];
        a.y[static_cast<size_t>(row) * a.width + c] = activate(a.act, y);
    }
}

/// Count, mean and sum of squared deviations of one chunk of rows of one group; grid: chunks / 8, groups.
KERNEL void LAUNCH_BOUNDS(256) group_norm_partial_f32(const GRID_CONSTANT NormArgs a) {
    const u32 chunk = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32, group = blockIdx.y;
    if (chunk >= a.chunks) return;
    const u32 channels = a.width / a.groups, rows = div_up(a.rows, a.chunks);
    const u32 first = min_u32(chunk * rows, a.rows), last = min_u32(first + rows, a.rows);
    const u32 count = (last - first) * channels;
    const float* const x = a.x + static_cast<size_t>(first) * a.width + group * channels;
    float sum = 0.0f;
    for (u32 i = lane; i < count; i += 32) sum += x[static_cast<size_t>(i / channels) * a.width + i % channels];
    const float mean = count ? warp_sum(sum) / count : 0.0f;
    float squares = 0.0f;
    for (u32 i = lane; i < count; i += 32) {
        const float d = x[static_cast<size_t>(i / channels) * a.width + i % channels] - mean;
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
KERNEL void LAUNCH_BOUNDS(256) group_norm_apply_f32(const GRID_CONSTANT NormArgs a) {
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
        const float y = (a.x[first + i] - statistics[group * 2]) * statistics[group * 2 + 1] * a.gamma[c] + a.beta[c];
        a.y[first + i] = activate(a.act, y);
    }
}
