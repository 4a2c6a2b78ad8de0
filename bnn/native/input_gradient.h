// The gradient of a convolution's input: of each pixel the sums, over the taps and outputs that reach it, of the gradient
// times the signs of the weight.
#pragma once

#include "gradient.h"
#include "wide.h"

namespace {

constexpr int64_t kBlockPixels = 128;      // whose gradient is formed at a time
constexpr int64_t kPanelDepth = 640;       // of a panel of weights that stays in the nearest cache
constexpr int64_t kPanelsBytes = 1 << 20;  // of weights that are bytes at a time

// Rows of a panel before they are bytes.
struct PanelRows {
    PanelRows(int threads, int64_t depth) : bits(threads, depth * sizeof(uint32_t)), present(threads, depth) {}
    Buffer bits, present;
};

// The weights that lead back from (tap, output) to the channels of one panel; and what the sums of products with offset
// gradients begin at, to end as those of the gradients.
inline void prepare_panel(const Layer& layer, const Taps& taps, const uint8_t* weight, int64_t index, int64_t depth,
                          uint32_t* bits, uint8_t* present, int8_t* panel, int32_t* start) {
    const int64_t group = index / layer.channel_panels, channel_panel = index % layer.channel_panels;
    const int64_t row_bytes = packed_bytes(layer.row_elements());
    int64_t k = 0;
    for (int64_t tap = 0; tap < taps.count(); ++tap) {
        const int64_t first_bit = taps.of_kernel(tap) * layer.group_channels + channel_panel * kColumns;
        for (int64_t output = 0; output < layer.group_outputs; ++output, ++k) {
            const uint8_t* row = weight + (group * layer.group_outputs + output) * row_bytes;
            bits[k] = load_bits(row, first_bit, layer.panel_channels(channel_panel));
            present[k] = 0xFF;
        }
    }
    std::memset(present + k, 0, depth - k);
    spread_panel(panel, bits, present, depth);
    int32_t sums[kRows * kColumns] = {};
    if (kOffset) add_column_sums(panel, depth, sums);
    for (int i = 0; i < kColumns; ++i) start[i] = -kOffset * sums[i];
}

template <class Piece>
inline void copy_piece(uint8_t* to, const int8_t* from) {
    Piece piece;
    std::memcpy(&piece, from, sizeof piece);
    piece ^= kOffset;
    std::memcpy(to, &piece, sizeof piece);
}

// `pixels` of `bytes` bytes each, offset.
inline void copy_offset(uint8_t* to, int64_t to_step, const int8_t* from, int64_t from_step, int64_t pixels,
                        int64_t bytes) {
    if (bytes == 16) {
        for (int64_t i = 0; i < pixels; ++i) copy_piece<Sixteen>(to + i * to_step, from + i * from_step);
        return;
    }
    for (int64_t i = 0; i < pixels; ++i, to += to_step, from += from_step) {
        int64_t k = 0;
        for (; k + 64 <= bytes; k += 64) copy_piece<SixtyFour>(to + k, from + k);
        for (; k + 16 <= bytes; k += 16) copy_piece<Sixteen>(to + k, from + k);
        for (; k < bytes; ++k) to[k] = static_cast<uint8_t>(from[k] ^ kOffset);
    }
}

// Rows of the offset gradients that reach each of `count` input pixels, in (tap, output) order, `stride` bytes apart.
inline void gather_gradients(const Layer& layer, const Taps& taps, const int8_t* grad, int64_t group, int64_t first,
                             int64_t count, int64_t stride, uint8_t* rows) {
    const int64_t bytes = layer.group_outputs;
    for (int64_t tap = 0; tap < taps.count(); ++tap) {
        uint8_t* to = rows + tap * bytes;
        taps.for_stretches(tap, first, count, [&](int64_t offset, int64_t distance, int64_t pixels) {
            if (offset != kNowhere) {
                copy_offset(to, stride, grad + offset + group * bytes, distance, pixels, bytes);
            } else {
                for (int64_t i = 0; i < pixels; ++i) std::memset(to + i * stride, kOffset, bytes);
            }
            to += pixels * stride;
        });
    }
}

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
        const ScaledSums self = *this;  // which no store can change, so that its members stay in registers
        taps.for_own_stretches(first, count, [&](int64_t image, int64_t pixel, int64_t distance, int64_t pixels) {
            const int64_t at = pixel * self.channels_ + channel, step = distance * self.channels_;
            self.store_stretch(image * self.image_elements_ + at, image * self.row_bits_ + at, step, pixels, channels,
                               sums);
            sums += pixels * kColumns;
        });
    }

   private:
    void store_stretch(int64_t at, int64_t bit, int64_t step, int64_t pixels, int64_t channels,
                       const int32_t* sums) const {
        for (int64_t i = 0; i < pixels; ++i, sums += kColumns, at += step, bit += step) {
            const uint32_t low = planes_ ? load_bits(codes_, bit, channels) : 0;
            const uint32_t high = planes_ > 1 ? load_bits(codes_ + plane_bytes_, bit, channels) : 0;
            const uint32_t outside = outside_ ? load_bits(outside_, bit, channels) : 0;
            for (int64_t c = 0; c < channels; c += kWide) {
                store_lanes(sums + c, at + c, minimum(kWide, channels - c), low >> c, high >> c, outside >> c);
            }
        }
    }

    void store_lanes(const int32_t* sums, int64_t at, int64_t count, uint32_t low, uint32_t high,
                     uint32_t outside) const {
        Wide value = load_sums(sums) * scale_;
        if (planes_) {
            const Truths odd = truths_of(low);
            Wide slope = choose_wide(odd, slopes_[1], slopes_[0]);
            if (planes_ > 1) {
                slope = choose_wide(truths_of(high), choose_wide(odd, slopes_[3], slopes_[2]), slope);
            }
            value *= slope;
        }
        if (base_) value += select_wide(truths_of(~outside), load_wide(base_ + at, count));
        store_wide(out_ + at, value, count);
    }

    int64_t image_elements_, channels_, row_bits_, plane_bytes_;
    int planes_;
    const uint8_t* codes_;
    const Float* base_;
    const uint8_t* outside_;
    Float* out_;
    Wide scale_, slopes_[4];
};

// The gradient of the pixels that `taps` begin at.
template <class Float>
void backward_input_of(const Taps& taps, const int8_t* grad, const uint8_t* weight, const Layer& layer,
                       const ScaledSums<Float>& result, int threads) {
    const int64_t pixels = taps.pixels();
    const int64_t block = minimum(kBlockPixels, round_up(divide_up(pixels, threads), kRows));
    const int64_t depth = round_up(taps.count() * layer.group_outputs, kDepthStep);
    const int64_t part = round_up(divide_up(depth, maximum(divide_up(depth, kPanelDepth), 1)), kDepthStep);
    const int64_t stride = depth + 64;  // not a power of two, which would crowd a cache's sets
    const int64_t panels = layer.groups * layer.channel_panels;
    const int64_t step = minimum(panels, maximum(1, kPanelsBytes / maximum(depth * kColumns, 1)));

    const PanelRows panel_rows(threads, depth);
    const Buffer prepared(step, depth * kColumns), starts(step, kColumns * sizeof(int32_t)),
        gathered(threads, block * stride);
    for (int64_t first_panel = 0; first_panel < panels; first_panel += step) {
        const int64_t end_panel = minimum(first_panel + step, panels);
        parallel_for(end_panel - first_panel, threads, [&](int64_t i, int thread) {
            const Tiles tiles;
            prepare_panel(layer, taps, weight, first_panel + i, depth, panel_rows.bits.part<uint32_t>(thread),
                          panel_rows.present.part<uint8_t>(thread), prepared.part<int8_t>(i), starts.part<int32_t>(i));
        });
        parallel_for(block ? divide_up(pixels, block) : 0, threads, [&](int64_t index, int thread) {
            const Tiles tiles;
            const int64_t first = index * block, count = minimum(block, pixels - first);
            uint8_t* rows = gathered.part<uint8_t>(thread);
            alignas(64) int32_t sums[kBlockPixels * kColumns];
            for (int64_t panel = first_panel, rows_of = -1; panel < end_panel; ++panel) {
                const int64_t group = panel / layer.channel_panels, channel_panel = panel % layer.channel_panels;
                if (group != rows_of) gather_gradients(layer, taps, grad, group, first, count, stride, rows);
                rows_of = group;
                for (int64_t i = 0; i < round_up(count, kRows); ++i) {
                    std::memcpy(sums + i * kColumns, starts.part<int32_t>(panel - first_panel), kColumns * 4);
                }
                const int8_t* bytes = prepared.part<int8_t>(panel - first_panel);
                const int64_t channels = layer.panel_channels(channel_panel);
                for (int64_t k = 0; k < depth; k += part) {
                    multiply_rows(rows + k, stride, count, bytes + k * kColumns, minimum(part, depth - k), channels,
                                  sums);
                }
                result.store(taps, first, count, group * layer.group_channels + channel_panel * kColumns, channels,
                             sums);
            }
        });
    }
}

template <class Float>
void backward_input(const int8_t* grad, float scale, const uint8_t* weight, Float* out, const Layer& layer,
                    const bnn::Slopes& slopes, int threads) {
    const ScaledSums<Float> result(layer, scale, slopes, out);
    for (int64_t phase = 0; phase < Taps::phases(layer.window); ++phase) {
        const Taps taps(layer.window, phase, layer.outputs, layer.out_pixels * layer.outputs);
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
