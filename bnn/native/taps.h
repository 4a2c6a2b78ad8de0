// Where the taps of a convolution's windows lead: from the pixels of its output to those of its input, or back.
#pragma once

#include "window.h"

namespace {

constexpr int64_t kNowhere = -1;

class Taps {
 public:
    // Pixels of the far side lie `pixel_step` apart, images `image_step`.
    Taps(const Window& window, bool from_output, int64_t pixel_step, int64_t image_step)
        : window_(window),
          near_(from_output ? window_.out_size : window_.size),
          far_(from_output ? window_.size : window_.out_size),
          pixel_step_(pixel_step),
          image_step_(image_step),
          indices_(2, maximum(near_[0] * window.kernel[0], near_[1] * window.kernel[1]) * sizeof(int64_t)) {
        for (int dim = 0; dim < 2; ++dim) {
            int64_t* index = indices_.part<int64_t>(dim);
            for (int64_t tap = 0; tap < window.kernel[dim]; ++tap) {
                for (int64_t i = 0; i < near_[dim]; ++i) {
                    *index++ = from_output ? input_of(dim, i, tap) : output_of(dim, i, tap);
                }
            }
        }
    }
    Taps(const Taps&) = delete;
    Taps& operator=(const Taps&) = delete;

    // The offset of the pixel that a tap leads to, or kNowhere, for `count` near pixels of the batch from `first` on.
    void follow(int64_t tap, int64_t first, int64_t count, int64_t* offsets) const {
        const int64_t* rows = indices_.part<int64_t>(0) + tap / window_.kernel[1] * near_[0];
        const int64_t* columns = indices_.part<int64_t>(1) + tap % window_.kernel[1] * near_[1];
        int64_t column = first % near_[1], row = first / near_[1] % near_[0], image = first / near_[1] / near_[0];
        for (int64_t i = 0; i < count;) {
            const int64_t begin = image * image_step_ + rows[row] * far_[1] * pixel_step_;
            const int64_t run = minimum(near_[1] - column, count - i);
            for (int64_t j = 0; j < run; ++j) {
                const bool exists = rows[row] >= 0 && columns[column + j] >= 0;
                offsets[i + j] = exists ? begin + columns[column + j] * pixel_step_ : kNowhere;
            }
            i += run;
            column = 0;
            row = row + 1 == near_[0] ? 0 : row + 1;
            image += row == 0;
        }
    }

 private:
    int64_t input_of(int dim, int64_t output, int64_t tap) const {
        const int64_t input = output * window_.stride[dim] - window_.padding[dim] + tap * window_.dilation[dim];
        return inside(input, window_.size[dim]) ? input : kNowhere;
    }
    int64_t output_of(int dim, int64_t input, int64_t tap) const {
        const int64_t distance = input + window_.padding[dim] - tap * window_.dilation[dim];
        const int64_t output = distance / window_.stride[dim];
        const bool exists = distance >= 0 && distance % window_.stride[dim] == 0;
        return exists && output < window_.out_size[dim] ? output : kNowhere;
    }

    const Window window_;
    const int64_t *near_, *far_;
    int64_t pixel_step_, image_step_;
    Buffer indices_;
};

}  // namespace
