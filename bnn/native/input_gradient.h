// The gradient of a convolution's input: of each pixel the sums, over the taps and outputs that reach it, of the gradient
// times the signs of the weight.
#pragma once

#include "vector.h"
#if defined(BNN_HAS_LOOKUPS)
#include "input_by_lookups.h"
#elif defined(BNN_HAS_DOT_PRODUCTS)
#include "gradients_by_tiles.h"
#else
#include "gradients_by_tables.h"
#include "shared_tables.h"
#endif
#include "wide.h"

namespace {

// What the sums become: scale * sum, times the slope of the element's code and added to `base`, where there are such.
template <class Float>
class ScaledSums {
   public:
    ScaledSums(const Layer& layer, float scale, const bnn::Slopes& slopes, Float* out)
        : image_elements_(layer.window.channels * layer.window.size[0] * layer.window.size[1]),
          channels_(layer.window.channels),
          row_bits_(packed_bytes(image_elements_) * 8),
          plane_bytes_(row_bits_ / 8 * layer.window.images),
          planes_(slopes.planes),
          codes_(slopes.codes),
          base_(static_cast<const Float*>(slopes.base)),
          outside_(slopes.outside),
          out_(out),
          scale_(all_wide(scale)) {
        for (int i = 0; i < 4; ++i) slopes_[i] = all_wide(slopes.values[i]);
    }

    // Stores some channels of `count` pixels.
    void store(const Taps& taps, int64_t first, int64_t count, int64_t channel, int64_t channels,
               const int32_t* sums) const {
        taps.for_own_stretches(first, count, [&](int64_t image, int64_t pixel, int64_t distance, int64_t pixels) {
            store_run(image, pixel, distance, pixels, channel, channels, sums);
            sums += pixels * kColumns;
        });
    }

    // Stores some channels of pixels of an image that lie `distance` apart.
    void store_run(int64_t image, int64_t pixel, int64_t distance, int64_t pixels, int64_t channel, int64_t channels,
                   const int32_t* sums) const {
        const int64_t at = pixel * channels_ + channel, bit = image * row_bits_ + at;
        const bool in_bytes = bit % 8 == 0 && channels_ % 8 == 0 && channels % kWide == 0;
        const auto stored = in_bytes ? &ScaledSums::store_stretch<true> : &ScaledSums::store_stretch<false>;
        (this->*stored)(image * image_elements_ + at, bit, distance * channels_, pixels, channels, sums);
    }

   private:
    // `in_bytes`: the bits of any vector of elements, all of which there are, begin at a byte.
    template <bool in_bytes>
    void store_stretch(int64_t at, int64_t bit, int64_t step, int64_t pixels, int64_t channels,
                       const int32_t* sums) const {
        const ScaledSums self = *this;  // which no store can change, so that its members stay in registers
        const uint8_t* high_codes = codes_ + plane_bytes_;
        for (int64_t i = 0; i < pixels; ++i, sums += kColumns, at += step, bit += step) {
            for (int64_t c = 0; c < channels; c += kWide) {
                const int64_t count = in_bytes ? kWide : minimum(kWide, channels - c);
                const auto load = [&](const uint8_t* bits) {
                    return in_bytes ? load_truths(bits + static_cast<uint64_t>(bit + c) / 8, kWide)
                                    : truths_of(load_bits(bits, bit + c, count));
                };
                Wide value = load_sums(sums + c) * self.scale_;
                if (self.planes_) {
                    const Truths odd = load(self.codes_);
                    Wide slope = choose_wide(odd, self.slopes_[1], self.slopes_[0]);
                    if (self.planes_ > 1) {
                        const Wide higher = choose_wide(odd, self.slopes_[3], self.slopes_[2]);
                        slope = choose_wide(load(high_codes), higher, slope);
                    }
                    value *= slope;
                }
                if (self.base_) {
                    const Wide base = load_wide(self.base_ + at + c, count);
                    value += self.outside_ ? select_wide(opposite(load(self.outside_)), base) : base;
                }
                store_wide(self.out_ + at + c, value, count);
            }
        }
    }

    int64_t image_elements_, channels_, row_bits_, plane_bytes_;
    int planes_;
    const uint8_t* codes_;
    const Float* base_;
    const uint8_t* outside_;
    Float* out_;
    Wide scale_, slopes_[4];
};

template <class Float>
void backward_input(const int8_t* grad, float scale, const uint8_t* weight, Float* out, const Layer& layer,
                    const bnn::Slopes& slopes, int threads) {
    const ScaledSums<Float> result(layer, scale, slopes, out);
#if !defined(BNN_HAS_LOOKUPS) && !defined(BNN_HAS_DOT_PRODUCTS)
    if (SharedTables<SharedShorts>::serve(layer) || SharedTables<SharedBytes>::serve(layer)) {
        if (is_within(grad, layer, kSmallByte, threads)) {
            return SharedTables<SharedBytes>(layer, threads).backward_input(grad, weight, result, threads);
        }
        if (SharedTables<SharedShorts>::serve(layer)) {
            return SharedTables<SharedShorts>(layer, threads).backward_input(grad, weight, result, threads);
        }
    }
#endif
    for (int64_t phase = 0; phase < Taps::phases(layer.window); ++phase) {
        const Taps taps(layer.window, phase, 1, layer.out_pixels);
        backward_input_of(taps, grad, weight, layer, result, threads);
    }
}

// `itemsize` 2: bfloat16
void conv2d_backward_input(const int8_t* grad, float scale, const uint8_t* weight, void* out, const Window& window,
                           int64_t outputs, int64_t groups, int itemsize, const bnn::Slopes& slopes, int threads) {
    const Layer layer(window, outputs, groups);
    if (itemsize == 2) {
        backward_input(grad, scale, weight, static_cast<BFloat16*>(out), layer, slopes, threads);
    } else {
        backward_input(grad, scale, weight, static_cast<float*>(out), layer, slopes, threads);
    }
}

}  // namespace
