// GEMM by wgmma (sm_90a): 192 × 256 of y by three warpgroups of 64 × 256, operands of bf16 through the copy engine in
// four stages of 64 of k, one block a multiprocessor that goes from tile to tile.
//
// Why 192 × 256: a tile reads 56 KiB from the L2 cache for 6.3 MFLOP of a stage, 112 FLOP a byte, so that at 800 TFLOP/s
// the cache has to give 7.1 TB/s; 128 × 256 would ask for 9.4, more than it gives. 192 divides the tokens of a
// picture (5184 = 27 · 192) and of a window (576 = 3 · 192), and its 8 × 24 pixels divide the maps of 72, 144 and 288.
// 128 sums a thread leave 32 of 160 registers for everything else, and 4 stages fill 224 of 227 KiB of shared memory.
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/epilogue.cuh"
#include "tile/tensor_maps.cuh"

namespace gemm_sm90a {

constexpr u32 CONSUMERS = 3, ROWS = 64 * CONSUMERS, COLUMNS = 256, STEP = 64, STAGES = 4;
constexpr u32 X_BYTES = ROWS * STEP * 2, STAGE = X_BYTES + COLUMNS * STEP * 2;
/// Columns 128..256 of the right operand, in units of 16 bytes.
constexpr u64 SIDE = 128 * STEP * 2 / 16;
/// Pixels of a tile of a convolution.
constexpr u32 DOWN = 8, ACROSS = 24;
static_assert(DOWN * ACROSS == ROWS, "a tile's pixels are its rows");
/// Columns of the heads that turn; others are the mma.sync kernels'.
constexpr u32 HEAD = 64;
static_assert(128 == 2 * HEAD, "each side of a tile has two heads");

enum class Kind { product, conv3x3, deconv2x2 };

/// A walk over all tiles and steps, the same for the producer and for consumers.
template <Kind K> struct Walk {
    u32 tile, tiles, columns, across, steps;

    METHOD explicit Walk(const GemmArgs& a) {
        columns = div_up(a.n, COLUMNS);
        across = K == Kind::conv3x3 ? div_up(a.width, ACROSS) : 0;
        const u32 down = K == Kind::conv3x3 ? across * div_up(a.height, DOWN) : div_up(a.m, ROWS);
        tile = blockIdx.x;
        tiles = columns * down;
        steps = div_up(a.k, STEP);
    }
    METHOD bool inside() const { return tile < tiles; }
    METHOD void next() { tile += gridDim.x; }
    METHOD u32 column() const { return tile % columns * COLUMNS; }
    /// First row, or row and column of the first pixel.
    METHOD u32 row() const { return tile / columns * ROWS; }
    METHOD u32 top() const { return tile / columns / across * DOWN; }
    METHOD u32 left() const { return tile / columns % across * ACROSS; }
};

/// One thread keeps the stages full.
template <Kind K> DEVICE void produce(const TmaGemmArgs& args, u8* stages, u64* full, u64* empty) {
    const GemmArgs& a = args.gemm;
    u32 stage = 0, phase = 0;
    for (Walk<K> walk(a); walk.inside(); walk.next()) {
        for (u32 step = 0; step < walk.steps; step++) {
            u8* const x = stages + stage * STAGE;
            // The first round finds all stages empty.
            mbarrier_wait(empty + stage, phase ^ 1);
            mbarrier_arrive_expect_tx(full + stage, STAGE);
            const u32 k = step * STEP;
            if (K == Kind::conv3x3) {
                // All channels of a step belong to one tap; taps beyond the edge are zero.
                const u32 tap = k / a.channels;
                tma_load_3d(x, &args.x, full + stage, static_cast<int>(k % a.channels),
                            static_cast<int>(walk.left() + tap % 3) - 1, static_cast<int>(walk.top() + tap / 3) - 1);
            } else {
                tma_load_3d(x, &args.x, full + stage, static_cast<int>(k), static_cast<int>(walk.row()), 0);
            }
            tma_load_3d(x + X_BYTES, &args.w, full + stage, static_cast<int>(k), static_cast<int>(walk.column()), 0);
            if (++stage == STAGES) {
                stage = 0;
                phase ^= 1;
            }
        }
    }
}

/// Row of y of row `r` of a tile; `m` for none.
template <Kind K> DEVICE u32 row_of_tile(const GemmArgs& a, const Walk<K>& walk, u32 r) {
    if (K != Kind::conv3x3) return min_u32(walk.row() + r, a.m);
    const u32 y = walk.top() + r / ACROSS, x = walk.left() + r % ACROSS;
    return y < a.height && x < a.width ? y * a.width + x : a.m;
}

/// Turns the pairs of a side, which has heads `from` and `from + 1` of 64 columns. A lane has the same pairs of both, and
/// so reads each angle once.
DEVICE void turn_heads(const GemmArgs& a, u32 row, u32 from, u32 lane, float* sum) {
    if (row >= a.m || from * HEAD >= a.turned) return;
    const float2* const angles = reinterpret_cast<const float2*>(a.angles + static_cast<size_t>(row) * HEAD) + lane % 4;
    const bool both = (from + 1) * HEAD < a.turned;
#pragma unroll
    for (u32 j = 0; j < HEAD / 8; j++) {
        const float2 angle = angles[j * 4];
        turn_pair(angle, sum[j * 4], sum[j * 4 + 1]);
        if (both) turn_pair(angle, sum[HEAD / 2 + j * 4], sum[HEAD / 2 + j * 4 + 1]);
    }
}

/// Bias, addend, activation and turn in registers, one kind after the other, so that loads follow each other; then the
/// stores.
template <Kind K> DEVICE void finish_tile(const GemmArgs& a, const Walk<K>& walk, u32 t, u32 side, float (&sum)[64]) {
    constexpr bool DECONV = K == Kind::deconv2x2;
    const u32 row0 = row_of_tile(a, walk, t / 32 * 16 + t % 32 / 4);
    const u32 row1 = row_of_tile(a, walk, t / 32 * 16 + t % 32 / 4 + 8);
    const u32 column = walk.column() + side * 128 + t % 4 * 2;
    if (a.bias) {
#pragma unroll
        for (u32 j = 0; j < 16; j++) {
            if (column + j * 8 >= a.n) continue;
            const float2 bias = *reinterpret_cast<const float2*>(a.bias + column + j * 8);
            sum[j * 4] += bias.x, sum[j * 4 + 1] += bias.y;
            sum[j * 4 + 2] += bias.x, sum[j * 4 + 3] += bias.y;
        }
    }
    const bool add_half = a.half & HALF_ADD, half = a.half & HALF_Y;
    if (a.add) {
#pragma unroll
        for (u32 e = 0; e < 32; e++) {
            const u32 i = e % 2 ? row1 : row0, j = column + e / 2 * 8;
            if (i >= a.m || j >= a.n) continue;
            const Place p = place<DECONV>(a, i, j);
            const float2 add = load2(a.add, p.row * a.ld_add + p.column, add_half);
            sum[e * 2] += add.x, sum[e * 2 + 1] += add.y;
        }
    }
    if (a.act != ACT_NONE) {
#pragma unroll
        for (u32 e = 0; e < 64; e++) sum[e] = activate(a.act, sum[e]);
    }
    if (K == Kind::product && a.turned) {
        turn_heads(a, row0, walk.column() / HEAD + side * 2, t % 32, sum);
        turn_heads(a, row1, walk.column() / HEAD + side * 2, t % 32, sum + 2);
    }
#pragma unroll
    for (u32 e = 0; e < 32; e++) {
        const u32 i = e % 2 ? row1 : row0, j = column + e / 2 * 8;
        if (i >= a.m || j >= a.n) continue;
        const Place p = place<DECONV>(a, i, j);
        store2(a.y, p.row * p.width + p.column, half, sum[e * 2], sum[e * 2 + 1]);
    }
}

/// A warpgroup of 64 rows. Each warp says for itself that it has done with a stage.
template <Kind K> DEVICE void consume(const GemmArgs& a, const u8* stages, u64* full, u64* empty) {
    const u32 t = threadIdx.x - 128;
    u32 stage = 0, phase = 0;
    for (Walk<K> walk(a); walk.inside(); walk.next()) {
        // Columns 0..128 and 128..256: the compiler has too few registers for a product of 256 before `setmaxnreg`.
        float sum[2][64];
        u32 before = 0;
        for (u32 step = 0; step < walk.steps; step++) {
            const u8* const x = stages + stage * STAGE;
            mbarrier_wait(full + stage, phase);
            wgmma_fence();
            const u64 left = wgmma_operand(x + t / 128 * 64 * STEP * 2), right = wgmma_operand(x + X_BYTES);
#pragma unroll
            for (u32 k = 0; k < STEP / 16; k++) {
                // 16 of k are 32 bytes, 2 in the operands' units.
                wgmma_m64n128k16(sum[0], left + 2 * k, right + 2 * k, step + k > 0);
                wgmma_m64n128k16(sum[1], left + 2 * k, right + SIDE + 2 * k, step + k > 0);
            }
            wgmma_commit();
            // The products of this stage may go on; those of the one before are done, and it is free.
            if (step > 0) {
                wgmma_wait<1>();
                if (t % 32 == 0) mbarrier_arrive(empty + before);
            }
            before = stage;
            if (++stage == STAGES) {
                stage = 0;
                phase ^= 1;
            }
        }
        wgmma_wait<0>();
        wgmma_result(sum[0]);
        wgmma_result(sum[1]);
        if (t % 32 == 0) mbarrier_arrive(empty + before);
        finish_tile(a, walk, t, 0, sum[0]);
        finish_tile(a, walk, t, 1, sum[1]);
    }
}

template <Kind K> DEVICE void run(const TmaGemmArgs& args) {
    DYNAMIC_SHARED(shared);
    u64* const full = reinterpret_cast<u64*>(shared + STAGES * STAGE);
    u64* const empty = full + STAGES;
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < STAGES; s++) {
            mbarrier_init(full + s, 1);
            mbarrier_init(empty + s, CONSUMERS * 4);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    // 128 · 32 + 384 · 160 registers are all that a multiprocessor has.
    if (threadIdx.x < 128) {
        setmaxnreg_dec<32>();
        if (threadIdx.x == 0) produce<K>(args, shared, full, empty);
    } else {
        setmaxnreg_inc<160>();
        consume<K>(args.gemm, shared, full, empty);
    }
}

}  // namespace gemm_sm90a

KERNEL void LAUNCH_BOUNDS(512, 1) gemm_sm90a_192x256x64(const GRID_CONSTANT TmaGemmArgs a) {
    gemm_sm90a::run<gemm_sm90a::Kind::product>(a);
}
KERNEL void LAUNCH_BOUNDS(512, 1) conv3x3_sm90a_192x256x64(const GRID_CONSTANT TmaGemmArgs a) {
    gemm_sm90a::run<gemm_sm90a::Kind::conv3x3>(a);
}
KERNEL void LAUNCH_BOUNDS(512, 1) deconv2x2_sm90a_192x256x64(const GRID_CONSTANT TmaGemmArgs a) {
    gemm_sm90a::run<gemm_sm90a::Kind::deconv2x2>(a);
}
