// OpenCV: reads a picture as a BGR cv::Mat, finds what a phrase names, and writes the picture with every instance in a
// colour of its own.
//
//     c++ -std=c++17 overlay.cpp $(pkg-config --cflags --libs sam3 opencv4) -o overlay
//     ./overlay CHECKPOINT|demo PICTURE PHRASE OVERLAY [X Y WIDTH HEIGHT]
//
// With a rectangle it looks at that part of the picture alone, which is a cv::Mat that shares the picture's pixels.
#include <cstdio>
#include <cstdlib>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>

#include "sam3_opencv.hpp"

// Half the colour, half the picture, inside the mask; its outline in full. The first colour is magenta, which few things are.
static void paint(cv::Mat &part, const cv::Mat &mask, std::uint32_t index) {
    const cv::Mat hue(1, 1, CV_8UC3, cv::Scalar((150 + index * 67) % 180, 255, 255));
    cv::Mat bgr, blend;
    cv::cvtColor(hue, bgr, cv::COLOR_HSV2BGR);
    const cv::Vec3b color = bgr.at<cv::Vec3b>(0, 0);
    cv::addWeighted(part, 0.5, cv::Mat(part.size(), CV_8UC3, color), 0.5, 0, blend);
    blend.copyTo(part, mask);
    std::vector<std::vector<cv::Point>> outlines;
    cv::findContours(mask, outlines, cv::RETR_LIST, cv::CHAIN_APPROX_NONE);
    cv::drawContours(part, outlines, -1, color, 1);
}

int main(int argc, char **argv) try {
    if (argc != 5 && argc != 9) {
        std::fprintf(stderr, "usage: %s CHECKPOINT|demo PICTURE PHRASE OVERLAY [X Y WIDTH HEIGHT]\n", argv[0]);
        return 1;
    }
    cv::Mat picture = cv::imread(argv[2], cv::IMREAD_COLOR);
    if (picture.empty()) {
        std::fprintf(stderr, "%s: not a picture that OpenCV reads\n", argv[2]);
        return 1;
    }
    cv::Rect where(0, 0, picture.cols, picture.rows);
    if (argc == 9) where &= cv::Rect(std::atoi(argv[5]), std::atoi(argv[6]), std::atoi(argv[7]), std::atoi(argv[8]));
    cv::Mat part = picture(where);  // the same pixels; its rows lie as far apart as the picture's

    const std::string checkpoint = argv[1];
    const sam3::Model model = checkpoint == "demo" ? sam3::Model::open_demo() : sam3::Model::open(checkpoint);
    sam3::Session session = model.session();
    const sam3::Image image = session.encode(sam3::view(part));
    const sam3::Result result = session.segment(image, sam3::Prompt::concept_(argv[3]));
    // The worst first, so that the best lie on top.
    for (std::uint32_t i = result.count(); i-- > 0;) paint(part, sam3::mask(result, i), i);
    std::printf("%u instances\n", result.count());
    if (!cv::imwrite(argv[4], picture)) {
        std::fprintf(stderr, "%s: cannot be written\n", argv[4]);
        return 1;
    }
    return 0;
} catch (const sam3::Exception &e) {
    std::fprintf(stderr, "%s: %s\n", sam3_status_name(e.status()), e.what());
    return 1;
}
