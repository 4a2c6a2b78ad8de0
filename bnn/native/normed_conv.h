// The gradients of a real convolution in front of a batch norm, row by row of a product that is formed again and never is
// whole.
#pragma once

#include "batch_norm.h"
#include "real.h"

namespace {

// Tasks whose rows of the product are formed together: so many that few rows, at their ends, are formed for others, too.
constexpr int64_t kMostTasks = 16;

class NormedConvolution {
   public:
    NormedConvolution(const void* x, int x_dtype, const float* weight, const RealConvolution& conv, int threads)
        : conv_(conv),
          x_(x),
          x_dtype_(x_dtype),
          products_(conv, [=, &conv](int64_t output, int64_t place) { return weight[output * conv.patch + place]; }),
          bands_(threads, conv.band_elements() * 4) {}

    // The product of a row, and the band that leads to it.
    const float* form(int64_t row, int thread, Float16* out) const {
        float* band = bands_.part<float>(thread);
        conv_.load_band(x_, x_dtype_, row, band);
        products_.form(band, conv_.pixels_of(row), out);
        return band;
    }

   private:
    const RealConvolution& conv_;
    const void* x_;
    int x_dtype_;
    RealProducts products_;
    Buffer bands_;
};

struct NormedGradient {
    const void* grad;
    int dtype;
    Slopes by;
    int planes;

    // That of the elements from `first` on, a multiple of 8.
    NormedGradient from(int64_t first) const {
        NormedGradient rest = *this;
        rest.grad = static_cast<const uint8_t*>(grad) + first * (dtype == bnn::kFloat32 ? 4 : 2);
        rest.by.codes += first / 8;
        return rest;
    }
};

// The sums and sizes of `with_gradient_and_product`.
inline void product_sums(const NormedGradient& of, const NormedConvolution& product, const RealConvolution& conv,
                         const float* mean, double* sums, float* sizes, int threads) {
    const int64_t row_pixels = conv.row_pixels, row_elements = row_pixels * conv.outputs;
    const Layout layout(1, conv.pixels, conv.outputs);
    const OfPlace means(layout, mean);
    const ChannelSums<2, 2> of_channels(layout, threads);
    int64_t group = 1;
    while (group < kMostTasks && group * kRunPixels % row_pixels) ++group;
    const Buffer parts(threads, (divide_up(group * kRunPixels, row_pixels) + 1) * row_elements * 2, Contents::kAny);
    parallel_for(divide_up(layout.tasks, group), threads, [&](int64_t index, int thread) {
        const int64_t task = index * group, end = minimum(task + group, layout.tasks);
        const int64_t first_row = task * kRunPixels / row_pixels;
        const int64_t end_row = minimum(divide_up(end * kRunPixels, row_pixels), conv.rows);
        auto* const part = parts.part<Float16>(thread);
        for (int64_t row = first_row; row < end_row; ++row) product.form(row, thread, part + (row - first_row) * row_elements);
        with_gradient_and_product(of.grad, of.by, of.planes, part - first_row * row_elements, means.data(), of.dtype,
                                  bnn::kFloat16, [&](const auto& visit) {
                                      for (int64_t i = task; i < end; ++i) of_channels.add(i, thread, visit);
                                  });
    });
    of_channels.store(sums, sizes);
}

void normed_conv2d_backward(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* x,
                            const float* weight, const float* moments, const float* scale, const float* gamma,
                            double eps, void* of_x, float* of_weight, float* of_parameters, const Window& window,
                            int64_t outputs, int grad_dtype, int x_dtype, int threads) {
    const RealConvolution conv(window, outputs);
    const NormedConvolution product(x, x_dtype, weight, conv, threads);
    const int64_t row_elements = conv.row_pixels * outputs, channels = window.channels;
    const NormedGradient of{grad, grad_dtype, make_slopes(codes, slopes, planes, 1, conv.pixels * outputs), planes};
    const Buffer sums(1, 2 * outputs * 8), sizes(1, 2 * outputs * 4), term_buffer(1, 3 * outputs * 4);
    float *terms = term_buffer.part<float>(0), bound;
    product_sums(of, product, conv, moments, sums.part<double>(0), sizes.part<float>(0), threads);
    make_gradient_terms(sums.part<double>(0), sizes.part<float>(0), moments, scale, gamma, eps,
                        static_cast<double>(conv.pixels), outputs, terms, &bound, of_parameters);

    const RealWeightSums weight_sums(conv, threads);
    Window of_gradient = window;  // the transposed product, by which the gradient goes back to the input
    of_gradient.channels = outputs;
    const RealConvolution back(of_gradient, of_x ? channels : 0);
    const RealProducts of_inputs(back, [=](int64_t channel, int64_t output) { return weight[output * channels + channel]; });
    const NormGradientTerms of_places(Layout(1, conv.row_pixels, outputs, true), terms);
    const Buffer product_parts(threads, row_elements * 2, Contents::kAny),
        gradients(threads, (row_elements + kMostPixels * outputs) * 4);
    weight_sums.for_rows(threads, [&](int64_t row, int thread) {
        auto* const products = product_parts.part<Float16>(thread);
        float* const gradient = gradients.part<float>(thread);
        const float* band = product.form(row, thread, products);
        const int64_t pixels = conv.pixels_of(row), first = row * conv.row_pixels;
        const NormedGradient here = of.from(first * outputs);
        norm_gradient_of(here.grad, here.by, planes, products, of_places, Layout(1, pixels, outputs, true), grad_dtype,
                         bnn::kFloat16, 1, [=](int64_t element, Wide value, int64_t count) {
                             store_wide(gradient + element, value, count);
                         });
        weight_sums.add(row, thread, gradient, band);
        if (of_x && x_dtype == bnn::kBFloat16) {
            of_inputs.form(gradient, pixels, static_cast<BFloat16*>(of_x) + first * channels);
        } else if (of_x) {
            of_inputs.form(gradient, pixels, static_cast<float*>(of_x) + first * channels);
        }
    });
    weight_sums.store(of_weight);
}

}  // namespace
