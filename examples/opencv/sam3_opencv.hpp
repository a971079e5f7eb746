// cv::Mat and sam3, without a copy of either's pixels.
#ifndef SAM3_OPENCV_HPP
#define SAM3_OPENCV_HPP

#include <cstdint>
#include <opencv2/core.hpp>

#include "sam3.hpp"

namespace sam3 {

/* The pixels of a matrix as they lie in memory: BGR, BGRA or grey, 8 bits a channel. Matrices with gaps between their rows
   and parts of larger ones are fine; the matrix has to stay while the view is used. */
inline sam3_image_view view(const cv::Mat &mat) {
    CV_Assert(mat.dims == 2 && (mat.type() == CV_8UC3 || mat.type() == CV_8UC4 || mat.type() == CV_8UC1));
    const std::uint32_t format = mat.channels() == 3   ? SAM3_FORMAT_BGR8
                                 : mat.channels() == 4 ? SAM3_FORMAT_BGRA8
                                                       : SAM3_FORMAT_GRAY8;
    return view(mat.data, static_cast<std::uint32_t>(mat.cols), static_cast<std::uint32_t>(mat.rows), format,
                static_cast<std::int64_t>(mat.step[0]));
}

/* The mask of an instance, 255 inside and 0 outside. It is the result's: clone() it if it is to outlive that. */
inline cv::Mat mask(const Result &result, std::uint32_t index) {
    const sam3_mask_view found = result.mask(index);
    return cv::Mat(static_cast<int>(found.height), static_cast<int>(found.width), CV_8UC1,
                   const_cast<std::uint8_t *>(found.data), static_cast<std::size_t>(found.stride));
}

}  // namespace sam3

#endif
