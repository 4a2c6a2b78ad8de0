// The passes of a batch norm between a product and what follows it. The formulas are those of bnn/ops/batch_norm.py.
#pragma once

#include "channels.h"
#include "random.h"

namespace {

// Calls run with a value of the type of what enters a norm: float or float16 of a product, float or bfloat16 of others.
template <class Run>
void with_product(int dtype, const Run& run) {
    dtype == bnn::kFloat16 ? run(Float16{}) : dtype == bnn::kBFloat16 ? run(BFloat16{}) : run(float{});
}

// Calls run with a value of the type of what flows between layers: float or bfloat16.
template <class Run>
void with_stream(int dtype, const Run& run) {
    dtype == bnn::kBFloat16 ? run(BFloat16{}) : run(float{});
}

// Calls run with what sets the values of a product and their squares.
template <class Run>
void with_values_and_squares(const void* y, int dtype, const Run& run) {
    with_product(dtype, [&](auto of) {
        const auto* from = static_cast<const decltype(of)*>(y);
        run([=](int64_t element, int64_t, int64_t, int64_t count, Wide* values) {
            values[0] = load_wide(from + element, count);
            values[1] = values[0] * values[0];
        });
    });
}

// Sums over the pixels of each row of y and of its squares, sums[rows][2][channels], which is clear.
void row_moments(const void* y, double* sums, int64_t rows, int64_t pixels, int64_t channels, int dtype, int threads) {
    const Layout layout(rows, pixels, channels, true);
    with_values_and_squares(y, dtype, [&](const auto& visit) { row_sums<2, 0>(layout, sums, nullptr, threads, visit); });
}

// Of a batch: moments[2][channels], the mean of y and 1 / sqrt(variance of scale y + eps); affine[2][channels], factor and
// offset that make the norm of scale y from y. The running mean and variance take those of scale y. `scale`, `gamma` and
// `beta` may be null.
void batch_statistics(const void* y, const float* scale, const float* gamma, const float* beta, double eps,
                      float* running_mean, float* running_variance, double momentum, float* moments, float* affine,
                      int64_t rows, int64_t pixels, int64_t channels, int dtype, int threads) {
    const Layout layout(rows, pixels, channels);
    const Buffer sum_buffer(1, 2 * channels * 8);
    double* sums = sum_buffer.part<double>(0);
    with_values_and_squares(y, dtype, [&](const auto& visit) {
        channel_sums<2, 0>(layout, sums, nullptr, threads, visit);
    });
    const double count = static_cast<double>(rows * pixels);
    for (int64_t c = 0; c < channels; ++c) {
        const double of_channel = sums[c] / count, spread = sums[channels + c] / count - of_channel * of_channel;
        const float mean = static_cast<float>(of_channel), variance = static_cast<float>(spread < 0 ? 0 : spread);
        const double a = scale ? scale[c] : 1, scaled_variance = variance * (a * a);
        const float inverse = static_cast<float>(1 / __builtin_sqrt(scaled_variance + eps));
        const float weighted = gamma ? inverse * gamma[c] : inverse, factor = scale ? weighted * scale[c] : weighted;
        moments[c] = mean;
        moments[channels + c] = inverse;
        affine[c] = factor;
        affine[channels + c] = beta ? -factor * mean + beta[c] : -factor * mean;
        const double unbiased = scaled_variance * (count / (count - 1));
        running_mean[c] = static_cast<float>(momentum * (mean * a) + (1 - momentum) * running_mean[c]);
        running_variance[c] = static_cast<float>(momentum * unbiased + (1 - momentum) * running_variance[c]);
    }
}

// `shortcut` may be null; `itemsize`: of shortcut and out, 2 is bfloat16.
template <class Product, class Shortcut, class Out>
void norm_clamp_of(const Product* y, const float* factor, const float* offset, const Shortcut* shortcut, Out* out,
                   uint8_t* codes, float low, float high, const Layout& layout, int threads) {
    const OfPlace factors(layout, factor), offsets(layout, offset);
    const float *scale = factors.data(), *shift = offsets.data();
    parallel_for(layout.tasks, threads, [&](int64_t task, int) {
        for_wide(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
            Wide x = load_wide(y + element, count) * load_wide(scale + place) + load_wide(shift + place);
            if (shortcut) x += load_wide(shortcut + element, count);
            const Wide least = all_wide(low), most = all_wide(high);
            const Truths outside = opposite(both(greater(x, least), greater(most, x)));
            store_truths(codes + byte, both(outside, first_truths(count)), count);
            x = choose_wide(greater(x, most), most, choose_wide(greater(least, x), least, x));
            store_wide(out + element, x, count);
        });
    });
}

void norm_clamp(const void* y, const float* factor, const float* offset, const void* shortcut, void* out,
                uint8_t* codes, float low, float high, int64_t rows, int64_t pixels, int64_t channels, int dtype,
                int shortcut_dtype, int out_dtype, int threads) {
    const Layout layout(rows, pixels, channels);
    with_product(dtype, [&](auto of) {
        with_stream(shortcut_dtype, [&](auto of_shortcut) {
            with_stream(out_dtype, [&](auto of_out) {
                norm_clamp_of(static_cast<const decltype(of)*>(y), factor, offset,
                              static_cast<const decltype(of_shortcut)*>(shortcut), static_cast<decltype(of_out)*>(out),
                              codes, low, high, layout, threads);
            });
        });
    });
}

// Where the codes of elements lie, and the slope of each code.
struct Slopes {
    const uint8_t* codes;
    int64_t plane_bytes;
    float slopes[4];
};

// A gradient times the slopes of its elements' codes.
template <int kPlanes>
inline Wide passed(Wide grad, const Slopes& by, int64_t byte, int64_t count) {
    if constexpr (kPlanes == 0) return grad * by.slopes[0];
    const Truths low = load_truths(by.codes + byte, count);
    const Wide even = choose_wide(low, all_wide(by.slopes[1]), all_wide(by.slopes[0]));
    if constexpr (kPlanes == 1) return grad * even;
    const Truths high = load_truths(by.codes + by.plane_bytes + byte, count);
    return grad * choose_wide(high, choose_wide(low, all_wide(by.slopes[3]), all_wide(by.slopes[2])), even);
}

template <int kPlanes>
struct PlaneCount {
    static constexpr int value = kPlanes;
};

// Calls run with the number of planes as a constant.
template <class Run>
void with_planes(int planes, const Run& run) {
    planes == 0 ? run(PlaneCount<0>{}) : planes == 1 ? run(PlaneCount<1>{}) : run(PlaneCount<2>{});
}

inline Slopes make_slopes(const uint8_t* codes, const float* slopes, int planes, int64_t rows, int64_t row_elements) {
    Slopes by{codes, rows * packed_bytes(row_elements), {}};
    std::memcpy(by.slopes, slopes, sizeof(float) << planes);
    return by;
}

// Calls run with what sets the gradient g that comes to a norm and g (y - mean), and then g and y - mean.
template <class Run>
void with_gradient_and_product(const void* grad, const Slopes& by, int planes, const void* y, const float* means,
                               int grad_dtype, int dtype, const Run& run) {
    with_stream(grad_dtype, [&](auto of_grad) {
        with_product(dtype, [&](auto of) {
            with_planes(planes, [&](auto plane_count) {
                const auto* from = static_cast<const decltype(of_grad)*>(grad);
                const auto* products = static_cast<const decltype(of)*>(y);
                run([=](int64_t element, int64_t byte, int64_t place, int64_t count, Wide* values) {
                    const Wide g =
                        passed<decltype(plane_count)::value>(load_wide(from + element, count), by, byte, count);
                    const Wide centred = load_wide(products + element, count) - load_wide(means + place);
                    values[0] = values[2] = g;
                    values[1] = g * centred;
                    values[3] = centred;
                });
            });
        });
    });
}

// Sums over the pixels of each row of g and g (y - mean), sums[rows][2][channels], and the largest magnitudes of g and
// y - mean, sizes[rows][2][channels]; both are clear.
void row_norm_gradients(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* y,
                        const float* mean, double* sums, float* sizes, int64_t rows, int64_t pixels, int64_t channels,
                        int grad_dtype, int dtype, int threads) {
    const Layout layout(rows, pixels, channels, true);
    const Slopes by = make_slopes(codes, slopes, planes, rows, pixels * channels);
    const OfPlace means(layout, mean);
    with_gradient_and_product(grad, by, planes, y, means.data(), grad_dtype, dtype, [&](const auto& visit) {
        row_sums<2, 2>(layout, sums, sizes, threads, visit);
    });
}

// Of the gradient of a norm, from the sums and sizes of its `count` values a channel: terms[3][channels], the factors of the
// gradient and of the product and the constants; a bound of its magnitude; of_parameters[3][channels], the gradients of
// scale, gamma and beta.
inline void make_gradient_terms(const double* sums, const float* sizes, const float* moments, const float* scale,
                                const float* gamma, double eps, double count, int64_t channels, float* terms,
                                float* bound, float* of_parameters) {
    const float of_constant = static_cast<float>(1 / __builtin_sqrt(eps));  // 1 / deviation of a channel without variance
    *bound = 0;
    for (int64_t c = 0; c < channels; ++c) {
        const double sum = sums[c], along = sums[channels + c], mean = moments[c], inverse = moments[channels + c];
        const double a = scale ? scale[c] : 1, weight = gamma ? gamma[c] : 1;
        const bool varies = inverse < of_constant;
        const double of_grad = weight * a * inverse, of_y = -of_grad * (a * inverse * (a * inverse)) * along / count;
        const double of_mean = -of_grad * sum / count;
        const float by_grad = varies ? static_cast<float>(of_grad) : 0, by_y = varies ? static_cast<float>(of_y) : 0;
        const float centre = varies ? static_cast<float>(of_mean) : 0;
        terms[c] = by_grad;
        terms[channels + c] = by_y;
        terms[2 * channels + c] = varies ? static_cast<float>(of_mean - of_y * mean) : 0;
        const float size = __builtin_fabsf(by_grad) * sizes[c] + __builtin_fabsf(by_y) * sizes[channels + c] +
                           __builtin_fabsf(centre);
        if (size > *bound || size != size) *bound = size;  // a NaN stays
        of_parameters[c] = static_cast<float>(weight * eps * (inverse * inverse * inverse) * along);
        of_parameters[channels + c] = static_cast<float>(a * inverse * along);
        of_parameters[2 * channels + c] = static_cast<float>(sum);
    }
}

void norm_gradient_terms(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* y,
                         const float* moments, const float* scale, const float* gamma, double eps, float* terms,
                         float* bound, float* of_parameters, int64_t rows, int64_t pixels, int64_t channels,
                         int grad_dtype, int dtype, int threads) {
    const Layout layout(rows, pixels, channels);
    const Slopes by = make_slopes(codes, slopes, planes, rows, pixels * channels);
    const OfPlace means(layout, moments);
    const Buffer sum_buffer(1, 2 * channels * 8), size_buffer(1, 2 * channels * 4);
    double* sums = sum_buffer.part<double>(0);
    float* sizes = size_buffer.part<float>(0);
    with_gradient_and_product(grad, by, planes, y, means.data(), grad_dtype, dtype, [&](const auto& visit) {
        channel_sums<2, 2>(layout, sums, sizes, threads, visit);
    });
    make_gradient_terms(sums, sizes, moments, scale, gamma, eps, static_cast<double>(rows * pixels), channels, terms,
                        bound, of_parameters);
}

// The factors of the gradient and of the product and the constants, [3][channels], of the places of a period.
struct NormGradientTerms {
    NormGradientTerms(const Layout& layout, const float* of)
        : grads(layout, of), products(layout, of + layout.channels), constants(layout, of + 2 * layout.channels) {}

    OfPlace grads, products, constants;
};

// Calls finish(element, vector of dL/dy, elements) for every vector.
template <class Finish>
void norm_gradient_of(const void* grad, const Slopes& by, int planes, const void* y, const NormGradientTerms& of,
                      const Layout& layout, int grad_dtype, int dtype, int threads, const Finish& finish) {
    const float *of_grad = of.grads.data(), *of_product = of.products.data(), *constant = of.constants.data();
    with_stream(grad_dtype, [&](auto grad_type) {
        with_product(dtype, [&](auto type) {
            with_planes(planes, [&](auto plane_count) {
                const auto* from = static_cast<const decltype(grad_type)*>(grad);
                const auto* products = static_cast<const decltype(type)*>(y);
                parallel_for(layout.tasks, threads, [&](int64_t task, int) {
                    for_wide(layout, task, [=](int64_t element, int64_t byte, int64_t place, int64_t count) {
                        const Wide g =
                            passed<decltype(plane_count)::value>(load_wide(from + element, count), by, byte, count);
                        const Wide rest = load_wide(products + element, count) * load_wide(of_product + place) +
                                           load_wide(constant + place);
                        finish(element, g * load_wide(of_grad + place) + rest, count);
                    });
                });
            });
        });
    });
}

void norm_gradient(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* y,
                   const float* of, void* out, int64_t rows, int64_t pixels, int64_t channels, int grad_dtype,
                   int dtype, int out_dtype, int threads) {
    const Layout layout(rows, pixels, channels);
    const Slopes by = make_slopes(codes, slopes, planes, rows, pixels * channels);
    with_stream(out_dtype, [&](auto of_out) {
        auto* const to = static_cast<decltype(of_out)*>(out);
        norm_gradient_of(grad, by, planes, y, NormGradientTerms(layout, of), layout, grad_dtype, dtype, threads,
                         [=](int64_t element, Wide value, int64_t count) { store_wide(to + element, value, count); });
    });
}

// Whole numbers within ±largest that are `v` on average; see bnn/ops/rounding.py.
inline Wide round_at_random(Wide v, float largest, uint32_t key, uint32_t first_index) {
    const WideWords random = mix((kPlaces * kIndexFactor + first_index * kIndexFactor) ^ key);  // random_bits of each
    const Wide uniform = floats_of(random >> 8) * 0x1p-24f, floor = floor_of(v);
    return clamped(floor + select_wide(greater(v - floor, uniform), all_wide(1)), all_wide(largest));
}

// The random numbers of rounding are those of the elements' indices from that of the row `first_row` on. Returns whether
// `bound` is finite; `scale` becomes bound / largest, or 0 where that is below the normal numbers.
bool norm_gradient_integers(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* y,
                            const float* of, float bound, int8_t* out, float* scale, int64_t rows, int64_t pixels,
                            int64_t channels, int grad_dtype, int dtype, int32_t largest, uint32_t key,
                            int64_t first_row, int threads) {
    if (bound - bound != 0) return false;
    const float most = static_cast<float>(largest), step = bound / most;
    const bool is_normal = step >= 0x1p-126f;
    const float inverse = is_normal ? 1 / step : 0;
    *scale = is_normal ? step : 0;
    const int64_t first = first_row * pixels * channels;
    const Layout layout(rows, pixels, channels);
    const Slopes by = make_slopes(codes, slopes, planes, rows, pixels * channels);
    norm_gradient_of(grad, by, planes, y, NormGradientTerms(layout, of), layout, grad_dtype, dtype, threads,
                     [=](int64_t element, Wide value, int64_t count) {
                         const auto index = static_cast<uint32_t>(first + element);
                         store_wide(out + element, round_at_random(value * inverse, most, key, index), count);
                     });
    return true;
}

void pass_slopes(const void* grad, const uint8_t* codes, const float* slopes, int planes, void* out, int64_t rows,
                 int64_t pixels, int64_t channels, int dtype, int threads) {
    const Layout layout(rows, pixels, channels);
    const Slopes by = make_slopes(codes, slopes, planes, rows, pixels * channels);
    with_stream(dtype, [&](auto of) {
        with_planes(planes, [&](auto plane_count) {
            const auto* from = static_cast<const decltype(of)*>(grad);
            auto* to = static_cast<decltype(of)*>(out);
            parallel_for(layout.tasks, threads, [&](int64_t task, int) {
                for_wide(layout, task, [=](int64_t element, int64_t byte, int64_t, int64_t count) {
                    const Wide grad = load_wide(from + element, count);
                    store_wide(to + element, passed<decltype(plane_count)::value>(grad, by, byte, count), count);
                });
            });
        });
    });
}

}  // namespace
