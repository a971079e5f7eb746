// Runs CUDA kernels as host C++: what a kernel names of CUDA, implemented on the CPU.
//
// Each CUDA thread of a block is a fiber; blocks run one after the other on the calling thread. Warp-wide instructions
// happen when all 32 lanes have arrived at the same source line, and report divergence otherwise. cp.async runs either
// EARLY, when issued, or LATE, when waited for, its destination holding NaN until then: a kernel must be right in both.
// A seed other than 0 shuffles the order of warps and switches fibers where the hardware might. Shared memory starts as
// NaN. What Hopper adds is in hopper.cpp. Not modelled: reordering of memory accesses (fences do nothing), bank conflicts,
// clusters, time.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    u32 x, y;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};

namespace sim {

struct Dim {
    u32 x = 1, y = 1, z = 1;
};

enum class Async { early, late };

struct Options {
    Async async = Async::early;
    u32 seed = 0;
};

/// Empty where the launch went well.
struct Outcome {
    char message[400] = {};
};

typedef void (*Entry)(void* args);

/// Runs all blocks of a grid. `args` is handed to `entry` once per thread.
Outcome launch(Dim grid, Dim block, size_t shared_bytes, Entry entry, void* args, Options options);

const Dim& thread_index();
const Dim& block_index();
const Dim& block_size();
const Dim& grid_size();
u8* shared_memory();

void block_barrier(const char* site);

enum class WarpOp { sync, shuffle_xor, ldmatrix, ldmatrix_trans, mma_bf16 };

/// Waits for the warp's lanes; the last one to arrive does the work for all.
void warp(WarpOp op, void* operands, const char* site);

struct Shuffle {
    u32 value, result;
    int lane_mask;
};
struct Ldmatrix {
    u32* result;
    const void* row;
};
struct Mma {
    float* d;
    const u32* a;
    u32 b0, b1;
};

}  // namespace sim

struct alignas(64) TensorMap {
    u64 opaque[16];
};

namespace sim {

void encode_tensor_map(TensorMap& to, const void* base, const u64 (&length)[3], const u64 (&stride)[2],
                       const u32 (&box)[3]);
void barrier_init(u64* barrier, u32 count);
void barrier_arrive(u64* barrier, u32 bytes);
void barrier_wait(u64* barrier, u32 parity, const char* site);
void load_box(void* to, const TensorMap* map, u64* barrier, int c0, int c1, int c2);

struct WgmmaOperands {
    float* d;
    u32 columns;
    /// Null where the left operand is in shared memory.
    const u32* left_registers;
    u64 left, right;
    bool accumulate;
};
void product_fence();
void product(const WgmmaOperands& operands, const char* site);
void product_commit(const char* site);
void product_wait(int pending, const char* site);

void cp_async(void* shared, const void* global, bool copy);
void cp_async_commit();
void cp_async_wait(int pending);

inline float shuffle_xor(float value, int lane_mask, const char* site) {
    Shuffle s;
    memcpy(&s.value, &value, 4);
    s.lane_mask = lane_mask;
    warp(WarpOp::shuffle_xor, &s, site);
    memcpy(&value, &s.result, 4);
    return value;
}

}  // namespace sim

#define SIM_TEXT_(x) #x
#define SIM_TEXT(x) SIM_TEXT_(x)
#define SIM_SITE (__FILE__ ":" SIM_TEXT(__LINE__))

#define DEVICE static inline __attribute__((always_inline))
#define METHOD inline __attribute__((always_inline))
#define KERNEL extern "C"
#define GRID_CONSTANT
#define LAUNCH_BOUNDS(...)
#define DYNAMIC_SHARED(name) u8* const name = sim::shared_memory()

#define threadIdx (sim::thread_index())
#define blockIdx (sim::block_index())
#define blockDim (sim::block_size())
#define gridDim (sim::grid_size())
#define __syncthreads() sim::block_barrier(SIM_SITE)
#define __syncwarp() sim::warp(sim::WarpOp::sync, nullptr, SIM_SITE)
#define __shfl_xor_sync(mask, value, lane_mask) sim::shuffle_xor(value, lane_mask, SIM_SITE)

static inline float __uint_as_float(u32 bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline u32 __float_as_uint(float f) {
    u32 bits;
    memcpy(&bits, &f, 4);
    return bits;
}
// The host build does not contract, so plain operations are what these promise.
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
/// A launch has one thread of the host, and memory that no other launch has.
static inline u32 atomicAdd(u32* to, u32 by) {
    const u32 before = *to;
    *to += by;
    return before;
}

#define ldmatrix_x4(r, p)                                                    \
    do {                                                                     \
        sim::Ldmatrix operands_{r, p};                                       \
        sim::warp(sim::WarpOp::ldmatrix, &operands_, SIM_SITE);              \
    } while (0)
#define ldmatrix_x4_trans(r, p)                                              \
    do {                                                                     \
        sim::Ldmatrix operands_{r, p};                                       \
        sim::warp(sim::WarpOp::ldmatrix_trans, &operands_, SIM_SITE);        \
    } while (0)
#define mma_m16n8k16_bf16(d, a, b0, b1)                                      \
    do {                                                                     \
        sim::Mma operands_{d, a, b0, b1};                                    \
        sim::warp(sim::WarpOp::mma_bf16, &operands_, SIM_SITE);              \
    } while (0)

static inline void cp_async_16(void* shared, const void* global, bool copy) { sim::cp_async(shared, global, copy); }
static inline float4 load_past_l1(const float4* p) { return *p; }
static inline void __threadfence() {}
static inline void cp_async_commit() { sim::cp_async_commit(); }
template <int N> static inline void cp_async_wait() { sim::cp_async_wait(N); }

static inline float ex2(float x) { return exp2f(x); }
static inline float rcp(float x) { return 1.0f / x; }
/// Off by up to 2 ulp, as a device's may be: by what the last bits of `x` make of it.
static inline float exponential(float x) {
    const float y = expf(x);
    u32 bits = __float_as_uint(y);
    if (!(y > 1e-30f && y < 1e30f)) return y;
    bits += (__float_as_uint(x) * 2654435761u >> 16) % 5 - 2;
    return __uint_as_float(bits);
}

static inline u32 forgotten(u32 x) { return x; }
static inline u32 shared_address(const void* p) {
    return static_cast<u32>(static_cast<const u8*>(p) - sim::shared_memory());
}
static inline void mbarrier_init(u64* barrier, u32 count) { sim::barrier_init(barrier, count); }
static inline void mbarrier_init_fence() {}
static inline void mbarrier_arrive(u64* barrier) { sim::barrier_arrive(barrier, 0); }
static inline void mbarrier_arrive_expect_tx(u64* barrier, u32 bytes) { sim::barrier_arrive(barrier, bytes); }
#define mbarrier_wait(barrier, parity) sim::barrier_wait(barrier, parity, SIM_SITE)
static inline void tma_load_3d(void* to, const TensorMap* map, u64* barrier, int c0, int c1, int c2) {
    sim::load_box(to, map, barrier, c0, c1, c2);
}

template <int Count> static inline void setmaxnreg_dec() {}
template <int Count> static inline void setmaxnreg_inc() {}
static inline void wgmma_fence() { sim::product_fence(); }
#define wgmma_commit() sim::product_commit(SIM_SITE)
template <int Pending> static inline void wgmma_wait() { sim::product_wait(Pending, "wgmma.wait_group"); }
template <int Count> static inline void wgmma_result(float (&)[Count]) {}
/// As on the device (ptx/wgmma.cuh); a mistake there shows on hardware only.
static inline u64 wgmma_operand(const void* p) {
    return (shared_address(p) & 0x3ffff) >> 4 | 1ull << 16 | static_cast<u64>(1024 >> 4) << 32 | 1ull << 62;
}
#define wgmma_m64n128k16(d, a, b, accumulate) sim::product({d, 128, nullptr, a, b, accumulate}, SIM_SITE)
#define wgmma_m64n96k16(d, a, b, accumulate) sim::product({d, 96, nullptr, a, b, accumulate}, SIM_SITE)
#define wgmma_m64n64k16_registers(d, a, b, accumulate) sim::product({d, 64, a, 0, b, accumulate}, SIM_SITE)

/// Round to nearest, ties to even, as cvt.rn.bf16x2.f32; NaN becomes 0x7fff.
static inline u32 sim_bf16(float x) {
    const u32 u = __float_as_uint(x);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
static inline u32 cvt_bf16x2(float low, float high) { return sim_bf16(low) | sim_bf16(high) << 16; }
