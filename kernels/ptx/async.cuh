// cp.async: global to shared memory without registers (sm_80).
#pragma once
#include "types.cuh"
#if defined(__CUDACC__)

/// 16 bytes, both addresses aligned to them; zeros where `!copy`, and then `global` is not read.
DEVICE void cp_async_16(void* shared, const void* global, bool copy) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     static_cast<u32>(__cvta_generic_to_shared(shared))),
                 "l"(global), "r"(copy ? 16 : 0)
                 : "memory");
}

/// What other multiprocessors may have written since this kernel began.
DEVICE float4 load_past_l1(const float4* p) {
    float4 r;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(r.x), "=f"(r.y), "=f"(r.z), "=f"(r.w) : "l"(p) : "memory");
    return r;
}

DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `N` groups of this thread are in flight.
template <int N> DEVICE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

#endif
