// wgmma: products by the four warps of a warpgroup, asynchronous, operands in shared memory (sm_90a).
//
// Thread `32w + l` of the group holds rows `16w + l / 4` and 8 below of d: element `4j + 2h + e` is column
// `8j + 2(l mod 4) + e` of the h-th of them.
#pragma once
#include "barrier.cuh"
#if defined(__CUDACC__)

/// Gives registers of each thread back to the multiprocessor, or waits for as many: `Count` from here on.
template <int Count> DEVICE void setmaxnreg_dec() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count)); }
template <int Count> DEVICE void setmaxnreg_inc() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count)); }

/// Before the first product, and after registers of one were written by other instructions.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/// Waits until at most `Pending` groups are in flight.
template <int Pending> DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/// After the wait for a product's group, before `d` is read or changed: tells the compiler that it was written.
template <int Count> DEVICE void wgmma_result(float (&d)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/// Rows of 64 bf16 in 128 bytes, their 16-byte chunks swizzled as the copy engine leaves them, from a multiple of 1024
/// bytes on. Of an operand along k, eight rows are 1024 bytes; the next 16 of k begin 32 bytes on. Of a transposed one
/// (rows are k), 64 columns; the next 16 of k begin 2048 bytes on.
DEVICE u64 wgmma_operand(const void* p) {
    constexpr u64 SWIZZLE_128 = 1ull << 62, EIGHT_ROWS = static_cast<u64>(1024 >> 4) << 32;
    // The other stride is read only of transposed operands of more than 64 columns.
    return (shared_address(p) & 0x3ffff) >> 4 | 1ull << 16 | EIGHT_ROWS | SWIZZLE_128;
}

#define SUMS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 4), SUMS_4(i + 8), SUMS_4(i + 12)

/// `d = a·bᵀ + (accumulate ? d : 0)`, both along k.
DEVICE void wgmma_m64n128k16(float (&d)[64], u64 a, u64 b, bool accumulate) {
    asm volatile(
        "{ .reg .pred accumulate; setp.ne.b32 accumulate, %66, 0; "
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
        "%59, %60, %61, %62, %63}, "
        "%64, %65, accumulate, 1, 1, 0, 0; }"
        : SUMS_16(0), SUMS_16(16), SUMS_16(32), SUMS_16(48)
        : "l"(a), "l"(b), "r"(static_cast<u32>(accumulate)));
}

/// Likewise, 96 columns.
DEVICE void wgmma_m64n96k16(float (&d)[48], u64 a, u64 b, bool accumulate) {
    asm volatile(
        "{ .reg .pred accumulate; setp.ne.b32 accumulate, %50, 0; "
        "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47}, "
        "%48, %49, accumulate, 1, 1, 0, 0; }"
        : SUMS_16(0), SUMS_16(16), SUMS_16(32)
        : "l"(a), "l"(b), "r"(static_cast<u32>(accumulate)));
}

/// `d += a·b`, `a` in registers as mma.sync has it, `b` transposed.
DEVICE void wgmma_m64n64k16_registers(float (&d)[32], const u32 (&a)[4], u64 b, bool accumulate) {
    asm volatile(
        "{ .reg .pred accumulate; setp.ne.b32 accumulate, %37, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, accumulate, 1, 1, 1; }"
        : SUMS_16(0), SUMS_16(16)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<u32>(accumulate)));
}

#undef SUMS_16
#undef SUMS_4

#endif
