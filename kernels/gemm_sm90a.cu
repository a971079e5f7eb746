// GEMM by wgmma (sm_90a): 192 × 256 of y by three warpgroups of 64 × 256, operands of bf16 through the copy engine in
// four stages of 64 of k, one block a multiprocessor that goes from tile to tile; or half of that, 192 × 128 in five stages,
// where whole tiles leave too many multiprocessors without work.
//
// Why 192 × 256: a tile reads 56 KiB from the L2 cache for 6.3 MFLOP of a stage, 112 FLOP a byte, so that at 800 TFLOP/s
// the cache has to give 7.1 TB/s; 128 × 256 would ask for 9.4. Half a tile has 77 FLOP a byte; on an H200 it reached 587
// TFLOP/s, at 7.6 TB/s. 192 divides the tokens of a picture (5184 = 27 · 192) and of a window (576 = 3 · 192), and its
// 8 × 24 pixels divide the maps of 72, 144 and 288.
//
// 128 sums a thread leave 32 of 160 registers for everything else: what is added is loaded into the sums before the first
// product, and what the end needs is worked out by a warp of its own and waits in shared memory. 4 stages fill 224 of 227 KiB.
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/epilogue.cuh"
#include "tile/quad.cuh"
#include "tile/tensor_maps.cuh"

namespace gemm_sm90a {

constexpr u32 CONSUMERS = 3, ROWS = 64 * CONSUMERS, SIDE = 128, STEP = 64;
constexpr u32 X_BYTES = ROWS * STEP * 2, SIDE_BYTES = SIDE * STEP * 2;
/// Pixels of a tile of a convolution.
constexpr u32 DOWN = 8, ACROSS = 24;
static_assert(DOWN * ACROSS == ROWS, "a tile's pixels are its rows");
/// Columns of the heads that turn; others are the mma.sync kernels'.
constexpr u32 HEAD = 64;
static_assert(SIDE == 2 * HEAD, "each side of a tile has two heads");

enum class Kind { product, conv3x3, deconv2x2 };

/// A tile of one or two sides of 128 columns. What is in a stage, in bytes, and how many stages fit.
template <u32 Sides> struct Tile {
    static constexpr u32 COLUMNS = Sides * SIDE, STAGE = X_BYTES + Sides * SIDE_BYTES, STAGES = Sides == 1 ? 5 : 4;
};

/// First column and row of a tile, or row and column of its first pixel.
struct Corner {
    u32 column, top, left;
};

/// A walk over all tiles and steps, the same for the producer and for consumers.
template <Kind K, u32 Sides> struct Walk {
    static constexpr u32 COLUMNS = Tile<Sides>::COLUMNS;
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
    METHOD Corner corner() const {
        const u32 down = tile / columns;
        Corner c = {tile % columns * COLUMNS, down * ROWS, 0};
        if (K == Kind::conv3x3) {
            c.top = down / across * DOWN;
            c.left = down % across * ACROSS;
        }
        return c;
    }
};

/// What the end of a tile needs, worked out and loaded by another warp, since sums leave no registers to do it with: the
/// biases of its columns and the rows of y of its rows, `m` for none.
template <u32 Sides> struct Notes {
    float bias[Tile<Sides>::COLUMNS];
    u32 row[ROWS];
    u64 full, empty;
};

/// Row of y of row `r` of a tile; `m` for none.
template <Kind K> DEVICE u32 row_of_tile(const GemmArgs& a, const Corner& corner, u32 r) {
    if (K != Kind::conv3x3) return min_u32(corner.top + r, a.m);
    const u32 y = corner.top + r / ACROSS, x = corner.left + r % ACROSS;
    return y < a.height && x < a.width ? y * a.width + x : a.m;
}

/// A warp writes them.
template <Kind K, u32 Sides> DEVICE void take_notes(const GemmArgs& a, Notes<Sides>& notes) {
    const u32 lane = threadIdx.x % 32;
    u32 parity = 1;
    for (Walk<K, Sides> walk(a); walk.inside(); walk.next()) {
        const Corner corner = walk.corner();
        mbarrier_wait(&notes.empty, parity);
        parity ^= 1;
#pragma unroll
        for (u32 c = lane * 4; c < Tile<Sides>::COLUMNS; c += 128) {
            float4 bias = {};
            if (a.bias && corner.column + c < a.n) bias = *reinterpret_cast<const float4*>(a.bias + corner.column + c);
            *reinterpret_cast<float4*>(notes.bias + c) = bias;
        }
#pragma unroll 1
        for (u32 r = lane; r < ROWS; r += 32) notes.row[r] = row_of_tile<K>(a, corner, r);
        // All arrive for themselves: per tile it costs nothing, and tools that look for races follow it.
        mbarrier_arrive(&notes.full);
    }
}

/// One thread keeps the stages full.
template <Kind K, u32 Sides> DEVICE void produce(const TmaGemmArgs& args, u8* stages, u64* full, u64* empty) {
    constexpr u32 STAGE = Tile<Sides>::STAGE, STAGES = Tile<Sides>::STAGES;
    const GemmArgs& a = args.gemm;
    u32 stage = 0, phase = 0;
    for (Walk<K, Sides> walk(a); walk.inside(); walk.next()) {
        // All channels of a step belong to one tap; taps beyond the edge are zero.
        const Corner corner = walk.corner();
        int channel = 0, across = static_cast<int>(corner.left) - 1, down = static_cast<int>(corner.top) - 1;
        u32 tap = 0;
        for (u32 step = 0; step < walk.steps; step++) {
            u8* const x = stages + stage * STAGE;
            // The first round finds all stages empty.
            mbarrier_wait(empty + stage, phase ^ 1);
            mbarrier_arrive_expect_tx(full + stage, STAGE);
            const u32 k = step * STEP;
            if (K == Kind::conv3x3) {
                tma_load_3d(x, &args.x, full + stage, channel, across, down);
                channel += STEP;
                if (channel == static_cast<int>(a.channels)) {
                    channel = 0;
                    // Three taps to a row.
                    const bool last = ++tap == 3;
                    across += last ? -2 : 1, down += last;
                    tap = last ? 0 : tap;
                }
            } else {
                tma_load_3d(x, &args.x, full + stage, static_cast<int>(k), static_cast<int>(corner.top), 0);
            }
            tma_load_3d(x + X_BYTES, &args.w, full + stage, static_cast<int>(k), static_cast<int>(corner.column), 0);
            if (++stage == STAGES) {
                stage = 0;
                phase ^= 1;
            }
        }
    }
}

/// Rows of y that a lane has sums of, and where the columns begin that it loads and stores: a quad together 64 bytes of a row.
struct Lane {
    u32 row[2], column;
    Quad quad;

    METHOD Lane(u32 row0, u32 row1, u32 column, u32 t) : row{row0, row1}, column(column), quad(t) {}
    /// Four columns of the `j`-th pair of eights of a side, and eight of the `j`-th four eights.
    METHOD u32 four(u32 side, u32 j) const { return column + side * 128 + j * 16 + quad.four(); }
    METHOD u32 eight(u32 side, u32 j) const { return column + side * 128 + j * 32 + quad.eight(); }
};

/// What sums begin with: the addend, loaded straight to where it is needed, so that all loads of a tile are on their way at
/// once, and while the copy engine fills the first stages.
template <Kind K> DEVICE void begin_side(const GemmArgs& a, const Lane& lane, u32 side, float (&sum)[64]) {
    constexpr bool DECONV = K == Kind::deconv2x2;
#pragma unroll
    for (u32 e = 0; e < 64; e++) sum[e] = 0.0f;
    // A convolution of 3 × 3 has no addend, and no activation either.
    if (K == Kind::conv3x3 || !a.add) return;
    const bool half = a.half & HALF_ADD;
#pragma unroll
    for (u32 e = 0; e < 16; e++) {
        const u32 j = e / 2, h = e % 2, i = lane.row[h], c = lane.four(side, j);
        if (i >= a.m || c >= a.n) continue;
        const Place p = place<DECONV>(a, i, c);
        const float4 add = load4(a.add, p.row * a.ld_add + p.column, half);
        sum[j * 8 + h * 2] = add.x, sum[j * 8 + h * 2 + 1] = add.y;
        sum[j * 8 + h * 2 + 4] = add.z, sum[j * 8 + h * 2 + 5] = add.w;
    }
#pragma unroll
    for (u32 e = 0; e < 16; e++) {
        float* const s = sum + e / 2 * 8 + e % 2 * 2;
        lane.quad.scatter(s[0], s[1], s[4], s[5]);
    }
}

/// Turns the pairs of a tile's heads of 64 columns. A lane has the same pairs of each, and so reads an angle once.
template <u32 Sides>
DEVICE void turn_heads(const GemmArgs& a, const u32 (&row)[2], u32 from, u32 quad, float (&sum)[Sides][64]) {
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        if (row[h] >= a.m) continue;
        const float2* const angles = reinterpret_cast<const float2*>(a.angles + static_cast<size_t>(row[h]) * HEAD) + quad;
        float2 angle[HEAD / 8];
#pragma unroll
        for (u32 j = 0; j < HEAD / 8; j++) angle[j] = angles[j * 4];
#pragma unroll
        for (u32 head = 0; head < 2 * Sides; head++) {
            if ((from + head) * HEAD >= a.turned) continue;
#pragma unroll
            for (u32 j = 0; j < HEAD / 8; j++) {
                float* const pair = sum[head / 2] + head % 2 * (HEAD / 2) + j * 4 + h * 2;
                turn_pair(angle[j], pair[0], pair[1]);
            }
        }
    }
}

/// Stores a side's sums, 16 bytes a lane.
template <Kind K> DEVICE void store_side(const GemmArgs& a, const Lane& lane, u32 side, const float (&sum)[64]) {
    constexpr bool DECONV = K == Kind::deconv2x2;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        const u32 i = lane.row[h];
        if (a.half & HALF_Y) {
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                // Two columns in 32 bits, so that one exchange between neighbours moves what two would.
                u32 p[4];
#pragma unroll
                for (u32 e = 0; e < 4; e++) p[e] = cvt_bf16x2(sum[j * 16 + e * 4 + h * 2], sum[j * 16 + e * 4 + h * 2 + 1]);
                const uint4 v = lane.quad.gather_bf16(p);
                const u32 c = lane.eight(side, j);
                if (i >= a.m || c >= a.n) continue;
                const Place to = place<DECONV>(a, i, c);
                *reinterpret_cast<uint4*>(static_cast<u16*>(a.y) + to.row * to.width + to.column) = v;
            }
        } else {
#pragma unroll
            for (u32 j = 0; j < 8; j++) {
                const float* const s = sum + j * 8 + h * 2;
                float2 even, odd;
                even.x = s[0], even.y = s[1], odd.x = s[4], odd.y = s[5];
                const float4 v = lane.quad.gather(even, odd);
                const u32 c = lane.four(side, j);
                if (i >= a.m || c >= a.n) continue;
                const Place to = place<DECONV>(a, i, c);
                *reinterpret_cast<float4*>(static_cast<float*>(a.y) + to.row * to.width + to.column) = v;
            }
        }
    }
}

/// A warpgroup of 64 rows. Each warp says for itself that it has done with a stage.
template <Kind K, u32 Sides>
DEVICE void consume(const GemmArgs& a, const u8* stages, u64* full, u64* empty, Notes<Sides>& notes) {
    constexpr u32 STAGE = Tile<Sides>::STAGE, STAGES = Tile<Sides>::STAGES;
    const u32 t = threadIdx.x - 128;
    // The first of the two rows of a lane.
    const u32 first = t / 32 * 16 + t % 32 / 4;
    u32 stage = 0, phase = 0, parity = 0;
    for (Walk<K, Sides> walk(a); walk.inside(); walk.next()) {
        // A side each: the compiler has too few registers for a product of 256 columns before `setmaxnreg`.
        float sum[Sides][64];
        {
            const Corner corner = walk.corner();
            const Lane lane(row_of_tile<K>(a, corner, first), row_of_tile<K>(a, corner, first + 8), corner.column, t);
#pragma unroll
            for (u32 side = 0; side < Sides; side++) begin_side<K>(a, lane, side, sum[side]);
        }
        // Sums are what products add to from here on, wherever they came from.
#pragma unroll
        for (u32 side = 0; side < Sides; side++) wgmma_result(sum[side]);
        u32 before = 0;
        for (u32 step = 0; step < walk.steps; step++) {
            const u8* const x = stages + stage * STAGE;
            mbarrier_wait(full + stage, phase);
            wgmma_fence();
            const u64 left = wgmma_operand(x + t / 128 * 64 * STEP * 2), right = wgmma_operand(x + X_BYTES);
#pragma unroll
            for (u32 k = 0; k < STEP / 16; k++) {
                // 16 of k are 32 bytes, 2 in the operands' units.
#pragma unroll
                for (u32 side = 0; side < Sides; side++)
                    wgmma_m64n128k16(sum[side], left + 2 * k, right + side * (SIDE_BYTES / 16) + 2 * k, true);
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
#pragma unroll
        for (u32 side = 0; side < Sides; side++) wgmma_result(sum[side]);
        if (t % 32 == 0) mbarrier_arrive(empty + before);
        mbarrier_wait(&notes.full, parity);
        parity ^= 1;
        // Not those of before: kept through the products, they would cost registers that there are none of.
        const Lane lane(notes.row[first], notes.row[first + 8], walk.corner().column, forgotten(t));
        if (a.bias) {
#pragma unroll
            for (u32 j = 0; j < 16 * Sides; j++) {
                const float2 bias = *reinterpret_cast<const float2*>(notes.bias + j * 8 + t % 4 * 2);
                float* const s = sum[j / 16] + j % 16 * 4;
                s[0] += bias.x, s[1] += bias.y, s[2] += bias.x, s[3] += bias.y;
            }
        }
        if (K != Kind::conv3x3 && a.act != ACT_NONE) {
#pragma unroll
            for (u32 e = 0; e < 64 * Sides; e++) sum[e / 64][e % 64] = activate_rounded(a.act, sum[e / 64][e % 64]);
        }
        if (K == Kind::product && a.turned) turn_heads(a, lane.row, lane.column / HEAD, t % 4, sum);
#pragma unroll
        for (u32 side = 0; side < Sides; side++) store_side<K>(a, lane, side, sum[side]);
        mbarrier_arrive(&notes.empty);
    }
}

template <Kind K, u32 Sides> DEVICE void run(const TmaGemmArgs& args) {
    constexpr u32 STAGE = Tile<Sides>::STAGE, STAGES = Tile<Sides>::STAGES;
    DYNAMIC_SHARED(shared);
    u64* const full = reinterpret_cast<u64*>(shared + STAGES * STAGE);
    u64* const empty = full + STAGES;
    Notes<Sides>& notes = *reinterpret_cast<Notes<Sides>*>(empty + STAGES);
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < STAGES; s++) {
            mbarrier_init(full + s, 1);
            mbarrier_init(empty + s, CONSUMERS * 4);
        }
        mbarrier_init(&notes.full, 32);
        mbarrier_init(&notes.empty, CONSUMERS * 128);
        mbarrier_init_fence();
    }
    __syncthreads();
    // 128 · 32 + 384 · 160 registers are all that a multiprocessor has.
    if (threadIdx.x < 128) {
        setmaxnreg_dec<32>();
        if (threadIdx.x == 0) produce<K, Sides>(args, shared, full, empty);
        if (threadIdx.x / 32 == 1) take_notes<K>(args.gemm, notes);
    } else {
        setmaxnreg_inc<160>();
        consume<K>(args.gemm, shared, full, empty, notes);
    }
}

}  // namespace gemm_sm90a

#define KERNELS(columns)                                                                                         \
    KERNEL void LAUNCH_BOUNDS(512, 1) gemm_sm90a_192x##columns##x64(const GRID_CONSTANT TmaGemmArgs a) {          \
        gemm_sm90a::run<gemm_sm90a::Kind::product, columns / gemm_sm90a::SIDE>(a);                                \
    }                                                                                                            \
    KERNEL void LAUNCH_BOUNDS(512, 1) conv3x3_sm90a_192x##columns##x64(const GRID_CONSTANT TmaGemmArgs a) {       \
        gemm_sm90a::run<gemm_sm90a::Kind::conv3x3, columns / gemm_sm90a::SIDE>(a);                                \
    }                                                                                                            \
    KERNEL void LAUNCH_BOUNDS(512, 1) deconv2x2_sm90a_192x##columns##x64(const GRID_CONSTANT TmaGemmArgs a) {     \
        gemm_sm90a::run<gemm_sm90a::Kind::deconv2x2, columns / gemm_sm90a::SIDE>(a);                              \
    }
// Half a tile where whole ones leave too many multiprocessors without work.
KERNELS(128)
KERNELS(256)
#undef KERNELS
