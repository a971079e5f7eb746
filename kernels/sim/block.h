// The state of the block that runs, shared by the scheduler (block.cpp) and the instructions (instructions.cpp).
#pragma once
#include "sim.h"

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
};

struct Warp {
    u32 arrived = 0;
    WarpOp op = WarpOp::sync;
    const char* site = "";
    void* operands[32] = {};
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
/// Leaves the block for good if it failed.
void leave_if_failed();
u32 next_random();

}  // namespace sim
