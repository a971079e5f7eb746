// Warp-wide instructions and asynchronous copies, after the PTX ISA's descriptions of fragments.
#include "block.h"

namespace sim {
namespace {

float low(u32 pair) { return __uint_as_float(pair << 16); }
float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

/// Whether `bytes` from `p` on lie in shared memory, aligned to them.
bool in_shared(const void* p, size_t bytes, const char* what, const char* site) {
    const u8* const at = static_cast<const u8*>(p);
    if (at < block->shared || at + bytes > block->shared + block->shared_bytes) {
        fail("%s at %s: offset %ld outside of %zu bytes of shared memory", what, site,
             static_cast<long>(at - block->shared), block->shared_bytes);
        return false;
    }
    if (reinterpret_cast<uintptr_t>(p) % bytes) {
        fail("%s at %s: address not aligned to %zu bytes", what, site, bytes);
        return false;
    }
    return true;
}

/// ldmatrix .x4: lane `8j + r` names row `r` of matrix `j`; lane `l` gets elements `2(l mod 4)` and the next of row
/// `l / 4`, or with .trans of column `l / 4`.
void ldmatrix(Warp& w, bool transposed) {
    const void* rows[32];
    for (int l = 0; l < 32; l++) {
        rows[l] = static_cast<Ldmatrix*>(w.operands[l])->row;
        if (!in_shared(rows[l], 16, "ldmatrix", w.site)) return;
    }
    for (int l = 0; l < 32; l++) {
        for (int j = 0; j < 4; j++) {
            u16 pair[2];
            for (int e = 0; e < 2; e++) {
                const int row = transposed ? (l & 3) * 2 + e : l >> 2;
                const int column = transposed ? l >> 2 : (l & 3) * 2 + e;
                memcpy(&pair[e], static_cast<const u8*>(rows[j * 8 + row]) + column * 2, 2);
            }
            static_cast<Ldmatrix*>(w.operands[l])->result[j] = pair[0] | static_cast<u32>(pair[1]) << 16;
        }
    }
}

/// mma.sync m16n8k16, row-major A, column-major B. The sum runs over k in order in f32; the hardware's order and
/// truncation are its own.
void mma(Warp& w) {
    float a[16][16], b[16][8], d[16][8];
    for (int l = 0; l < 32; l++) {
        const Mma& m = *static_cast<Mma*>(w.operands[l]);
        const int g = l >> 2, c = (l & 3) * 2;
        for (int i = 0; i < 4; i++) {
            const int row = g + (i & 1) * 8, column = c + (i >> 1) * 8;
            a[row][column] = low(m.a[i]);
            a[row][column + 1] = high(m.a[i]);
        }
        b[c][g] = low(m.b0);
        b[c + 1][g] = high(m.b0);
        b[c + 8][g] = low(m.b1);
        b[c + 9][g] = high(m.b1);
        for (int i = 0; i < 4; i++) d[g + (i >> 1) * 8][c + (i & 1)] = m.d[i];
    }
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 16; k++) {
            for (int j = 0; j < 8; j++) d[i][j] += a[i][k] * b[k][j];
        }
    }
    for (int l = 0; l < 32; l++) {
        const Mma& m = *static_cast<Mma*>(w.operands[l]);
        const int g = l >> 2, c = (l & 3) * 2;
        for (int i = 0; i < 4; i++) m.d[i] = d[g + (i >> 1) * 8][c + (i & 1)];
    }
}

void shuffle(Warp& w) {
    for (int l = 0; l < 32; l++) {
        Shuffle& s = *static_cast<Shuffle*>(w.operands[l]);
        s.result = static_cast<Shuffle*>(w.operands[l ^ s.lane_mask])->value;
    }
}

void run(const Copy& c) {
    if (c.copy) {
        memcpy(c.to, c.from, 16);
    } else {
        memset(c.to, 0, 16);
    }
}

}  // namespace

void warp(WarpOp op, void* operands, const char* site) {
    Thread& t = *current;
    Warp& w = block->warps[t.linear / 32];
    if (w.arrived == 0) {
        w.op = op;
        w.site = site;
    } else if (w.op != op || w.site != site) {
        fail("divergence: thread %u is at %s, earlier lanes of its warp at %s", t.linear, site, w.site);
        leave_if_failed();
    }
    w.operands[t.linear % 32] = operands;
    w.arrived |= 1u << t.linear % 32;
    if (w.arrived != 0xffffffffu) {
        wait_at(site);
        return;
    }
    switch (op) {
        case WarpOp::sync: break;
        case WarpOp::shuffle_xor: shuffle(w); break;
        case WarpOp::ldmatrix: ldmatrix(w, false); break;
        case WarpOp::ldmatrix_trans: ldmatrix(w, true); break;
        case WarpOp::mma_bf16: mma(w); break;
    }
    leave_if_failed();
    w.arrived = 0;
    for (u32 l = 0; l < 32; l++) {
        const u32 lane = t.linear / 32 * 32 + l;
        if (lane != t.linear) make_ready(lane);
    }
}

void cp_async(void* shared, const void* global, bool copy) {
    in_shared(shared, 16, "cp.async", "its destination");
    if (copy && reinterpret_cast<uintptr_t>(global) % 16) fail("cp.async: source not aligned to 16 bytes");
    leave_if_failed();
    const Copy c{shared, global, copy};
    if (block->options.async == Async::early) {
        run(c);
    } else {
        memset(shared, 0xff, 16);
    }
    current->open.push_back(c);
}

void cp_async_commit() {
    current->groups.push_back(std::move(current->open));
    current->open.clear();
}

void cp_async_wait(int pending) {
    auto& groups = current->groups;
    while (static_cast<int>(groups.size()) > pending) {
        if (block->options.async == Async::late) {
            for (const Copy& c : groups.front()) run(c);
        }
        groups.erase(groups.begin());
    }
}

}  // namespace sim
