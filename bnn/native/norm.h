// Batch norm and sign in one, and its gradient: passes over elements whose last dimension is the channel.
// The formulas are those of bnn/ops/fused.py.
#pragma once

#include "octet.h"

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
        while (period % 8 || period < 64) period *= 2;
        run_elements = kRunPixels * channels;
        row_runs = divide_up(row_elements, run_elements);
        task_runs = maximum(1, kRunPixels / row_pixels);
        tasks = divide_up(rows * row_runs, task_runs);
    }

    int64_t rows, row_elements, channels;
    int64_t period;  // elements after which an octet's channels come again; long enough to keep additions apart
    int64_t run_elements, row_runs, task_runs, tasks;
};

// Calls visit(first element, its byte, its place in the period, elements) for each octet of a task.
template <class Visit>
inline void for_octets(const Layout& layout, int64_t task, const Visit& visit) {
    const int64_t end = minimum((task + 1) * layout.task_runs, layout.rows * layout.row_runs), period = layout.period;
    for (int64_t run = task * layout.task_runs; run < end; ++run) {
        const int64_t row = run / layout.row_runs, first = run % layout.row_runs * layout.run_elements;
        const int64_t element = row * layout.row_elements + first;
        const int64_t byte = row * packed_bytes(layout.row_elements) + first / 8;
        const int64_t count = minimum(layout.run_elements, layout.row_elements - first), whole = count / 8 * 8;
        int64_t place = 0;
        for (int64_t i = 0; i < whole; i += 8) {
            visit(element + i, byte + i / 8, place, 8);
            place = place + 8 == period ? 0 : place + 8;
        }
        if (whole < count) visit(element + whole, byte + whole / 8, place, count - whole);
    }
}

// Sums over the pixels of the kSums values that visit(..., values) sets for each element: sums[kSums][channels].
template <int kSums, class Visit>
void channel_sums(const Layout& layout, double* sums, int threads, const Visit& visit) {
    const int64_t channels = layout.channels, period = layout.period;
    const Buffer of_tasks(layout.tasks, kSums * channels * 8), of_places(threads, kSums * period * 8);
    parallel_for(layout.tasks, threads, [&](int64_t task, int thread) {
        double *to = of_tasks.part<double>(task), *by_place = of_places.part<double>(thread);
        std::memset(by_place, 0, kSums * period * 8);
        for_octets(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
            Octet values[kSums];
            visit(element, byte, place, count, values);
            for (int i = 0; i < kSums; ++i) {
                if (count < 8) values[i] = select(first_lanes(count), values[i]);
                add_octet(by_place + i * period + place, values[i]);
            }
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
}

// One value a channel, repeated over a period.
class OfPlace {
   public:
    OfPlace(const Layout& layout, const float* of_channel) : buffer_(1, layout.period * 4) {
        for (int64_t i = 0; i < layout.period; ++i) buffer_.part<float>(0)[i] = of_channel[i % layout.channels];
    }
    const float* data() const { return buffer_.part<float>(0); }

   private:
    Buffer buffer_;
};

template <class Float>
void norm_sign_of(const Float* y, const float* bias, float eps, uint8_t* bits, uint8_t* inside, float* mean,
                  float* deviation, float* omega, int64_t rows, int64_t pixels, int64_t channels, int threads) {
    const Layout layout(rows, pixels, channels);
    const Buffer sum_buffer(1, channels * 8), psi_buffer(1, channels * 4);
    double* sums = sum_buffer.part<double>(0);
    float* psi = psi_buffer.part<float>(0);
    const auto set_means = [=](float* means) {
        for (int64_t c = 0; c < channels; ++c) means[c] = static_cast<float>(sums[c] / (rows * pixels));
    };

    channel_sums<1>(layout, sums, threads, [=](int64_t element, int64_t, int64_t, int64_t count, Octet* values) {
        values[0] = load_octet(y + element, count);
    });
    set_means(mean);
    const OfPlace means(layout, mean);
    const float* centre = means.data();

    channel_sums<1>(layout, sums, threads, [=](int64_t element, int64_t, int64_t place, int64_t count, Octet* values) {
        values[0] = magnitude(load_octet(y + element, count) - load_octet(centre + place));
    });
    set_means(deviation);
    for (int64_t c = 0; c < channels; ++c) psi[c] = deviation[c] + eps;
    const OfPlace psis(layout, psi), biases(layout, bias);
    const float *scale = psis.data(), *shift = biases.data();

    channel_sums<1>(layout, sums, threads,
                    [=](int64_t element, int64_t byte, int64_t place, int64_t count, Octet* values) {
                        const Octet centred = load_octet(y + element, count) - load_octet(centre + place);
                        const Octet x = centred / load_octet(scale + place) + load_octet(shift + place);
                        values[0] = magnitude(x);
                        bits[byte] = byte_of(~greater(Octet{}, x) & first_lanes(count));
                        inside[byte] = byte_of(~greater(values[0], Octet{} + 1) & first_lanes(count));
                    });
    set_means(omega);
}

void norm_sign(const void* y, const float* bias, float eps, uint8_t* bits, uint8_t* inside, float* mean,
               float* deviation, float* omega, int64_t rows, int64_t pixels, int64_t channels, int itemsize,
               int threads) {
    const auto run = [=](const auto* floats) {
        norm_sign_of(floats, bias, eps, bits, inside, mean, deviation, omega, rows, pixels, channels, threads);
    };
    itemsize == 2 ? run(static_cast<const BFloat16*>(y)) : run(static_cast<const float*>(y));
}

template <class Float>
void norm_sign_backward_of(const Float* grad, const uint8_t* bits, const uint8_t* inside, const float* psi,
                           const float* omega, Float* grad_y, float* grad_bias, int64_t rows, int64_t pixels,
                           int64_t channels, int threads) {
    const Layout layout(rows, pixels, channels);
    const Buffer sum_buffer(1, 2 * channels * 8), offsets(2, channels * 4);
    double* sums = sum_buffer.part<double>(0);
    float *if_plus = offsets.part<float>(0), *if_minus = offsets.part<float>(1);

    channel_sums<2>(layout, sums, threads, [=](int64_t element, int64_t byte, int64_t, int64_t count, Octet* values) {
        values[0] = select(mask_of(inside[byte]), load_octet(grad + element, count));
        values[1] = choose(mask_of(bits[byte]), values[0], -values[0]);
    });
    for (int64_t c = 0; c < channels; ++c) {
        const double along_signs = omega[c] * (sums[channels + c] / (rows * pixels)), mean = sums[c] / (rows * pixels);
        grad_bias[c] = static_cast<float>(sums[c]);
        if_plus[c] = static_cast<float>(mean + along_signs);
        if_minus[c] = static_cast<float>(mean - along_signs);
    }
    const OfPlace psis(layout, psi), pluses(layout, if_plus), minuses(layout, if_minus);
    const float *scale = psis.data(), *plus = pluses.data(), *minus = minuses.data();

    parallel_for(layout.tasks, threads, [&](int64_t task, int) {
        for_octets(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
            const Octet passed = select(mask_of(inside[byte]), load_octet(grad + element, count));
            const Octet offset = choose(mask_of(bits[byte]), load_octet(plus + place), load_octet(minus + place));
            store_octet(grad_y + element, (passed - offset) / load_octet(scale + place), count);
        });
    });
}

void norm_sign_backward(const void* grad, const uint8_t* bits, const uint8_t* inside, const float* psi,
                        const float* omega, void* grad_y, float* grad_bias, int64_t rows, int64_t pixels,
                        int64_t channels, int itemsize, int threads) {
    const auto run = [=](const auto* from, auto* to) {
        norm_sign_backward_of(from, bits, inside, psi, omega, to, grad_bias, rows, pixels, channels, threads);
    };
    itemsize == 2 ? run(static_cast<const BFloat16*>(grad), static_cast<BFloat16*>(grad_y))
                  : run(static_cast<const float*>(grad), static_cast<float*>(grad_y));
}

}  // namespace
