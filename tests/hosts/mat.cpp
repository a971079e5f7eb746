// The same picture as three cv::Mat: on its own, with gaps between its rows, and as a part of a larger one. The masks go to
// files, which the test compares with the Rust interface.
#include <cstdio>
#include <fstream>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "sam3_opencv.hpp"

static int fail(const char *what) {
    std::fprintf(stderr, "mat.cpp: %s\n", what);
    return 1;
}

static void write_masks(sam3::Session &session, const cv::Mat &mat, const std::string &phrase, const std::string &prefix) {
    const sam3::Result result = session.segment(session.encode(sam3::view(mat)), sam3::Prompt::concept_(phrase));
    for (std::uint32_t i = 0; i < result.count(); i++) {
        const cv::Mat mask = sam3::mask(result, i);
        std::ofstream file(prefix + "-" + std::to_string(i) + ".pgm", std::ios::binary);
        file << "P5 " << mask.cols << ' ' << mask.rows << " 255\n";
        for (int y = 0; y < mask.rows; y++) file.write(mask.ptr<char>(y), mask.cols);
    }
}

int main(int argc, char **argv) {
    if (argc != 5) return fail("usage: CHECKPOINT PICTURE PHRASE FOLDER");
    const std::string folder = argv[4];
    const cv::Mat picture = cv::imread(argv[2], cv::IMREAD_COLOR);
    if (picture.empty() || !picture.isContinuous()) return fail("expected a picture");

    std::vector<unsigned char> room(static_cast<std::size_t>(picture.rows) * (picture.cols * 3 + 37), 0x5a);
    cv::Mat padded(picture.size(), CV_8UC3, room.data(), static_cast<std::size_t>(picture.cols) * 3 + 37);
    picture.copyTo(padded);
    cv::Mat large(picture.rows + 20, picture.cols + 31, CV_8UC3, cv::Scalar(9, 99, 199));
    cv::Mat part = large(cv::Rect(11, 7, picture.cols, picture.rows));
    picture.copyTo(part);
    if (padded.data != room.data() || padded.isContinuous() || part.isContinuous()) return fail("expected gaps");

    const sam3::Model model = sam3::Model::open(argv[1]);
    sam3::Session session = model.session();
    write_masks(session, picture, argv[3], folder + "/plain");
    write_masks(session, padded, argv[3], folder + "/padded");
    write_masks(session, part, argv[3], folder + "/part");

    // What has no pixels that sam3 knows is refused before it gets there.
    try {
        sam3::view(cv::Mat(4, 4, CV_32FC3));
        return fail("expected floats to be refused");
    } catch (const cv::Exception &) {
        return 0;
    }
}
