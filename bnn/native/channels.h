// Passes over elements whose last dimension is the channel: how they are cut into tasks, sums of each channel, and values of
// each channel beside the elements.
#pragma once

#include "wide.h"

namespace {

constexpr int64_t kRunPixels = 256;  // of one run; a multiple of every period's pixels

// How rows of pixels of channels are cut: a run is a piece of a row, a task is a few runs, or with `row_tasks` a row.
// Neither depends on the number of threads, so that sums do not, either.
struct Layout {
    Layout(int64_t row_count, int64_t row_pixels, int64_t channels, bool row_tasks = false)
        : rows(row_count), row_elements(row_pixels * channels), channels(channels), period(channels) {
        if (row_elements % 8 == 0 && !row_tasks) {  // rows without a gap are one long row
            row_pixels *= rows;
            row_elements *= rows;
            rows = 1;
        }
        while (period % kMostWide || period < 64) period *= 2;
        run_elements = kRunPixels * channels;
        row_runs = divide_up(row_elements, run_elements);
        task_runs = row_tasks ? row_runs : maximum(1, kRunPixels / row_pixels);
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

// Adds kSums values of each of a task's elements to by_place[kSums][period], and raises sizes[kSizes][period], the bits of
// the magnitudes of kSizes more, whose order is that of whole numbers; visit(..., values) sets them all.
template <int kSums, int kSizes, class Visit>
inline void visit_task(const Layout& layout, int64_t task, double* by_place, int32_t* sizes, const Visit& visit) {
    const int64_t period = layout.period;
    for_wide(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
        Wide values[kSums + kSizes];
        visit(element, byte, place, count, values);
        for (int i = 0; i < kSums + kSizes; ++i) {
            if (count < kWide) values[i] = select_wide(first_truths(count), values[i]);
        }
        for (int i = 0; i < kSums; ++i) add_wide(by_place + i * period + place, values[i]);
        for (int i = 0; i < kSizes; ++i) raise_wide(sizes + i * period + place, values[kSums + i]);
    });
}

// Adds the sums of a period's places to to[kSums][channels].
template <int kSums>
inline void add_places(const Layout& layout, const double* by_place, double* to) {
    const int64_t channels = layout.channels, period = layout.period;
    for (int i = 0; i < kSums; ++i) {
        for (int64_t place = 0; place < period; ++place) to[i * channels + place % channels] += by_place[i * period + place];
    }
}

// Raises to[kSizes][channels] to the sizes of a period's places.
template <int kSizes>
inline void raise_to_places(const Layout& layout, const int32_t* by_place, int32_t* to) {
    const int64_t channels = layout.channels, period = layout.period;
    for (int i = 0; i < kSizes; ++i) {
        for (int64_t place = 0; place < period; ++place) {
            int32_t& size = to[i * channels + place % channels];
            if (by_place[i * period + place] > size) size = by_place[i * period + place];
        }
    }
}

// Sums over all pixels of kSums values and the largest magnitudes of kSizes more, task by task.
template <int kSums, int kSizes>
class ChannelSums {
   public:
    ChannelSums(const Layout& layout, int threads)
        : layout_(layout),
          threads_(threads),
          of_tasks_(layout.tasks, kSums * layout.channels * 8),
          of_places_(threads, kSums * layout.period * 8),
          size_parts_(threads, kSizes * layout.period * 4) {}

    template <class Visit>
    void add(int64_t task, int thread, const Visit& visit) const {
        double* by_place = of_places_.part<double>(thread);
        std::memset(by_place, 0, kSums * layout_.period * 8);
        visit_task<kSums, kSizes>(layout_, task, by_place, size_parts_.part<int32_t>(thread), visit);
        add_places<kSums>(layout_, by_place, of_tasks_.part<double>(task));
    }

    // Of all tasks, in their order: sums[kSums][channels] and sizes[kSizes][channels].
    void store(double* sums, float* sizes) const {
        const int64_t count = kSums * layout_.channels;
        std::memset(sums, 0, count * 8);
        for (int64_t task = 0; task < layout_.tasks; ++task) {
            for (int64_t i = 0; i < count; ++i) sums[i] += of_tasks_.part<double>(task)[i];
        }
        const Buffer largest(1, kSizes * layout_.channels * 4);
        for (int thread = 0; thread < threads_; ++thread) {
            raise_to_places<kSizes>(layout_, size_parts_.part<int32_t>(thread), largest.part<int32_t>(0));
        }
        if (kSizes) std::memcpy(sizes, largest.part<float>(0), kSizes * layout_.channels * 4);
    }

   private:
    const Layout& layout_;
    int threads_;
    Buffer of_tasks_, of_places_, size_parts_;
};

template <int kSums, int kSizes, class Visit>
void channel_sums(const Layout& layout, double* sums, float* sizes, int threads, const Visit& visit) {
    const ChannelSums<kSums, kSizes> of_channels(layout, threads);
    parallel_for(layout.tasks, threads, [&](int64_t task, int thread) { of_channels.add(task, thread, visit); });
    of_channels.store(sums, sizes);
}

// The same of each row: sums[rows][kSums][channels] and sizes[rows][kSizes][channels], which are clear; `layout` has a task
// a row.
template <int kSums, int kSizes, class Visit>
void row_sums(const Layout& layout, double* sums, float* sizes, int threads, const Visit& visit) {
    const Buffer of_places(threads, kSums * layout.period * 8), size_parts(threads, kSizes * layout.period * 4);
    parallel_for(layout.tasks, threads, [&](int64_t row, int thread) {
        double* by_place = of_places.part<double>(thread);
        int32_t* size_by_place = size_parts.part<int32_t>(thread);
        std::memset(by_place, 0, kSums * layout.period * 8);
        std::memset(size_by_place, 0, kSizes * layout.period * 4);
        visit_task<kSums, kSizes>(layout, row, by_place, size_by_place, visit);
        add_places<kSums>(layout, by_place, sums + row * kSums * layout.channels);
        raise_to_places<kSizes>(layout, size_by_place,
                                reinterpret_cast<int32_t*>(sizes) + row * kSizes * layout.channels);
    });
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
