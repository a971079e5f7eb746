// All kernels that run on Ampere and newer, one translation unit: one binary per architecture.
#include "attention_bf16.cu"
#include "attention_f32.cu"
#include "boxes.cu"
#include "gemm_bf16.cu"
#include "gemm_f32.cu"
#include "norm.cu"
#include "picture.cu"
#include "rows.cu"
