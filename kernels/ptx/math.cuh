// Functions that are approximations.
#pragma once
#include "types.cuh"
#if defined(__CUDACC__)

/// `2^x`, within 2 ulp (PTX ISA); 0 for `-inf`.
DEVICE float ex2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/// `1/x`, within 1 ulp.
DEVICE float rcp(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/// `e^x`, within 2 ulp (CUDA's programming guide).
DEVICE float exponential(float x) { return expf(x); }

#endif
