// Attention by wgmma (sm_90a) for heads of 64: 192 queries by three warpgroups of 64, 96 keys at a time; scores, softmax
// and the output's sums in f32 registers, after FlashAttention-2 (Dao, 2023). One block a multiprocessor goes from tile
// to tile; a fourth warpgroup keeps two tiles of queries and four stages of keys and values on their way.
//
// The copy engine takes queries, keys and values out of the rows that the projection left, 64 columns of them: a tile is so
// many tokens one after the other, or, of a window, whole rows of it, 24 tokens by 8 of queries and by 4 of keys in the
// published model. 192 and 96 divide both 576 and 5184, so that no lane of it is idle. Where they do not divide the tokens
// of a window, a tile goes on below it: such queries are not written, and such keys not seen. While one warpgroup takes exponentials, which cost as many cycles as the products do (192·96/16 a
// multiprocessor against 2·192·96·64/2048), the two others multiply.
#include "ptx/math.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/heads.cuh"
#include "tile/tensor_maps.cuh"

namespace attention_sm90a {

constexpr u32 WIDTH = 64, CONSUMERS = 3, QUERIES = 64 * CONSUMERS, KEYS = 96, STAGES = 4, TILES = 2;
constexpr u32 Q_BYTES = QUERIES * WIDTH * 2, K_BYTES = KEYS * WIDTH * 2, STAGE = 2 * K_BYTES;
constexpr float LOG2E = 1.44269504088896341f;

/// Tiles of queries, the same walk for the producer and for consumers: those of one head follow each other, since they
/// read the same keys.
struct Walk {
    u32 tile, tiles, blocks, heads;

    METHOD explicit Walk(const AttentionArgs& a, u32 windows) {
        blocks = div_up(a.queries, QUERIES);
        heads = a.heads;
        tile = blockIdx.x;
        tiles = blocks * heads * windows;
    }
    METHOD bool inside() const { return tile < tiles; }
    METHOD void next() { tile += gridDim.x; }
    METHOD u32 query() const { return tile % blocks * QUERIES; }
    METHOD u32 head() const { return tile / blocks % heads; }
    METHOD u32 window() const { return tile / blocks / heads; }
};

/// Where the boxes of a window and head lie: without windows, of a grid of one row.
struct Boxes {
    int column, left, top;
    u32 size;

    METHOD Boxes(const AttentionArgs& a, const Walk& walk) {
        column = static_cast<int>(walk.head() * WIDTH);
        left = top = 0;
        size = a.pattern == SEE_WINDOW ? a.size : 0;
        if (!size) return;
        const u32 across = a.width / size;
        left = static_cast<int>(walk.window() % across * size);
        top = static_cast<int>(walk.window() / across * size);
    }
    /// Fetches the box that begins with `token`, which in a window is the first of a row.
    METHOD void fetch(u8* to, const TensorMap* map, u64* barrier, u32 token) const {
        if (size) {
            tma_load_3d(to, map, barrier, column, left, top + static_cast<int>(token / size));
        } else {
            tma_load_3d(to, map, barrier, column, static_cast<int>(token), 0);
        }
    }
};

/// Steps through the stages of a ring, and knows how often it went round.
template <u32 Count> struct Ring {
    u32 at = 0, parity = 0;

    METHOD void next() {
        if (++at == Count) {
            at = 0;
            parity ^= 1;
        }
    }
};

struct Shared {
    u8 *queries, *stages;
    u64 *queries_full, *queries_empty, *full, *empty;
};

DEVICE void produce(const TmaAttentionArgs& args, const Shared& s) {
    const AttentionArgs& a = args.attention;
    Ring<TILES> tiles;
    Ring<STAGES> stages;
    for (Walk walk(a, args.windows); walk.inside(); walk.next()) {
        const Boxes boxes(a, walk);
        mbarrier_wait(s.queries_empty + tiles.at, tiles.parity ^ 1);
        mbarrier_arrive_expect_tx(s.queries_full + tiles.at, Q_BYTES);
        boxes.fetch(s.queries + tiles.at * Q_BYTES, &args.q, s.queries_full + tiles.at, walk.query());
        tiles.next();
        for (u32 k0 = 0; k0 < a.keys; k0 += KEYS) {
            u8* const keys = s.stages + stages.at * STAGE;
            mbarrier_wait(s.empty + stages.at, stages.parity ^ 1);
            mbarrier_arrive_expect_tx(s.full + stages.at, STAGE);
            boxes.fetch(keys, &args.k, s.full + stages.at, k0);
            boxes.fetch(keys + K_BYTES, &args.v, s.full + stages.at, k0);
            stages.next();
        }
    }
}

/// A warpgroup of 64 queries. Each warp says for itself that it has done with a stage.
DEVICE void consume(const TmaAttentionArgs& args, const Shared& shared) {
    const AttentionArgs& a = args.attention;
    const u32 t = threadIdx.x - 128, group = t / 128, lane = t % 32;
    const float scale = a.scale * LOG2E;
    Ring<TILES> tiles;
    Ring<STAGES> stages;
    for (Walk walk(a, args.windows); walk.inside(); walk.next()) {
        float out[WIDTH / 2], largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
#pragma unroll
        for (u32 e = 0; e < WIDTH / 2; e++) out[e] = 0.0f;
        mbarrier_wait(shared.queries_full + tiles.at, tiles.parity);
        const u64 q = wgmma_operand(shared.queries + tiles.at * Q_BYTES + group * 64 * WIDTH * 2);
        for (u32 k0 = 0; k0 < a.keys; k0 += KEYS) {
            const u8* const keys = shared.stages + stages.at * STAGE;
            mbarrier_wait(shared.full + stages.at, stages.parity);
            float s[KEYS / 2];
            const u64 k = wgmma_operand(keys), v = wgmma_operand(keys + K_BYTES);
            wgmma_fence();
#pragma unroll
            // 16 of the width are 32 bytes, 2 in the operands' units.
            for (u32 c = 0; c < WIDTH / 16; c++) wgmma_m64n96k16(s, q + 2 * c, k + 2 * c, c > 0);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_result(s);
            if (k0 + KEYS > a.keys) {
#pragma unroll
                for (u32 e = 0; e < KEYS / 2; e++) {
                    if (k0 + e / 4 * 8 + lane % 4 * 2 + e % 2 >= a.keys) s[e] = -INFINITY;
                }
            }
            float now[2] = {largest[0], largest[1]}, old[2];
#pragma unroll
            for (u32 e = 0; e < KEYS / 2; e++) now[e / 2 % 2] = fmaxf(now[e / 2 % 2], s[e]);
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                // Four lanes hold a row, of which every block of keys has one that is seen.
                now[h] = fmaxf(now[h], __shfl_xor_sync(0xffffffffu, now[h], 1));
                now[h] = fmaxf(now[h], __shfl_xor_sync(0xffffffffu, now[h], 2));
                old[h] = ex2((largest[h] - now[h]) * scale);
                largest[h] = now[h];
                now[h] *= scale;
                sum[h] *= old[h];
            }
#pragma unroll
            for (u32 e = 0; e < KEYS / 2; e++) {
                s[e] = ex2(s[e] * scale - now[e / 2 % 2]);
                sum[e / 2 % 2] += s[e];
            }
#pragma unroll
            for (u32 e = 0; e < WIDTH / 2; e++) out[e] *= old[e / 2 % 2];
            // The scores' registers are, rounded, the left operand of the next product.
            u32 p[KEYS / 16][4];
#pragma unroll
            for (u32 j = 0; j < KEYS / 16; j++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) p[j][i] = cvt_bf16x2(s[j * 8 + i * 2], s[j * 8 + i * 2 + 1]);
            }
            wgmma_fence();
#pragma unroll
            // 16 keys are 2048 bytes.
            for (u32 j = 0; j < KEYS / 16; j++) wgmma_m64n64k16_registers(out, p[j], v + 128 * j, true);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_result(out);
            if (lane == 0) mbarrier_arrive(shared.empty + stages.at);
            stages.next();
        }
        if (lane == 0) mbarrier_arrive(shared.queries_empty + tiles.at);
        tiles.next();
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
            sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
            const u32 query = walk.query() + t / 32 * 16 + lane / 4 + h * 8;
            const int row = query < a.queries ? row_of(a, query, walk.window()) : -1;
            if (row < 0) continue;
            const size_t at = (static_cast<size_t>(row) * a.heads + walk.head()) * WIDTH + lane % 4 * 2;
            const float whole = 1.0f / sum[h];
#pragma unroll
            for (u32 j = 0; j < WIDTH / 8; j++) {
                const u32 e = j * 4 + h * 2;
                store2(a.y, at + j * 8, a.half & HALF_Y, out[e] * whole, out[e + 1] * whole);
            }
        }
    }
}

}  // namespace attention_sm90a

KERNEL void LAUNCH_BOUNDS(512, 1) attention_sm90a_192x96_d64(const GRID_CONSTANT TmaAttentionArgs args) {
    using namespace attention_sm90a;
    DYNAMIC_SHARED(memory);
    Shared s;
    s.queries = memory;
    s.stages = s.queries + TILES * Q_BYTES;
    s.queries_full = reinterpret_cast<u64*>(s.stages + STAGES * STAGE);
    s.queries_empty = s.queries_full + TILES;
    s.full = s.queries_empty + TILES;
    s.empty = s.full + STAGES;
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < TILES; i++) {
            mbarrier_init(s.queries_full + i, 1);
            mbarrier_init(s.queries_empty + i, CONSUMERS * 4);
        }
        for (u32 i = 0; i < STAGES; i++) {
            mbarrier_init(s.full + i, 1);
            mbarrier_init(s.empty + i, CONSUMERS * 4);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    // 128 · 32 + 384 · 160 registers are all that a multiprocessor has.
    if (threadIdx.x < 128) {
        setmaxnreg_dec<32>();
        if (threadIdx.x == 0) produce(args, s);
    } else {
        setmaxnreg_inc<160>();
        consume(args, s);
    }
}
