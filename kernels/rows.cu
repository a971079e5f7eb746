// Moving and mixing rows: one element a thread, grid-stride.
#include "tile/arguments.cuh"
#include "tile/grid.cuh"

/// `y[r, c] = a[r, c] + b[r mod b_rows, c]`
KERNEL void LAUNCH_BOUNDS(256) add_f32(const GRID_CONSTANT RowsArgs a) {
    const float *const x = static_cast<const float*>(a.a), *const b = static_cast<const float*>(a.b);
    const size_t count = static_cast<size_t>(a.rows) * a.width;
    for (size_t i = first_element(); i < count; i += all_threads()) {
        const u32 r = static_cast<u32>(i / a.width), c = static_cast<u32>(i % a.width);
        a.y[i] = x[static_cast<size_t>(r) * a.lda + c] + b[static_cast<size_t>(r % a.b_rows) * a.ldb + c];
    }
}

/// `y[r, c] = a[r, c]`
KERNEL void LAUNCH_BOUNDS(256) copy_f32(const GRID_CONSTANT RowsArgs a) {
    const float* const x = static_cast<const float*>(a.a);
    const size_t count = static_cast<size_t>(a.rows) * a.width;
    for (size_t i = first_element(); i < count; i += all_threads())
        a.y[i] = x[i / a.width * a.lda + i % a.width];
}

/// `y[r, c] = table[ids[r], c]`, a table of f32
KERNEL void LAUNCH_BOUNDS(256) gather_f32(const GRID_CONSTANT RowsArgs a) {
    const float* const table = static_cast<const float*>(a.a);
    const u32* const ids = static_cast<const u32*>(a.b);
    const size_t count = static_cast<size_t>(a.rows) * a.width;
    for (size_t i = first_element(); i < count; i += all_threads())
        a.y[i] = table[static_cast<size_t>(ids[i / a.width]) * a.lda + i % a.width];
}

/// `y[r, c] = table[ids[r], c]`, a table of bf16
KERNEL void LAUNCH_BOUNDS(256) gather_bf16(const GRID_CONSTANT RowsArgs a) {
    const u16* const table = static_cast<const u16*>(a.a);
    const u32* const ids = static_cast<const u32*>(a.b);
    const size_t count = static_cast<size_t>(a.rows) * a.width;
    for (size_t i = first_element(); i < count; i += all_threads())
        a.y[i] = bf16_to_f32(table[static_cast<size_t>(ids[i / a.width]) * a.lda + i % a.width]);
}

/// `y[c] = Σ a[r, c] / rows`, one thread a column: means are of phrases, which have tens of rows.
KERNEL void LAUNCH_BOUNDS(64) mean_rows_f32(const GRID_CONSTANT RowsArgs a) {
    const float* const x = static_cast<const float*>(a.a);
    for (size_t c = first_element(); c < a.width; c += all_threads()) {
        float sum = 0.0f;
        for (u32 r = 0; r < a.rows; r++) sum += x[static_cast<size_t>(r) * a.lda + c];
        a.y[c] = sum / a.rows;
    }
}
