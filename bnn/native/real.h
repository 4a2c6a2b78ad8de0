// Products of a real image and packed weights, as in a network's first layer, and the gradient of their weights.
// Sums of a pixel are formed in float32, in the order of (kernel height, kernel width, channels).
#pragma once

#include "octet.h"
#include "window.h"

namespace {

#if defined(__AVX512F__)
constexpr int64_t kVectorLanes = 16, kRealTaps = 8;
#elif defined(__AVX2__)
constexpr int64_t kVectorLanes = 8, kRealTaps = 4;
#elif defined(__aarch64__)
constexpr int64_t kVectorLanes = 4, kRealTaps = 8;
#else
constexpr int64_t kVectorLanes = 4, kRealTaps = 4;
#endif

// A register: GCC takes wider vectors through memory.
typedef float RealLanes __attribute__((vector_size(kVectorLanes * sizeof(float))));

constexpr int64_t kRealOutputs = 2 * kVectorLanes;  // of a tile
constexpr int64_t kRealPixels = 4;                  // of a tile of the product, as kRealTaps values of a patch of one of the gradient
constexpr int64_t kGradientParts = 16;  // of the batch, summed one after the other: whatever the threads, one result

inline RealLanes load_lanes(const float* from) {
    RealLanes v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

// In two roundings, as every instruction set has them.
inline RealLanes add_product(RealLanes sum, RealLanes v, float value) { return sum + v * value; }

struct RealConvolution {
    RealConvolution(const Window& window, int64_t outputs)
        : window(window),
          outputs(outputs),
          lanes(round_up(outputs, kRealOutputs)),
          patch(window.kernel[0] * window.kernel[1] * window.channels),
          stride(round_up(patch, kRealTaps)),
          row_pixels(window.out_size[1]),
          rows(window.images * window.out_size[0]),
          pixel_step(window.stride[1] * window.channels),
          band_row((window.size[1] + 2 * window.padding[1]) * window.channels),
          places_(1, stride * sizeof(int64_t)) {
        int64_t* place = places_.part<int64_t>(0);
        for (int64_t i = 0; i < window.kernel[0]; ++i) {
            for (int64_t j = 0; j < window.kernel[1]; ++j) {
                for (int64_t c = 0; c < window.channels; ++c) {
                    *place++ = i * band_row + j * window.dilation[1] * window.channels + c;
                }
            }
        }
    }

    // Where the values of a pixel's patch, `stride` of them, lie in a band, behind pixel_step of each pixel before; those past
    // the taps anywhere in it.
    const int64_t* places() const { return places_.part<int64_t>(0); }

    // Room for a band, whose pixels are a whole number of tiles.
    int64_t band_elements() const { return window.kernel[0] * band_row + kRealPixels * pixel_step; }

    // The padded rows of the image that lead to a row of output pixels, one of all images'. `band` is clear at first.
    void load_band(const float* x, int64_t out_row, float* band) const {
        const int64_t elements = window.size[1] * window.channels;
        const float* image = x + out_row / window.out_size[0] * window.size[0] * elements;
        int64_t row = out_row % window.out_size[0] * window.stride[0] - window.padding[0];
        band += window.padding[1] * window.channels;
        for (int64_t i = 0; i < window.kernel[0]; ++i, row += window.dilation[0], band += band_row) {
            if (inside(row, window.size[0])) {
                std::memcpy(band, image + row * elements, elements * sizeof(float));
            } else {
                std::memset(band, 0, elements * sizeof(float));
            }
        }
    }

    Window window;
    int64_t outputs, lanes, patch, stride, row_pixels, rows, pixel_step, band_row;

   private:
    Buffer places_;
};

// `value(output, place in the patch)` gives the weights.
template <class Value, class Float>
void real_products(const float* x, const Value& value, Float* out, const RealConvolution& conv, int threads) {
    // Of each tile's outputs together, which else would share few sets of a cache: [outputs of a tile], 0 past the outputs.
    const Buffer weights(conv.lanes / kRealOutputs, conv.patch * kRealOutputs * 4);
    for (int64_t o = 0; o < conv.outputs; ++o) {
        float* panel = weights.part<float>(o / kRealOutputs) + o % kRealOutputs;
        for (int64_t k = 0; k < conv.patch; ++k) panel[k * kRealOutputs] = value(o, k);
    }
    const int64_t pixels = round_up(conv.row_pixels, kRealPixels), patch = conv.patch, lanes = conv.lanes;
    const int64_t step = conv.pixel_step, *places = conv.places();
    const Buffer bands(threads, conv.band_elements() * 4), sum_parts(threads, pixels * lanes * 4);
    parallel_for(conv.rows, threads, [&](int64_t row, int thread) {
        float *band = bands.part<float>(thread), *sums = sum_parts.part<float>(thread);
        conv.load_band(x, row, band);
        for (int64_t o = 0; o < lanes; o += kRealOutputs) {
            const float* panel = weights.part<float>(o / kRealOutputs);
            for (int64_t i = 0; i < pixels; i += kRealPixels) {
                RealLanes low[kRealPixels] = {}, high[kRealPixels] = {};
                for (int64_t k = 0; k < patch; ++k) {
                    const float *from = panel + k * kRealOutputs, *values = band + i * step + places[k];
                    const RealLanes first = load_lanes(from), second = load_lanes(from + kVectorLanes);
#pragma GCC unroll 4
                    for (int64_t j = 0; j < kRealPixels; ++j) {
                        low[j] = add_product(low[j], first, values[j * step]);
                        high[j] = add_product(high[j], second, values[j * step]);
                    }
                }
#pragma GCC unroll 4
                for (int64_t j = 0; j < kRealPixels; ++j) {
                    std::memcpy(sums + (i + j) * lanes + o, low + j, sizeof low[j]);
                    std::memcpy(sums + (i + j) * lanes + o + kVectorLanes, high + j, sizeof high[j]);
                }
            }
        }
        for (int64_t i = 0; i < conv.row_pixels; ++i) {
            Float* to = out + (row * conv.row_pixels + i) * conv.outputs;
            for (int64_t o = 0; o < conv.outputs; o += 8) {
                const int64_t count = minimum(8, conv.outputs - o);
                store_octet(to + o, load_octet(sums + i * lanes + o, count), count);
            }
        }
    });
}

// `x` is channels last, `out` too, of float or float16.
template <class Value>
void real_products(const float* x, const Value& value, void* out, const Window& window, int64_t outputs, int dtype,
                   int threads) {
    const RealConvolution conv(window, outputs);
    dtype == bnn::kFloat16 ? real_products(x, value, static_cast<Float16*>(out), conv, threads)
                           : real_products(x, value, static_cast<float*>(out), conv, threads);
}

void real_conv2d(const float* x, const uint8_t* weight, void* out, const Window& window, int64_t outputs, int dtype,
                 int threads) {
    const int64_t patch = window.kernel[0] * window.kernel[1] * window.channels;
    const auto sign = [=](int64_t output, int64_t place) {
        return weight[output * packed_bytes(patch) + place / 8] >> place % 8 & 1 ? 1.0f : -1.0f;
    };
    real_products(x, sign, out, window, outputs, dtype, threads);
}

void float_conv2d(const float* x, const float* weight, void* out, const Window& window, int64_t outputs, int dtype,
                  int threads) {
    const int64_t patch = window.kernel[0] * window.kernel[1] * window.channels;
    const auto value = [=](int64_t output, int64_t place) { return weight[output * patch + place]; };
    real_products(x, value, out, window, outputs, dtype, threads);
}

inline void load_reals(float* to, const float* from, int64_t count) { std::memcpy(to, from, count * sizeof(float)); }
inline void load_reals(float* to, const int8_t* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// Sums of grad * x for each output and value of its patch: out[outputs][patch].
template <class Grad>
void real_weight_sums(const Grad* grad, const float* x, float* out, const Window& window, int64_t outputs, int threads) {
    const RealConvolution conv(window, outputs);
    const int64_t part_rows = maximum(divide_up(conv.rows, kGradientParts), 1);
    const int64_t parts = divide_up(conv.rows, part_rows), lanes = conv.lanes, step = conv.pixel_step;
    const Buffer totals(maximum(parts, 1), conv.stride * lanes * 4), bands(threads, conv.band_elements() * 4),
        grad_parts(threads, conv.row_pixels * lanes * 4);
    parallel_for(parts, threads, [&](int64_t part, int thread) {
        float *band = bands.part<float>(thread), *total = totals.part<float>(part);
        float* grads = grad_parts.part<float>(thread);
        for (int64_t row = part * part_rows; row < minimum((part + 1) * part_rows, conv.rows); ++row) {
            conv.load_band(x, row, band);
            for (int64_t o = 0; o < lanes; o += kRealOutputs) {
                for (int64_t i = 0; i < conv.row_pixels; ++i) {
                    load_reals(grads + o * conv.row_pixels + i * kRealOutputs, grad + (row * conv.row_pixels + i) * outputs + o,
                               minimum(outputs - o, kRealOutputs));
                }
                for (int64_t k = 0; k < conv.stride; k += kRealTaps) {
                    RealLanes low[kRealTaps] = {}, high[kRealTaps] = {};
                    const float* values[kRealTaps];
                    for (int64_t j = 0; j < kRealTaps; ++j) values[j] = band + conv.places()[k + j];
                    for (int64_t i = 0; i < conv.row_pixels; ++i) {
                        const float* from = grads + o * conv.row_pixels + i * kRealOutputs;
                        const RealLanes left = load_lanes(from), right = load_lanes(from + kVectorLanes);
#pragma GCC unroll 8
                        for (int64_t j = 0; j < kRealTaps; ++j) {
                            low[j] = add_product(low[j], left, values[j][i * step]);
                            high[j] = add_product(high[j], right, values[j][i * step]);
                        }
                    }
#pragma GCC unroll 8
                    for (int64_t j = 0; j < kRealTaps; ++j) {
                        float* to = total + (k + j) * lanes + o;
                        low[j] += load_lanes(to);
                        high[j] += load_lanes(to + kVectorLanes);
                        std::memcpy(to, low + j, sizeof low[j]);
                        std::memcpy(to + kVectorLanes, high + j, sizeof high[j]);
                    }
                }
            }
        }
    });
    float* total = totals.part<float>(0);
    for (int64_t part = 1; part < parts; ++part) {
        const float* from = totals.part<float>(part);
        for (int64_t i = 0; i < conv.patch * conv.lanes; ++i) total[i] += from[i];
    }
    for (int64_t o = 0; o < outputs; ++o) {
        for (int64_t k = 0; k < conv.patch; ++k) out[o * conv.patch + k] = total[k * conv.lanes + o] + 0.0f;  // never -0
    }
}

void real_conv2d_backward_weight(const int8_t* grad, const float* x, float* out, const Window& window, int64_t outputs,
                                 int threads) {
    real_weight_sums(grad, x, out, window, outputs, threads);
}

void float_conv2d_backward_weight(const float* grad, const float* x, float* out, const Window& window, int64_t outputs,
                                  int threads) {
    real_weight_sums(grad, x, out, window, outputs, threads);
}

}  // namespace
