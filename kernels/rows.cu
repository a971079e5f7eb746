// Moving and mixing rows: one element a thread, grid-stride.
#include "tile/element.cuh"
#include "tile/grid.cuh"

/// `y[r, c] = a[r, c] + b[r mod b_rows, c]`
KERNEL void LAUNCH_BOUNDS(256) add_rows(const GRID_CONSTANT RowsArgs a) {
    const size_t count = static_cast<size_t>(a.rows) * a.width;
    for (size_t i = first_element(); i < count; i += all_threads()) {
        const u32 r = static_cast<u32>(i / a.width), c = static_cast<u32>(i % a.width);
        const float x = load(a.a, static_cast<size_t>(r) * a.lda + c, a.half & HALF_X);
        const float b = load(a.b, static_cast<size_t>(r % a.b_rows) * a.ldb + c, a.half & HALF_W);
        store(a.y, i, a.half & HALF_Y, x + b);
    }
}

/// `y[r, c] = a[r, c]`
KERNEL void LAUNCH_BOUNDS(256) copy_rows(const GRID_CONSTANT RowsArgs a) {
    const size_t count = static_cast<size_t>(a.rows) * a.width;
    for (size_t i = first_element(); i < count; i += all_threads())
        store(a.y, i, a.half & HALF_Y, load(a.a, i / a.width * a.lda + i % a.width, a.half & HALF_X));
}

/// `y[r, c] = a[r, c]` in bf16, rows of y padded with zeros to `ldb`: what the copy engine takes.
KERNEL void LAUNCH_BOUNDS(256) pad_rows(const GRID_CONSTANT RowsArgs a) {
    const size_t count = static_cast<size_t>(a.rows) * a.ldb / 2;
    for (size_t i = first_element(); i < count; i += all_threads()) {
        const size_t row = i * 2 / a.ldb;
        const u32 c = static_cast<u32>(i * 2 % a.ldb);
        float pair[2];
#pragma unroll
        for (u32 e = 0; e < 2; e++) pair[e] = c + e < a.width ? load(a.a, row * a.lda + c + e, a.half & HALF_X) : 0.0f;
        static_cast<u32*>(a.y)[i] = cvt_bf16x2(pair[0], pair[1]);
    }
}

/// `y[r, c] = table[ids[r], c]`, a table of f32 or bf16
KERNEL void LAUNCH_BOUNDS(256) gather_rows(const GRID_CONSTANT RowsArgs a) {
    const u32* const ids = static_cast<const u32*>(a.b);
    const size_t count = static_cast<size_t>(a.rows) * a.width;
    for (size_t i = first_element(); i < count; i += all_threads()) {
        const size_t at = static_cast<size_t>(ids[i / a.width]) * a.lda + i % a.width;
        store(a.y, i, a.half & HALF_Y, load(a.a, at, a.half & HALF_X));
    }
}

/// `y[c] = Σ a[r, c] / rows`, one thread a column: means are of phrases, which have tens of rows.
KERNEL void LAUNCH_BOUNDS(64) mean_rows(const GRID_CONSTANT RowsArgs a) {
    for (size_t c = first_element(); c < a.width; c += all_threads()) {
        float sum = 0.0f;
        for (u32 r = 0; r < a.rows; r++) sum += load(a.a, static_cast<size_t>(r) * a.lda + c, a.half & HALF_X);
        store(a.y, c, a.half & HALF_Y, sum / a.rows);
    }
}
