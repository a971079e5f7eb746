// C++17 through sam3.hpp, which is header-only and frees everything by itself: finds what a phrase names, says what it
// found, writes the masks.
//
//     c++ -std=c++17 segment.cpp $(pkg-config --cflags --libs sam3) -o segment
//     ./segment CHECKPOINT|demo PICTURE PHRASE [FOLDER]
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>

#include "sam3.hpp"

static void write_pgm(const std::string &path, const sam3_mask_view &mask) {
    std::ofstream file(path, std::ios::binary);
    file << "P5 " << mask.width << ' ' << mask.height << " 255\n";
    for (std::uint32_t y = 0; y < mask.height; y++) {
        file.write(reinterpret_cast<const char *>(mask.data + y * mask.stride), mask.width);
    }
}

int main(int argc, char **argv) try {
    if (argc != 4 && argc != 5) {
        std::fprintf(stderr, "usage: %s CHECKPOINT|demo PICTURE PHRASE [FOLDER]\n", argv[0]);
        return 1;
    }
    const std::string checkpoint = argv[1];
    // Once, to be shared between threads: the model in the library, or a checkpoint.
    const sam3::Model model = checkpoint == "demo" ? sam3::Model::open_demo() : sam3::Model::open(checkpoint);
    sam3::Session session = model.session();                     // once per thread
    const sam3::Image image = session.encode_file(argv[2]);      // once per picture
    const sam3::Prompt prompt = sam3::Prompt::concept_(argv[3]);
    const sam3::Result result = session.segment(image, prompt);  // once per question

    for (std::uint32_t i = 0; i < result.count(); i++) {
        const sam3_instance found = result.instance(i);
        const sam3_mask_view mask = result.mask(i);  // 255 inside and 0 outside, lent by the result
        std::printf("%3" PRIu32 ": score %.3f, %" PRIu64 " pixels of %" PRIu32 "x%" PRIu32 ", box %.1f %.1f %.1f %.1f\n", i,
                    double{found.score}, found.area, mask.width, mask.height, double{found.bbox.x0},
                    double{found.bbox.y0}, double{found.bbox.x1}, double{found.bbox.y1});
        if (argc == 5) write_pgm(argv[4] + ("/mask-" + std::to_string(i)) + ".pgm", mask);
    }
    return 0;
} catch (const sam3::Exception &e) {
    // Without exceptions, every call takes an Error instead.
    std::fprintf(stderr, "%s: %s\n", sam3_status_name(e.status()), e.what());
    return 1;
}
