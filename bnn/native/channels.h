// Passes over elements whose last dimension is the channel: how they are cut into tasks, sums of each channel, and values of
// each channel beside the elements.
#pragma once

#include "wide.h"

namespace {

constexpr int64_t kRunPixels = 256;  // of one run; a multiple of every period's pixels

// How rows of pixels of channels are cut: a run is a piece of a row, a task is a few runs. Neither depends on the
// number of threads, so that sums do not, either.
struct Layout {
    Layout(int64_t row_count, int64_t row_pixels, int64_t channels)
        : rows(row_count), row_elements(row_pixels * channels), channels(channels), period(channels) {
        if (row_elements % 8 == 0) {  // rows without a gap are one long row
            row_pixels *= rows;
            row_elements *= rows;
            rows = 1;
        }
        while (period % kMostWide || period < 64) period *= 2;
        run_elements = kRunPixels * channels;
        row_runs = divide_up(row_elements, run_elements);
        task_runs = maximum(1, kRunPixels / row_pixels);
        tasks = divide_up(rows * row_runs, task_runs);
    }

    int64_t rows, row_elements, channels;
    int64_t period;  // elements after which a vector's channels come again; long enough to keep additions apart
    int64_t run_elements, row_runs, task_runs, tasks;
};

// Calls visit(first element, its byte, its place in the period, elements) for each vector of a task.
template <class Visit>
inline void for_wide(const Layout& layout, int64_t task, const Visit& visit) {
    const int64_t end = minimum((task + 1) * layout.task_runs, layout.rows * layout.row_runs), period = layout.period;
    for (int64_t run = task * layout.task_runs; run < end; ++run) {
        const int64_t row = run / layout.row_runs, first = run % layout.row_runs * layout.run_elements;
        const int64_t element = row * layout.row_elements + first;
        const int64_t byte = row * packed_bytes(layout.row_elements) + first / 8;
        const int64_t count = minimum(layout.run_elements, layout.row_elements - first);
        const int64_t whole = count / kWide * kWide;
        int64_t place = 0;
        for (int64_t i = 0; i < whole; i += kWide) {
            visit(element + i, byte + i / 8, place, kWide);
            place = place + kWide == period ? 0 : place + kWide;
        }
        if (whole < count) visit(element + whole, byte + whole / 8, place, count - whole);
    }
}

// Sums over the pixels of kSums values, sums[kSums][channels], and the largest magnitudes of kSizes more,
// sizes[kSizes][channels]; visit(..., values) sets them all, for each element.
template <int kSums, int kSizes, class Visit>
void channel_sums(const Layout& layout, double* sums, float* sizes, int threads, const Visit& visit) {
    const int64_t channels = layout.channels, period = layout.period;
    const Buffer of_tasks(layout.tasks, kSums * channels * 8), of_places(threads, kSums * period * 8);
    const Buffer size_parts(threads, kSizes * period * 4);  // as integers, whose order is that of the magnitudes
    parallel_for(layout.tasks, threads, [&](int64_t task, int thread) {
        double *to = of_tasks.part<double>(task), *by_place = of_places.part<double>(thread);
        int32_t* size_by_place = size_parts.part<int32_t>(thread);
        std::memset(by_place, 0, kSums * period * 8);
        for_wide(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
            Wide values[kSums + kSizes];
            visit(element, byte, place, count, values);
            for (int i = 0; i < kSums + kSizes; ++i) {
                if (count < kWide) values[i] = select_wide(first_truths(count), values[i]);
            }
            for (int i = 0; i < kSums; ++i) add_wide(by_place + i * period + place, values[i]);
            for (int i = 0; i < kSizes; ++i) raise_wide(size_by_place + i * period + place, values[kSums + i]);
        });
        for (int i = 0; i < kSums; ++i) {
            for (int64_t place = 0; place < period; ++place) {
                to[i * channels + place % channels] += by_place[i * period + place];
            }
        }
    });
    std::memset(sums, 0, kSums * channels * 8);
    for (int64_t task = 0; task < layout.tasks; ++task) {
        for (int64_t i = 0; i < kSums * channels; ++i) sums[i] += of_tasks.part<double>(task)[i];
    }
    for (int64_t i = 0; i < kSizes * channels; ++i) {
        int32_t size = 0;
        for (int thread = 0; thread < threads; ++thread) {
            const int32_t* parts = size_parts.part<int32_t>(thread) + i / channels * period;
            for (int64_t place = i % channels; place < period; place += channels) {
                size = parts[place] > size ? parts[place] : size;
            }
        }
        std::memcpy(sizes + i, &size, sizeof size);
    }
}

// One value a channel, repeated over a period.
class OfPlace {
   public:
    OfPlace(const Layout& layout, const float* of_channel) : buffer_(1, layout.period * 4) { set(layout, of_channel); }

    void set(const Layout& layout, const float* of_channel) {
        for (int64_t i = 0; i < layout.period; ++i) buffer_.part<float>(0)[i] = of_channel[i % layout.channels];
    }
    const float* data() const { return buffer_.part<float>(0); }

   private:
    Buffer buffer_;
};
}  // namespace
