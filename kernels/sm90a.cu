// What runs on Hopper (9.0): the kernels for Ampere, and those that use what only Hopper has.
#include "sm80.cu"
#include "attention_sm90a.cu"
#include "gemm_sm90a.cu"
