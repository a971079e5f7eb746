/*
 * sam3.hpp: sam3.h for C++17, in this file alone: handles that free themselves, strings, vectors, functions.
 *
 * Nothing of the standard library crosses the boundary: what is compiled here becomes part of the program, and only C goes
 * to and from the library. Rules, units and threads are those of sam3.h.
 *
 * Failures. Every function that can fail takes a `sam3::Error *error` last. With it, the function fills it and returns an
 * empty object; without it, it throws `sam3::Exception`. Where exceptions are off (-fno-exceptions, or SAM3_NO_EXCEPTIONS
 * defined), an empty object is all that tells. Empty objects are false; using one is SAM3_INVALID_ARGUMENT, not a crash.
 *
 *     sam3::Model model = sam3::Model::open("checkpoint");
 *     sam3::Session session = model.session();
 *     sam3::Image image = session.encode_file("photo.jpg");
 *     sam3::Result result = session.segment(image, sam3::Prompt::concept_("red car"));
 *     for (std::uint32_t i = 0; i < result.count(); i++) use(result.instance(i), result.mask(i));
 */
#ifndef SAM3_HPP
#define SAM3_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "sam3.h"

#if !defined(SAM3_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define SAM3_NO_EXCEPTIONS
#endif
#ifndef SAM3_NO_EXCEPTIONS
#include <exception>
#include <stdexcept>
#endif

namespace sam3 {

/* What went wrong; false if nothing did. */
struct Error {
    std::int32_t status = SAM3_OK;
    std::string message;
    explicit operator bool() const noexcept { return status != SAM3_OK; }
};

#ifndef SAM3_NO_EXCEPTIONS
/* Thrown where no Error is passed. */
class Exception : public std::runtime_error {
public:
    explicit Exception(const Error &error) : std::runtime_error(error.message), status_(error.status) {}
    std::int32_t status() const noexcept { return status_; }

private:
    std::int32_t status_;
};
#endif

namespace detail {

/* Makes an Error of a failed call, or throws it. True if the call worked. `raw` is a reference, since it is to be read after
   the call that sets it, and arguments are evaluated in any order. */
inline bool done(std::int32_t status, sam3_error *const &raw, Error *error) {
    Error found;
    found.status = status;
    if (status != SAM3_OK) found.message = sam3_error_message(raw);
    sam3_error_free(raw);
#ifndef SAM3_NO_EXCEPTIONS
    if (status != SAM3_OK && error == nullptr) throw Exception(found);
#endif
    if (error != nullptr) *error = std::move(found);
    return status == SAM3_OK;
}

template <class T, void (*Free)(T *)>
struct Deleter {
    void operator()(T *raw) const noexcept { Free(raw); }
};

/* A handle that frees itself: moves, does not copy. */
template <class T, void (*Free)(T *)>
class Handle {
public:
    Handle() noexcept = default;
    explicit Handle(T *raw) noexcept : raw_(raw) {}
    /* For functions of sam3.h; stays owned by this object. */
    T *get() const noexcept { return raw_.get(); }
    /* Gives the handle away, to be freed by the caller. */
    T *release() noexcept { return raw_.release(); }
    explicit operator bool() const noexcept { return raw_ != nullptr; }

private:
    std::unique_ptr<T, Deleter<T, Free>> raw_;
};

template <class T>
inline T sized() noexcept {
    T value{};
    value.size = static_cast<std::uint32_t>(sizeof(T));
    return value;
}

/* A session's progress function, and what it threw. Jobs hold it too, since they may outlive their session. */
class Progress {
public:
    using Function = std::function<bool(std::uint32_t, float)>;
    void set(Function function) {
        std::shared_ptr<Function> next = function ? std::make_shared<Function>(std::move(function)) : nullptr;
        const std::lock_guard<std::mutex> lock(mutex_);
        function_.swap(next);
    }
    static std::int32_t call(void *user, std::uint32_t stage, float fraction) {
        Progress &self = *static_cast<Progress *>(user);
        /* Held here, it may be replaced while it runs. */
        const std::shared_ptr<Function> function = self.current();
        if (!function) return 0;
#ifndef SAM3_NO_EXCEPTIONS
        try {
            return (*function)(stage, fraction) ? 0 : 1;
        } catch (...) {
            /* Must not pass through the library: the call is cancelled, and this thrown when it is back. */
            const std::lock_guard<std::mutex> lock(self.mutex_);
            self.thrown_ = std::current_exception();
            return 1;
        }
#else
        return (*function)(stage, fraction) ? 0 : 1;
#endif
    }
    void rethrow() {
#ifndef SAM3_NO_EXCEPTIONS
        std::exception_ptr thrown;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            thrown = std::exchange(thrown_, nullptr);
        }
        if (thrown) std::rethrow_exception(thrown);
#endif
    }

private:
    std::mutex mutex_;
    std::shared_ptr<Function> function_;
#ifndef SAM3_NO_EXCEPTIONS
    std::exception_ptr thrown_;
#endif
    std::shared_ptr<Function> current() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return function_;
    }
};

/* Like done; what the progress function threw comes before the cancellation that it caused. */
inline bool finished(std::int32_t status, sam3_error *const &raw, Error *error, const std::shared_ptr<Progress> &progress) {
    if (status == SAM3_CANCELLED && progress) {
        struct Freed {
            sam3_error *raw;
            ~Freed() { sam3_error_free(raw); }
        } freed{raw};
        progress->rethrow();
        freed.raw = nullptr;
    }
    return done(status, raw, error);
}

/* Names of stages and their milliseconds. */
template <class T>
std::vector<std::pair<std::string, double>> timings(const T *of, std::uint32_t count,
                                                    std::int32_t (*get)(const T *, std::uint32_t, const char **, double *,
                                                                        sam3_error **)) {
    std::vector<std::pair<std::string, double>> all;
    for (std::uint32_t i = 0; i < count; i++) {
        const char *name = "";
        double milliseconds = 0;
        if (get(of, i, &name, &milliseconds, nullptr) == SAM3_OK) all.emplace_back(name, milliseconds);
    }
    return all;
}

inline const std::uint8_t *bytes(const void *from) noexcept { return static_cast<const std::uint8_t *>(from); }

}  // namespace detail

inline const char *version() noexcept { return sam3_version(); }
inline const char *build_info() noexcept { return sam3_build_info(); }
/* Whether the library in use fits the header that this was compiled with: to be asked where it is loaded at run time. */
inline bool compatible() noexcept { return sam3_abi_version() == SAM3_ABI_VERSION; }

/* A device; strings are this object's own. */
struct Device {
    std::uint32_t kind = SAM3_DEVICE_AUTO, index = 0;
    std::uint64_t memory_total = 0, memory_free = 0;
    std::string name, isas;
};

inline std::vector<Device> devices(Error *error = nullptr) {
    sam3_devices *list = nullptr;
    sam3_error *raw = nullptr;
    std::vector<Device> all;
    if (!detail::done(sam3_devices_new(&list, &raw), raw, error)) return all;
    const std::unique_ptr<sam3_devices, detail::Deleter<sam3_devices, sam3_devices_free>> freed(list);
    for (std::uint32_t i = 0; i < sam3_devices_count(list); i++) {
        sam3_device found = detail::sized<sam3_device>();
        if (!detail::done(sam3_devices_get(list, i, &found, &raw), raw, error)) break;
        all.push_back({found.kind, found.index, found.memory_total, found.memory_free, found.name, found.isas});
    }
    return all;
}

/* A picture that belongs to the caller; `stride` 0 for rows without gaps, negative for bottom-up ones. */
inline sam3_image_view view(const void *data, std::uint32_t width, std::uint32_t height, std::uint32_t format,
                            std::int64_t stride = 0) noexcept {
    sam3_image_view v = detail::sized<sam3_image_view>();
    v.format = format;
    v.width = width;
    v.height = height;
    v.stride = stride;
    v.data = detail::bytes(data);
    return v;
}

class Polygons : public detail::Handle<sam3_polygons, sam3_polygons_free> {
public:
    using Handle::Handle;
    std::uint32_t count() const noexcept { return sam3_polygons_count(get()); }
    sam3_ring ring(std::uint32_t index, Error *error = nullptr) const {
        sam3_ring found = detail::sized<sam3_ring>();
        sam3_error *raw = nullptr;
        detail::done(sam3_polygons_ring(get(), index, &found, &raw), raw, error);
        return found;
    }
};

class Result : public detail::Handle<sam3_result, sam3_result_free> {
public:
    using Handle::Handle;
    std::uint32_t count() const noexcept { return sam3_result_count(get()); }
    std::uint32_t width() const noexcept { return sam3_result_width(get()); }
    std::uint32_t height() const noexcept { return sam3_result_height(get()); }
    Result clone() const noexcept { return Result(sam3_result_clone(get())); }

    sam3_instance instance(std::uint32_t index, Error *error = nullptr) const {
        sam3_instance found = detail::sized<sam3_instance>();
        sam3_error *raw = nullptr;
        detail::done(sam3_result_instance(get(), index, &found, &raw), raw, error);
        return found;
    }
    float presence(std::uint32_t prompt, Error *error = nullptr) const {
        float found = 0;
        sam3_error *raw = nullptr;
        detail::done(sam3_result_presence(get(), prompt, &found, &raw), raw, error);
        return found;
    }
    /* Lent until the result is freed. */
    sam3_mask_view mask(std::uint32_t index, std::uint32_t format = SAM3_MASK_U8,
                        std::uint32_t space = SAM3_SPACE_PICTURE, Error *error = nullptr) const {
        sam3_mask_view found = detail::sized<sam3_mask_view>();
        sam3_error *raw = nullptr;
        detail::done(sam3_result_mask_view(get(), index, format, space, &found, &raw), raw, error);
        return found;
    }
    sam3_mask_view semantic(std::uint32_t prompt, std::uint32_t format = SAM3_MASK_U8,
                            std::uint32_t space = SAM3_SPACE_PICTURE, Error *error = nullptr) const {
        sam3_mask_view found = detail::sized<sam3_mask_view>();
        sam3_error *raw = nullptr;
        detail::done(sam3_result_semantic_view(get(), prompt, format, space, &found, &raw), raw, error);
        return found;
    }
    /* Copies a mask into `size` bytes of the caller's, rows `stride` bytes apart. */
    bool copy_mask(std::uint32_t index, std::uint32_t format, std::uint32_t space, void *buffer, std::size_t size,
                   std::size_t stride = 0, Error *error = nullptr) const {
        sam3_error *raw = nullptr;
        return detail::done(sam3_result_mask(get(), index, format, space, buffer, stride, &size, &raw), raw, error);
    }
    std::string rle(std::uint32_t index, std::uint32_t kind = SAM3_RLE_COCO, Error *error = nullptr) const {
        const char *text = "";
        sam3_error *raw = nullptr;
        bool ok = detail::done(sam3_result_rle(get(), index, kind, &text, &raw), raw, error);
        return ok ? std::string(text) : std::string();
    }
    Polygons polygons(std::uint32_t index, float tolerance = 0, Error *error = nullptr) const {
        sam3_polygons *found = nullptr;
        sam3_error *raw = nullptr;
        detail::done(sam3_result_polygons(get(), index, tolerance, &found, &raw), raw, error);
        return Polygons(found);
    }
    /* COCO's uncompressed run lengths. */
    std::vector<std::uint32_t> rle_counts(std::uint32_t index, Error *error = nullptr) const {
        const std::uint32_t *counts = nullptr;
        std::size_t length = 0;
        sam3_error *raw = nullptr;
        bool ok = detail::done(sam3_result_rle_counts(get(), index, &counts, &length, &raw), raw, error);
        return ok ? std::vector<std::uint32_t>(counts, counts + length) : std::vector<std::uint32_t>();
    }
    std::vector<std::pair<std::string, double>> timings() const {
        return detail::timings(static_cast<const sam3_result *>(get()), sam3_result_timing_count(get()), sam3_result_timing);
    }
};

class Image : public detail::Handle<sam3_image, sam3_image_free> {
public:
    using Handle::Handle;
    std::uint32_t width() const noexcept { return sam3_image_width(get()); }
    std::uint32_t height() const noexcept { return sam3_image_height(get()); }
    Image clone() const noexcept { return Image(sam3_image_clone(get())); }
    std::vector<std::pair<std::string, double>> timings() const {
        return detail::timings(static_cast<const sam3_image *>(get()), sam3_image_timing_count(get()), sam3_image_timing);
    }
};

/* Functions that build a prompt return it, so that they can be chained. */
class Prompt : public detail::Handle<sam3_prompt, sam3_prompt_free> {
public:
    using Handle::Handle;
    /* Every instance of a concept. (`concept` is a word of C++20.) */
    static Prompt concept_(const std::string &text, Error *error = nullptr) { return make(text.c_str(), error); }
    /* Every instance of what exemplars show. */
    static Prompt exemplars(Error *error = nullptr) { return make(nullptr, error); }
    /* One object. */
    static Prompt object(Error *error = nullptr) {
        sam3_prompt *made = nullptr;
        sam3_error *raw = nullptr;
        detail::done(sam3_prompt_new_object(&made, &raw), raw, error);
        return Prompt(made);
    }
    Prompt exemplar(sam3_box box, bool positive = true, Error *error = nullptr) && {
        sam3_error *raw = nullptr;
        return then(sam3_prompt_add_exemplar(get(), &box, positive ? 1 : 0, &raw), raw, error);
    }
    Prompt point(float x, float y, bool positive = true, Error *error = nullptr) && {
        sam3_point p{x, y, positive ? 1u : 0u};
        sam3_error *raw = nullptr;
        return then(sam3_prompt_add_points(get(), &p, 1, &raw), raw, error);
    }
    Prompt box(sam3_box box, Error *error = nullptr) && {
        sam3_error *raw = nullptr;
        return then(sam3_prompt_set_box(get(), &box, &raw), raw, error);
    }
    Prompt mask(const std::uint8_t *mask, std::uint32_t width, std::uint32_t height, std::size_t stride = 0,
                Error *error = nullptr) && {
        sam3_error *raw = nullptr;
        return then(sam3_prompt_set_mask(get(), mask, width, height, stride, &raw), raw, error);
    }
    /* `side * side` numbers, `side` being the model's `mask_side`. */
    Prompt logits(const float *logits, std::uint32_t side, Error *error = nullptr) && {
        sam3_error *raw = nullptr;
        return then(sam3_prompt_set_logits(get(), logits, side, &raw), raw, error);
    }
    /* Another round for an instance that was found. */
    Prompt previous(const Result &result, std::uint32_t index, Error *error = nullptr) && {
        sam3_error *raw = nullptr;
        return then(sam3_prompt_set_previous(get(), result.get(), index, &raw), raw, error);
    }

private:
    static Prompt make(const char *text, Error *error) {
        sam3_prompt *made = nullptr;
        sam3_error *raw = nullptr;
        detail::done(sam3_prompt_new_concept(text, &made, &raw), raw, error);
        return Prompt(made);
    }
    /* The prompt itself, or an empty one if a step failed: no prompt is used that lacks a part. An empty one stays empty,
       and keeps the first error. */
    Prompt then(std::int32_t status, sam3_error *const &raw, Error *error) {
        if (!*this && error != nullptr && *error) {
            sam3_error_free(raw);
            return Prompt();
        }
        return detail::done(status, raw, error) ? std::move(*this) : Prompt();
    }
};

class SegmentOptions : public detail::Handle<sam3_segment_options, sam3_segment_options_free> {
public:
    SegmentOptions() {
        sam3_segment_options *made = nullptr;
        sam3_segment_options_new(&made, nullptr);
        static_cast<Handle &>(*this) = Handle(made);
    }
    bool threshold(float value, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_segment_options_set_threshold(get(), value, &raw), raw, error);
    }
    bool mask_threshold(float value, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_segment_options_set_mask_threshold(get(), value, &raw), raw, error);
    }
    bool max_instances(std::uint32_t count, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_segment_options_set_max_instances(get(), count, &raw), raw, error);
    }
    bool multimask(bool on, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_segment_options_set_multimask(get(), on ? 1 : 0, &raw), raw, error);
    }
    bool semantic(bool on, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_segment_options_set_semantic(get(), on ? 1 : 0, &raw), raw, error);
    }
};

/* A call on a thread of its own; freeing it stops it and waits. */
class Job : public detail::Handle<sam3_job, sam3_job_free> {
public:
    Job() noexcept = default;
    Job(sam3_job *raw, std::shared_ptr<detail::Progress> progress) noexcept
        : Job(std::move(progress), raw) {}
    bool poll(Error *error = nullptr) const { return wait(0, error); }
    /* Whether it is done, after at most so many milliseconds. */
    bool wait(std::uint32_t milliseconds = SAM3_WAIT_FOREVER, Error *error = nullptr) const {
        std::uint32_t over = 0;
        sam3_error *raw = nullptr;
        return detail::done(sam3_job_wait(get(), milliseconds, &over, &raw), raw, error) && over == 1;
    }
    void cancel() const noexcept { sam3_job_cancel(get()); }
    /* Waits, and hands out what was made; once. */
    std::pair<Image, Result> take(Error *error = nullptr) {
        sam3_image *image = nullptr;
        sam3_result *result = nullptr;
        sam3_error *raw = nullptr;
        std::int32_t status = sam3_job_take(get(), &image, &result, &raw);
        std::pair<Image, Result> made{Image(image), Result(result)};
        detail::finished(status, raw, error, progress_);
        return made;
    }

private:
    Job(std::shared_ptr<detail::Progress> progress, sam3_job *raw) noexcept : Handle(raw), progress_(std::move(progress)) {}
    /* Outlives the job's thread: ~Handle, which joins it, must run first. */
    std::shared_ptr<detail::Progress> progress_;

public:
    ~Job() { static_cast<Handle &>(*this) = Handle(); }
    Job(Job &&) noexcept = default;
    Job &operator=(Job &&other) noexcept {
        static_cast<Handle &>(*this) = std::move(static_cast<Handle &>(other));
        progress_ = std::move(other.progress_);
        return *this;
    }
};

class Session : public detail::Handle<sam3_session, sam3_session_free> {
public:
    Session() noexcept = default;
    explicit Session(sam3_session *raw) : Handle(raw), progress_(std::make_shared<detail::Progress>()) {}
    /* `function(stage, fraction)` is called on the calling thread, or the job's; false cancels. What it throws comes out of
       the call it was called from, or of the job's `take`. */
    bool progress(std::function<bool(std::uint32_t, float)> function, Error *error = nullptr) {
        const sam3_progress_fn call = function ? detail::Progress::call : nullptr;
        sam3_error *raw = nullptr;
        if (!detail::done(sam3_session_set_progress(get(), call, progress_.get(), &raw), raw, error)) return false;
        progress_->set(std::move(function));
        return true;
    }
    /* From any thread. */
    void cancel() const noexcept { sam3_cancel(get()); }

    Image encode(const sam3_image_view &view, Error *error = nullptr) {
        sam3_image *made = nullptr;
        sam3_error *raw = nullptr;
        finish(sam3_encode(get(), &view, &made, &raw), raw, error);
        return Image(made);
    }
    Image encode_file(const std::string &path, Error *error = nullptr) {
        sam3_image *made = nullptr;
        sam3_error *raw = nullptr;
        finish(sam3_encode_file(get(), path.c_str(), &made, &raw), raw, error);
        return Image(made);
    }
    Image encode_bytes(const void *bytes, std::size_t size, Error *error = nullptr) {
        sam3_image *made = nullptr;
        sam3_error *raw = nullptr;
        finish(sam3_encode_bytes(get(), detail::bytes(bytes), size, &made, &raw), raw, error);
        return Image(made);
    }
    Result segment(const Image &image, const Prompt &prompt, Error *error = nullptr) {
        const sam3_prompt *one = prompt.get();
        return segment(image, &one, 1, nullptr, error);
    }
    Result segment(const Image &image, const Prompt &prompt, const SegmentOptions &options, Error *error = nullptr) {
        const sam3_prompt *one = prompt.get();
        return segment(image, &one, 1, options.get(), error);
    }
    Result segment(const Image &image, const std::vector<Prompt> &prompts, const SegmentOptions &options,
                   Error *error = nullptr) {
        const std::vector<const sam3_prompt *> all = raw_prompts(prompts);
        return segment(image, all.data(), all.size(), options.get(), error);
    }

    /* Encodes and segments in one call; the picture serves further prompts. */
    std::pair<Image, Result> run(const sam3_image_view &view, const std::vector<Prompt> &prompts,
                                 const SegmentOptions &options, Error *error = nullptr) {
        const std::vector<const sam3_prompt *> all = raw_prompts(prompts);
        sam3_image *image = nullptr;
        sam3_result *result = nullptr;
        sam3_error *raw = nullptr;
        finish(sam3_run(get(), &view, all.data(), all.size(), options.get(), &image, &result, &raw), raw, error);
        return {Image(image), Result(result)};
    }

    Job submit_encode(const sam3_image_view &view, Error *error = nullptr) {
        sam3_job *made = nullptr;
        sam3_error *raw = nullptr;
        detail::done(sam3_submit_encode(get(), &view, &made, &raw), raw, error);
        return Job(made, progress_);
    }
    Job submit_segment(const Image &image, const std::vector<Prompt> &prompts, const SegmentOptions &options,
                       Error *error = nullptr) {
        const std::vector<const sam3_prompt *> all = raw_prompts(prompts);
        sam3_job *made = nullptr;
        sam3_error *raw = nullptr;
        std::int32_t status =
            sam3_submit_segment(get(), image.get(), all.data(), all.size(), options.get(), &made, &raw);
        detail::done(status, raw, error);
        return Job(made, progress_);
    }
    Job submit_run(const sam3_image_view &view, const std::vector<Prompt> &prompts, const SegmentOptions &options,
                   Error *error = nullptr) {
        const std::vector<const sam3_prompt *> all = raw_prompts(prompts);
        sam3_job *made = nullptr;
        sam3_error *raw = nullptr;
        std::int32_t status = sam3_submit_run(get(), &view, all.data(), all.size(), options.get(), &made, &raw);
        detail::done(status, raw, error);
        return Job(made, progress_);
    }

private:
    std::shared_ptr<detail::Progress> progress_;

    Result segment(const Image &image, const sam3_prompt *const *prompts, std::size_t count,
                   const sam3_segment_options *options, Error *error) {
        sam3_result *made = nullptr;
        sam3_error *raw = nullptr;
        finish(sam3_segment(get(), image.get(), prompts, count, options, &made, &raw), raw, error);
        return Result(made);
    }
    static std::vector<const sam3_prompt *> raw_prompts(const std::vector<Prompt> &prompts) {
        std::vector<const sam3_prompt *> all;
        all.reserve(prompts.size());
        for (const Prompt &prompt : prompts) all.push_back(prompt.get());
        return all;
    }
    bool finish(std::int32_t status, sam3_error *const &raw, Error *error) {
        return detail::finished(status, raw, error, progress_);
    }
};

class ModelOptions : public detail::Handle<sam3_model_options, sam3_model_options_free> {
public:
    ModelOptions() {
        sam3_model_options *made = nullptr;
        sam3_model_options_new(&made, nullptr);
        static_cast<Handle &>(*this) = Handle(made);
    }
    bool device(std::uint32_t kind, std::uint32_t index = 0, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_model_options_set_device(get(), kind, index, &raw), raw, error);
    }
    bool threads(std::uint32_t threads, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_model_options_set_threads(get(), threads, &raw), raw, error);
    }
    bool isa(const std::string &name, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_model_options_set_isa(get(), name.c_str(), &raw), raw, error);
    }
    bool precision(std::uint32_t precision, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_model_options_set_precision(get(), precision, &raw), raw, error);
    }
    /* As in C: `write` and `user` stay valid as long as the model. */
    bool log(std::uint32_t level, sam3_log_fn write, void *user, Error *error = nullptr) {
        sam3_error *raw = nullptr;
        return detail::done(sam3_model_options_set_log(get(), level, write, user, &raw), raw, error);
    }
};

class Model : public detail::Handle<sam3_model, sam3_model_free> {
public:
    using Handle::Handle;
    static Model open(const std::string &path, Error *error = nullptr) { return open(path, nullptr, error); }
    static Model open(const std::string &path, const ModelOptions &options, Error *error = nullptr) {
        return open(path, options.get(), error);
    }
    static Model open_demo(Error *error = nullptr) { return open_demo(nullptr, error); }
    static Model open_demo(const ModelOptions &options, Error *error = nullptr) { return open_demo(options.get(), error); }
    /* From the bytes of config.json, model.safetensors and tokenizer.json, none of which stands for the standard one. */
    static Model memory(const std::string &config, const void *weights, std::size_t weights_size,
                        const std::string &tokenizer, const ModelOptions &options, Error *error = nullptr) {
        sam3_model *made = nullptr;
        sam3_error *raw = nullptr;
        std::int32_t status = sam3_model_open_memory(
            detail::bytes(config.data()), config.size(), detail::bytes(weights), weights_size,
            detail::bytes(tokenizer.data()), tokenizer.size(), options.get(), &made, &raw);
        detail::done(status, raw, error);
        return Model(made);
    }
    /* Through the caller's own file system. */
    static Model reader(const sam3_reader &reader, const ModelOptions &options, Error *error = nullptr) {
        sam3_model *made = nullptr;
        sam3_error *raw = nullptr;
        detail::done(sam3_model_open_reader(&reader, options.get(), &made, &raw), raw, error);
        return Model(made);
    }
    /* As `memory`, without a copy: the weights stay the caller's, as they are, until `release(user)` is called, once,
       whatever this returns. */
    static Model lent(const std::string &config, const void *weights, std::size_t weights_size,
                      const std::string &tokenizer, sam3_release_fn release, void *user, const ModelOptions &options,
                      Error *error = nullptr) {
        sam3_model *made = nullptr;
        sam3_error *raw = nullptr;
        std::int32_t status = sam3_model_open_lent(
            detail::bytes(config.data()), config.size(), detail::bytes(weights), weights_size,
            detail::bytes(tokenizer.data()), tokenizer.size(), release, user, options.get(), &made, &raw);
        detail::done(status, raw, error);
        return Model(made);
    }
    Model clone() const noexcept { return Model(sam3_model_clone(get())); }
    Session session(Error *error = nullptr) const {
        sam3_session *made = nullptr;
        sam3_error *raw = nullptr;
        detail::done(sam3_session_new(get(), &made, &raw), raw, error);
        return Session(made);
    }
    sam3_model_info info(Error *error = nullptr) const {
        sam3_model_info found = detail::sized<sam3_model_info>();
        sam3_error *raw = nullptr;
        detail::done(sam3_model_get_info(get(), &found, &raw), raw, error);
        return found;
    }

private:
    static Model open_demo(const sam3_model_options *options, Error *error) {
        sam3_model *made = nullptr;
        sam3_error *raw = nullptr;
        detail::done(sam3_model_open_demo(options, &made, &raw), raw, error);
        return Model(made);
    }
    static Model open(const std::string &path, const sam3_model_options *options, Error *error) {
        sam3_model *made = nullptr;
        sam3_error *raw = nullptr;
        detail::done(sam3_model_open(path.c_str(), options, &made, &raw), raw, error);
        return Model(made);
    }
};

}  // namespace sam3

#endif
