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
        : window_(window),
          near_{{0, window.out_size[0], 1}, {0, window.out_size[1], 1}},
          far_{{window.size[0], window.stride[0]}, {window.size[1], window.stride[1]}},
          pixel_step_(pixel_step),
          image_step_(image_step),
          taps_(2, maximum(window.kernel[0], window.kernel[1]) * sizeof(Tap)) {
        for (int dim = 0; dim < 2; ++dim) {
            for (int64_t tap = 0; tap < window.kernel[dim]; ++tap) {
                add_tap(dim, tap, -window.padding[dim] + tap * window.dilation[dim]);
            }
        }
    }
    // From the input, of which there are `phases`.
    Taps(const Window& window, int64_t phase, int64_t pixel_step, int64_t image_step)
        : window_(window),
          near_{side(window, 0, phase / window.stride[1]), side(window, 1, phase % window.stride[1])},
          far_{{window.out_size[0], 1}, {window.out_size[1], 1}},
          pixel_step_(pixel_step),
          image_step_(image_step),
          taps_(2, maximum(window.kernel[0], window.kernel[1]) * sizeof(Tap)) {
        for (int dim = 0; dim < 2; ++dim) {
            for (int64_t tap = 0; tap < window.kernel[dim]; ++tap) {
                const int64_t distance = near_[dim].first + window.padding[dim] - tap * window.dilation[dim];
                if (distance % window.stride[dim] == 0) add_tap(dim, tap, distance / window.stride[dim]);
            }
        }
    }
    Taps(const Taps&) = delete;
    Taps& operator=(const Taps&) = delete;

    static int64_t phases(const Window& window) { return window.stride[0] * window.stride[1]; }

    int64_t pixels() const { return window_.images * image_pixels(); }
    int64_t image_pixels() const { return near_[0].count * near_[1].count; }
    int64_t rows() const { return near_[0].count; }
    int64_t row_pixels() const { return near_[1].count; }
    int64_t count() const { return counts_[0] * counts_[1]; }
    // Which one of the kernel's taps the `index`th of these is.
    int64_t of_kernel(int64_t index) const {
        return tap(0, index).number * window_.kernel[1] + tap(1, index).number;
    }

    // The rows [begin, end) of a far image that hold all that taps lead to from `rows` near ones, from the one at `row` on.
    void far_rows(int64_t row, int64_t rows, int64_t& begin, int64_t& end) const {
        begin = far_[0].size;
        end = 0;
        for (int64_t i = 0; i < counts_[0]; ++i) {
            const int64_t first = taps_.part<Tap>(0)[i].first + row * far_[0].step;
            begin = minimum(begin, maximum(first, 0));
            end = maximum(end, minimum(first + (rows - 1) * far_[0].step + 1, far_[0].size));
        }
        begin = minimum(begin, end);
    }

    // Calls task(offset, distance, pixels) for each stretch of near pixels, of the `count` from `first` on, whose tap
    // leads to pixels that begin at `offset` and lie `distance` apart, or nowhere: then `offset` is kNowhere.
    template <class Task>
    void for_stretches(int64_t index, int64_t first, int64_t count, const Task& task) const {
        const Tap &vertical = tap(0, index), &horizontal = tap(1, index);
        const int64_t distance = far_[1].step * pixel_step_;
        for_runs(first, count, [&](int64_t image, int64_t row, int64_t column, int64_t run) {
            const int64_t end = column + run;
            const bool row_exists = vertical.begin <= row && row < vertical.end;
            const int64_t from = row_exists ? minimum(maximum(horizontal.begin, column), end) : end;
            const int64_t to = row_exists ? minimum(maximum(horizontal.end, from), end) : end;
            const int64_t far_row = vertical.first + row * far_[0].step;
            const int64_t far_column = horizontal.first + from * far_[1].step;
            if (column < from) task(kNowhere, distance, from - column);
            if (from < to) {
                task(image * image_step_ + (far_row * far_[1].size + far_column) * pixel_step_, distance, to - from);
            }
            if (to < end) task(kNowhere, distance, end - to);
        });
    }

    // Calls task(image, pixel in the image, distance, pixels) for each stretch of near pixels of the input themselves.
    template <class Task>
    void for_own_stretches(int64_t first, int64_t count, const Task& task) const {
        for_runs(first, count, [&](int64_t image, int64_t row, int64_t column, int64_t run) {
            task(image, near_[0].at(row) * window_.size[1] + near_[1].at(column), near_[1].step, run);
        });
    }

   private:
    struct Near {
        int64_t first, count, step;
        int64_t at(int64_t index) const { return first + index * step; }
    };
    struct Far {
        int64_t size, step;  // the step that a step on the near side leads to
    };
    // A tap of a dimension, by its number in the kernel: the near index i leads to first + i * step, where it is one of
    // [begin, end).
    struct Tap {
        int64_t number, first, begin, end;
    };

    static Near side(const Window& window, int dim, int64_t phase) {
        return {phase, maximum(divide_up(window.size[dim] - phase, window.stride[dim]), 0), window.stride[dim]};
    }

    void add_tap(int dim, int64_t number, int64_t first) {
        const Far& far = far_[dim];
        const int64_t begin = first < 0 ? divide_up(-first, far.step) : 0;
        const int64_t end = first < far.size ? divide_up(far.size - first, far.step) : 0;
        taps_.part<Tap>(dim)[counts_[dim]++] = {number, first, begin, minimum(end, near_[dim].count)};
    }

    const Tap& tap(int dim, int64_t index) const {
        return taps_.part<Tap>(dim)[dim == 0 ? index / counts_[1] : index % counts_[1]];
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
    Near near_[2];
    Far far_[2];
    int64_t pixel_step_, image_step_;
    int64_t counts_[2] = {};
    Buffer taps_;
};

}  // namespace
