// The state of the block that runs, shared by the scheduler (block.cpp) and the instructions (instructions.cpp).
#pragma once
#include "sim.h"

#include <map>
#include <vector>

namespace sim {

enum class State : u8 { fresh, ready, blocked, done };

struct Copy {
    void* to;
    const void* from;
    bool copy;
};

/// One CUDA thread. It gets a fiber when it first runs, and hands it on when it ends.
struct Thread {
    Dim index;
    u32 linear = 0;
    State state = State::fresh;
    bool at_barrier = false;
    int fiber = -1;
    const char* site = "not started";
    /// cp.async copies since the last commit, and committed groups in order.
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
    /// A wgmma.fence since the last wait.
    bool fenced = false;
};

struct Warp {
    u32 arrived = 0;
    WarpOp op = WarpOp::sync;
    const char* site = "";
    void* operands[32] = {};
};

/// An mbarrier.
struct Barrier {
    u32 count, pending;
    /// Expected and not yet come; a copy may be faster than the thread that expects it.
    int bytes;
    u32 parity;
    std::vector<u32> waiting;
};

/// A box on its way from global memory.
struct Load {
    u8* to;
    TensorMap map;
    u64* barrier;
    int at[3];
};

/// A wgmma, with the registers of all its threads.
struct Product {
    u32 columns = 0;
    bool from_registers = false, accumulate = false;
    u64 left = 0, right = 0;
    float* d[128] = {};
    const u32* left_registers[128] = {};
    /// What the registers held, where they were taken away.
    std::vector<float> saved;
};

/// Four warps that multiply together.
struct Group {
    u32 arrived = 0;
    const char* site = "";
    const void* parts[128] = {};
    std::vector<Product> open;
    std::vector<std::vector<Product>> committed;
};

struct Block {
    Dim grid, size, index;
    Options options;
    Entry entry = nullptr;
    void* args = nullptr;
    u8* shared = nullptr;
    size_t shared_bytes = 0;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<Group> groups;
    std::map<u64*, Barrier> barriers;
    std::vector<Load> loads;
    /// Order in which threads get their turn, and the place of each in it.
    std::vector<u32> order, place;
    u32 alive = 0, at_barrier = 0, random = 1;
    char error[400] = {};
};

extern thread_local Thread* current;
extern thread_local Block* block;

/// Keeps the first error; the block ends at the next switch.
void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
/// Gives the turn away until another fiber makes this thread ready.
void wait_at(const char* site);
void make_ready(u32 thread);
/// With a seed, now and then lets others go first.
void maybe_give_turn();
/// Leaves the block for good if it failed.
void leave_if_failed();
u32 next_random();
/// Where a byte of a swizzled operand lies, from where it would lie without.
u8* swizzled(u8* p);
/// Does the copy that has waited longest; false if there is none.
bool run_late_load();

}  // namespace sim
