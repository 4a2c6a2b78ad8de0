// Where the taps of a convolution's windows lead: from the pixels of its output to those of its input, or back.
#pragma once

#include "window.h"

namespace {

constexpr int64_t kNowhere = -1;

// The way back begins at the input's pixels of one phase: those whose row and column leave certain rests when divided by
// the strides. From all of them the same taps of the kernel lead to pixels of the output; the other taps lead nowhere.
class Taps {
   public:
    // From the output. Pixels of the far side lie `pixel_step` apart, images `image_step`.
    Taps(const Window& window, int64_t pixel_step, int64_t image_step)
        : Taps(window, {{0, window.out_size[0], 1}, {0, window.out_size[1], 1}}, window.size, pixel_step, image_step) {
        for (int dim = 0; dim < 2; ++dim) {
            for (int64_t tap = 0; tap < window.kernel[dim]; ++tap) {
                add_tap(dim, tap, -window.padding[dim] + tap * window.dilation[dim], window.stride[dim]);
            }
        }
    }
    // From the input, of which there are `phases`.
    Taps(const Window& window, int64_t phase, int64_t pixel_step, int64_t image_step)
        : Taps(window, {side(window, 0, phase / window.stride[1]), side(window, 1, phase % window.stride[1])},
               window.out_size, pixel_step, image_step) {
        for (int dim = 0; dim < 2; ++dim) {
            for (int64_t tap = 0; tap < window.kernel[dim]; ++tap) {
                const int64_t distance = near_[dim].first + window.padding[dim] - tap * window.dilation[dim];
                if (distance % window.stride[dim] == 0) add_tap(dim, tap, distance / window.stride[dim], 1);
            }
        }
    }
    Taps(const Taps&) = delete;
    Taps& operator=(const Taps&) = delete;

    static int64_t phases(const Window& window) { return window.stride[0] * window.stride[1]; }

    int64_t pixels() const { return window_.images * near_[0].count * near_[1].count; }
    int64_t count() const { return taps_[0] * taps_[1]; }
    // Which one of the kernel's taps the `index`th of these is.
    int64_t of_kernel(int64_t index) const {
        const int64_t row = numbers_.part<int64_t>(0)[index / taps_[1]];
        return row * window_.kernel[1] + numbers_.part<int64_t>(1)[index % taps_[1]];
    }

    // The offset of the pixel that a tap leads to, or kNowhere, for `count` near pixels of the batch from `first` on.
    void follow(int64_t index, int64_t first, int64_t count, int64_t* offsets) const {
        const int64_t* rows = targets_.part<int64_t>(0) + index / taps_[1] * near_[0].count;
        const int64_t* columns = targets_.part<int64_t>(1) + index % taps_[1] * near_[1].count;
        for_runs(first, count, [&](int64_t image, int64_t row, int64_t column, int64_t run) {
            const int64_t begin = image * image_step_ + rows[row] * far_size_[1] * pixel_step_;
            for (int64_t j = column; j < column + run; ++j) {
                const bool exists = rows[row] >= 0 && columns[j] >= 0;
                *offsets++ = exists ? begin + columns[j] * pixel_step_ : kNowhere;
            }
        });
    }

    // The offsets of the near pixels of the input themselves.
    void stay(int64_t first, int64_t count, int64_t pixel_step, int64_t image_step, int64_t* offsets) const {
        for_runs(first, count, [&](int64_t image, int64_t row, int64_t column, int64_t run) {
            const int64_t begin = image * image_step + near_[0].at(row) * window_.size[1] * pixel_step;
            for (int64_t j = column; j < column + run; ++j) *offsets++ = begin + near_[1].at(j) * pixel_step;
        });
    }

   private:
    struct Side {
        int64_t first, count, step;
        int64_t at(int64_t index) const { return first + index * step; }
    };

    Taps(const Window& window, const Side (&near)[2], const int64_t (&far_size)[2], int64_t pixel_step,
         int64_t image_step)
        : window_(window),
          near_{near[0], near[1]},
          far_size_{far_size[0], far_size[1]},
          pixel_step_(pixel_step),
          image_step_(image_step),
          numbers_(2, maximum(window.kernel[0], window.kernel[1]) * sizeof(int64_t)),
          targets_(2, maximum(near[0].count * window.kernel[0], near[1].count * window.kernel[1]) * sizeof(int64_t)) {}

    static Side side(const Window& window, int dim, int64_t phase) {
        return {phase, maximum(divide_up(window.size[dim] - phase, window.stride[dim]), 0), window.stride[dim]};
    }

    // A tap that leads from the near pixel i to first + i * step of the far side.
    void add_tap(int dim, int64_t number, int64_t first, int64_t step) {
        const int64_t index = taps_[dim]++, count = near_[dim].count;
        numbers_.part<int64_t>(dim)[index] = number;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t target = first + i * step;
            targets_.part<int64_t>(dim)[index * count + i] = inside(target, far_size_[dim]) ? target : kNowhere;
        }
    }

    // Calls task(image, row, column, pixels) for each part of a row of near pixels.
    template <class Task>
    void for_runs(int64_t first, int64_t count, const Task& task) const {
        const int64_t width = near_[1].count;
        for (int64_t pixel = first; pixel < first + count;) {
            const int64_t column = pixel % width, row = pixel / width;
            const int64_t run = minimum(width - column, first + count - pixel);
            task(row / near_[0].count, row % near_[0].count, column, run);
            pixel += run;
        }
    }

    const Window window_;
    Side near_[2];
    int64_t far_size_[2], pixel_step_, image_step_;
    int64_t taps_[2] = {};
    Buffer numbers_, targets_;
};

}  // namespace
