/*
 * sam3.h: the C interface of sam3, an inference engine for the Segment Anything Model 3.
 *
 * This file is generated; it is C99 and C++17.
 *
 *   sam3_model    the weights on a device. Never changes; share it between threads.
 *   sam3_session  the scratch memory of one call at a time. One per thread; a second call gets SAM3_BUSY.
 *   sam3_image    a picture the model has looked at. Never changes; prompt it from any session of its model.
 *   sam3_prompt   a question: a concept (phrase, exemplars) or an object (points, box, mask).
 *   sam3_result   the answer. Never changes; outlives all the others, and lends pointers until it is freed.
 *   sam3_job      a call on a thread of its own: submit, poll, take.
 *
 * Rules that hold for every function:
 *
 * - Failures. A call that can fail returns an int32_t status, SAM3_OK (0) or what went wrong. If its last argument `error`
 *   is not NULL, *error becomes NULL, or an object with a message that the caller frees with sam3_error_free: whatever it
 *   held before is overwritten. There is no "last error", no global and no thread-local state. After a failure every
 *   out-handle is NULL.
 * - Pointers. NULL is allowed where it says so, and otherwise SAM3_INVALID_ARGUMENT, as is a misaligned pointer. Every
 *   other pointer has to point to what its type says, alive and not freed, for as long as the call takes.
 * - Handles. Made by a function that says so, freed by the caller, once, with the _free function of their type, in any
 *   order and on any thread. Freeing NULL does nothing. No handle may be freed while another thread uses that handle.
 * - Threads. Any function may be called from any thread. A session runs one call at a time, and answers SAM3_BUSY to a
 *   second; everything else may be used by several threads at once. After fork, the child has none of the library's threads:
 *   handles made before are of no use there.
 * - Stack. 256 KiB are enough for any call; jobs and models have threads of their own.
 * - Structs that begin with `size` want sizeof there before every call, so that they can grow; their other members may be
 *   anything where the call fills them. Enums go in as uint32_t and are checked.
 * - Strings are UTF-8 and end with NUL, paths too, on every system.
 * - Lengths, coordinates and boxes are pixels of the upright picture, x to the right, y down, from its top left corner.
 * - Callbacks must not throw or longjmp through the library.
 * - Defects. A panic inside the library does not leave it: the call returns SAM3_INTERNAL, and its session answers
 *   SAM3_INTERNAL from then on; everything else goes on. The panic's message goes to stderr; nothing else is printed, ever.
 * - Unloading. A model's threads end with its last handle, a job's with the job. Once all handles are freed, the library
 *   may be unloaded and loaded again. (glibc keeps it mapped while a thread that used it lives, which does no harm.)
 * - Memory comes from the process's malloc. Handles and errors are freed by this library's functions alone, never by free.
 *
 * A program that says what it found (examples/c/segment.c; examples/ has other hosts). Against an installed sam3 it is built
 * by: cc -std=c99 segment.c $(pkg-config --cflags --libs sam3) -o segment
 *
 *     #include <inttypes.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *     #include <string.h>
 *
 *     #include "sam3.h"
 *
 *     // Filled by a call that fails.
 *     static sam3_error *error = NULL;
 *
 *     // Stops with the library's own words if a call failed.
 *     static void check(int32_t status) {
 *         if (status == SAM3_OK) return;
 *         fprintf(stderr, "%s: %s\n", sam3_status_name(status), sam3_error_message(error));
 *         sam3_error_free(error);
 *         exit(EXIT_FAILURE);
 *     }
 *
 *     int main(int argc, char **argv) {
 *         if (argc != 4) {
 *             fprintf(stderr, "usage: %s CHECKPOINT|demo PICTURE PHRASE\n", argv[0]);
 *             return EXIT_FAILURE;
 *         }
 *         sam3_model *model = NULL;
 *         sam3_session *session = NULL;
 *         sam3_image *image = NULL;
 *         sam3_prompt *prompt = NULL;
 *         sam3_result *result = NULL;
 *
 *         // Once: the weights, those in the library or a checkpoint's, and scratch memory for one caller at a time.
 *         int demo = strcmp(argv[1], "demo") == 0;
 *         check(demo ? sam3_model_open_demo(NULL, &model, &error) : sam3_model_open(argv[1], NULL, &model, &error));
 *         check(sam3_session_new(model, &session, &error));
 *         // Once per picture.
 *         check(sam3_encode_file(session, argv[2], &image, &error));
 *         // Once per question.
 *         check(sam3_prompt_new_concept(argv[3], &prompt, &error));
 *         const sam3_prompt *prompts[] = {prompt};
 *         check(sam3_segment(session, image, prompts, 1, NULL, &result, &error));
 *
 *         for (uint32_t i = 0; i < sam3_result_count(result); i++) {
 *             sam3_instance found = {0};
 *             found.size = sizeof found;
 *             check(sam3_result_instance(result, i, &found, &error));
 *             sam3_mask_view mask = {0};
 *             mask.size = sizeof mask;
 *             check(sam3_result_mask_view(result, i, SAM3_MASK_U8, SAM3_SPACE_PICTURE, &mask, &error));
 *             // mask.data[y * mask.stride + x] is 255 inside and 0 outside.
 *             printf("%3" PRIu32 ": score %.3f, %" PRIu64 " pixels of %" PRIu32 "x%" PRIu32 ", box %.1f %.1f %.1f %.1f\n", i,
 *                    (double)found.score, found.area, mask.width, mask.height, (double)found.bbox.x0,
 *                    (double)found.bbox.y0, (double)found.bbox.x1, (double)found.bbox.y1);
 *         }
 *
 *         // In any order; NULL is fine.
 *         sam3_result_free(result);
 *         sam3_prompt_free(prompt);
 *         sam3_image_free(image);
 *         sam3_session_free(session);
 *         sam3_model_free(model);
 *         return EXIT_SUCCESS;
 *     }
 */

#ifndef SAM3_H
#define SAM3_H

#include <stddef.h>
#include <stdint.h>

/* Declares functions of the library. Define it empty for the static library on Windows. */
#ifndef SAM3_API
#if defined(_WIN32)
#define SAM3_API __declspec(dllimport)
#else
#define SAM3_API
#endif
#endif


// Version of this header: major.
#define SAM3_VERSION_MAJOR 0

// Version of this header: minor.
#define SAM3_VERSION_MINOR 1

// Version of this header: patch.
#define SAM3_VERSION_PATCH 0

// Version of the binary interface. It rises when a program built with an older header no longer works; compare it with
// `sam3_abi_version()` where the library is loaded at run time.
#define SAM3_ABI_VERSION 1

// It worked.
#define SAM3_OK 0

// An argument is wrong: NULL or misaligned, an unknown enum value, a prompt outside the picture, a buffer too short.
#define SAM3_INVALID_ARGUMENT 1

// A file could not be read, or a reader callback failed.
#define SAM3_IO 2

// A checkpoint, its configuration or its tokenizer is damaged or does not fit together.
#define SAM3_CHECKPOINT 3

// A picture could not be decoded, or exceeds the pixel limit.
#define SAM3_IMAGE 4

// The input is well-formed, but this build or this engine has no support for it.
#define SAM3_UNSUPPORTED 5

// Memory of the host or of the device ran out.
#define SAM3_OUT_OF_MEMORY 6

// `sam3_cancel`, `sam3_job_cancel` or a progress callback stopped the call.
#define SAM3_CANCELLED 7

// Another call is running on a handle that takes one at a time.
#define SAM3_BUSY 8

// The compute device or its driver failed, or is not there.
#define SAM3_DEVICE 9

// A defect of sam3, or a session that met one before. Please report it.
#define SAM3_INTERNAL 10

// Nothing is logged: the default.
#define SAM3_LOG_OFF 0

// Calls that failed by a defect of sam3.
#define SAM3_LOG_ERROR 1

// Calls that failed otherwise, cancelled ones aside.
#define SAM3_LOG_WARN 2

// Models that were opened, and why not on a GPU where that was left open.
#define SAM3_LOG_INFO 3

// Every call with the time of its stages.
#define SAM3_LOG_DEBUG 4

// The fastest device that this build and this machine have.
#define SAM3_DEVICE_AUTO 0

// SIMD kernels on all cores.
#define SAM3_DEVICE_CPU 1

// An NVIDIA GPU.
#define SAM3_DEVICE_CUDA 2

// Plain loops in double precision, thousands of times slower: what the other devices are checked against.
#define SAM3_DEVICE_REFERENCE 3

// Numbers as the device likes them best: 32-bit floats on a CPU, the 16-bit ones of its matrix units on a GPU.
#define SAM3_PRECISION_AUTO 0

// 32-bit floats throughout.
#define SAM3_PRECISION_F32 1

// Brain floats of 16 bits between layers, sums in 32 bits.
#define SAM3_PRECISION_BF16 2

// 3 bytes a pixel: red, green, blue.
#define SAM3_FORMAT_RGB8 0

// 3 bytes a pixel: blue, green, red. OpenCV's.
#define SAM3_FORMAT_BGR8 1

// 4 bytes a pixel: red, green, blue, straight alpha. Pixels are laid over white by it: a picture of alpha 0 is white.
#define SAM3_FORMAT_RGBA8 2

// 4 bytes a pixel: blue, green, red, straight alpha. Pixels are laid over white by it: a picture of alpha 0 is white.
#define SAM3_FORMAT_BGRA8 3

// 1 byte a pixel.
#define SAM3_FORMAT_GRAY8 4

// 4 bytes a pixel: red, green, blue, and one that is not looked at.
#define SAM3_FORMAT_RGBX8 5

// 4 bytes a pixel: blue, green, red, and one that is not looked at: frame buffers, whose alpha is often 0.
#define SAM3_FORMAT_BGRX8 6

// A picture goes through the image encoder.
#define SAM3_STAGE_ENCODE_IMAGE 0

// A phrase goes through the text encoder; phrases that the model met before skip this.
#define SAM3_STAGE_ENCODE_TEXT 1

// A concept is looked for.
#define SAM3_STAGE_GROUND 2

// Masks of a concept's instances are made.
#define SAM3_STAGE_MASKS 3

// An object is cut out.
#define SAM3_STAGE_SEGMENT 4

// A stage of a newer library.
#define SAM3_STAGE_OTHER 65535

// For `sam3_job_wait`: as long as it takes.
#define SAM3_WAIT_FOREVER UINT32_MAX

// 1 byte a pixel: 255 inside, 0 outside.
#define SAM3_MASK_U8 0

// 1 byte a pixel: the probability, rounded, from 0 for 0 to 255 for 1.
#define SAM3_MASK_SOFT_U8 1

// 4 bytes a pixel: a float, the logit of the probability as the model gave it, at the picture's size resized linearly.
#define SAM3_MASK_LOGITS_F32 2

// 1 bit a pixel, 1 inside, the leftmost pixel in the highest bit; rows begin with a byte of their own.
#define SAM3_MASK_BITS 3

// As large as the picture.
#define SAM3_SPACE_PICTURE 0

// As large as the model makes masks, a square of `sam3_model_info.mask_side` that is stretched over the picture.
#define SAM3_SPACE_MODEL 1

// COCO's compressed run lengths, column by column: the `counts` of an annotation, whose `size` is `[height, width]`.
#define SAM3_RLE_COCO 0

// Pairs `start length`, row by row, separated by spaces; starts count from 1, only pixels inside are listed.
#define SAM3_RLE_PAIRS 1

// The devices of this machine, as they were when it was asked. Never changes: any thread may read it.
typedef struct sam3_devices sam3_devices;

// Why a call failed. Made by the call, owned by the caller, freed with `sam3_error_free`. It never changes: any
// thread may read it.
typedef struct sam3_error sam3_error;

// A picture that a model has looked at: prompts on it pay only for themselves. Never changes: any number of threads
// may use it at once, with any session of its model. It needs neither the session that made it nor the pixels.
typedef struct sam3_image sam3_image;

// A call that runs on a thread of its own. It holds its session until it is done, and needs no other handle: all may be
// freed before it. Any thread may use it.
typedef struct sam3_job sam3_job;

// Weights on a device. Never changes: any number of threads may use it at once, each with a session of its own. All
// that comes from a model keeps what it needs of it alive, so it may be freed as soon as the host needs no new
// sessions; its memory and its threads end with the last handle that came from it, wherever that is freed.
typedef struct sam3_model sam3_model;

// How a model is opened. Any thread; a model keeps a copy.
typedef struct sam3_model_options sam3_model_options;

// Outlines of one mask. Never changes: any thread may read it. Needs no other handle.
typedef struct sam3_polygons sam3_polygons;

// A question about a picture: a concept, of which every instance is wanted, or one object. Calls that build it and
// calls that use it may come from any thread; one that uses it sees it as it was at that moment. It belongs to no
// model and no picture, and may be used again.
typedef struct sam3_prompt sam3_prompt;

// What one call found. Never changes: any number of threads may read it at once. It needs no other handle, and what it
// lends is valid until it is freed.
typedef struct sam3_result sam3_result;

// What a segmentation returns. Any thread; calls copy what they need.
typedef struct sam3_segment_options sam3_segment_options;

// The scratch memory of one call at a time. Any thread may call; while a call or a job runs, further ones return
// `SAM3_BUSY` at once. `sam3_cancel` and `sam3_session_free` are the exceptions. For several calls at once make several
// sessions of one model: they share its weights.
typedef struct sam3_session sam3_session;

// One device. Set `size` to `sizeof(sam3_device)` before the call that fills it. Strings are lent by the list.
typedef struct sam3_device {
    // `sizeof(sam3_device)`.
    uint32_t size;
    // `SAM3_DEVICE_CPU`, `_CUDA` or `_REFERENCE`.
    uint32_t kind;
    // Which of its kind, from 0: what `sam3_model_options_set_device` takes.
    uint32_t index;
    // 0.
    uint32_t reserved;
    // Bytes of its memory; 0 where the system does not tell.
    uint64_t memory_total;
    // Bytes of it that were free; 0 where the system does not tell.
    uint64_t memory_free;
    // For people, UTF-8.
    const char *name;
    // Instruction sets of a CPU that there are kernels for, best first, separated by spaces: what
    // `sam3_model_options_set_isa` takes. "" for other devices.
    const char *isas;
} sam3_device;

// Takes a line of the log: its level, and UTF-8 text without a line end, lent for the length of the call. Called on
// the thread that makes the logged call, a job's own thread for jobs, thus from several threads at once where several
// are used. It must not throw, and may call whatever it likes; sessions in use answer `SAM3_BUSY`.
typedef void (*sam3_log_fn)(void *user, uint32_t level, const char *message);

// Takes back memory that was lent; `user` is what was handed over with it. It must not throw, and may free the memory.
typedef void (*sam3_release_fn)(void *user);

// Bytes of the file `name`, or a negative number if there is none. `user` is the reader's. It must not throw.
typedef int64_t (*sam3_size_fn)(void *user, const char *name);

// Reads up to `size` bytes of the file `name` from `offset` on into `buffer`, and returns how many it read: fewer are
// fine, 0 and less mean that reading failed. `user` is the reader's. It must not throw.
typedef int64_t (*sam3_read_fn)(void *user, const char *name, uint64_t offset, void *buffer, uint64_t size);

// A file system of the host: an archive, a resource, a network. Asked for `config.json`, `model.safetensors` and
// `tokenizer.json` (which may be absent). Set `size` to `sizeof(sam3_reader)`.
typedef struct sam3_reader {
    // `sizeof(sam3_reader)`.
    uint32_t size;
    // 0.
    uint32_t reserved;
    // Handed to the callbacks as it is.
    void *user;
    // How large a file is.
    sam3_size_fn size_of;
    // Its bytes.
    sam3_read_fn read;
} sam3_reader;

// What a model is. Set `size` to `sizeof(sam3_model_info)` before the call that fills it.
typedef struct sam3_model_info {
    // `sizeof(sam3_model_info)`.
    uint32_t size;
    // Side of the square, in pixels, that pictures are resized to.
    uint32_t image_side;
    // Side of the model's own masks, in pixels: `SAM3_SPACE_MODEL`, and what `sam3_prompt_set_logits` takes.
    uint32_t mask_side;
    // 1 if it takes concept prompts, else 0.
    uint32_t concepts;
    // 1 if it takes object prompts, else 0.
    uint32_t objects;
    // 0.
    uint32_t reserved;
    // Parameters of the checkpoint.
    uint64_t parameters;
    // Bytes of its weight files.
    uint64_t bytes;
    // Where it runs, for people: UTF-8, lent by the model.
    const char *device;
} sam3_model_info;

// A box: edges in pixels of the upright picture, x to the right and y down, `x0 < x1` and `y0 < y1`; the whole picture
// is `{0, 0, width, height}`.
typedef struct sam3_box {
    // Left edge.
    float x0;
    // Top edge.
    float y0;
    // Right edge.
    float x1;
    // Bottom edge.
    float y1;
} sam3_box;

// A click, in pixels of the upright picture from its top left corner; the middle of the first pixel is `0.5, 0.5`.
typedef struct sam3_point {
    // Pixels to the right.
    float x;
    // Pixels down.
    float y;
    // 1: the object is here. 0: it is not.
    uint32_t positive;
} sam3_point;

// Told how far a call has come: `stage` is a `SAM3_STAGE_` constant, `fraction` the share of that stage that is done,
// 0 to 1. Every number but 0 cancels the call. Called on the thread that makes the call, a job's own thread for jobs.
// It must not throw; calls it makes on the same session are `SAM3_BUSY`.
typedef int32_t (*sam3_progress_fn)(void *user, uint32_t stage, float fraction);

// Pixels that belong to the host: upright, in sRGB as files and screens have it. Set `size` to
// `sizeof(sam3_image_view)`.
typedef struct sam3_image_view {
    // `sizeof(sam3_image_view)`.
    uint32_t size;
    // A `SAM3_FORMAT_` constant.
    uint32_t format;
    // Pixels in a row, 1 to 65535.
    uint32_t width;
    // Rows, 1 to 65535.
    uint32_t height;
    // Bytes from the start of one row to the start of the row below it: negative where the bottom row comes first in
    // memory, 0 for rows without gaps.
    int64_t stride;
    // The first pixel of the top row. Any alignment.
    const uint8_t *data;
} sam3_image_view;

// Whole pixels: columns `x .. x + width`, rows `y .. y + height`. All 0 for nothing.
typedef struct sam3_rect {
    // First column.
    uint32_t x;
    // First row.
    uint32_t y;
    // Columns.
    uint32_t width;
    // Rows.
    uint32_t height;
} sam3_rect;

// One instance. Set `size` to `sizeof(sam3_instance)` before the call that fills it.
typedef struct sam3_instance {
    // `sizeof(sam3_instance)`.
    uint32_t size;
    // Which of the call's prompts found it, counted from 0.
    uint32_t prompt;
    // How sure the model is, 0 to 1: for a concept the probability of the instance, for an object `predicted_iou`.
    float score;
    // The model's own estimate of the mask's intersection over union with the truth, 0 to 1; NaN for concepts, of
    // which it makes none.
    float predicted_iou;
    // How little the mask depends on its threshold, 0 to 1: pixels more than one logit above it over those not more
    // than one below it.
    float stability;
    // The model's box, in pixels of the picture; for an object the edges of the mask.
    struct sam3_box bbox;
    // The pixels that the mask reaches, all 0 if it is empty.
    struct sam3_rect bounds;
    // 0.
    uint32_t reserved;
    // Pixels of the mask, at the size of the picture.
    uint64_t area;
} sam3_instance;

// A mask that the result lends. Set `size` to `sizeof(sam3_mask_view)` before the call that fills it.
typedef struct sam3_mask_view {
    // `sizeof(sam3_mask_view)`.
    uint32_t size;
    // Its form, a `SAM3_MASK_` constant.
    uint32_t format;
    // Pixels in a row.
    uint32_t width;
    // Rows.
    uint32_t height;
    // Bytes from one row to the next; there are no gaps.
    uint64_t stride;
    // The top row, aligned for its form. Lent until the result is freed.
    const uint8_t *data;
} sam3_mask_view;

// One closed outline. Set `size` to `sizeof(sam3_ring)` before the call that fills it.
typedef struct sam3_ring {
    // `sizeof(sam3_ring)`.
    uint32_t size;
    // 0 for the outline of a piece, clockwise on the screen; 1 for that of a hole, counter-clockwise.
    uint32_t hole;
    // Corners.
    uint64_t count;
    // `2 * count` floats, x and y by turns, edges of pixels as in `sam3_box`; the last corner is joined to the first.
    // Lent until the outlines are freed.
    const float *xy;
} sam3_ring;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// `SAM3_ABI_VERSION` of the library in use. Any thread.
SAM3_API uint32_t sam3_abi_version(void);

// Version of the library in use, "major.minor.patch". Static. Any thread.
SAM3_API const char *sam3_version(void);

// What went into the library in use, one line: its version, the processor and system it is for, the instruction sets
// it has kernels for (`sam3_devices` tells which of them this machine has), its optional parts. Static. Any thread.
SAM3_API const char *sam3_build_info(void);

// The name of a status without its prefix, "INVALID_ARGUMENT"; "UNKNOWN" for numbers of a newer library. The string is
// static. Any thread.
SAM3_API const char *sam3_status_name(int32_t status);

// The status that the failed call returned; `SAM3_OK` for NULL. Any thread.
SAM3_API int32_t sam3_error_status(const struct sam3_error *error);

// One English sentence that says what was expected, what was found, and where; UTF-8, lent until the error is freed;
// "" for NULL, never NULL. Any thread.
SAM3_API const char *sam3_error_message(const struct sam3_error *error);

// Frees an error. NULL is ignored. Any thread.
SAM3_API void sam3_error_free(struct sam3_error *error);

// Lists the devices that a model can be opened on: the CPU first, then GPUs that there are kernels for, none without a
// driver or where `sam3_build_info()` says `cuda: no`, and the reference last. Asking a GPU that is not in use for its
// free memory takes a tenth of a second. `*out` is the caller's, freed with `sam3_devices_free`; NULL after a failure.
// Any thread.
SAM3_API int32_t sam3_devices_new(struct sam3_devices **out, struct sam3_error **error);

// How many devices are listed; 0 for NULL. Any thread.
SAM3_API uint32_t sam3_devices_count(const struct sam3_devices *devices);

// Fills `*device` with device `index` of the list, counted from 0. Any thread.
SAM3_API
int32_t sam3_devices_get(const struct sam3_devices *devices,
                         uint32_t index,
                         struct sam3_device *device,
                         struct sam3_error **error);

// Frees the list and its strings. NULL is ignored. Any thread.
SAM3_API void sam3_devices_free(struct sam3_devices *devices);

// Default options: the fastest device, one thread per physical core, no log. `*out` is the caller's, freed with
// `sam3_model_options_free`. Any thread.
SAM3_API int32_t sam3_model_options_new(struct sam3_model_options **out, struct sam3_error **error);

// Sets where the model runs: a `SAM3_DEVICE_` constant, and which of its kind, 0 where there is but one. Whether it is
// there shows when the model is opened. Any thread.
SAM3_API
int32_t sam3_model_options_set_device(struct sam3_model_options *options,
                                      uint32_t kind,
                                      uint32_t index,
                                      struct sam3_error **error);

// Sets the number of CPU threads of the model, 0 for one per physical core. They belong to the model and end with it.
// Any thread.
SAM3_API
int32_t sam3_model_options_set_threads(struct sam3_model_options *options,
                                       uint32_t threads,
                                       struct sam3_error **error);

// Sets the instruction set of the CPU kernels by its name in `sam3_device.isas`; NULL or "" for the best. Whether this
// machine has it shows when the model is opened. Any thread.
SAM3_API
int32_t sam3_model_options_set_isa(struct sam3_model_options *options,
                                   const char *isa,
                                   struct sam3_error **error);

// Sets the precision, a `SAM3_PRECISION_` constant. Whether the device has it shows when the model is opened:
// `SAM3_UNSUPPORTED` if not. GPUs have both, CPUs 32-bit floats. Any thread.
SAM3_API
int32_t sam3_model_options_set_precision(struct sam3_model_options *options,
                                         uint32_t precision,
                                         struct sam3_error **error);

// Sends the log up to `level`, a `SAM3_LOG_` constant, to `write` with `user`: of opening the model, and of all its
// sessions. `user` is not looked at; it and `write` have to stay valid until the model and all that came from it are
// freed. A NULL `write` turns the log off. Any thread.
SAM3_API
int32_t sam3_model_options_set_log(struct sam3_model_options *options,
                                   uint32_t level,
                                   sam3_log_fn write,
                                   void *user,
                                   struct sam3_error **error);

// Frees options. NULL is ignored; models opened with them stay as they are. Any thread.
SAM3_API void sam3_model_options_free(struct sam3_model_options *options);

// Default options: thresholds of 0.5, all instances, one mask per object, no semantic masks. `*out` is the caller's,
// freed with `sam3_segment_options_free`. Any thread.
SAM3_API int32_t sam3_segment_options_new(struct sam3_segment_options **out, struct sam3_error **error);

// Sets the score above which instances of concepts are kept, 0 to 1, 0.5 by default. Objects are asked for by place,
// so they are always kept. Any thread.
SAM3_API
int32_t sam3_segment_options_set_threshold(struct sam3_segment_options *options,
                                           float threshold,
                                           struct sam3_error **error);

// Sets the probability above which a pixel belongs to a mask, 0 to 1, 0.5 by default. Any thread.
SAM3_API
int32_t sam3_segment_options_set_mask_threshold(struct sam3_segment_options *options,
                                                float threshold,
                                                struct sam3_error **error);

// Sets how many instances a result holds at most, the best ones of all prompts together; 0, the default, for all. Any
// thread.
SAM3_API
int32_t sam3_segment_options_set_max_instances(struct sam3_segment_options *options,
                                               uint32_t count,
                                               struct sam3_error **error);

// Sets whether an object prompt returns three masks, of a part, a whole and something between, instead of the best
// one: 0 (the default) or 1. Any thread.
SAM3_API
int32_t sam3_segment_options_set_multimask(struct sam3_segment_options *options,
                                           uint32_t multimask,
                                           struct sam3_error **error);

// Sets whether concept prompts also return their semantic mask, every pixel of the concept: 0 (the default) or 1. Any
// thread.
SAM3_API
int32_t sam3_segment_options_set_semantic(struct sam3_segment_options *options,
                                          uint32_t semantic,
                                          struct sam3_error **error);

// Frees options. NULL is ignored. Any thread.
SAM3_API void sam3_segment_options_free(struct sam3_segment_options *options);

// Opens a checkpoint: a directory with `config.json`, `model.safetensors` (or shards with their index) and
// `tokenizer.json`, or a `.safetensors` file with the others beside it. `path` is UTF-8 on every system. The weights are
// mapped, not read, until the model and all that came from it are freed: replace the files meanwhile, but do not truncate
// or rewrite them. `options` may be NULL for the defaults. `*out` is the caller's, freed with `sam3_model_free`; NULL
// after a failure. Any thread.
//
// Takes seconds for the published checkpoint. Failures: `SAM3_IO`, `SAM3_CHECKPOINT`, `SAM3_UNSUPPORTED`,
// `SAM3_OUT_OF_MEMORY`, `SAM3_DEVICE`.
SAM3_API
int32_t sam3_model_open(const char *path,
                        const struct sam3_model_options *options,
                        struct sam3_model **out,
                        struct sam3_error **error);

// Opens a checkpoint from memory: the bytes of `config.json`, of one `model.safetensors`, and of `tokenizer.json`; for
// the latter NULL and 0 stand for the standard CLIP vocabulary. The bytes are copied, and may be freed after the call.
// Otherwise like `sam3_model_open`.
SAM3_API
int32_t sam3_model_open_memory(const uint8_t *config,
                               size_t config_size,
                               const uint8_t *weights,
                               size_t weights_size,
                               const uint8_t *tokenizer,
                               size_t tokenizer_size,
                               const struct sam3_model_options *options,
                               struct sam3_model **out,
                               struct sam3_error **error);

// `sam3_model_open_memory` without the copy: `weights` stays the host's, and has to stay where and as it is until
// `release` is called with `user`. That happens once, whatever this call returns: within it if it fails, or if the
// device keeps weights in memory of its own; otherwise when the model and all that came from it are freed, on the thread
// that frees the last of them. Calls of this library from `release` are fine. NULL for `release` is for memory that
// outlives all of them, such as a constant. The other bytes are needed for the length of the call.
SAM3_API
int32_t sam3_model_open_lent(const uint8_t *config,
                             size_t config_size,
                             const uint8_t *weights,
                             size_t weights_size,
                             const uint8_t *tokenizer,
                             size_t tokenizer_size,
                             sam3_release_fn release,
                             void *user,
                             const struct sam3_model_options *options,
                             struct sam3_model **out,
                             struct sam3_error **error);

// Opens a checkpoint through the host's own file system; see `sam3_reader`. The callbacks are called on this thread,
// within this call. Otherwise like `sam3_model_open`. A callback that fails makes it `SAM3_IO`.
SAM3_API
int32_t sam3_model_open_reader(const struct sam3_reader *reader,
                               const struct sam3_model_options *options,
                               struct sam3_model **out,
                               struct sam3_error **error);

// Opens the small model that is part of the library, where it is: `sam3_build_info()` says `demo-model: yes`.
// Otherwise `SAM3_UNSUPPORTED`. Like `sam3_model_open`, without a path.
SAM3_API
int32_t sam3_model_open_demo(const struct sam3_model_options *options,
                             struct sam3_model **out,
                             struct sam3_error **error);

// Another handle of the same model, freed on its own; NULL for NULL. Any thread.
SAM3_API struct sam3_model *sam3_model_clone(const struct sam3_model *model);

// Fills `*info`. Any thread.
SAM3_API
int32_t sam3_model_get_info(const struct sam3_model *model,
                            struct sam3_model_info *info,
                            struct sam3_error **error);

// Frees this handle. NULL is ignored. If it was the last one of its model, this waits for the model's threads to end.
// Any thread.
SAM3_API void sam3_model_free(struct sam3_model *model);

// Another handle of the same picture, freed on its own; NULL for NULL. Any thread.
SAM3_API struct sam3_image *sam3_image_clone(const struct sam3_image *image);

// Columns of the picture, in pixels; 0 for NULL. Any thread.
SAM3_API uint32_t sam3_image_width(const struct sam3_image *image);

// Rows of the picture, in pixels; 0 for NULL. Any thread.
SAM3_API uint32_t sam3_image_height(const struct sam3_image *image);

// How many stages of encoding this picture were timed; 0 for NULL. Any thread.
SAM3_API uint32_t sam3_image_timing_count(const struct sam3_image *image);

// The name of stage `index`, lent until the picture is freed, and the milliseconds it took. Either may be NULL. Any
// thread.
SAM3_API
int32_t sam3_image_timing(const struct sam3_image *image,
                          uint32_t index,
                          const char **name,
                          double *milliseconds,
                          struct sam3_error **error);

// Frees this handle. NULL is ignored. Any thread.
SAM3_API void sam3_image_free(struct sam3_image *image);

// A concept prompt: every instance of what the short noun phrase `text` names ("red car"), or of what exemplars show,
// or of both together. `text` is UTF-8, of at most 30 of the published checkpoint's tokens, some twenty words; NULL if
// only exemplars follow. `*out` is the caller's, freed with `sam3_prompt_free`; NULL after a failure. Any thread.
SAM3_API int32_t sam3_prompt_new_concept(const char *text, struct sam3_prompt **out, struct sam3_error **error);

// An object prompt: one object, shown by points, a box, a mask, in any mix. `*out` is the caller's, freed with
// `sam3_prompt_free`; NULL after a failure. Any thread.
SAM3_API int32_t sam3_prompt_new_object(struct sam3_prompt **out, struct sam3_error **error);

// Adds a box round an example (`positive` 1) or a counter-example (0) to a concept prompt. Whether it lies within the
// picture shows when the prompt is used. Any thread.
SAM3_API
int32_t sam3_prompt_add_exemplar(struct sam3_prompt *prompt,
                                 const struct sam3_box *place,
                                 uint32_t positive,
                                 struct sam3_error **error);

// Adds clicks to an object prompt; `points` may be NULL if `count` is 0. Whether they lie within the picture shows when
// the prompt is used. Any thread.
SAM3_API
int32_t sam3_prompt_add_points(struct sam3_prompt *prompt,
                               const struct sam3_point *points,
                               size_t count,
                               struct sam3_error **error);

// Sets the box of an object prompt, instead of the one it had. Any thread.
SAM3_API
int32_t sam3_prompt_set_box(struct sam3_prompt *prompt,
                            const struct sam3_box *place,
                            struct sam3_error **error);

// Sets the mask of an object prompt, instead of the mask or logits it had: one byte a pixel, object where it is 128 or
// more, stretched over the picture. `stride` is the bytes from one row to the next, 0 for `width`. The mask is copied.
// Any thread.
SAM3_API
int32_t sam3_prompt_set_mask(struct sam3_prompt *prompt,
                             const uint8_t *mask,
                             uint32_t width,
                             uint32_t height,
                             size_t stride,
                             struct sam3_error **error);

// Sets the mask of an object prompt to logits at the model's resolution: `side * side` finite numbers, row by row,
// `side` being `sam3_model_info.mask_side`. They are copied. Any thread.
SAM3_API
int32_t sam3_prompt_set_logits(struct sam3_prompt *prompt,
                               const float *logits,
                               uint32_t side,
                               struct sam3_error **error);

// Sets the mask of an object prompt to what instance `index` of a result was made from: the next round of refining it,
// with another click. Any thread.
SAM3_API
int32_t sam3_prompt_set_previous(struct sam3_prompt *prompt,
                                 const struct sam3_result *result,
                                 uint32_t index,
                                 struct sam3_error **error);

// Frees a prompt. NULL is ignored. Calls that use it have a copy. Any thread.
SAM3_API void sam3_prompt_free(struct sam3_prompt *prompt);

// A session on a model. `*out` is the caller's, freed with `sam3_session_free`; NULL after a failure. Any thread. The
// model's handle may be freed before it.
SAM3_API int32_t sam3_session_new(const struct sam3_model *model, struct sam3_session **out, struct sam3_error **error);

// Sets the progress callback of all later steps, NULL for none; `user` is handed to it as it is. Both have to stay
// valid until they are replaced, or the session and its jobs are freed. A call that is running meanwhile may still be
// in the old ones, until it returns. Any thread.
SAM3_API
int32_t sam3_session_set_progress(struct sam3_session *session,
                                  sam3_progress_fn progress,
                                  void *user,
                                  struct sam3_error **error);

// Stops the call or the job that runs on this session: it returns `SAM3_CANCELLED` at its next step, of which there
// are some for every layer of the model. Without one, nothing happens; calls that begin later are not touched. NULL is
// ignored. Any thread.
SAM3_API void sam3_cancel(const struct sam3_session *session);

// Frees a session. NULL is ignored. A job that it runs goes on. No call may be running on another thread. Any thread.
SAM3_API void sam3_session_free(struct sam3_session *session);

// Looks at a picture once, for any number of prompts. `view` and its pixels are needed for the length of the call.
// `*out` is the caller's, freed with `sam3_image_free`; NULL after a failure. Any thread, one call at a time.
//
// Failures: `SAM3_INVALID_ARGUMENT`, `SAM3_CANCELLED`, `SAM3_BUSY`, `SAM3_OUT_OF_MEMORY`, `SAM3_DEVICE`.
SAM3_API
int32_t sam3_encode(struct sam3_session *session,
                    const struct sam3_image_view *view,
                    struct sam3_image **out,
                    struct sam3_error **error);

// Reads a picture file, turns it upright, and looks at it: JPEG, PNG, WebP, GIF (first frame), BMP, TIFF (first page),
// and AVIF where `sam3_build_info()` says so, told apart by their content; at most 178,956,970 pixels, 65,535 a side.
// `path` is UTF-8. Otherwise like `sam3_encode`.
//
// Failures: besides, `SAM3_IO`, `SAM3_IMAGE`, `SAM3_UNSUPPORTED`.
SAM3_API
int32_t sam3_encode_file(struct sam3_session *session,
                         const char *path,
                         struct sam3_image **out,
                         struct sam3_error **error);

// `sam3_encode_file` with the bytes of a picture file, which are needed for the length of the call.
SAM3_API
int32_t sam3_encode_bytes(struct sam3_session *session,
                          const uint8_t *bytes,
                          size_t size,
                          struct sam3_image **out,
                          struct sam3_error **error);

// Answers `count` prompts on one picture, at least one. Each is a question of its own: two phrases are two concepts,
// and `sam3_instance.prompt` tells whose answer an instance is.
// `options` may be NULL for the defaults. `*out` is the caller's, freed with `sam3_result_free`; NULL after a failure.
// Any thread, one call at a time.
//
// Failures: `SAM3_INVALID_ARGUMENT` also for prompts that are empty, outside the picture or too long, and for a picture
// of another model; `SAM3_UNSUPPORTED` for prompts that this checkpoint has no weights for; `SAM3_CANCELLED`,
// `SAM3_BUSY`, `SAM3_OUT_OF_MEMORY`, `SAM3_DEVICE`.
SAM3_API
int32_t sam3_segment(struct sam3_session *session,
                     const struct sam3_image *image,
                     const struct sam3_prompt *const *prompts,
                     size_t count,
                     const struct sam3_segment_options *options,
                     struct sam3_result **out,
                     struct sam3_error **error);

// `sam3_encode` and `sam3_segment` in one. `image` may be NULL; otherwise `*image` is the picture for further prompts,
// freed with `sam3_image_free`.
SAM3_API
int32_t sam3_run(struct sam3_session *session,
                 const struct sam3_image_view *view,
                 const struct sam3_prompt *const *prompts,
                 size_t count,
                 const struct sam3_segment_options *options,
                 struct sam3_image **image,
                 struct sam3_result **out,
                 struct sam3_error **error);

// Begins `sam3_encode` and returns. The pixels are copied first, so they may be freed or overwritten at once. `*out`
// is the caller's, freed with `sam3_job_free`; NULL after a failure. Any thread.
//
// Copying the pixels and starting a thread is all that this waits for. The session is free for the next call as soon as
// the job is done, taken or not.
//
// Failures here are those of arguments, `SAM3_BUSY` and `SAM3_OUT_OF_MEMORY`; `sam3_job_take` returns the others.
SAM3_API
int32_t sam3_submit_encode(struct sam3_session *session,
                           const struct sam3_image_view *view,
                           struct sam3_job **out,
                           struct sam3_error **error);

// Begins `sam3_segment` and returns. Otherwise like `sam3_submit_encode`.
SAM3_API
int32_t sam3_submit_segment(struct sam3_session *session,
                            const struct sam3_image *image,
                            const struct sam3_prompt *const *prompts,
                            size_t count,
                            const struct sam3_segment_options *options,
                            struct sam3_job **out,
                            struct sam3_error **error);

// Begins `sam3_run` and returns. Otherwise like `sam3_submit_encode`.
SAM3_API
int32_t sam3_submit_run(struct sam3_session *session,
                        const struct sam3_image_view *view,
                        const struct sam3_prompt *const *prompts,
                        size_t count,
                        const struct sam3_segment_options *options,
                        struct sam3_job **out,
                        struct sam3_error **error);

// Sets `*done` to 1 if the job is done, else to 0, at once. Any thread.
SAM3_API int32_t sam3_job_poll(const struct sam3_job *job, uint32_t *done, struct sam3_error **error);

// Waits until the job is done, but at most `milliseconds`, `SAM3_WAIT_FOREVER` for no limit, and sets `*done` to 1 if
// it is, else to 0. `done` may be NULL. Any thread.
SAM3_API
int32_t sam3_job_wait(const struct sam3_job *job,
                      uint32_t milliseconds,
                      uint32_t *done,
                      struct sam3_error **error);

// Waits until the job is done and hands out what it made: the status and the error are those that the call itself would
// have returned. `*image` and `*result` become the caller's, freed with `sam3_image_free` and `sam3_result_free`; NULL
// where the job makes none. Either pointer may be NULL if it is not wanted. Once only: a second time is
// `SAM3_INVALID_ARGUMENT`. Any thread.
SAM3_API
int32_t sam3_job_take(struct sam3_job *job,
                      struct sam3_image **image,
                      struct sam3_result **result,
                      struct sam3_error **error);

// Stops the job: its outcome is `SAM3_CANCELLED`, unless it is past its last step. Returns at once. NULL is ignored.
// Any thread.
SAM3_API void sam3_job_cancel(const struct sam3_job *job);

// Frees a job. NULL is ignored. One that is not done is stopped, and waited for until its next step: where that must
// not be, call `sam3_job_cancel` and free it when `sam3_job_poll` says that it is done. Any thread.
SAM3_API void sam3_job_free(struct sam3_job *job);

// How many instances were found, over all prompts, best score first; 0 for NULL. Any thread.
SAM3_API uint32_t sam3_result_count(const struct sam3_result *result);

// Columns of the picture and of its masks, in pixels; 0 for NULL. Any thread.
SAM3_API uint32_t sam3_result_width(const struct sam3_result *result);

// Rows of the picture and of its masks, in pixels; 0 for NULL. Any thread.
SAM3_API uint32_t sam3_result_height(const struct sam3_result *result);

// Fills `*instance` with instance `index`, counted from 0. Any thread.
SAM3_API
int32_t sam3_result_instance(const struct sam3_result *result,
                             uint32_t index,
                             struct sam3_instance *instance,
                             struct sam3_error **error);

// Sets `*presence` to the probability, 0 to 1, that the picture holds what prompt `prompt` (counted from 0) asked for:
// the concept at all, which is a factor of every score of its instances, or the object. Any thread.
SAM3_API
int32_t sam3_result_presence(const struct sam3_result *result,
                             uint32_t prompt,
                             float *presence,
                             struct sam3_error **error);

// How many stages of the call were timed; 0 for NULL. Those of encoding the picture are the picture's:
// `sam3_image_timing`. Any thread.
SAM3_API uint32_t sam3_result_timing_count(const struct sam3_result *result);

// The name of stage `index`, lent until the result is freed, and the milliseconds it took over all prompts. Either may
// be NULL. Any thread.
SAM3_API
int32_t sam3_result_timing(const struct sam3_result *result,
                           uint32_t index,
                           const char **name,
                           double *milliseconds,
                           struct sam3_error **error);

// Another handle of the same result, freed on its own; NULL for NULL. Any thread.
SAM3_API struct sam3_result *sam3_result_clone(const struct sam3_result *result);

// Frees this handle, and with the last one all that was lent. NULL is ignored. Any thread.
SAM3_API void sam3_result_free(struct sam3_result *result);

// Copies the mask of instance `index` into `buffer`: `format` is a `SAM3_MASK_` constant, `space` a `SAM3_SPACE_` one,
// `stride` the bytes from one row to the next, 0 for rows without gaps. Bytes between rows are left alone. `*size` is
// the bytes that `buffer` has, and becomes those that are needed; with a NULL `buffer` that is all that happens. A
// buffer that is too short is `SAM3_INVALID_ARGUMENT`, and nothing is written to it. Floats need an address and a
// stride divisible by 4. Any thread.
SAM3_API
int32_t sam3_result_mask(const struct sam3_result *result,
                         uint32_t index,
                         uint32_t format,
                         uint32_t space,
                         void *buffer,
                         size_t stride,
                         size_t *size,
                         struct sam3_error **error);

// Lends the mask of instance `index`; `format` and `space` as in `sam3_result_mask`. It is made on the first call and
// kept until the result is freed. Any thread.
SAM3_API
int32_t sam3_result_mask_view(const struct sam3_result *result,
                              uint32_t index,
                              uint32_t format,
                              uint32_t space,
                              struct sam3_mask_view *view,
                              struct sam3_error **error);

// `sam3_result_mask` for the semantic mask of prompt `prompt`, counted from 0: every pixel of the concept. It has to be
// a concept's, and to be asked for by `sam3_segment_options_set_semantic`. Any thread.
SAM3_API
int32_t sam3_result_semantic(const struct sam3_result *result,
                             uint32_t prompt,
                             uint32_t format,
                             uint32_t space,
                             void *buffer,
                             size_t stride,
                             size_t *size,
                             struct sam3_error **error);

// `sam3_result_mask_view` for the semantic mask of prompt `prompt`. Any thread.
SAM3_API
int32_t sam3_result_semantic_view(const struct sam3_result *result,
                                  uint32_t prompt,
                                  uint32_t format,
                                  uint32_t space,
                                  struct sam3_mask_view *view,
                                  struct sam3_error **error);

// Sets `*text` to the mask of instance `index` as run lengths, `kind` being a `SAM3_RLE_` constant: ASCII, lent until
// the result is freed. Any thread.
SAM3_API
int32_t sam3_result_rle(const struct sam3_result *result,
                        uint32_t index,
                        uint32_t kind,
                        const char **text,
                        struct sam3_error **error);

// Sets `*counts` and `*length` to COCO's uncompressed run lengths of instance `index`: pixels of alternating runs,
// column by column, the first one outside the mask. Lent until the result is freed. Any thread.
SAM3_API
int32_t sam3_result_rle_counts(const struct sam3_result *result,
                               uint32_t index,
                               const uint32_t **counts,
                               size_t *length,
                               struct sam3_error **error);

// Follows the outlines of the mask of instance `index`, pieces first, then holes. Corners nearer to the simplified
// outline than `tolerance` pixels (finite, 0 or more) are left out; 0 keeps all. `*out` is the caller's, freed with
// `sam3_polygons_free`; NULL after a failure. Any thread.
SAM3_API
int32_t sam3_result_polygons(const struct sam3_result *result,
                             uint32_t index,
                             float tolerance,
                             struct sam3_polygons **out,
                             struct sam3_error **error);

// How many outlines there are; 0 for NULL. Any thread.
SAM3_API uint32_t sam3_polygons_count(const struct sam3_polygons *polygons);

// Fills `*ring` with outline `index`, counted from 0. Any thread.
SAM3_API
int32_t sam3_polygons_ring(const struct sam3_polygons *polygons,
                           uint32_t index,
                           struct sam3_ring *ring,
                           struct sam3_error **error);

// Frees outlines. NULL is ignored. Any thread.
SAM3_API void sam3_polygons_free(struct sam3_polygons *polygons);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SAM3_H */
