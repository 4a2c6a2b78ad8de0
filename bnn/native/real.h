// Products of a real image and packed weights, as in a network's first layer, and the gradient of their weights.
// Sums of a pixel are formed in float32 by fused multiply-adds, in the order of (kernel height, kernel width, channels).
#pragma once

#include "fused.h"
#include "wide.h"
#include "window.h"

namespace {

// Sums of a tile, as many as leave registers for its operands.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRealSums = 24, kMostVectors = 4;
#else
constexpr int kRealSums = 12, kMostVectors = 2;
#endif
constexpr int kMostPixels = 12, kLastPixels = 4;  // of a tile of the product, and of the last of a row

// Of the batch, summed one after the other: whatever the threads, one result. Fewer of large weights, where rows are joined.
constexpr int64_t kGradientParts = 16, kMostPartial = 1 << 20;
constexpr int64_t kPixelRun = 128;  // of a convolution of pixels alone; kRunPixels is a multiple

inline void load_reals(float* to, const float* from, int64_t count) { std::memcpy(to, from, count * sizeof(float)); }
inline void load_reals(float* to, const BFloat16* from, int64_t count) {
    for (int64_t i = 0; i < count; i += kWide) {
        store_wide(to + i, load_wide(from + i, minimum(kWide, count - i)), minimum(kWide, count - i));
    }
}
inline void load_reals(float* to, const int8_t* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// What is worked off at a time is a row of output pixels; where each is of the input pixel at its place alone, so that the
// convolution is a product of matrices, a run of up to kPixelRun of all images' pixels.
struct RealConvolution {
    // `joins_rows`: whether runs of pixels may take the place of rows.
    RealConvolution(const Window& window, int64_t outputs, bool joins_rows = true)
        : window(window),
          joins_rows(joins_rows),
          is_of_pixels(joins_rows && window.kernel[0] * window.kernel[1] == 1 && window.stride[0] * window.stride[1] == 1 &&
                       window.padding[0] + window.padding[1] == 0),
          outputs(outputs),
          vectors(outputs > 2 * kVectorLanes ? kMostVectors : outputs > kVectorLanes ? 2 : 1),
          tile_outputs(vectors * kVectorLanes),
          lanes(round_up(outputs, tile_outputs)),
          patch(window.kernel[0] * window.kernel[1] * window.channels),
          pixels(window.images * window.out_size[0] * window.out_size[1]),
          row_pixels(is_of_pixels ? kPixelRun : maximum(window.out_size[1], 1)),
          rows(divide_up(pixels, row_pixels)),
          pixel_step(window.stride[1] * window.channels),
          band_row((window.size[1] + 2 * window.padding[1]) * window.channels),
          places_(1, (patch + kRealSums) * sizeof(int64_t)) {
        int64_t* place = places_.part<int64_t>(0);
        for (int64_t i = 0; i < window.kernel[0]; ++i) {
            for (int64_t j = 0; j < window.kernel[1]; ++j) {
                for (int64_t c = 0; c < window.channels; ++c) {
                    *place++ = i * band_row + j * window.dilation[1] * window.channels + c;
                }
            }
        }
    }

    // Where the values of a pixel's patch lie in a band, behind pixel_step of each pixel before; those past the patch, as
    // many as a tile may have, anywhere in it.
    const int64_t* places() const { return places_.part<int64_t>(0); }

    // All but the last row have `row_pixels`.
    int64_t pixels_of(int64_t row) const { return minimum(row_pixels, pixels - row * row_pixels); }

    // Room for a band, whose pixels are a whole number of tiles.
    int64_t band_elements() const {
        return (is_of_pixels ? kPixelRun * pixel_step : window.kernel[0] * band_row) + kMostPixels * pixel_step;
    }

    // The padded rows of the image that lead to a row of output pixels, one of all images'. `band` is clear at first.
    template <class Real>
    void load_band(const Real* x, int64_t out_row, float* band) const {
        if (is_of_pixels) {
            return load_reals(band, x + out_row * row_pixels * window.channels, pixels_of(out_row) * window.channels);
        }
        const int64_t elements = window.size[1] * window.channels;
        const Real* image = x + out_row / window.out_size[0] * window.size[0] * elements;
        int64_t row = out_row % window.out_size[0] * window.stride[0] - window.padding[0];
        band += window.padding[1] * window.channels;
        for (int64_t i = 0; i < window.kernel[0]; ++i, row += window.dilation[0], band += band_row) {
            if (inside(row, window.size[0])) {
                load_reals(band, image + row * elements, elements);
            } else {
                std::memset(band, 0, elements * sizeof(float));
            }
        }
    }
    // `dtype`: of x, float or bfloat16.
    void load_band(const void* x, int dtype, int64_t out_row, float* band) const {
        dtype == bnn::kBFloat16 ? load_band(static_cast<const BFloat16*>(x), out_row, band)
                                : load_band(static_cast<const float*>(x), out_row, band);
    }

    Window window;
    bool joins_rows, is_of_pixels;
    int64_t outputs, vectors, tile_outputs, lanes, patch, pixels, row_pixels, rows, pixel_step, band_row;

   private:
    Buffer places_;
};

template <int kVectors>
struct VectorCount {
    static constexpr int value = kVectors;
};

// Calls run with the number of vectors of a tile's outputs as a constant.
template <class Run>
inline void with_vectors(int64_t vectors, const Run& run) {
    vectors == 1 ? run(VectorCount<1>{}) : vectors == 2 ? run(VectorCount<2>{}) : run(VectorCount<kMostVectors>{});
}

// sums[kPixels][outputs of a tile] of neighbouring pixels, of a band from the first one on.
template <int kVectors, int kPixels>
inline void multiply_real_tile(const float* panel, const float* band, const RealConvolution& conv, float* sums) {
    const int64_t patch = conv.patch, step = conv.pixel_step, *places = conv.places();
    RealLanes lanes[kPixels][kVectors] = {};
    for (int64_t k = 0; k < patch; ++k, panel += kVectors * kVectorLanes) {
        const float* values = band + places[k];
        RealLanes weights[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) weights[v] = load_lanes(panel + v * kVectorLanes);
#pragma GCC unroll 12
        for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) lanes[i][v] = add_product(lanes[i][v], weights[v], values[i * step]);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            std::memcpy(sums + (i * kVectors + v) * kVectorLanes, &lanes[i][v], sizeof lanes[i][v]);
        }
    }
}

// Products of real numbers, row by row.
class RealProducts {
   public:
    // `value(output, place in the patch)` gives the weights.
    template <class Value>
    RealProducts(const RealConvolution& conv, const Value& value)
        : conv_(conv), panels_(conv.lanes / conv.tile_outputs, conv.patch * conv.tile_outputs * 4) {
        const int64_t width = conv.tile_outputs;
        for (int64_t o = 0; o < conv.outputs; ++o) {
            float* panel = panels_.part<float>(o / width) + o % width;
            for (int64_t k = 0; k < conv.patch; ++k) panel[k * width] = value(o, k);
        }
    }

    // out[pixels][outputs] of the row that a band leads to.
    template <class Float>
    void form(const float* band, int64_t pixels, Float* out) const {
        with_vectors(conv_.vectors, [&](auto vectors) { form_tiles<decltype(vectors)::value>(band, pixels, out); });
    }

   private:
    template <int kVectors, class Float>
    void form_tiles(const float* band, int64_t row_pixels, Float* out) const {
        constexpr int64_t kPixels = kRealSums / kVectors < kMostPixels ? kRealSums / kVectors : kMostPixels;
        constexpr int64_t kWidth = kVectors * kVectorLanes;
        float sums[kPixels * kWidth];
        for (int64_t o = 0; o < conv_.outputs; o += kWidth) {
            const float* panel = panels_.part<float>(o / kWidth);
            for (int64_t i = 0; i < row_pixels; i += kPixels) {
                const float* from = band + i * conv_.pixel_step;
                const int64_t pixels = minimum(kPixels, row_pixels - i), outputs = minimum(kWidth, conv_.outputs - o);
                pixels <= kLastPixels ? multiply_real_tile<kVectors, kLastPixels>(panel, from, conv_, sums)
                                      : multiply_real_tile<kVectors, kPixels>(panel, from, conv_, sums);
                for (int64_t j = 0; j < pixels; ++j) {
                    for (int64_t c = 0; c < outputs; c += kWide) {
                        const int64_t count = minimum(kWide, outputs - c);
                        store_wide(out + (i + j) * conv_.outputs + o + c, load_wide(sums + j * kWidth + c, count), count);
                    }
                }
            }
        }
    }

    const RealConvolution& conv_;
    Buffer panels_;  // of each tile's outputs together: [patch][outputs of a tile], 0 past the outputs
};

// `x` is channels last, of float or bfloat16, `out` too, of float or float16.
template <class Value>
void real_products(const void* x, int x_dtype, const Value& value, void* out, const Window& window, int64_t outputs,
                   int dtype, int threads) {
    const RealConvolution conv(window, outputs);
    const RealProducts products(conv, value);
    const Buffer bands(threads, conv.band_elements() * 4);
    parallel_for(conv.rows, threads, [&](int64_t row, int thread) {
        float* band = bands.part<float>(thread);
        conv.load_band(x, x_dtype, row, band);
        const int64_t first = row * conv.row_pixels * outputs, pixels = conv.pixels_of(row);
        dtype == bnn::kFloat16 ? products.form(band, pixels, static_cast<Float16*>(out) + first)
                               : products.form(band, pixels, static_cast<float*>(out) + first);
    });
}

void real_conv2d(const float* x, const uint8_t* weight, void* out, const Window& window, int64_t outputs, int dtype,
                 int threads) {
    const int64_t patch = window.kernel[0] * window.kernel[1] * window.channels;
    const auto sign = [=](int64_t output, int64_t place) {
        return weight[output * packed_bytes(patch) + place / 8] >> place % 8 & 1 ? 1.0f : -1.0f;
    };
    real_products(x, bnn::kFloat32, sign, out, window, outputs, dtype, threads);
}

void float_conv2d(const void* x, const float* weight, void* out, const Window& window, int64_t outputs, int x_dtype,
                  int dtype, int threads) {
    const int64_t patch = window.kernel[0] * window.kernel[1] * window.channels;
    const auto value = [=](int64_t output, int64_t place) { return weight[output * patch + place]; };
    real_products(x, x_dtype, value, out, window, outputs, dtype, threads);
}

// Sums of grad * x for each output and value of its patch, row by row of output pixels. The parts of the batch are summed
// one after the other.
class RealWeightSums {
   public:
    // `of_images`: whether each part is of whole images.
    RealWeightSums(const RealConvolution& conv, bool of_images, int threads)
        : conv_(conv),
          part_rows_(part_rows(conv, of_images)),
          parts_(divide_up(conv.rows, part_rows_)),
          totals_(maximum(parts_, 1), (conv.patch + kRealSums) * conv.lanes * 4),
          panels_(threads, conv.row_pixels * conv.tile_outputs * 4) {}

    // Calls run(row, thread) for every row of output pixels, those of a part in their order.
    template <class Run>
    void for_rows(int threads, const Run& run) const {
        parallel_for(parts_, threads, [&](int64_t part, int thread) {
            for (int64_t row = part * part_rows_; row < minimum((part + 1) * part_rows_, conv_.rows); ++row) run(row, thread);
        });
    }

    // Adds those of a row: grad[pixels][outputs], and the band that leads to it.
    template <class Grad>
    void add(int64_t row, int thread, const Grad* grad, const float* band) const {
        with_vectors(conv_.vectors, [&](auto vectors) {
            constexpr int kVectors = decltype(vectors)::value, kTaps = kRealSums / kVectors < 8 ? kRealSums / kVectors : 8;
            constexpr int64_t kWidth = kVectors * kVectorLanes;
            const int64_t pixels = conv_.pixels_of(row);
            float *panel = panels_.part<float>(thread), *total = totals_.part<float>(row / part_rows_);
            for (int64_t o = 0; o < conv_.lanes; o += kWidth) {
                for (int64_t i = 0; i < pixels; ++i) {
                    load_reals(panel + i * kWidth, grad + i * conv_.outputs + o, minimum(conv_.outputs - o, kWidth));
                }
                for (int64_t k = 0; k < conv_.patch; k += kTaps) {
                    add_tile<kVectors, kTaps>(panel, band, conv_.places() + k, pixels, total + k * conv_.lanes + o);
                }
            }
        });
    }

    // out[outputs][patch].
    void store(float* out) const {
        float* total = totals_.part<float>(0);
        for (int64_t part = 1; part < parts_; ++part) {
            const float* from = totals_.part<float>(part);
            for (int64_t i = 0; i < conv_.patch * conv_.lanes; ++i) total[i] += from[i];
        }
        for (int64_t o = 0; o < conv_.outputs; ++o) {
            float* to = out + o * conv_.patch;
            for (int64_t k = 0; k < conv_.patch; ++k) to[k] = total[k * conv_.lanes + o] + 0.0f;  // never -0
        }
    }

   private:
    static int64_t part_rows(const RealConvolution& conv, bool of_images) {
        const int64_t most = conv.joins_rows ? kMostPartial / (conv.patch * conv.lanes) : kGradientParts;
        const int64_t parts = maximum(1, minimum(kGradientParts, most)), height = of_images ? conv.window.out_size[0] : 1;
        return maximum(divide_up(conv.rows / height, parts) * height, 1);
    }

    template <int kVectors, int kTaps>
    void add_tile(const float* panel, const float* band, const int64_t* places, int64_t pixels, float* total) const {
        const int64_t step = conv_.pixel_step;
        RealLanes sums[kTaps][kVectors] = {};
        const float* values[kTaps];
        for (int j = 0; j < kTaps; ++j) values[j] = band + places[j];
        for (int64_t i = 0; i < pixels; ++i, panel += kVectors * kVectorLanes) {
            RealLanes grads[kVectors];
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) grads[v] = load_lanes(panel + v * kVectorLanes);
#pragma GCC unroll 8
            for (int j = 0; j < kTaps; ++j) {
#pragma GCC unroll 4
                for (int v = 0; v < kVectors; ++v) sums[j][v] = add_product(sums[j][v], grads[v], values[j][i * step]);
            }
        }
#pragma GCC unroll 8
        for (int j = 0; j < kTaps; ++j) {
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                float* to = total + j * conv_.lanes + v * kVectorLanes;
                sums[j][v] += load_lanes(to);
                std::memcpy(to, &sums[j][v], sizeof sums[j][v]);
            }
        }
    }

    const RealConvolution& conv_;
    int64_t part_rows_, parts_;
    Buffer totals_;  // of each part: [patch][lanes]
    Buffer panels_;  // of a row's gradient: [pixels][outputs of a tile], 0 past the outputs
};

template <class Grad>
void real_weight_sums(const Grad* grad, const float* x, float* out, const Window& window, int64_t outputs,
                      bool joins_rows, int threads) {
    const RealConvolution conv(window, outputs, joins_rows);
    const RealWeightSums sums(conv, false, threads);
    const Buffer bands(threads, conv.band_elements() * 4);
    sums.for_rows(threads, [&](int64_t row, int thread) {
        float* band = bands.part<float>(thread);
        conv.load_band(x, row, band);
        sums.add(row, thread, grad + row * conv.row_pixels * outputs, band);
    });
    sums.store(out);
}

void real_conv2d_backward_weight(const int8_t* grad, const float* x, float* out, const Window& window, int64_t outputs,
                                 int threads) {
    real_weight_sums(grad, x, out, window, outputs, false, threads);  // as C that is exported for training has them
}

void float_conv2d_backward_weight(const float* grad, const float* x, float* out, const Window& window, int64_t outputs,
                                  int threads) {
    real_weight_sums(grad, x, out, window, outputs, true, threads);
}

}  // namespace
