// Attention by wgmma (sm_90a) for heads of 64 and of 32: 192 queries by three warpgroups of 64, 96 keys at a time; scores, softmax
// and the output's sums in f32 registers, after FlashAttention-2 (Dao, 2023). One block a multiprocessor goes from tile
// to tile; a fourth warpgroup keeps two tiles of queries and four stages of keys and values on their way.
//
// The copy engine takes queries, keys and values out of the rows that the projection left, 64 columns of them: a tile is so
// many tokens one after the other, or, of a window, whole rows of it, 24 tokens by 8 of queries and by 4 of keys in the
// published model. 192 and 96 divide both 576 and 5184, so that no lane of it is idle. Where they do not divide the tokens
// of a window, a tile goes on below it: such queries are not written, and such keys not seen.
//
// Exponentials cost as many cycles as the products do (192·96/16 a multiprocessor against 2·192·96·64/2048): while one
// warpgroup takes them, the two others are to multiply, one after the other. On an H200 a step takes as long as both together
// all the same, since the assembler rounds, rescales and adds up where the products are started, whatever order stands here.
#include "ptx/math.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/heads.cuh"
#include "tile/quad.cuh"
#include "tile/tensor_maps.cuh"

namespace attention_sm90a {

constexpr u32 BOX = 64, CONSUMERS = 3, QUERIES = 64 * CONSUMERS, KEYS = 96, STAGES = 4, TILES = 2;
constexpr u32 Q_BYTES = QUERIES * BOX * 2, K_BYTES = KEYS * BOX * 2, STAGE = 2 * K_BYTES;
constexpr float LOG2E = 1.44269504088896341f;

/// Tiles of queries, the same walk for the producer and for consumers: those of one head follow each other, since they
/// read the same keys.
template <u32 Width> struct Walk {
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
    /// Where the head's columns begin in the boxes that it is fetched in, in heads.
    METHOD u32 part() const { return head() % (BOX / Width); }
};

/// Where the boxes of a window and head lie: without windows, of a grid of one row.
struct Boxes {
    int column, left, top;
    u32 size;

    template <u32 Width> METHOD Boxes(const AttentionArgs& a, const Walk<Width>& walk) {
        column = static_cast<int>(walk.head() * Width / BOX * BOX);
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
    u64 *queries_full, *queries_empty, *full, *empty, *turns;
};

template <u32 Width> DEVICE void produce(const TmaAttentionArgs& args, const Shared& s) {
    const AttentionArgs& a = args.attention;
    Ring<TILES> tiles;
    Ring<STAGES> stages;
    for (Walk<Width> walk(a, args.windows); walk.inside(); walk.next()) {
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

/// Lets the warpgroups start their products one after the other, always in the same order.
struct Turn {
    u64 *mine, *next;
    u32 parity;

    /// The first warpgroup finds its turn come.
    METHOD Turn(u64* turns, u32 group) : mine(turns + group), next(turns + (group + 1) % CONSUMERS), parity(group == 0) {}
    METHOD void wait() {
        mbarrier_wait(mine, parity);
        parity ^= 1;
    }
    METHOD void pass(u32 lane) {
        if (lane == 0) mbarrier_arrive(next);
    }
};

/// A warpgroup of 64 queries. Each warp says for itself that it has done with a stage.
///
/// `Width` is the head's. Those of 32 lie two to a row of 64 columns: the scores take the half of k that is theirs, and the
/// output has columns for both, of which one's are stored.
template <u32 Width> DEVICE void consume(const TmaAttentionArgs& args, const Shared& shared) {
    const AttentionArgs& a = args.attention;
    const u32 t = threadIdx.x - 128, group = t / 128, lane = t % 32;
    const float scale = a.scale * LOG2E;
    Ring<TILES> tiles;
    Ring<STAGES> stages;
    Turn turn(shared.turns, group);
    for (Walk<Width> walk(a, args.windows); walk.inside(); walk.next()) {
        float out[BOX / 2], s[KEYS / 2], largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
#pragma unroll
        for (u32 e = 0; e < BOX / 2; e++) out[e] = 0.0f;
        // 16 of the width are 32 bytes, 2 in the operands' units.
        const u32 part = walk.part() * (Width / 8);
        const u64 q = wgmma_operand(shared.queries + tiles.at * Q_BYTES + group * 64 * BOX * 2) + part;
        const auto scores = [&](u32 stage) {
            const u64 k = wgmma_operand(shared.stages + stage * STAGE) + part;
            wgmma_fence();
#pragma unroll
            for (u32 c = 0; c < Width / 16; c++) wgmma_m64n96k16(s, q + 2 * c, k + 2 * c, c > 0);
            wgmma_commit();
        };
        mbarrier_wait(shared.queries_full + tiles.at, tiles.parity);
        mbarrier_wait(shared.full + stages.at, stages.parity);
        turn.wait();
        scores(stages.at);
        turn.pass(lane);
        wgmma_wait<0>();
        wgmma_result(s);
        for (u32 k0 = 0; k0 < a.keys; k0 += KEYS) {
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
            // Rounded, they are the left operand of the next product, and their registers free for the next scores.
            u32 p[KEYS / 16][4];
#pragma unroll
            for (u32 j = 0; j < KEYS / 16; j++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) p[j][i] = forgotten(cvt_bf16x2(s[j * 8 + i * 2], s[j * 8 + i * 2 + 1]));
            }
#pragma unroll
            for (u32 e = 0; e < BOX / 2; e++) out[e] *= old[e / 2 % 2];
            // All of this before the turn comes, not in it.
            wgmma_result(out);
            const u32 stage = stages.at;
            const u64 v = wgmma_operand(shared.stages + stage * STAGE + K_BYTES);
            const bool more = k0 + KEYS < a.keys;
            stages.next();
            if (more) mbarrier_wait(shared.full + stages.at, stages.parity);
            turn.wait();
            wgmma_fence();
#pragma unroll
            // 16 keys are 2048 bytes.
            for (u32 j = 0; j < KEYS / 16; j++) wgmma_m64n64k16_registers(out, p[j], v + 128 * j, true);
            wgmma_commit();
            if (more) scores(stages.at);
            turn.pass(lane);
            wgmma_wait<0>();
            wgmma_result(out);
            wgmma_result(s);
            if (lane == 0) mbarrier_arrive(shared.empty + stage);
        }
        if (lane == 0) mbarrier_arrive(shared.queries_empty + tiles.at);
        tiles.next();
        const Quad quad(lane);
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
            sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
            const u32 query = walk.query() + t / 32 * 16 + lane / 4 + h * 8;
            const int row = query < a.queries ? row_of(a, query, walk.window()) : -1;
            const size_t at = (static_cast<size_t>(row) * a.heads + walk.head()) * Width;
            const float whole = 1.0f / sum[h];
#pragma unroll
            for (u32 j = 0; j < Width / 32; j++) {
                float pair[4][2];
#pragma unroll
                for (u32 i = 0; i < 8; i++) {
                    const u32 e = j * 16 + i / 2 * 4 + h * 2 + i % 2;
                    pair[i / 2][i % 2] = (part ? out[e + (BOX - Width) / 2] : out[e]) * whole;
                }
                u32 bits[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) bits[i] = cvt_bf16x2(pair[i][0], pair[i][1]);
                const uint4 eight = quad.gather_bf16(bits);
                if (row < 0) continue;
                if (a.half & HALF_Y) {
                    *reinterpret_cast<uint4*>(static_cast<u16*>(a.y) + at + j * 32 + quad.eight()) = eight;
                } else {
#pragma unroll
                    for (u32 i = 0; i < 4; i++)
                        store2(a.y, at + j * 32 + i * 8 + lane % 4 * 2, false, pair[i][0], pair[i][1]);
                }
            }
        }
    }
}

template <u32 Width> DEVICE void run(const TmaAttentionArgs& args) {
    DYNAMIC_SHARED(memory);
    Shared s;
    s.queries = memory;
    s.stages = s.queries + TILES * Q_BYTES;
    s.queries_full = reinterpret_cast<u64*>(s.stages + STAGES * STAGE);
    s.queries_empty = s.queries_full + TILES;
    s.full = s.queries_empty + TILES;
    s.empty = s.full + STAGES;
    s.turns = s.empty + STAGES;
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < TILES; i++) {
            mbarrier_init(s.queries_full + i, 1);
            mbarrier_init(s.queries_empty + i, CONSUMERS * 4);
        }
        for (u32 i = 0; i < STAGES; i++) {
            mbarrier_init(s.full + i, 1);
            mbarrier_init(s.empty + i, CONSUMERS * 4);
        }
        for (u32 i = 0; i < CONSUMERS; i++) mbarrier_init(s.turns + i, 4);
        mbarrier_init_fence();
    }
    __syncthreads();
    // 128 · 32 + 384 · 160 registers are all that a multiprocessor has.
    if (threadIdx.x < 128) {
        setmaxnreg_dec<32>();
        if (threadIdx.x == 0) produce<Width>(args, s);
    } else {
        setmaxnreg_inc<160>();
        consume<Width>(args, s);
    }
}

}  // namespace attention_sm90a

KERNEL void LAUNCH_BOUNDS(512, 1) attention_sm90a_192x96_d64(const GRID_CONSTANT TmaAttentionArgs a) {
    attention_sm90a::run<64>(a);
}
KERNEL void LAUNCH_BOUNDS(512, 1) attention_sm90a_192x96_d32(const GRID_CONSTANT TmaAttentionArgs a) {
    attention_sm90a::run<32>(a);
}
