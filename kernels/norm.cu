// Layer norm, one warp a row; group norm in two kernels. Variances in two passes over what registers or the cache hold,
// since the one-pass formula loses everything where the mean is large.
#include "tile/epilogue.cuh"
#include "tile/grid.cuh"

/// Rows of a block of 256 threads.
constexpr u32 NORM_ROWS = 8;

/// Columns that a warp keeps in registers, so that the row is read once: four times eight a lane.
constexpr u32 NORM_HELD = 1024;

/// A row that a warp holds in registers. Gamma and beta are read late, from the first-level cache, so that there are registers
/// for four blocks a multiprocessor and 128 KiB of rows are on their way to it.
template <bool Half> DEVICE void norm_held(const NormArgs& a, size_t from, size_t to, u32 lane) {
    constexpr u32 GROUPS = NORM_HELD / 128;
    float4 x[GROUPS];
    const auto column = [&](u32 i) { return i * 128 + lane * 4; };
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) {
        x[i] = {};
        if (column(i) < a.width) x[i] = load4(a.x, from + column(i), Half);
    }
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) sum += (x[i].x + x[i].y) + (x[i].z + x[i].w);
    const float mean = warp_sum(sum) / a.width;
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) {
        if (column(i) >= a.width) continue;
        x[i].x -= mean, x[i].y -= mean, x[i].z -= mean, x[i].w -= mean;
        squares += (x[i].x * x[i].x + x[i].y * x[i].y) + (x[i].z * x[i].z + x[i].w * x[i].w);
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / a.width + a.eps);
    const bool to_half = a.half & HALF_Y;
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) {
        if (column(i) >= a.width) continue;
        const float4 gamma = *reinterpret_cast<const float4*>(a.gamma + column(i));
        const float4 beta = *reinterpret_cast<const float4*>(a.beta + column(i));
        float4 y;
        y.x = activate(a.act, x[i].x * scale * gamma.x + beta.x);
        y.y = activate(a.act, x[i].y * scale * gamma.y + beta.y);
        y.z = activate(a.act, x[i].z * scale * gamma.z + beta.z);
        y.w = activate(a.act, x[i].w * scale * gamma.w + beta.w);
        store4(a.y, to + column(i), to_half, y);
    }
}

KERNEL void LAUNCH_BOUNDS(256, 4) layer_norm(const GRID_CONSTANT NormArgs a) {
    const u32 row = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= a.rows) return;
    const bool half = a.half & HALF_X, to_half = a.half & HALF_Y;
    const size_t from = static_cast<size_t>(row) * a.ldx, to = static_cast<size_t>(row) * a.width;
    if (a.width <= NORM_HELD && a.width % 4 == 0 && in_groups(a.x, a.ldx, half, 4)) {
        if (half) {
            norm_held<true>(a, from, to, lane);
        } else {
            norm_held<false>(a, from, to, lane);
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

/// Count, mean and sum of squared deviations of one chunk of rows of one group, which are joined after Chan, Golub and LeVeque
/// (1979); grid: chunks / 8, groups.
KERNEL void LAUNCH_BOUNDS(256) group_norm_partial(const GRID_CONSTANT NormArgs a) {
    const u32 chunk = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32, group = blockIdx.y;
    if (chunk >= a.chunks) return;
    const u32 channels = a.width / a.groups, rows = div_up(a.rows, a.chunks);
    const u32 first = min_u32(chunk * rows, a.rows), last = min_u32(first + rows, a.rows);
    const u32 count = (last - first) * channels;
    const size_t from = static_cast<size_t>(first) * a.width + group * channels;
    const bool half = a.half & HALF_X;
    float sum = 0.0f, squares = 0.0f, mean;
    if (channels % 4 == 0 && in_groups(a.x, a.width, half, 4)) {
        const u32 fours = channels / 4;
        const auto four = [&](u32 i) { return load4(a.x, from + static_cast<size_t>(i / fours) * a.width + i % fours * 4, half); };
        for (u32 i = lane; i < count / 4; i += 32) {
            const float4 x = four(i);
            sum += (x.x + x.y) + (x.z + x.w);
        }
        mean = count ? warp_sum(sum) / count : 0.0f;
        for (u32 i = lane; i < count / 4; i += 32) {
            const float4 x = four(i);
            const float d[4] = {x.x - mean, x.y - mean, x.z - mean, x.w - mean};
            squares += (d[0] * d[0] + d[1] * d[1]) + (d[2] * d[2] + d[3] * d[3]);
        }
    } else {
        const auto element = [&](u32 i) {
            return load(a.x, from + static_cast<size_t>(i / channels) * a.width + i % channels, half);
        };
        for (u32 i = lane; i < count; i += 32) sum += element(i);
        mean = count ? warp_sum(sum) / count : 0.0f;
        for (u32 i = lane; i < count; i += 32) {
            const float d = element(i) - mean;
            squares += d * d;
        }
    }
    squares = warp_sum(squares);
    if (lane == 0) {
        float* const out = a.partial + (static_cast<size_t>(group) * a.chunks + chunk) * 3;
        out[0] = static_cast<float>(count);
        out[1] = mean;
        out[2] = squares;
    }
}

/// Joins the chunks of each group, a warp each, and normalises; blocks go from row to row.
KERNEL void LAUNCH_BOUNDS(256) group_norm_apply(const GRID_CONSTANT NormArgs a) {
    DYNAMIC_SHARED(shared);
    float* const statistics = reinterpret_cast<float*>(shared);  // [groups, 2] of mean and scale
    const u32 lane = threadIdx.x % 32;
    for (u32 group = threadIdx.x / 32; group < a.groups; group += blockDim.x / 32) {
        const float* const partial = a.partial + static_cast<size_t>(group) * a.chunks * 3;
        float count = 0.0f, sum = 0.0f, squares = 0.0f;
        for (u32 chunk = lane; chunk < a.chunks; chunk += 32) {
            count += partial[chunk * 3];
            sum += partial[chunk * 3] * partial[chunk * 3 + 1];
        }
        count = warp_sum(count);
        const float mean = warp_sum(sum) / count;
        // The chunks' own deviations, and those of their means.
        for (u32 chunk = lane; chunk < a.chunks; chunk += 32) {
            const float d = partial[chunk * 3 + 1] - mean;
            squares += partial[chunk * 3 + 2] + partial[chunk * 3] * d * d;
        }
        squares = warp_sum(squares);
        if (lane == 0) {
            statistics[group * 2] = mean;
            statistics[group * 2 + 1] = 1.0f / sqrtf(squares / count + a.eps);
        }
    }
    __syncthreads();
    const u32 channels = a.width / a.groups;
    const bool half = a.half & HALF_X, to_half = a.half & HALF_Y;
    const size_t count = static_cast<size_t>(a.rows) * a.width;
    const auto normal = [&](float x, u32 c) {
        const u32 group = c / channels;
        return activate(a.act, (x - statistics[group * 2]) * statistics[group * 2 + 1] * a.gamma[c] + a.beta[c]);
    };
    if (a.width % 4 == 0) {
        for (size_t i = first_element() * 4; i < count; i += all_threads() * 4) {
            const u32 c = static_cast<u32>(i % a.width);
            float4 x = load4(a.x, i, half);
            x.x = normal(x.x, c), x.y = normal(x.y, c + 1), x.z = normal(x.z, c + 2), x.w = normal(x.w, c + 3);
            store4(a.y, i, to_half, x);
        }
        return;
    }
    for (size_t i = first_element(); i < count; i += all_threads())
        store(a.y, i, to_half, normal(load(a.x, i, half), static_cast<u32>(i % a.width)));
}
