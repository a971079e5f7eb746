// A stand-in libcuda.so.1: the driver calls the back end makes, with launches run by the simulator.
//
// The back end's own host code (shapes, launch sizes, argument layout, memory) then runs unchanged without a GPU.
// Memory is filled with NaN, work is done when its call returns, and what the driver refuses is refused: too many
// threads, an empty grid, shared memory beyond 48 KiB without the attribute, an unknown kernel. Environment:
//   SAM3_SIM_ASYNC=early|late   when cp.async happens (late)
//   SAM3_SIM_SEED=N             order of warps and switches (1; 0 is the plain order)
//   SAM3_SIM_INIT=CODE          result of cuInit (0), 100 for no device
//   SAM3_SIM_DEVICES=N          number of devices (1)
//   SAM3_SIM_CAPABILITY=NN      compute capability (90)
//   SAM3_SIM_PROCESSORS=N       multiprocessors (132)
//   SAM3_SIM_MEMORY=BYTES       memory of the device (8 GiB)
//   SAM3_SIM_FAIL_LAUNCH=N      the N-th launch fails
#include "../sm90a.cu"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <type_traits>
#include <string>


namespace {

enum : int { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, NOT_FOUND = 500,
             LAUNCH_FAILED = 719 };

struct Function {
    sim::Entry entry;
    u32 most_shared = 48 << 10;
};

/// Calls a kernel with its one argument, a structure by value.
template <auto Kernel> struct Call;
template <class Args, void (*Kernel)(Args)> struct Call<Kernel> {
    static void entry(void* args) { Kernel(*static_cast<const std::remove_const_t<Args>*>(args)); }
};

long long setting(const char* name, long long otherwise) {
    const char* const text = getenv(name);
    return text ? atoll(text) : otherwise;
}

#define FUNCTION(kernel) {#kernel, Function{Call<kernel>::entry}}
std::map<std::string, Function> functions = {
    FUNCTION(gemm_f32_64x64x16), FUNCTION(conv3x3_f32_64x64x16), FUNCTION(deconv2x2_f32_64x64x16),
    FUNCTION(gemm_bf16_64x64x32), FUNCTION(gemm_bf16_128x128x32), FUNCTION(dot_bf16_64x64x32),
    FUNCTION(conv3x3_bf16_64x64x32), FUNCTION(conv3x3_bf16_128x128x32), FUNCTION(deconv2x2_bf16_64x64x32),
    FUNCTION(attention_f32_16x32_d32), FUNCTION(attention_f32_16x32_d64), FUNCTION(attention_f32_16x32_d128),
    FUNCTION(attention_bf16_64x64_d32), FUNCTION(attention_bf16_64x64_d64), FUNCTION(attention_bf16_64x64_d128),
    FUNCTION(attention_join),
    FUNCTION(gemm_sm90a_192x256x64), FUNCTION(conv3x3_sm90a_192x256x64), FUNCTION(deconv2x2_sm90a_192x256x64),
    FUNCTION(split_heads_sm90a), FUNCTION(attention_sm90a_192x96_d64),
    FUNCTION(layer_norm), FUNCTION(group_norm_partial), FUNCTION(group_norm_apply),
    FUNCTION(add_rows), FUNCTION(copy_rows), FUNCTION(gather_rows), FUNCTION(mean_rows),
    FUNCTION(ingest_f32), FUNCTION(patches_f32), FUNCTION(upsample_add), FUNCTION(roi_align_f32),
    FUNCTION(box_sine_f32), FUNCTION(box_deltas_f32), FUNCTION(box_refine_f32),
};
#undef FUNCTION

thread_local void* context;
std::mutex memory_lock;
std::map<u64, size_t> blocks;
size_t in_use;
std::atomic<long long> launches;

int allocate(u64* to, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    const std::lock_guard<std::mutex> guard(memory_lock);
    if (in_use + bytes > static_cast<size_t>(setting("SAM3_SIM_MEMORY", 8ll << 30))) return OUT_OF_MEMORY;
    void* block = nullptr;
    if (posix_memalign(&block, 256, bytes)) return OUT_OF_MEMORY;
    memset(block, 0xff, bytes);
    *to = reinterpret_cast<u64>(block);
    blocks[*to] = bytes;
    in_use += bytes;
    return OK;
}

int release(u64 block) {
    const std::lock_guard<std::mutex> guard(memory_lock);
    const auto found = blocks.find(block);
    if (found == blocks.end()) return INVALID_VALUE;
    in_use -= found->second;
    blocks.erase(found);
    free(reinterpret_cast<void*>(block));
    return OK;
}

/// Whether `bytes` from `at` on lie in one allocation.
bool allocated(u64 at, size_t bytes) {
    const std::lock_guard<std::mutex> guard(memory_lock);
    auto next = blocks.upper_bound(at);
    if (next == blocks.begin()) return false;
    --next;
    return at + bytes <= next->first + next->second;
}

int copy(u64 to, u64 from, size_t bytes, bool to_device, bool from_device) {
    if (!context || (to_device && !allocated(to, bytes)) || (from_device && !allocated(from, bytes))) return INVALID_VALUE;
    memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    return OK;
}

u64 host(const void* p) { return reinterpret_cast<u64>(p); }

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cuInit(u32) { return static_cast<int>(setting("SAM3_SIM_INIT", OK)); }
API cuDriverGetVersion(int* version) {
    *version = 12000;
    return OK;
}
API cuDeviceGetCount(int* count) {
    *count = static_cast<int>(setting("SAM3_SIM_DEVICES", 1));
    return OK;
}
API cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < setting("SAM3_SIM_DEVICES", 1) ? OK : INVALID_DEVICE;
}
API cuDeviceGetName(char* name, int length, int) {
    snprintf(name, static_cast<size_t>(length), "CPU simulator");
    return OK;
}
API cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = static_cast<int>(setting("SAM3_SIM_CAPABILITY", 90));
    switch (attribute) {
        case 16: *value = static_cast<int>(setting("SAM3_SIM_PROCESSORS", 132)); break;
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 115: *value = 1; break;  // memory pools
        default: return INVALID_VALUE;
    }
    return OK;
}
API cuDevicePrimaryCtxRetain(void** ctx, int device) {
    *ctx = reinterpret_cast<void*>(static_cast<uintptr_t>(device) + 1);
    return OK;
}
API cuDevicePrimaryCtxRelease_v2(int) { return OK; }
API cuCtxSetCurrent(void* ctx) {
    context = ctx;
    return OK;
}
API cuCtxGetCurrent(void** ctx) {
    *ctx = context;
    return OK;
}
API cuMemGetInfo_v2(size_t* unused, size_t* total) {
    *total = static_cast<size_t>(setting("SAM3_SIM_MEMORY", 8ll << 30));
    *unused = *total - in_use;
    return OK;
}
API cuMemAllocAsync(u64* to, size_t bytes, void*) { return context ? allocate(to, bytes) : INVALID_VALUE; }
API cuMemFreeAsync(u64 block, void*) { return context ? release(block) : INVALID_VALUE; }
API cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t n, void*) { return copy(to, host(from), n, true, false); }
API cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t n, void*) { return copy(host(to), from, n, false, true); }
API cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t n, void*) { return copy(to, from, n, true, true); }
API cuModuleLoadData(void** module, const void* image) {
    *module = const_cast<void*>(image);
    return image ? OK : INVALID_VALUE;
}
API cuModuleUnload(void*) { return OK; }
API cuModuleGetFunction(Function** function, void*, const char* name) {
    const auto found = functions.find(name);
    if (found == functions.end()) return NOT_FOUND;
    *function = &found->second;
    return OK;
}
API cuFuncSetAttribute(Function* f, int attribute, int value) {
    // Bytes of dynamic shared memory; a block gets at most 227 KiB.
    if (attribute != 8 || value < 0 || value > 227 << 10) return INVALID_VALUE;
    f->most_shared = static_cast<u32>(value);
    return OK;
}
API cuTensorMapEncodeTiled(TensorMap* map, int type, u32 rank, void* base, const u64* length, const u64* stride,
                           const u32* box, const u32* steps, int interleave, int swizzle, int, int fill) {
    // Of what the driver takes, bf16 in three dimensions in swizzled rows of 128 bytes, with zeros outside.
    if (type != 9 || rank != 3 || interleave != 0 || swizzle != 3 || fill != 0) return INVALID_VALUE;
    if (reinterpret_cast<u64>(map) % 64 || reinterpret_cast<u64>(base) % 16 || box[0] != 64) return INVALID_VALUE;
    for (int d = 0; d < 3; d++) {
        if (!length[d] || length[d] > 1ull << 32 || !box[d] || box[d] > 256 || steps[d] != 1) return INVALID_VALUE;
    }
    if (stride[0] % 16 || stride[1] % 16 || stride[0] >= 1ull << 40 || stride[1] >= 1ull << 40) return INVALID_VALUE;
    const u64 bytes = stride[1] * (length[2] - 1) + stride[0] * (length[1] - 1) + length[0] * 2;
    if (!allocated(reinterpret_cast<u64>(base), bytes)) return INVALID_VALUE;
    sim::encode_tensor_map(*map, base, {length[0], length[1], length[2]}, {stride[0], stride[1]},
                           {box[0], box[1], box[2]});
    return OK;
}
API cuLaunchKernel(Function* f, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, void*, void** params,
                   void**) {
    if (!context || !gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || !by || !bz) return INVALID_VALUE;
    if (bx * by * bz > 1024 || shared > f->most_shared) return INVALID_VALUE;
    if (++launches == setting("SAM3_SIM_FAIL_LAUNCH", -1)) return LAUNCH_FAILED;
    const char* const async = getenv("SAM3_SIM_ASYNC");
    sim::Options options;
    options.async = async && !strcmp(async, "early") ? sim::Async::early : sim::Async::late;
    options.seed = static_cast<u32>(setting("SAM3_SIM_SEED", 1));
    const sim::Outcome outcome = sim::launch({gx, gy, gz}, {bx, by, bz}, shared, f->entry, params[0], options);
    if (!outcome.message[0]) return OK;
    fprintf(stderr, "simulated kernel: %s\n", outcome.message);
    return LAUNCH_FAILED;
}
API cuStreamCreate(void** stream, u32) {
    *stream = reinterpret_cast<void*>(1);
    return OK;
}
API cuStreamSynchronize(void*) { return OK; }
API cuStreamDestroy_v2(void*) { return OK; }
API cuGetErrorName(int code, const char** name) {
    switch (code) {
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: *name = "CUDA_ERROR_OF_THE_SIMULATOR"; break;
    }
    return OK;
}
API cuGetErrorString(int code, const char** text) { return cuGetErrorName(code, text); }
