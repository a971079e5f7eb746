// The copy engine (sm_90): boxes of a tensor to shared memory.
#pragma once
#include "barrier.cuh"
#if defined(__CUDACC__)

/// `CUtensorMap`, made by the driver on the host; an argument of the kernel by value.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

/// The box at `(c0, c1, c2)` of a tensor of three dimensions, innermost first; what lies outside of the tensor is zero.
/// All its bytes count at `barrier`.
DEVICE void tma_load_3d(void* shared, const TensorMap* map, u64* barrier, int c0, int c1, int c2) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(shared_address(shared)),
        "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
        : "memory");
}

#endif
