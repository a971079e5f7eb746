// A stand-in libcuda.so.1: the driver calls the back end makes, with launches run by the simulator.
//
// The back end's own host code (shapes, launch sizes, argument layout, memory, graphs) then runs unchanged without a GPU.
// Memory is filled with NaN, work is done when its call returns, and what the driver refuses is refused: too many
// threads, an empty grid, more shared memory than a kernel was allowed, an unknown kernel, a binary for another device.
// Environment:
//   SAM3_SIM_ASYNC=early|late   when cp.async happens (late)
//   SAM3_SIM_SEED=N             order of warps and switches (1; 0 is the plain order)
//   SAM3_SIM_VERSION=N          version of the driver (12000)
//   SAM3_SIM_INIT=CODE          result of cuInit (0), 100 for no device
//   SAM3_SIM_DEVICES=N          number of devices (1)
//   SAM3_SIM_CAPABILITY=NN      compute capability (90)
//   SAM3_SIM_PROCESSORS=N       multiprocessors (132)
//   SAM3_SIM_MEMORY=BYTES       memory of the device (8 GiB)
//   SAM3_SIM_FAIL_MODULE=CODE   result of loading a module (0)
//   SAM3_SIM_FAIL_ALLOCATION=N  the N-th allocation and the one after find no memory
//   SAM3_SIM_FAIL_LAUNCH=N      the N-th launch is refused
//   SAM3_SIM_IDLE=KERNEL        launches of this kernel do nothing
//   SAM3_SIM_FAULT=N            the N-th launch breaks the context: it and all later calls fail, as after a fault
//   SAM3_SIM_LOG=PATH           one line for each call that does something is appended to this file
#include "../sm90a.cu"

#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

namespace {

enum : int { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
             NO_BINARY = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719 };

struct Function {
    sim::Entry entry;
    size_t bytes;  // of its one argument
    u32 most_shared = 48 << 10;
};

/// Calls a kernel with its one argument, a structure by value.
template <auto Kernel> struct Call;
template <class Args, void (*Kernel)(Args)> struct Call<Kernel> {
    static constexpr size_t bytes = sizeof(Args);
    static void entry(void* args) { Kernel(*static_cast<const std::remove_const_t<Args>*>(args)); }
};

long long setting(const char* name, long long otherwise) {
    const char* const text = getenv(name);
    return text ? atoll(text) : otherwise;
}

#define FUNCTION(kernel) {#kernel, Function{Call<kernel>::entry, Call<kernel>::bytes}}
std::map<std::string, Function> functions = {
    FUNCTION(gemm_f32_64x64x16), FUNCTION(conv3x3_f32_64x64x16), FUNCTION(deconv2x2_f32_64x64x16),
    FUNCTION(gemm_few_32x64x64), FUNCTION(gemm_bf16_64x64x32), FUNCTION(gemm_bf16_128x128x32), FUNCTION(dot_bf16_64x64x32),
    FUNCTION(conv3x3_bf16_64x64x32), FUNCTION(conv3x3_bf16_128x128x32), FUNCTION(deconv2x2_bf16_64x64x32),
    FUNCTION(attention_f32_16x32_d32), FUNCTION(attention_f32_16x32_d64), FUNCTION(attention_f32_16x32_d128),
    FUNCTION(attention_bf16_64x64_d32), FUNCTION(attention_bf16_64x64_d64), FUNCTION(attention_bf16_64x64_d128),
    FUNCTION(attention_join),
    FUNCTION(gemm_sm90a_192x256x64), FUNCTION(conv3x3_sm90a_192x256x64), FUNCTION(deconv2x2_sm90a_192x256x64),
    FUNCTION(gemm_sm90a_192x128x64), FUNCTION(conv3x3_sm90a_192x128x64), FUNCTION(deconv2x2_sm90a_192x128x64),
    FUNCTION(attention_sm90a_192x96_d64), FUNCTION(attention_sm90a_192x96_d32),
    FUNCTION(layer_norm), FUNCTION(group_norm_partial), FUNCTION(group_norm_apply),
    FUNCTION(add_rows), FUNCTION(copy_rows), FUNCTION(pad_rows), FUNCTION(gather_rows), FUNCTION(mean_rows),
    FUNCTION(ingest_f32), FUNCTION(patches_f32), FUNCTION(upsample_add), FUNCTION(roi_align_f32), FUNCTION(cut_f32),
    FUNCTION(box_sine_f32), FUNCTION(box_deltas_f32), FUNCTION(box_refine_f32),
};
#undef FUNCTION

thread_local void* context;
std::mutex memory_lock;
std::map<u64, size_t> blocks;
size_t in_use;
std::atomic<long long> launches, allocations;
/// How often the context is held, and whether a fault has broken it.
std::atomic<int> holders;
std::atomic<bool> broken;

/// Appends a line to the log, if one is kept.
__attribute__((format(printf, 1, 2))) void note(const char* format, ...) {
    static FILE* const log = getenv("SAM3_SIM_LOG") ? fopen(getenv("SAM3_SIM_LOG"), "a") : nullptr;
    if (!log) return;
    static std::mutex lock;
    const std::lock_guard<std::mutex> guard(lock);
    va_list values;
    va_start(values, format);
    vfprintf(log, format, values);
    va_end(values);
    fputc('\n', log);
    fflush(log);
}

/// What every call on the device begins with.
int usable() { return broken ? LAUNCH_FAILED : context ? OK : INVALID_CONTEXT; }

int allocate(u64* to, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    // And the one after: who has something to give back tries again.
    const long long number = ++allocations - setting("SAM3_SIM_FAIL_ALLOCATION", -1);
    if (number == 0 || number == 1) return OUT_OF_MEMORY;
    const std::lock_guard<std::mutex> guard(memory_lock);
    if (in_use + bytes > static_cast<size_t>(setting("SAM3_SIM_MEMORY", 8ll << 30))) return OUT_OF_MEMORY;
    void* block = nullptr;
    if (posix_memalign(&block, 256, bytes)) return OUT_OF_MEMORY;
    memset(block, 0xff, bytes);
    *to = reinterpret_cast<u64>(block);
    blocks[*to] = bytes;
    in_use += bytes;
    note("allocate %zu", bytes);
    return OK;
}

int release(u64 block) {
    const std::lock_guard<std::mutex> guard(memory_lock);
    const auto found = blocks.find(block);
    if (found == blocks.end()) return INVALID_VALUE;
    in_use -= found->second;
    note("free %zu", found->second);
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

int copy(const char* what, u64 to, u64 from, size_t bytes, bool to_device, bool from_device) {
    if (const int refused = usable()) return refused;
    if ((to_device && !allocated(to, bytes)) || (from_device && !allocated(from, bytes))) return INVALID_VALUE;
    memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    note("%s %zu", what, bytes);
    return OK;
}

/// Most dynamic shared memory of a block, by the programming guide's table.
u32 most_shared() {
    switch (setting("SAM3_SIM_CAPABILITY", 90)) {
        case 80: case 87: return 163 << 10;
        case 90: case 100: case 103: return 227 << 10;
        default: return 99 << 10;
    }
}

/// The compute capability that a cubin is for, 0 for what is none. Its place moved with the file's version.
u32 capability_of(const u8* image) {
    if (memcmp(image, "\x7f" "ELF", 4) != 0) return 0;
    u32 flags;
    memcpy(&flags, image + 48, 4);
    return image[8] < 8 ? flags & 0xff : flags >> 8 & 0xff;
}

struct Node {
    Function* function;
    sim::Dim grid, block;
    u32 shared;
    std::vector<u8> argument;
};
struct Graph {
    std::vector<std::unique_ptr<Node>> nodes;
};
struct Instance {
    std::vector<Node> nodes;
    std::map<const Node*, size_t> place;
};
struct Event {
    std::chrono::steady_clock::time_point at;
    bool recorded = false;
};

/// As the driver lays it out (CUDA_KERNEL_NODE_PARAMS_v2).
struct NodeParams {
    Function* function;
    u32 gx, gy, gz, bx, by, bz, shared;
    void** params;
    void** extra;
    void *kernel, *context;
};

/// Whether a launch is one that the driver takes.
int check(const Function* f, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared) {
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || !by || !bz) return INVALID_VALUE;
    return bx * by * bz > 1024 || shared > f->most_shared ? INVALID_VALUE : OK;
}

int check(const NodeParams* p) {
    if (!p || !p->function || !p->params || p->extra || p->kernel || p->context) return INVALID_VALUE;
    return check(p->function, p->gx, p->gy, p->gz, p->bx, p->by, p->bz, p->shared);
}

Node node(const NodeParams* p) {
    const u8* const argument = static_cast<const u8*>(p->params[0]);
    return {p->function, {p->gx, p->gy, p->gz}, {p->bx, p->by, p->bz}, p->shared,
            std::vector<u8>(argument, argument + p->function->bytes)};
}

const char* name_of(const Function* f) {
    for (const auto& [name, function] : functions)
        if (&function == f) return name.c_str();
    return "?";
}

/// Runs a kernel, or fails as it was told to.
int run(Function* f, sim::Dim grid, sim::Dim block, u32 shared, void* argument) {
    const long long number = ++launches;
    note("launch %s", name_of(f));
    if (number == setting("SAM3_SIM_FAIL_LAUNCH", -1)) return OUT_OF_RESOURCES;
    if (number == setting("SAM3_SIM_FAULT", -1)) {
        // The fault is found when the kernel runs, which is after the launch.
        broken = true;
        return OK;
    }
    const char* const idle = getenv("SAM3_SIM_IDLE");
    if (idle && !strcmp(idle, name_of(f))) return OK;
    const char* const async = getenv("SAM3_SIM_ASYNC");
    sim::Options options;
    options.async = async && !strcmp(async, "early") ? sim::Async::early : sim::Async::late;
    options.seed = static_cast<u32>(setting("SAM3_SIM_SEED", 1));
    const sim::Outcome outcome = sim::launch(grid, block, shared, f->entry, argument, options);
    if (!outcome.message[0]) return OK;
    fprintf(stderr, "simulated kernel: %s\n", outcome.message);
    broken = true;
    return LAUNCH_FAILED;
}

u64 host(const void* p) { return reinterpret_cast<u64>(p); }

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cuInit(u32) { return static_cast<int>(setting("SAM3_SIM_INIT", OK)); }
API cuDriverGetVersion(int* version) {
    *version = static_cast<int>(setting("SAM3_SIM_VERSION", 12000));
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
    if (broken) return LAUNCH_FAILED;
    holders++;
    note("retain");
    *ctx = reinterpret_cast<void*>(static_cast<uintptr_t>(device) + 1);
    return OK;
}
API cuDevicePrimaryCtxRelease_v2(int) {
    if (holders == 0) return INVALID_CONTEXT;
    note("release");
    if (--holders == 0 && broken) {
        // What a broken context held goes with it.
        const std::lock_guard<std::mutex> guard(memory_lock);
        for (const auto& [block, bytes] : blocks) {
            note("free %zu", bytes);
            free(reinterpret_cast<void*>(block));
        }
        blocks.clear();
        in_use = 0;
    }
    return OK;
}
API cuCtxSetCurrent(void* ctx) {
    context = ctx;
    return OK;
}
API cuCtxGetCurrent(void** ctx) {
    *ctx = context;
    return OK;
}
API cuMemGetInfo_v2(size_t* unused, size_t* total) {
    if (const int refused = usable()) return refused;
    *total = static_cast<size_t>(setting("SAM3_SIM_MEMORY", 8ll << 30));
    *unused = *total - in_use;
    return OK;
}
API cuMemAllocAsync(u64* to, size_t bytes, void*) {
    if (const int refused = usable()) return refused;
    return allocate(to, bytes);
}
API cuMemFreeAsync(u64 block, void*) {
    if (const int refused = usable()) return refused;
    return release(block);
}
API cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t n, void*) {
    return copy("upload", to, host(from), n, true, false);
}
API cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t n, void*) {
    return copy("download", host(to), from, n, false, true);
}
API cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t n, void*) { return copy("copy", to, from, n, true, true); }
API cuModuleLoadData(void** module, const void* image) {
    if (!image) return INVALID_VALUE;
    if (const int refused = static_cast<int>(setting("SAM3_SIM_FAIL_MODULE", OK))) return refused;
    const u32 wanted = static_cast<u32>(setting("SAM3_SIM_CAPABILITY", 90)), found = capability_of(static_cast<const u8*>(image));
    if (found ? found / 10 != wanted / 10 || found > wanted : !strstr(static_cast<const char*>(image), ".target sm_"))
        return NO_BINARY;
    *module = reinterpret_cast<void*>(1);
    note("load %u", found);
    return OK;
}
API cuModuleUnload(void*) {
    note("unload");
    return OK;
}
API cuModuleGetFunction(Function** function, void*, const char* name) {
    const auto found = functions.find(name);
    if (found == functions.end()) return NOT_FOUND;
    note("look up %s", name);
    *function = &found->second;
    return OK;
}
API cuFuncSetAttribute(Function* f, int attribute, int value) {
    // Bytes of dynamic shared memory.
    if (attribute != 8 || value < 0 || static_cast<u32>(value) > most_shared()) return INVALID_VALUE;
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
    if (const int refused = usable()) return refused;
    if (const int refused = check(f, gx, gy, gz, bx, by, bz, shared)) return refused;
    return run(f, {gx, gy, gz}, {bx, by, bz}, shared, params[0]);
}
API cuGraphCreate(Graph** graph, u32 flags) {
    if (const int refused = usable()) return refused;
    if (flags) return INVALID_VALUE;
    *graph = new Graph;
    note("create graph");
    return OK;
}
API cuGraphAddKernelNode_v2(Node** added, Graph* graph, Node* const* before, size_t count, const NodeParams* params) {
    if (const int refused = check(params)) return refused;
    // A chain: that is the order in which the simulator runs them.
    const Node* const last = graph->nodes.empty() ? nullptr : graph->nodes.back().get();
    if (last ? count != 1 || *before != last : count != 0) return INVALID_VALUE;
    graph->nodes.push_back(std::make_unique<Node>(node(params)));
    *added = graph->nodes.back().get();
    return OK;
}
API cuGraphInstantiateWithFlags(Instance** instance, const Graph* graph, unsigned long long) {
    if (const int refused = usable()) return refused;
    *instance = new Instance;
    for (const auto& node : graph->nodes) {
        (*instance)->place[node.get()] = (*instance)->nodes.size();
        (*instance)->nodes.push_back(*node);
    }
    note("instantiate %zu", graph->nodes.size());
    return OK;
}
API cuGraphExecKernelNodeSetParams_v2(Instance* instance, const Node* which, const NodeParams* params) {
    const auto place = instance->place.find(which);
    if (place == instance->place.end()) return INVALID_HANDLE;
    if (const int refused = check(params)) return refused;
    if (params->function != instance->nodes[place->second].function) return INVALID_VALUE;
    instance->nodes[place->second] = node(params);
    note("set node");
    return OK;
}
API cuGraphLaunch(Instance* instance, void*) {
    if (const int refused = usable()) return refused;
    note("graph %zu", instance->nodes.size());
    for (Node& n : instance->nodes) {
        // Aligned as kernels may want it.
        alignas(64) u8 argument[4096];
        memcpy(argument, n.argument.data(), n.argument.size());
        if (const int failed = run(n.function, n.grid, n.block, n.shared, argument)) return failed;
        if (broken) return OK;
    }
    return OK;
}
API cuGraphExecDestroy(Instance* instance) {
    delete instance;
    return OK;
}
API cuGraphDestroy(Graph* graph) {
    delete graph;
    note("destroy graph");
    return OK;
}
API cuEventCreate(Event** event, u32) {
    if (const int refused = usable()) return refused;
    *event = new Event;
    note("create event");
    return OK;
}
API cuEventRecord(Event* event, void*) {
    if (const int refused = usable()) return refused;
    event->at = std::chrono::steady_clock::now();
    event->recorded = true;
    return OK;
}
API cuEventSynchronize(Event* event) { return broken ? LAUNCH_FAILED : event->recorded ? OK : INVALID_VALUE; }
API cuEventElapsedTime(float* milliseconds, const Event* begin, const Event* end) {
    if (!begin->recorded || !end->recorded) return INVALID_HANDLE;
    *milliseconds = std::chrono::duration<float, std::milli>(end->at - begin->at).count();
    return OK;
}
API cuEventDestroy_v2(Event* event) {
    delete event;
    note("destroy event");
    return OK;
}
API cuStreamCreate(void** stream, u32) {
    if (const int refused = usable()) return refused;
    *stream = reinterpret_cast<void*>(1);
    note("create stream");
    return OK;
}
API cuStreamSynchronize(void*) {
    if (const int refused = usable()) return refused;
    note("wait");
    return OK;
}
API cuStreamDestroy_v2(void*) {
    note("destroy stream");
    return OK;
}
API cuGetErrorName(int code, const char** name) {
    switch (code) {
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
        case NO_BINARY: *name = "CUDA_ERROR_NO_BINARY_FOR_GPU"; break;
        case OUT_OF_RESOURCES: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: *name = "CUDA_ERROR_OF_THE_SIMULATOR"; break;
    }
    return OK;
}
API cuGetErrorString(int code, const char** text) { return cuGetErrorName(code, text); }
