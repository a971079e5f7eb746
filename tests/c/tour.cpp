// sam3.hpp, with exceptions and without: what it finds goes to a file, which the test compares between the two and with
// the Rust interface.
#include "sam3.hpp"
#include "sam3.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            std::fprintf(stderr, "tour.cpp:%d: %s\n", __LINE__, #condition);        \
            std::exit(1);                                                           \
        }                                                                           \
    } while (0)

#ifdef SAM3_NO_EXCEPTIONS
constexpr bool throws = false;
#else
constexpr bool throws = true;
struct Interrupt {};
#endif

static std::string slurp(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    CHECK(file);
    return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    const std::string dir = argv[1];
    sam3::ModelOptions options;
    CHECK(options.threads(2) && options.device(SAM3_DEVICE_CPU));
    if (const char *isa = std::getenv("SAM3_ISA")) CHECK(options.isa(isa));
    sam3::Model model = sam3::Model::open(dir, options);
    CHECK(model && model.info().mask_side > 0);
    sam3::Session session = model.session();
    sam3::Image image = session.encode_file(dir + "/input.png");
    CHECK(image && image.width() > 0);
    const float w = static_cast<float>(image.width()), h = static_cast<float>(image.height());

    sam3::SegmentOptions wanted;
    CHECK(wanted.threshold(0.01f) && wanted.semantic(true) && wanted.max_instances(4) && wanted.mask_threshold(0.45f));
    std::vector<sam3::Prompt> prompts;
    prompts.push_back(sam3::Prompt::concept_("cat"));
    prompts.push_back(sam3::Prompt::object().point(w / 3, h / 3).point(w * 0.75f, h * 0.75f, false));
    sam3::Result result = session.segment(image, prompts, wanted);
    CHECK(result.count() == 4 && result.timings().size() >= 2);
    std::ofstream out(argv[2], std::ios::binary);
    for (std::uint32_t i = 0; i < result.count(); i++) {
        const sam3_mask_view mask = result.mask(i);
        out.write(reinterpret_cast<const char *>(mask.data), static_cast<std::streamsize>(mask.stride * mask.height));
        std::vector<std::uint8_t> copy(mask.stride * mask.height);
        CHECK(result.copy_mask(i, SAM3_MASK_U8, SAM3_SPACE_PICTURE, copy.data(), copy.size()));
        CHECK(std::memcmp(copy.data(), mask.data, copy.size()) == 0);
        const std::string rle = result.rle(i);
        out.write(rle.data(), static_cast<std::streamsize>(rle.size()));
        sam3::Polygons polygons = result.polygons(i);
        CHECK((polygons.count() == 0) == (result.instance(i).area == 0));
        if (polygons.count() > 0) CHECK(polygons.ring(0).count >= 4 && polygons.ring(0).hole == 0);
    }
    CHECK(result.semantic(0).width == image.width() && result.presence(0) > 0);
    CHECK(sam3::compatible() && image.timings().size() >= 1 && image.timings()[0].second > 0);
    const std::vector<sam3::Device> devices = sam3::devices();
    CHECK(devices.size() >= 2 && devices[0].kind == SAM3_DEVICE_CPU && devices.back().kind == SAM3_DEVICE_REFERENCE);
    CHECK(devices[0].memory_free > 0 && devices[0].isas.find("scalar") != std::string::npos);
    std::uint64_t pixels = 0;
    for (std::uint32_t run : result.rle_counts(0)) pixels += run;
    CHECK(pixels == std::uint64_t{image.width()} * image.height());

    // Another round by handle, and by numbers, is the same.
    {
        const sam3_mask_view low = result.mask(0, SAM3_MASK_LOGITS_F32, SAM3_SPACE_MODEL);
        const float *numbers = static_cast<const float *>(static_cast<const void *>(low.data));
        sam3::Prompt by_handle = sam3::Prompt::object().point(w / 3, h / 3).previous(result, 0);
        sam3::Prompt by_numbers = sam3::Prompt::object().point(w / 3, h / 3).logits(numbers, low.width);
        CHECK(session.segment(image, by_handle).rle(0) == session.segment(image, by_numbers).rle(0));
    }

    // The same model from the caller's own memory.
    {
        std::string weights = slurp(dir + "/model.safetensors");
        const std::string config = slurp(dir + "/config.json"), tokenizer = slurp(dir + "/tokenizer.json");
        const auto release = [](void *user) { static_cast<std::string *>(user)->clear(); };
        sam3::Model lent =
            sam3::Model::lent(config, weights.data(), weights.size(), tokenizer, release, &weights, options);
        CHECK(lent.info().parameters == model.info().parameters && !weights.empty());
        sam3::Model copied = sam3::Model::memory(config, weights.data(), weights.size(), tokenizer, options);
        CHECK(copied.info().bytes == lent.info().bytes);
        sam3_reader files{};
        files.size = sizeof files;
        files.user = &weights;
        files.size_of = [](void *, const char *) { return std::int64_t{-1}; };
        files.read = [](void *, const char *, std::uint64_t, void *, std::uint64_t) { return std::int64_t{-1}; };
        sam3::Error missing;
        CHECK(!sam3::Model::reader(files, options, &missing) && missing.status == SAM3_IO);
        lent = sam3::Model();
        CHECK(weights.empty());
    }

    // A job, the same answer; everything else may move meanwhile.
    sam3::Job job = session.submit_segment(image, prompts, wanted);
    sam3::Session moved = std::move(session);
    sam3::Job moved_job = std::move(job);
    while (!moved_job.poll()) moved_job.wait(1);
    std::pair<sam3::Image, sam3::Result> made = moved_job.take();
    CHECK(!made.first && made.second.count() == 4 && made.second.rle(0) == result.rle(0));
    session = std::move(moved);
    const std::vector<unsigned char> grey(64 * 48, 99);
    std::pair<sam3::Image, sam3::Result> both =
        session.run(sam3::view(grey.data(), 64, 48, SAM3_FORMAT_GRAY8), prompts, wanted);
    CHECK(both.first.width() == 64 && both.second.height() == 48);

    // A job goes on when its session is gone, and so does a progress function that was set meanwhile.
    {
        sam3::Session brief = model.session();
        sam3::Job late = brief.submit_encode(sam3::view(grey.data(), 64, 48, SAM3_FORMAT_GRAY8));
        auto told = std::make_shared<int>(0);
        CHECK(brief.progress([told](std::uint32_t, float) { return ++*told >= 0; }));
        CHECK(brief.progress([told](std::uint32_t, float) { return ++*told >= 0; }));
        brief = sam3::Session();
        CHECK(late.take().first.width() == 64);
    }

    // Failures with an Error: no exception, whatever the build.
    sam3::Error error;
    sam3::Model none = sam3::Model::open("/nowhere", &error);
    CHECK(!none && error && error.status == SAM3_IO && error.message.find("/nowhere") != std::string::npos);
    CHECK(!none.session(&error) && error.status == SAM3_INVALID_ARGUMENT);
    CHECK(!sam3::Prompt::concept_("x", &error).point(1, 1, true, &error) && error.status == SAM3_INVALID_ARGUMENT);
    // The first error of a chain is the one that stays.
    CHECK(!sam3::Prompt::concept_("x", &error).point(1, 1, true, &error).box({0, 0, 1, 1}, &error));
    CHECK(error.message.find("add_points") != std::string::npos);
    if (std::strstr(sam3_build_info(), "demo-model: yes")) {
        sam3::Model demo = sam3::Model::open_demo(&error);
        CHECK(demo && demo.session(&error));
        CHECK(sam3::Model::open_demo(options).info().image_side == demo.info().image_side);
    } else {
        CHECK(!sam3::Model::open_demo(&error) && error.status == SAM3_UNSUPPORTED);
    }

    int steps = 0;
    CHECK(session.progress([&](std::uint32_t, float) { return ++steps < 3; }));
    CHECK(!session.encode_file(dir + "/input.png", &error) && error.status == SAM3_CANCELLED && steps == 3);
#ifndef SAM3_NO_EXCEPTIONS
    try {
        sam3::Model::open("/nowhere");
        CHECK(false);
    } catch (const sam3::Exception &e) {
        CHECK(e.status() == SAM3_IO && std::strstr(e.what(), "/nowhere") != nullptr);
    }
    // What a callback throws arrives, from a call and from a job.
    CHECK(session.progress([](std::uint32_t, float) -> bool { throw Interrupt(); }));
    int caught = 0;
    try {
        session.encode_file(dir + "/input.png");
    } catch (const Interrupt &) {
        caught++;
    }
    sam3::Job doomed = session.submit_segment(image, prompts, wanted);
    try {
        doomed.take();
    } catch (const Interrupt &) {
        caught++;
    }
    CHECK(caught == 2);
#endif
    CHECK(session.progress(nullptr));

    // Clones outlive their originals, and results the model.
    sam3::Result kept = result.clone();
    result = sam3::Result();
    model = sam3::Model();
    session = sam3::Session();
    image = sam3::Image();
    CHECK(kept.count() == 4 && kept.mask(0).data != nullptr);
    std::printf("exceptions: %d\n", throws);
    return 0;
}
