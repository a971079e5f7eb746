// What Hopper adds: mbarriers, the copy engine, and products by warpgroups, after the PTX ISA's descriptions.
//
// Copies and products happen EARLY, when issued, or LATE: copies when no thread can go on without one, products when
// their group is waited for. Until then their destination holds NaN.
#include "block.h"

namespace sim {
namespace {

constexpr u32 NAN_BITS = 0xffffffffu;

/// What the stand-in driver puts into a tensor map.
struct Map {
    const u8* base;
    u64 length[3];
    /// Bytes between neighbours in the second and third dimension.
    u64 stride[2];
    u32 box[3];
};
static_assert(sizeof(Map) <= sizeof(TensorMap), "a map fits its 128 bytes");

Barrier* find(u64* at, const char* what) {
    const auto found = block->barriers.find(at);
    if (found == block->barriers.end()) fail("%s: no barrier was initialised there", what);
    leave_if_failed();
    return &found->second;
}

void end_phase_if_complete(Barrier& b) {
    if (b.pending || b.bytes) return;
    b.parity ^= 1;
    b.pending = b.count;
    for (u32 thread : b.waiting) make_ready(thread);
    b.waiting.clear();
}

void arrive(u64* at, u32 bytes) {
    Barrier& b = *find(at, "mbarrier.arrive");
    if (b.pending == 0) fail("mbarrier: more arrivals than the %u it was initialised with", b.count);
    leave_if_failed();
    b.bytes += bytes;
    b.pending--;
    end_phase_if_complete(b);
}

void load(const Load& l) {
    Map map;
    memcpy(&map, &l.map, sizeof map);
    u8* to = l.to;
    for (u32 z = 0; z < map.box[2]; z++) {
        for (u32 y = 0; y < map.box[1]; y++) {
            for (u32 x = 0; x < map.box[0]; x += 8, to += 16) {
                const long at[3] = {l.at[0] + static_cast<long>(x), l.at[1] + static_cast<long>(y),
                                    l.at[2] + static_cast<long>(z)};
                u16 chunk[8] = {};
                for (u32 e = 0; e < 8; e++) {
                    bool inside = at[0] + e >= 0 && at[0] + e < static_cast<long>(map.length[0]);
                    for (int d = 1; d < 3; d++) inside &= at[d] >= 0 && at[d] < static_cast<long>(map.length[d]);
                    if (!inside) continue;
                    const u8* const from = map.base + at[2] * static_cast<long>(map.stride[1]) +
                                           at[1] * static_cast<long>(map.stride[0]) + (at[0] + e) * 2;
                    memcpy(&chunk[e], from, 2);
                }
                memcpy(swizzled(to), chunk, 16);
            }
        }
    }
    Barrier& b = *find(l.barrier, "a copy's barrier");
    b.bytes -= static_cast<int>(map.box[0] * map.box[1] * map.box[2] * 2);
    end_phase_if_complete(b);
}

/// Where element `(row, k)` of an operand lies, or element `(k, column)` of a transposed one.
u16 element(u64 operand, u32 row, u32 k, bool transposed) {
    const u64 start = (operand & 0x3fff) << 4, wide = (operand >> 16 & 0x3fff) << 4, eight = (operand >> 32 & 0x3fff) << 4;
    const u64 at = transposed ? start + row / 64 * wide + row % 64 * 2 + k / 8 * eight + k % 8 * 128
                              : start + row / 8 * eight + row % 8 * 128 + k * 2;
    if (at + 2 > block->shared_bytes) {
        fail("wgmma: operand at %lu, outside of %zu bytes of shared memory", static_cast<unsigned long>(at),
             block->shared_bytes);
        return 0;
    }
    u16 x;
    memcpy(&x, swizzled(block->shared + at), 2);
    return x;
}

float bf16(u16 x) { return __uint_as_float(static_cast<u32>(x) << 16); }

void run(const Product& p) {
    float a[64][16], b[16][256];
    for (u32 k = 0; k < 16; k++) {
        for (u32 j = 0; j < p.columns; j++) b[k][j] = bf16(element(p.right, j, k, p.from_registers));
    }
    for (u32 row = 0; row < 64; row++) {
        for (u32 k = 0; k < 16; k++) {
            if (p.from_registers) {
                // As mma.sync's left operand, 16 rows a warp.
                const u32 thread = row / 16 * 32 + row % 8 * 4 + k % 8 / 2, word = row % 16 / 8 + k / 8 * 2;
                a[row][k] = bf16(static_cast<u16>(p.left_registers[thread][word] >> k % 2 * 16));
            } else {
                a[row][k] = bf16(element(p.left, row, k, false));
            }
        }
    }
    for (u32 row = 0; row < 64; row++) {
        float d[256];
        const u32 thread = row / 16 * 32 + row % 8 * 4, half = row % 16 / 8 * 2;
        const auto at = [&](u32 j) -> float& { return p.d[thread + j % 8 / 2][j / 8 * 4 + half + j % 2]; };
        for (u32 j = 0; j < p.columns; j++) d[j] = p.accumulate ? at(j) : 0.0f;
        for (u32 k = 0; k < 16; k++) {
            for (u32 j = 0; j < p.columns; j++) d[j] += a[row][k] * b[k][j];
        }
        for (u32 j = 0; j < p.columns; j++) at(j) = d[j];
    }
}

/// What a thread hands to a step of its warpgroup.
struct Part {
    enum Kind { product, commit, wait } kind;
    const WgmmaOperands* operands;
    int pending;
};

void issue(Group& g) {
    Product p;
    const WgmmaOperands& first = *static_cast<const Part*>(g.parts[0])->operands;
    p.columns = first.columns;
    p.from_registers = first.left_registers != nullptr;
    p.accumulate = first.accumulate;
    p.left = first.left;
    p.right = first.right;
    const Thread* const threads = &block->threads[static_cast<size_t>(&g - block->groups.data()) * 128];
    for (u32 t = 0; t < 128; t++) {
        const WgmmaOperands& o = *static_cast<const Part*>(g.parts[t])->operands;
        if (o.left != p.left || o.right != p.right || o.accumulate != p.accumulate) {
            fail("wgmma at %s: threads of the warpgroup name different operands", g.site);
            return;
        }
        if (!threads[t].fenced) {
            fail("wgmma at %s: no wgmma.fence since registers may have been written", g.site);
            return;
        }
        p.d[t] = o.d;
        p.left_registers[t] = o.left_registers;
    }
    if (block->options.async == Async::early) {
        run(p);
    } else {
        bool under_way = false;
        for (const auto& group : g.committed)
            for (const Product& other : group) under_way |= other.d[0] == p.d[0];
        for (const Product& other : g.open) under_way |= other.d[0] == p.d[0];
        // Registers are the products' until they have been waited for.
        p.saved.resize(under_way || !p.accumulate ? 0 : 128 * p.columns / 2);
        for (u32 t = 0; t < 128; t++) {
            if (!p.saved.empty()) memcpy(&p.saved[t * p.columns / 2], p.d[t], p.columns * 2);
            if (!under_way) memset(p.d[t], 0xff, p.columns * 2);
        }
    }
    g.open.push_back(std::move(p));
}

void wait(Group& g, int pending) {
    while (static_cast<int>(g.committed.size()) > pending) {
        if (block->options.async == Async::late) {
            for (const Product& p : g.committed.front()) {
                for (u32 t = 0; t < 128 && !p.saved.empty(); t++) {
                    for (u32 e = 0; e < p.columns / 2; e++) {
                        if (__float_as_uint(p.d[t][e]) != NAN_BITS) fail("wgmma at %s: its registers were used", g.site);
                    }
                    memcpy(p.d[t], &p.saved[t * p.columns / 2], p.columns * 2);
                }
                run(p);
            }
        }
        g.committed.erase(g.committed.begin());
    }
}

/// Waits for the warpgroup; the last thread to arrive does the work.
void meet(const Part& part, const char* site) {
    Thread& t = *current;
    Group& g = block->groups[t.linear / 128];
    if (g.arrived == 0) {
        g.site = site;
    } else if (strcmp(g.site, site)) {
        fail("divergence: thread %u is at %s, earlier threads of its warpgroup at %s", t.linear, site, g.site);
        leave_if_failed();
    }
    g.parts[t.linear % 128] = &part;
    if (++g.arrived < 128) {
        wait_at(site);
        return;
    }
    switch (part.kind) {
        case Part::product: issue(g); break;
        case Part::commit:
            g.committed.push_back(std::move(g.open));
            g.open.clear();
            break;
        case Part::wait: wait(g, part.pending); break;
    }
    leave_if_failed();
    g.arrived = 0;
    for (u32 i = 0; i < 128; i++) {
        const u32 thread = t.linear / 128 * 128 + i;
        if (thread != t.linear) make_ready(thread);
    }
}

}  // namespace

u8* swizzled(u8* p) {
    const u64 at = static_cast<u64>(p - block->shared);
    return block->shared + (at ^ (at >> 7 & 7) << 4);
}

void encode_tensor_map(TensorMap& to, const void* base, const u64 (&length)[3], const u64 (&stride)[2],
                       const u32 (&box)[3]) {
    Map map;
    map.base = static_cast<const u8*>(base);
    memcpy(map.length, length, sizeof length);
    memcpy(map.stride, stride, sizeof stride);
    memcpy(map.box, box, sizeof box);
    memcpy(&to, &map, sizeof map);
}

void barrier_init(u64* barrier, u32 count) {
    const u8* const at = reinterpret_cast<const u8*>(barrier);
    if (at < block->shared || at + 8 > block->shared + block->shared_bytes) fail("mbarrier.init outside of shared memory");
    if (count == 0) fail("mbarrier.init: no arrivals");
    leave_if_failed();
    block->barriers[barrier] = {count, count, 0, 0, {}};
}

void barrier_arrive(u64* barrier, u32 bytes) { arrive(barrier, bytes); }

void barrier_wait(u64* barrier, u32 parity, const char* site) {
    Barrier& b = *find(barrier, "mbarrier.try_wait");
    while (b.parity == parity) {
        b.waiting.push_back(current->linear);
        wait_at(site);
    }
    maybe_give_turn();
}

void load_box(void* to, const TensorMap* map, u64* barrier, int c0, int c1, int c2) {
    Load l{static_cast<u8*>(to), *map, barrier, {c0, c1, c2}};
    Map inner;
    memcpy(&inner, map, sizeof inner);
    const size_t bytes = static_cast<size_t>(inner.box[0]) * inner.box[1] * inner.box[2] * 2;
    if (l.to < block->shared || l.to + bytes > block->shared + block->shared_bytes)
        fail("a copy of %zu bytes beyond shared memory, to %ld", bytes, static_cast<long>(l.to - block->shared));
    if ((l.to - block->shared) % 128) fail("a copy to shared memory not aligned to 128 bytes");
    leave_if_failed();
    if (block->options.async == Async::early) {
        load(l);
    } else {
        memset(l.to, 0xff, bytes);
        block->loads.push_back(l);
    }
}

bool run_late_load() {
    if (block->loads.empty()) return false;
    const Load l = block->loads.front();
    block->loads.erase(block->loads.begin());
    load(l);
    return true;
}

void product_fence() { current->fenced = true; }

void product(const WgmmaOperands& operands, const char* site) { meet({Part::product, &operands, 0}, site); }

void product_commit(const char* site) { meet({Part::commit, nullptr, 0}, site); }

void product_wait(int pending, const char* site) {
    meet({Part::wait, nullptr, pending}, site);
    current->fenced = false;
}

}  // namespace sim
