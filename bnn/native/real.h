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

inline RealLanes load_lanes(const int8_t* from) {
#if defined(__AVX512F__)
    __m128i bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    constexpr __mmask16 kAll = 0xFFFF;  // of the plain forms GCC warns
    return (RealLanes)_mm512_maskz_cvtepi32_ps(kAll, _mm512_maskz_cvtepi8_epi32(kAll, bytes));
#elif defined(__AVX2__)
    return load_octet(from);
#else
    RealLanes v;
    for (int lane = 0; lane < kVectorLanes; ++lane) v[lane] = from[lane];
    return v;
#endif
}

// In two roundings, as every instruction set has them.
inline RealLanes add_product(RealLanes sum, RealLanes v, float value) { return sum + v * value; }

// Patches of a row of output pixels, one of all images': rows of `stride` floats, of which none past the taps is set.
inline void gather_reals(const Window& window, const float* x, int64_t out_row, int64_t stride, float* patches) {
    const int64_t channels = window.channels, width = window.size[1], columns = window.out_size[1];
    const float* image = x + out_row / window.out_size[0] * window.size[0] * width * channels;
    const int64_t top = out_row % window.out_size[0] * window.stride[0] - window.padding[0];
    const int64_t run = window.dilation[1] == 1 ? window.kernel[1] : 1;  // taps whose pixels lie side by side
    for (int64_t tap = 0; tap < window.kernel[0] * window.kernel[1]; tap += run) {
        const int64_t row = top + tap / window.kernel[1] * window.dilation[0];
        const float* const from = inside(row, window.size[0]) ? image + row * width * channels : nullptr;
        int64_t left = tap % window.kernel[1] * window.dilation[1] - window.padding[1];
        float* to = patches + tap * channels;
        for (int64_t column = 0; column < columns; ++column, left += window.stride[1], to += stride) {
            const int64_t begin = minimum(maximum(-left, 0), run) * channels;
            const int64_t end = from ? maximum(minimum(width - left, run) * channels, begin) : begin;
            int64_t i = 0;
            for (; i < begin; ++i) to[i] = 0;
            for (; i + 4 <= end; i += 4) std::memcpy(to + i, from + left * channels + i, 4 * sizeof(float));
            for (; i < end; ++i) to[i] = from[left * channels + i];
            for (; i < run * channels; ++i) to[i] = 0;
        }
    }
}

struct RealConvolution {
    RealConvolution(const Window& window, int64_t outputs)
        : window(window),
          outputs(outputs),
          lanes(round_up(outputs, kRealOutputs)),
          patch(window.kernel[0] * window.kernel[1] * window.channels),
          stride(round_up(patch, kRealTaps)),
          row_pixels(window.out_size[1]),
          rows(window.images * window.out_size[0]) {}

    Window window;
    int64_t outputs, lanes, patch, stride, row_pixels, rows;
};

// `value(output, place in the patch)` gives the weights.
template <class Value, class Float>
void real_products(const float* x, const Value& value, Float* out, const RealConvolution& conv, int threads) {
    const Buffer weights(1, conv.patch * conv.lanes * 4);  // [patch][lanes], 0 past the outputs
    for (int64_t o = 0; o < conv.outputs; ++o) {
        for (int64_t k = 0; k < conv.patch; ++k) weights.part<float>(0)[k * conv.lanes + o] = value(o, k);
    }
    const int64_t pixels = round_up(conv.row_pixels, kRealPixels);
    const Buffer patch_parts(threads, pixels * conv.stride * 4), sum_parts(threads, pixels * conv.lanes * 4);
    parallel_for(conv.rows, threads, [&](int64_t row, int thread) {
        float *patches = patch_parts.part<float>(thread), *sums = sum_parts.part<float>(thread);
        gather_reals(conv.window, x, row, conv.stride, patches);
        for (int64_t o = 0; o < conv.lanes; o += kRealOutputs) {
            for (int64_t i = 0; i < pixels; i += kRealPixels) {
                RealLanes low[kRealPixels] = {}, high[kRealPixels] = {};
                for (int64_t k = 0; k < conv.patch; ++k) {
                    const float* from = weights.part<float>(0) + k * conv.lanes + o;
                    const RealLanes first = load_lanes(from), second = load_lanes(from + kVectorLanes);
#pragma GCC unroll 4
                    for (int64_t j = 0; j < kRealPixels; ++j) {
                        const float value = patches[(i + j) * conv.stride + k];
                        low[j] = add_product(low[j], first, value);
                        high[j] = add_product(high[j], second, value);
                    }
                }
#pragma GCC unroll 4
                for (int64_t j = 0; j < kRealPixels; ++j) {
                    std::memcpy(sums + (i + j) * conv.lanes + o, low + j, sizeof low[j]);
                    std::memcpy(sums + (i + j) * conv.lanes + o + kVectorLanes, high + j, sizeof high[j]);
                }
            }
        }
        for (int64_t i = 0; i < conv.row_pixels; ++i) {
            Float* to = out + (row * conv.row_pixels + i) * conv.outputs;
            for (int64_t o = 0; o < conv.outputs; o += 8) {
                const int64_t count = minimum(8, conv.outputs - o);
                store_octet(to + o, load_octet(sums + i * conv.lanes + o, count), count);
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

// Sums of grad * x for each output and value of its patch: out[outputs][patch].
template <class Grad>
void real_weight_sums(const Grad* grad, const float* x, float* out, const Window& window, int64_t outputs, int threads) {
    const RealConvolution conv(window, outputs);
    const int64_t part_rows = maximum(divide_up(conv.rows, kGradientParts), 1);
    const int64_t parts = divide_up(conv.rows, part_rows);
    const Buffer totals(maximum(parts, 1), conv.stride * conv.lanes * 4),
        patch_parts(threads, conv.row_pixels * conv.stride * 4), grad_parts(threads, conv.row_pixels * conv.lanes * sizeof(Grad));
    parallel_for(parts, threads, [&](int64_t part, int thread) {
        float *patches = patch_parts.part<float>(thread), *total = totals.part<float>(part);
        Grad* grads = grad_parts.part<Grad>(thread);
        for (int64_t row = part * part_rows; row < minimum((part + 1) * part_rows, conv.rows); ++row) {
            const int64_t first = row * conv.row_pixels;
            gather_reals(window, x, row, conv.stride, patches);
            for (int64_t i = 0; i < conv.row_pixels; ++i) {
                std::memcpy(grads + i * conv.lanes, grad + (first + i) * outputs, outputs * sizeof(Grad));
            }
            for (int64_t o = 0; o < conv.lanes; o += kRealOutputs) {
                for (int64_t k = 0; k < conv.stride; k += kRealTaps) {
                    RealLanes low[kRealTaps] = {}, high[kRealTaps] = {};
                    for (int64_t i = 0; i < conv.row_pixels; ++i) {
                        const Grad* from = grads + i * conv.lanes + o;
                        const RealLanes left = load_lanes(from), right = load_lanes(from + kVectorLanes);
#pragma GCC unroll 8
                        for (int64_t j = 0; j < kRealTaps; ++j) {
                            const float value = patches[i * conv.stride + k + j];
                            low[j] = add_product(low[j], left, value);
                            high[j] = add_product(high[j], right, value);
                        }
                    }
#pragma GCC unroll 8
                    for (int64_t j = 0; j < kRealTaps; ++j) {
                        float* to = total + (k + j) * conv.lanes + o;
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
