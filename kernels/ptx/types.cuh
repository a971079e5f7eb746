// What every kernel starts from. On the device nothing but the compiler; on the host the simulator. No toolkit header.
#pragma once
#if defined(__CUDACC__)

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__
#define METHOD __device__ __forceinline__
#define KERNEL extern "C" __global__
#define GRID_CONSTANT __grid_constant__
/// Threads of a block and, where the compiler is told, blocks that a multiprocessor should hold.
#define LAUNCH_BOUNDS(...) __launch_bounds__(__VA_ARGS__)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) u8 name[]

/// Two floats, rounded to nearest even: `low` in bits 0..16.
DEVICE u32 cvt_bf16x2(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

/// `x`, of which the compiler no longer knows where it came from: what follows from it is computed here and not kept from
/// before.
DEVICE u32 forgotten(u32 x) {
    asm volatile("" : "+r"(x));
    return x;
}

#else
#include "../sim/sim.h"
#endif

DEVICE float bf16_to_f32(u16 x) { return __uint_as_float(static_cast<u32>(x) << 16); }

/// Bits of the lane whose number differs by `lane_mask`.
DEVICE u32 shuffle_xor_bits(u32 x, int lane_mask) {
    return __float_as_uint(__shfl_xor_sync(0xffffffffu, __uint_as_float(x), lane_mask));
}

DEVICE u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 div_up(u32 a, u32 b) { return (a + b - 1) / b; }
