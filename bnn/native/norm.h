// Batch norm by mean absolute deviation and sign in one, and its gradient. The formulas are those of bnn/ops/norms.py.
#pragma once

#include "channels.h"

namespace {

constexpr double kSpreadOfNormal = 1.2533141373155001;  // sqrt(pi / 2), as in bnn/ops/norms.py

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

    channel_sums<1, 0>(layout, sums, nullptr, threads, [=](int64_t element, int64_t, int64_t, int64_t count, Wide* values) {
        values[0] = load_wide(y + element, count);
    });
    set_means(mean, 1);
    const OfPlace means(layout, mean);
    const float* centre = means.data();

    channel_sums<1, 0>(layout, sums, nullptr, threads, [=](int64_t element, int64_t, int64_t place, int64_t count, Wide* values) {
        values[0] = magnitude(load_wide(y + element, count) - load_wide(centre + place));
    });
    set_means(deviation, kSpreadOfNormal);
    for (int64_t c = 0; c < channels; ++c) denominator[c] = deviation[c] + eps;
    const OfPlace denominators(layout, denominator), biases(layout, bias);
    const float *scale = denominators.data(), *shift = biases.data();

    parallel_for(layout.tasks, threads, [&](int64_t task, int) {
        for_wide(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
            const Wide centred = load_wide(y + element, count) - load_wide(centre + place);
            const Wide x = centred / load_wide(scale + place) + load_wide(shift + place);
            const Truths lanes = first_truths(count);
            store_truths(bits + byte, both(opposite(greater(Wide{}, x)), lanes), count);
            store_truths(inside + byte, both(opposite(greater(magnitude(x), all_wide(1))), lanes), count);
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

// The gradient of a norm times its denominator, element by element; passed by value, for loops that store bytes to keep
// it in registers.
template <class Float>
struct CentredGradient {
    Wide operator()(int64_t element, int64_t byte, int64_t place, int64_t count) const {
        const Truths plus = load_truths(bits + byte, count), within = load_truths(inside + byte, count);
        const Wide of_plus = choose_wide(within, load_wide(offsets[2] + place), load_wide(offsets[3] + place));
        const Wide of_minus = choose_wide(within, load_wide(offsets[1] + place), load_wide(offsets[0] + place));
        return select_wide(within, load_wide(grad + element, count)) - choose_wide(plus, of_plus, of_minus);
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
                 const float* denominator, const float* levels, float* grad_bias, int64_t pixels, int threads)
        : grad_(grad), bits_(bits), inside_(inside),
          offsets_{{layout, denominator}, {layout, denominator}, {layout, denominator}, {layout, denominator}} {
        const int64_t channels = layout.channels;
        const Buffer sum_buffer(1, 2 * channels * 8), offsets(1, 4 * channels * 4);
        double* sums = sum_buffer.part<double>(0);
        float* offset = offsets.part<float>(0);
        channel_sums<2, 0>(layout, sums, nullptr, threads,
                           [=](int64_t element, int64_t byte, int64_t, int64_t count, Wide* values) {
                               const Truths within = load_truths(inside + byte, count);
                               values[0] = select_wide(within, load_wide(grad + element, count));
                               values[1] = choose_wide(load_truths(bits + byte, count), values[0], -values[0]);
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
        for (int i = 0; i < 4; ++i) offsets_[i].set(layout, offset + i * channels);
    }

    CentredGradient<Float> centred() const {
        return {grad_, bits_, inside_, {offsets_[0].data(), offsets_[1].data(), offsets_[2].data(), offsets_[3].data()}};
    }

   private:
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
                                           grad_bias, rows * pixels, threads);
        const OfPlace denominators(layout, denominator);
        const float* denominator_of_place = denominators.data();
        const auto centred = gradient.centred();
        parallel_for(layout.tasks, threads, [&](int64_t task, int) {
            for_wide(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
                const Wide value = centred(element, byte, place, count) / load_wide(denominator_of_place + place);
                store_wide(static_cast<Float*>(grad_y) + element, value, count);
            });
        });
    });
}

}  // namespace
