// Batch norm and sign in one, and its gradient: passes over elements whose last dimension is the channel.
// The formulas are those of bnn/ops/norms.py.
#pragma once

#include "octet.h"
#include "random.h"

namespace {

constexpr double kSpreadOfNormal = 1.2533141373155001;  // sqrt(pi / 2), as in bnn/ops/norms.py
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

// Sums over the pixels of the kSums values that visit(..., values) sets for each element: sums[kSums][channels]; and
// the largest magnitude of the first of them, largest[channels], unless that is null.
template <int kSums, class Visit>
void channel_sums(const Layout& layout, double* sums, float* largest, int threads, const Visit& visit) {
    const int64_t channels = layout.channels, period = layout.period;
    const Buffer of_tasks(layout.tasks, kSums * channels * 8), of_places(threads, kSums * period * 8);
    const Buffer sizes(threads, period * 4);  // as integers, whose order is that of the magnitudes
    parallel_for(layout.tasks, threads, [&](int64_t task, int thread) {
        double *to = of_tasks.part<double>(task), *by_place = of_places.part<double>(thread);
        int32_t* size_by_place = sizes.part<int32_t>(thread);
        std::memset(by_place, 0, kSums * period * 8);
        for_octets(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
            Octet values[kSums];
            visit(element, byte, place, count, values);
            for (int i = 0; i < kSums; ++i) {
                if (count < 8) values[i] = select(first_lanes(count), values[i]);
                add_octet(by_place + i * period + place, values[i]);
            }
            if (largest) raise_octet(size_by_place + place, (Mask)magnitude(values[0]));
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
    if (!largest) return;
    for (int64_t c = 0; c < channels; ++c) {
        int32_t size = 0;
        for (int thread = 0; thread < threads; ++thread) {
            for (int64_t place = c; place < period; place += channels) {
                const int32_t of_place = sizes.part<int32_t>(thread)[place];
                size = of_place > size ? of_place : size;
            }
        }
        std::memcpy(largest + c, &size, sizeof size);
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

template <class Float>
void norm_sign_of(const Float* y, const float* bias, float eps, uint8_t* bits, uint8_t* inside, float* mean,
                  float* deviation, int64_t rows, int64_t pixels, int64_t channels, int threads) {
    const Layout layout(rows, pixels, channels);
    const Buffer sum_buffer(1, channels * 8), denominator_buffer(1, channels * 4);
    double* sums = sum_buffer.part<double>(0);
    float* denominator = denominator_buffer.part<float>(0);
    const auto set_means = [=](float* means, double factor) {
        for (int64_t c = 0; c < channels; ++c) means[c] = static_cast<float>(sums[c] / (rows * pixels) * factor);
    };

    channel_sums<1>(layout, sums, nullptr, threads, [=](int64_t element, int64_t, int64_t, int64_t count, Octet* values) {
        values[0] = load_octet(y + element, count);
    });
    set_means(mean, 1);
    const OfPlace means(layout, mean);
    const float* centre = means.data();

    channel_sums<1>(layout, sums, nullptr, threads, [=](int64_t element, int64_t, int64_t place, int64_t count, Octet* values) {
        values[0] = magnitude(load_octet(y + element, count) - load_octet(centre + place));
    });
    set_means(deviation, kSpreadOfNormal);
    for (int64_t c = 0; c < channels; ++c) denominator[c] = deviation[c] + eps;
    const OfPlace denominators(layout, denominator), biases(layout, bias);
    const float *scale = denominators.data(), *shift = biases.data();

    parallel_for(layout.tasks, threads, [&](int64_t task, int) {
        for_octets(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
            const Octet centred = load_octet(y + element, count) - load_octet(centre + place);
            const Octet x = centred / load_octet(scale + place) + load_octet(shift + place);
            bits[byte] = byte_of(~greater(Octet{}, x) & first_lanes(count));
            inside[byte] = byte_of(~greater(magnitude(x), Octet{} + 1) & first_lanes(count));
        });
    });
}

void norm_sign(const void* y, const float* bias, float eps, uint8_t* bits, uint8_t* inside, float* mean,
               float* deviation, int64_t rows, int64_t pixels, int64_t channels, int dtype,
               int threads) {
    with_dtype(dtype, [=](auto of) {
        const auto* floats = static_cast<const decltype(of)*>(y);
        norm_sign_of(floats, bias, eps, bits, inside, mean, deviation, rows, pixels, channels, threads);
    });
}

// Whole numbers within ±largest that are `v` on average; see bnn/ops/rounding.py.
inline Octet round_at_random(Octet v, float largest, uint32_t key, uint32_t first_index) {
    const Words kFactors = Words{0, 1, 2, 3, 4, 5, 6, 7} * kIndexFactor;
    const Words random = mix((kFactors + first_index * kIndexFactor) ^ key);  // random_bits of eight indices
    const Octet uniform = __builtin_convertvector((Mask)(random >> 8), Octet) * 0x1p-24f, floor = floor_of(v);
    const Octet rounded = floor + (Octet)(greater(v - floor, uniform) & (Mask)(Octet{} + 1));
    return clamped(rounded, Octet{} + largest);
}

// The gradient of a norm times its denominator, element by element; passed by value, for loops that store bytes to keep
// it in registers.
template <class Float>
struct CentredGradient {
    Octet operator()(int64_t element, int64_t byte, int64_t place, int64_t count) const {
        const Mask plus = mask_of(bits[byte]), within = mask_of(inside[byte]);
        const Octet of_plus = choose(within, load_octet(offsets[2] + place), load_octet(offsets[3] + place));
        const Octet of_minus = choose(within, load_octet(offsets[1] + place), load_octet(offsets[0] + place));
        return select(within, load_octet(grad + element, count)) - choose(plus, of_plus, of_minus);
    }

    const Float* grad;
    const uint8_t *bits, *inside;
    const float* offsets[4];  // what is taken off: below -1, below 0, up to 1, above
};

// What the gradient of a norm with sign is made of.
template <class Float>
class NormGradient {
   public:
    NormGradient(const Layout& layout, const Float* grad, const uint8_t* bits, const uint8_t* inside,
                 const float* denominator, const float* levels, float* grad_bias, float* bound, int64_t pixels,
                 int threads)
        : grad_(grad), bits_(bits), inside_(inside),
          offsets_{{layout, denominator}, {layout, denominator}, {layout, denominator}, {layout, denominator}} {
        const int64_t channels = layout.channels;
        const Buffer sum_buffer(1, 2 * channels * 8), offsets(1, 4 * channels * 4), sizes(1, channels * 4);
        double* sums = sum_buffer.part<double>(0);
        float *offset = offsets.part<float>(0), *largest = sizes.part<float>(0);
        channel_sums<2>(layout, sums, bound ? largest : nullptr, threads,
                        [=](int64_t element, int64_t byte, int64_t, int64_t count, Octet* values) {
                            values[0] = select(mask_of(inside[byte]), load_octet(grad + element, count));
                            values[1] = choose(mask_of(bits[byte]), values[0], -values[0]);
                        });
        for (int64_t c = 0; c < channels; ++c) {
            const double mean = sums[c] / pixels, by_sign = sums[channels + c] / pixels;
            const double minus = levels[channels + c] * ((mean - by_sign) / 2);
            const double along = minus + levels[2 * channels + c] * ((mean + by_sign) / 2);
            grad_bias[c] = static_cast<float>(sums[c]);
            for (int64_t i = c; i < 4 * channels; i += channels) {
                offset[i] = static_cast<float>(mean + along * levels[i]);
            }
        }
        if (bound) set_bound(bound, largest, offset, denominator, channels);
        for (int i = 0; i < 4; ++i) offsets_[i].set(layout, offset + i * channels);
    }

    CentredGradient<Float> centred() const {
        return {grad_, bits_, inside_, {offsets_[0].data(), offsets_[1].data(), offsets_[2].data(), offsets_[3].data()}};
    }

   private:
    // See bnn/ops/norms.py.
    static void set_bound(float* bound, const float* largest, const float* offset, const float* denominator,
                          int64_t channels) {
        for (int64_t c = 0; c < channels; ++c) {
            float size = 0;
            for (int64_t i = c; i < 4 * channels; i += channels) {
                const float of_level = __builtin_fabsf(offset[i]);
                if (size == size && !(of_level <= size)) size = of_level;  // a NaN stays
            }
            const float most = (largest[c] + size) / denominator[c];
            if (*bound == *bound && !(most <= *bound)) *bound = most;  // a NaN stays
        }
    }

    const Float* grad_;
    const uint8_t *bits_, *inside_;
    OfPlace offsets_[4];
};

void norm_sign_backward(const void* grad, const uint8_t* bits, const uint8_t* inside, const float* denominator,
                        const float* levels, void* grad_y, float* grad_bias, int64_t rows, int64_t pixels,
                        int64_t channels, int dtype, int threads) {
    const Layout layout(rows, pixels, channels);
    with_dtype(dtype, [&](auto of) {
        using Float = decltype(of);
        const NormGradient<Float> gradient(layout, static_cast<const Float*>(grad), bits, inside, denominator, levels,
                                           grad_bias, nullptr, rows * pixels, threads);
        const OfPlace denominators(layout, denominator);
        const float* denominator_of_place = denominators.data();
        const auto centred = gradient.centred();
        parallel_for(layout.tasks, threads, [&](int64_t task, int) {
            for_octets(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
                const Octet value = centred(element, byte, place, count) / load_octet(denominator_of_place + place);
                store_octet(static_cast<Float*>(grad_y) + element, value, count);
            });
        });
    });
}

float norm_sign_backward_integers(const void* grad, const uint8_t* bits, const uint8_t* inside,
                                  const float* denominator, const float* levels, int8_t* grad_y, float* grad_bias,
                                  int64_t rows, int64_t pixels, int64_t channels, int dtype, int32_t largest,
                                  uint32_t key, int threads) {
    const Layout layout(rows, pixels, channels);
    float scale = 0;
    with_dtype(dtype, [&](auto of) {
        using Float = decltype(of);
        float bound = 0;
        const NormGradient<Float> gradient(layout, static_cast<const Float*>(grad), bits, inside, denominator, levels,
                                           grad_bias, &bound, rows * pixels, threads);
        scale = bound / static_cast<float>(largest);
        if (scale < 0x1p-126f) scale = 0;
        const float inverse = scale == 0 ? 0 : 1 / scale;
        if (!(bound - bound == 0)) return;
        const Buffer of_channels(1, channels * 4);
        float* factor = of_channels.part<float>(0);
        for (int64_t c = 0; c < channels; ++c) factor[c] = inverse / denominator[c];
        const OfPlace factors(layout, factor);
        const float* factor_of_place = factors.data();
        const auto centred = gradient.centred();
        const auto rounded = [=](Octet value, int64_t element) {
            return round_at_random(value, static_cast<float>(largest), key, static_cast<uint32_t>(element));
        };
        parallel_for(layout.tasks, threads, [&](int64_t task, int) {
            for_octets(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
                const Octet value = centred(element, byte, place, count) * load_octet(factor_of_place + place);
                store_octet(grad_y + element, rounded(value, element), count);
            });
        });
    });
    return scale;
}

}  // namespace
