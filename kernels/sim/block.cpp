// Fibers, and who runs next.
#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIM_ASAN 1
#else
#define SIM_ASAN 0
#endif

namespace sim {

thread_local Thread* current = nullptr;
thread_local Block* block = nullptr;

namespace {

// AddressSanitizer pads every local array, and kernels keep their accumulators in such.
constexpr size_t STACK_BYTES = SIM_ASAN ? 256 << 10 : 64 << 10;
constexpr u32 MAX_FIBERS = 1024;

struct Fiber {
#if defined(__x86_64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t context;
#endif
    const void* bottom = nullptr;
    size_t bytes = 0;
    void* fake_stack = nullptr;
};

/// Stacks of one OS thread, kept between launches. The last fiber is the OS thread's own.
struct Fibers {
    u8* stacks;
    Fiber fibers[MAX_FIBERS + 1];
    std::vector<int> unused;

    Fibers() {
        stacks = static_cast<u8*>(mmap(nullptr, STACK_BYTES * MAX_FIBERS, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (stacks == MAP_FAILED) {
            perror("stacks of simulated threads");
            abort();
        }
        for (u32 i = 0; i < MAX_FIBERS; i++) {
            fibers[i].bottom = stacks + STACK_BYTES * i;
            fibers[i].bytes = STACK_BYTES;
        }
    }
    ~Fibers() { munmap(stacks, STACK_BYTES * MAX_FIBERS); }
};

Fibers& fibers() {
    // Behind a pointer: a library that is loaded late gets little thread-local memory.
    static thread_local const std::unique_ptr<Fibers> all(new Fibers);
    return *all;
}

constexpr int OUTSIDE = MAX_FIBERS;
thread_local int running = OUTSIDE;

#if defined(__x86_64__)
extern "C" void sam3_sim_switch(void** save, void* to);
// Saves the callee-saved registers of the System V ABI on the old stack and takes them from the new one.
asm(R"(
.text
.globl sam3_sim_switch
.hidden sam3_sim_switch
.type sam3_sim_switch,@function
sam3_sim_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
#endif

void fiber_main();

/// Continues `to`; returns when somebody continues the caller.
void switch_to(int to) {
    Fibers& all = fibers();
    const int from = running;
    running = to;
#if SIM_ASAN
    __sanitizer_start_switch_fiber(&all.fibers[from].fake_stack, all.fibers[to].bottom, all.fibers[to].bytes);
#endif
#if defined(__x86_64__)
    sam3_sim_switch(&all.fibers[from].stack_pointer, all.fibers[to].stack_pointer);
#else
    swapcontext(&all.fibers[from].context, &all.fibers[to].context);
#endif
#if SIM_ASAN
    __sanitizer_finish_switch_fiber(all.fibers[from].fake_stack, nullptr, nullptr);
#endif
}

/// Prepares a fiber to begin at `fiber_main`.
void begin(int fiber) {
    Fibers& all = fibers();
    Fiber& f = all.fibers[fiber];
    f.fake_stack = nullptr;
    u8* const bottom = all.stacks + STACK_BYTES * static_cast<size_t>(fiber);
#if SIM_ASAN
    __asan_unpoison_memory_region(bottom, STACK_BYTES);
#endif
#if defined(__x86_64__)
    // Stack tops 64 KiB apart would all share one set of the cache: spread them over 61 lines.
    void** top = reinterpret_cast<void**>(bottom + STACK_BYTES - 64 - static_cast<size_t>(fiber * 7 % 61) * 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(fiber_main);
    f.stack_pointer = top - 6;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = bottom;
    f.context.uc_stack.ss_size = STACK_BYTES;
    f.context.uc_link = nullptr;
    makecontext(&f.context, fiber_main, 0);
#endif
}

/// The next thread that can run, from a place in the order on; null if none can.
Thread* next_from(u32 place) {
    const u32 n = static_cast<u32>(block->threads.size());
    for (u32 i = 0; i < n; i++) {
        Thread& t = block->threads[block->order[(place + i) % n]];
        if (t.state == State::ready || t.state == State::fresh) return &t;
    }
    return nullptr;
}

/// Chooses the thread after the current one, or, with a seed, now and then any. Where none can go on, a copy ends.
Thread* next() {
    const u32 n = static_cast<u32>(block->threads.size());
    const bool any = block->options.seed && next_random() % 8 == 0;
    const u32 place = any ? next_random() % n : (block->place[current->linear] + 1) % n;
    Thread* t = next_from(place);
    while (!t && !block->error[0] && run_late_load()) t = next_from(place);
    return t;
}

void resume(Thread* t) {
    current = t;
    if (t->state == State::fresh) {
        std::vector<int>& unused = fibers().unused;
        t->fiber = unused.back();
        unused.pop_back();
        begin(t->fiber);
    }
    switch_to(t->fiber);
}

/// Threads that ended no longer count at the barrier.
void release_barrier() {
    if (block->at_barrier == 0 || block->at_barrier != block->alive) return;
    block->at_barrier = 0;
    for (Thread& t : block->threads) {
        if (t.at_barrier) {
            t.at_barrier = false;
            make_ready(t.linear);
        }
    }
}

void fiber_main() {
#if SIM_ASAN
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        Thread* const self = current;
        self->state = State::ready;
        block->entry(block->args);
        if (!self->open.empty() || !self->groups.empty()) {
            // Harmless on hardware, but a sign that a result was not waited for.
            bool real = false;
            for (const Copy& c : self->open) real |= c.copy;
            for (const auto& g : self->groups)
                for (const Copy& c : g) real |= c.copy;
            if (real) fail("thread %u ends with copies in flight", self->linear);
        }
        self->fenced = false;
        self->state = State::done;
        block->alive--;
        release_barrier();
        Thread* const t = block->error[0] ? nullptr : next();
        if (t && t->state == State::fresh) {
            // The new thread takes over this fiber: kernels without barriers run as a plain loop.
            t->fiber = self->fiber;
            current = t;
            continue;
        }
        fibers().unused.push_back(self->fiber);
        if (t) {
            current = t;
            switch_to(t->fiber);
        } else {
            switch_to(OUTSIDE);
        }
    }
}

void give_turn() {
    Thread* const self = current;
    Thread* const t = next();
    if (!t) {
        switch_to(OUTSIDE);
    } else if (t != self) {
        resume(t);
    }
    current = self;
    leave_if_failed();
}

void run_block(Block& b) {
    block = &b;
    const u32 n = static_cast<u32>(b.threads.size());
    b.alive = n;
    b.at_barrier = 0;
    // xorshift needs a state other than 0.
    b.random = (b.options.seed * 2654435761u + b.index.x * 977 + b.index.y * 131071 + b.index.z * 8191) | 1u;
    memset(b.shared, 0xff, b.shared_bytes);
    std::vector<u32> warps(b.warps.size());
    for (u32 i = 0; i < warps.size(); i++) warps[i] = i;
    if (b.options.seed) {
        for (u32 i = static_cast<u32>(warps.size()); i > 1; i--) std::swap(warps[i - 1], warps[next_random() % i]);
    }
    u32 place = 0;
    for (u32 w : warps) {
        b.warps[w].arrived = 0;
        for (u32 t = w * 32; t < w * 32 + 32 && t < n; t++) {
            b.order[place] = t;
            b.place[t] = place++;
        }
    }
    for (Group& g : b.groups) g = Group();
    b.barriers.clear();
    b.loads.clear();
    std::vector<int>& unused = fibers().unused;
    unused.clear();
    for (int i = static_cast<int>(n); i-- > 0;) unused.push_back(i);
    for (u32 i = 0; i < n; i++) {
        Thread& t = b.threads[i];
        t.index = {i % b.size.x, i / b.size.x % b.size.y, i / (b.size.x * b.size.y)};
        t.linear = i;
        t.state = State::fresh;
        t.at_barrier = false;
        t.site = "not started";
        t.open.clear();
        t.groups.clear();
    }
    resume(&b.threads[b.order[0]]);
    if (!b.error[0] && b.alive) {
        const Thread* stuck = nullptr;
        for (const Thread& t : b.threads) {
            if (!stuck && t.state == State::blocked) stuck = &t;
        }
        fail("deadlock: %u of %u threads of block (%u, %u, %u) never ended; thread %u waits at %s", b.alive, n,
             b.index.x, b.index.y, b.index.z, stuck ? stuck->linear : 0, stuck ? stuck->site : "?");
    }
    if (!b.error[0] && !b.loads.empty()) fail("%zu copies that nobody waited for", b.loads.size());
    for (const Group& g : b.groups) {
        if (!b.error[0] && !(g.open.empty() && g.committed.empty())) fail("products that nobody waited for");
    }
}

}  // namespace

const Dim& thread_index() { return current->index; }
const Dim& block_index() { return block->index; }
const Dim& block_size() { return block->size; }
const Dim& grid_size() { return block->grid; }
u8* shared_memory() { return block->shared; }

void fail(const char* format, ...) {
    if (block->error[0]) return;
    va_list values;
    va_start(values, format);
    vsnprintf(block->error, sizeof block->error, format, values);
    va_end(values);
}

void leave_if_failed() {
    // The stacks of this block are abandoned; the next block begins them anew.
    if (block->error[0]) switch_to(OUTSIDE);
}

u32 next_random() {
    u32& r = block->random;
    r ^= r << 13;
    r ^= r >> 17;
    r ^= r << 5;
    return r;
}

void make_ready(u32 thread) { block->threads[thread].state = State::ready; }

void maybe_give_turn() {
    if (block->options.seed && next_random() % 2) give_turn();
}

void wait_at(const char* site) {
    current->site = site;
    current->state = State::blocked;
    while (current->state == State::blocked) give_turn();
}

void block_barrier(const char* site) {
    block->at_barrier++;
    if (block->at_barrier < block->alive) {
        current->at_barrier = true;
        wait_at(site);
        return;
    }
    release_barrier();
    maybe_give_turn();
}

Outcome launch(Dim grid, Dim size, size_t shared_bytes, Entry entry, void* args, Options options) {
    Outcome outcome;
    const u32 n = size.x * size.y * size.z;
    Block b;
    b.grid = grid;
    b.size = size;
    b.options = options;
    b.entry = entry;
    b.args = args;
    b.shared_bytes = shared_bytes;
    b.threads.resize(n);
    b.warps.resize((n + 31) / 32);
    b.groups.resize((n + 127) / 128);
    b.order.resize(n);
    b.place.resize(n);
    // Exactly as long as asked for, so that AddressSanitizer sees what lies beyond.
    std::vector<u8> memory(shared_bytes + 1024);
    b.shared = memory.data() + (1024 - reinterpret_cast<uintptr_t>(memory.data()) % 1024) % 1024;
#if SIM_ASAN
    __asan_poison_memory_region(b.shared + shared_bytes, memory.data() + memory.size() - (b.shared + shared_bytes));
#endif
    for (u32 z = 0; z < grid.z && !b.error[0]; z++) {
        for (u32 y = 0; y < grid.y && !b.error[0]; y++) {
            for (u32 x = 0; x < grid.x && !b.error[0]; x++) {
                b.index = {x, y, z};
                run_block(b);
            }
        }
    }
#if SIM_ASAN
    __asan_unpoison_memory_region(memory.data(), memory.size());
#endif
    memcpy(outcome.message, b.error, sizeof outcome.message);
    block = nullptr;
    current = nullptr;
    return outcome;
}

}  // namespace sim
