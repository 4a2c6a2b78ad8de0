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

// The gradient of the input of a convolution, of that of its product row by row.
class RealInputGradient {
   public:
    // `out`: of `dtype`, float or bfloat16; null where there is none.
    RealInputGradient(void* out, int dtype, const float* weight, const RealConvolution& conv, int threads)
        : out_(out),
          dtype_(dtype),
          conv_(conv),
          of_row_(of_patches(conv), out ? conv.patch : 0),
          products_(of_row_, [=, &conv](int64_t place, int64_t output) { return weight[output * conv.patch + place]; }),
          patches_(needs_image() ? threads : 0, conv.row_pixels * conv.patch * 4),
          images_(needs_image() ? threads : 0, padded_rows() * conv.band_row * 4) {}

    // gradient[pixels][outputs] of a row, and room for some pixels more; all rows of an image in their order.
    void add(int64_t row, int thread, const float* gradient) const {
        if (!out_) return;
        dtype_ == bnn::kBFloat16 ? add(row, thread, gradient, static_cast<BFloat16*>(out_))
                                 : add(row, thread, gradient, static_cast<float*>(out_));
    }

   private:
    // The product of the gradient of a pixel and the weight, which is the gradient of the pixel's patch.
    static Window of_patches(const RealConvolution& conv) {
        return {1, conv.outputs, {1, conv.row_pixels}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {1, conv.row_pixels}};
    }

    bool needs_image() const { return out_ && !conv_.is_of_pixels; }
    int64_t padded_rows() const { return conv_.window.size[0] + 2 * conv_.window.padding[0]; }

    template <class Float>
    void add(int64_t row, int thread, const float* gradient, Float* out) const {
        const int64_t pixels = conv_.pixels_of(row);
        if (conv_.is_of_pixels) return products_.form(gradient, pixels, out + row * conv_.row_pixels * conv_.window.channels);
        const Window& window = conv_.window;
        const int64_t height = window.out_size[0], y = row % height, channels = window.channels;
        float *patches = patches_.part<float>(thread), *image = images_.part<float>(thread);
        if (y == 0) std::memset(image, 0, padded_rows() * conv_.band_row * 4);
        products_.form(gradient, pixels, patches);
        // Neighbouring taps that are not dilated lie together in the image, as in a patch.
        const bool is_dense = window.dilation[1] == 1;
        const int64_t runs = is_dense ? 1 : window.kernel[1], run = is_dense ? window.kernel[1] * channels : channels;
        const float* patch = patches;
        for (int64_t i = 0; i < pixels; ++i) {
            float* to = image + y * window.stride[0] * conv_.band_row + i * conv_.pixel_step;
            for (int64_t k = 0; k < window.kernel[0]; ++k, to += window.dilation[0] * conv_.band_row) {
                for (int64_t j = 0; j < runs; ++j, patch += run) {
                    float* tap = to + j * window.dilation[1] * channels;
                    for (int64_t c = 0; c < run; ++c) tap[c] += patch[c];
                }
            }
        }
        if (y + 1 < height) return;
        const int64_t elements = window.size[1] * channels;
        Float* to = out + row / height * window.size[0] * elements;
        for (int64_t i = 0; i < window.size[0]; ++i, to += elements) {
            const float* from = image + (i + window.padding[0]) * conv_.band_row + window.padding[1] * channels;
            for (int64_t c = 0; c < elements; c += kWide) {
                const int64_t count = minimum(kWide, elements - c);
                store_wide(to + c, load_wide(from + c, count), count);
            }
        }
    }

    void* out_;
    int dtype_;
    const RealConvolution& conv_;
    RealConvolution of_row_;
    RealProducts products_;
    Buffer patches_, images_;  // of a row; the padded image that they are added up to
};

void normed_conv2d_backward(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* x,
                            const float* weight, const float* moments, const float* scale, const float* gamma,
                            double eps, void* of_x, float* of_weight, float* of_parameters, const Window& window,
                            int64_t outputs, int grad_dtype, int x_dtype, int threads) {
    const RealConvolution conv(window, outputs);
    const NormedConvolution product(x, x_dtype, weight, conv, threads);
    const int64_t row_elements = conv.row_pixels * outputs;
    const NormedGradient of{grad, grad_dtype, make_slopes(codes, slopes, planes, 1, conv.pixels * outputs), planes};
    const Buffer sums(1, 2 * outputs * 8), sizes(1, 2 * outputs * 4), term_buffer(1, 3 * outputs * 4);
    float *terms = term_buffer.part<float>(0), bound;
    product_sums(of, product, conv, moments, sums.part<double>(0), sizes.part<float>(0), threads);
    make_gradient_terms(sums.part<double>(0), sizes.part<float>(0), moments, scale, gamma, eps,
                        static_cast<double>(conv.pixels), outputs, terms, &bound, of_parameters);

    const RealWeightSums weight_sums(conv, of_x && !conv.is_of_pixels, threads);
    const RealInputGradient input_gradient(of_x, x_dtype, weight, conv, threads);
    const NormGradientTerms of_places(Layout(1, conv.row_pixels, outputs, true), terms);
    const Buffer product_parts(threads, row_elements * 2, Contents::kAny),
        gradients(threads, (row_elements + kMostPixels * outputs) * 4);
    weight_sums.for_rows(threads, [&](int64_t row, int thread) {
        auto* const products = product_parts.part<Float16>(thread);
        float* const gradient = gradients.part<float>(thread);
        const float* band = product.form(row, thread, products);
        const int64_t pixels = conv.pixels_of(row);
        const NormedGradient here = of.from(row * row_elements);
        norm_gradient_of(here.grad, here.by, planes, products, of_places, Layout(1, pixels, outputs, true), grad_dtype,
                         bnn::kFloat16, 1, [=](int64_t element, Wide value, int64_t count) {
                             store_wide(gradient + element, value, count);
                         });
        weight_sums.add(row, thread, gradient, band);
        input_gradient.add(row, thread, gradient);
    });
    weight_sums.store(of_weight);
}

}  // namespace
