// The gradient of the real weight in front of a batch norm, row by row of a product that is formed again and never is whole.
#pragma once

#include "batch_norm.h"
#include "real.h"

namespace {

// Tasks whose rows of the product are formed together, most of them but the first and the last for no other tasks.
constexpr int64_t kMostTasks = 16;

struct NormedGradient {
    const void* grad;
    int dtype;
    Slopes by;
    int planes;
};

// The sums and sizes of `with_gradient_and_product`, of products as float16.
inline void product_sums(const NormedGradient& of, const RealProducts& products, const RealConvolution& conv,
                         const float* mean, double* sums, float* sizes, int threads) {
    const int64_t pixels = conv.row_pixels, row_elements = pixels * conv.outputs;
    const Layout layout(1, conv.rows * pixels, conv.outputs);
    const OfPlace means(layout, mean);
    const ChannelSums<2, 2> of_channels(layout, threads);
    int64_t group = 1;
    while (group < kMostTasks && group * kRunPixels % pixels) ++group;
    const Buffer parts(threads, (divide_up(group * kRunPixels, pixels) + 1) * row_elements * 2);
    parallel_for(divide_up(layout.tasks, group), threads, [&](int64_t index, int thread) {
        const int64_t task = index * group, end = minimum(task + group, layout.tasks);
        const int64_t first_row = task * kRunPixels / pixels;
        const int64_t end_row = minimum(divide_up(end * kRunPixels, pixels), conv.rows);
        auto* const part = parts.part<Float16>(thread);
        for (int64_t row = first_row; row < end_row; ++row) products.form(row, thread, part + (row - first_row) * row_elements);
        with_gradient_and_product(of.grad, of.by, of.planes, part - first_row * row_elements, means.data(), of.dtype,
                                  bnn::kFloat16, [&](const auto& visit) {
                                      for (int64_t i = task; i < end; ++i) of_channels.add(i, thread, visit);
                                  });
    });
    of_channels.store(sums, sizes);
}

void normed_conv2d_backward_weight(const void* grad, const uint8_t* codes, const float* slopes, int planes,
                                   const float* x, const float* weight, const float* moments, const float* scale,
                                   const float* gamma, double eps, float* out, float* of_parameters,
                                   const Window& window, int64_t outputs, int grad_dtype, int threads) {
    const RealConvolution conv(window, outputs);
    const auto value = [=, &conv](int64_t output, int64_t place) { return weight[output * conv.patch + place]; };
    const RealProducts products(x, conv, value, threads);
    const int64_t pixels = conv.row_pixels, row_elements = pixels * outputs;
    const NormedGradient of{grad, grad_dtype, make_slopes(codes, slopes, planes, 1, conv.rows * row_elements), planes};
    const Buffer sums(1, 2 * outputs * 8), sizes(1, 2 * outputs * 4), term_buffer(1, 3 * outputs * 4);
    float *terms = term_buffer.part<float>(0), bound;
    product_sums(of, products, conv, moments, sums.part<double>(0), sizes.part<float>(0), threads);
    make_gradient_terms(sums.part<double>(0), sizes.part<float>(0), moments, scale, gamma, eps,
                        static_cast<double>(conv.rows * pixels), outputs, terms, &bound, of_parameters);
    const RealWeightSums weight_sums(conv, threads);
    const Layout row_layout(1, pixels, outputs, true);
    const NormGradientTerms of_places(row_layout, terms);
    const Buffer product_parts(threads, row_elements * 2), gradient_parts(threads, row_elements * 4);
    weight_sums.for_rows(threads, [&](int64_t row, int thread) {
        auto* const product = product_parts.part<Float16>(thread);
        float* const gradient = gradient_parts.part<float>(thread);
        const int64_t first = row * row_elements;
        products.form(row, thread, product);
        Slopes by = of.by;
        by.codes += first / 8;
        const auto* from = static_cast<const uint8_t*>(grad) + first * (grad_dtype == bnn::kFloat32 ? 4 : 2);
        norm_gradient_of(from, by, planes, product, of_places, row_layout, grad_dtype, bnn::kFloat16, 1,
                         [=](int64_t element, Wide value, int64_t count) { store_wide(gradient + element, value, count); });
        weight_sums.add(row, thread, gradient, products.band(thread));
    });
    weight_sums.store(out);
}

}  // namespace
