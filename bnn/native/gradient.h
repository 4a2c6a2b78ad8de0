// The gradients of a convolution of ±1 values, from an int8 gradient of its output. Sums are exact in int32.
// A fully connected layer is a convolution of images and kernels of one pixel.
#pragma once

#include "random.h"
#include "taps.h"
#include "tile.h"
#include "transpose.h"
#include "wide.h"

namespace {

constexpr int64_t kWordBits = 64;
constexpr int64_t kBlockPixels = 128;           // of the input, whose gradient is formed at a time
constexpr int64_t kDepth = kColumns * kBlocks;  // of a panel that stays in the nearest cache
constexpr int64_t kPanelDepth = 640;            // of weights as bytes, likewise
constexpr int64_t kPanelsBytes = 4 << 20;       // of weights that are bytes at a time
constexpr int64_t kScratchBytes = 512 << 10;    // of a thread's panels of gradients, and of its sums
constexpr int64_t kPixelsAhead = 8;             // that are fetched early, of a gradient that no cache holds

struct Layer {
    Layer(const Window& window, int64_t outputs, int64_t groups)
        : window(window),
          outputs(outputs),
          groups(groups),
          group_outputs(outputs / groups),
          group_channels(window.channels / groups),
          taps(window.kernel[0] * window.kernel[1]),
          channel_panels(divide_up(group_channels, kColumns)),
          out_pixels(window.out_size[0] * window.out_size[1]) {}

    int64_t row_elements() const { return taps * group_channels; }
    int64_t panel_channels(int64_t channel_panel) const {
        return minimum(kColumns, group_channels - channel_panel * kColumns);
    }

    int64_t panel_outputs(int64_t panel) const { return minimum(kColumns, group_outputs - panel * kColumns); }

    Window window;
    int64_t outputs, groups, group_outputs, group_channels, taps, channel_panels, out_pixels;
};

// At most 32 bits, from any bit on. Put together in a register: a word that is stored byte by byte is slow to read back.
inline uint32_t load_bits(const uint8_t* from, int64_t first_bit, int64_t bits) {
    from += first_bit / 8;
    const int64_t shift = first_bit % 8;
    if (shift == 0 && bits == 32) {
        uint32_t word;
        std::memcpy(&word, from, 4);
        return word;
    }
    if (shift == 0 && bits == 16) {
        uint16_t word;
        std::memcpy(&word, from, 2);
        return word;
    }
    uint64_t word = 0;
    for (int64_t i = 0; i < packed_bytes(shift + bits); ++i) word |= uint64_t{from[i]} << 8 * i;
    return static_cast<uint32_t>(word >> shift & ((uint64_t{1} << bits) - 1));
}

// Rows of a panel before they are bytes.
struct PanelRows {
    PanelRows(int threads, int64_t depth) : bits(threads, depth * sizeof(uint32_t)), present(threads, depth) {}
    Buffer bits, present;
};

// Adds the sums of a panel's columns to each row of sums[kRows][kColumns].
inline void add_column_sums(const int8_t* panel, int64_t depth, int32_t* sums) {
    uint8_t ones[kDepth];
    std::memset(ones, 1, sizeof ones);
    for (int64_t k = 0; k < depth; k += kDepth) {
        multiply_tile(ones, 0, panel + k * kColumns, minimum(kDepth, depth - k), kColumns, sums);
    }
}

// --- the gradient of the input --------------------------------------------------------------------------------------

constexpr uint8_t kOffset = 128;  // of the gradients' bytes, for them to be unsigned

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
    add_column_sums(panel, depth, sums);
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
                    for (int64_t row = 0; row < count; row += kRows) {
                        multiply_tile(rows + row * stride + k, stride, bytes + k * kColumns, minimum(part, depth - k),
                                      channels, sums + row * kColumns);
                    }
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

// --- the gradient of the weight -------------------------------------------------------------------------------------

// Four pixels of 16 bytes each, side by side in a panel: the bytes of one column behind one another.
inline void interleave_block(const Sixteen (&rows)[4], int8_t* to) {
    const Pairs low = (Pairs)lower_halves(rows[0], rows[1]), other_low = (Pairs)lower_halves(rows[2], rows[3]);
    const Pairs high = (Pairs)upper_halves(rows[0], rows[1]), other_high = (Pairs)upper_halves(rows[2], rows[3]);
    const Pairs columns[4] = {lower_halves(low, other_low), upper_halves(low, other_low),
                              lower_halves(high, other_high), upper_halves(high, other_high)};
    for (int i = 0; i < 4; ++i) std::memcpy(to + 16 * i, columns + i, 16);
}

// `count` pixels of `outputs` bytes each, `pixel_step` apart, to panels of kColumns outputs; zeros up to `depth`.
[[gnu::noinline]] void interleave(const int8_t* pixels, int64_t pixel_step, int64_t count, int64_t outputs,
                                  int64_t depth, int64_t panel_bytes, int8_t* panels) {
    for (int64_t k = 0; k < depth; k += 4) {
        for (int64_t first = 0; first < outputs; first += 16) {
            const int8_t* from = pixels + k * pixel_step + first;
            __builtin_prefetch(from + kPixelsAhead * pixel_step);
            const int64_t bytes = minimum(16, outputs - first);
            Sixteen rows[4] = {};
            if (bytes == 16 && k + 4 <= count) {
                for (int i = 0; i < 4; ++i) std::memcpy(rows + i, from + i * pixel_step, 16);
            } else {
                for (int64_t i = 0; i < count - k && i < 4; ++i) std::memcpy(rows + i, from + i * pixel_step, bytes);
            }
            interleave_block(rows, panels + first / kColumns * panel_bytes + k * kColumns + first % kColumns * 4);
        }
    }
}

template <class Word>
inline void load_words(uint32_t* to, const uint8_t* from, int64_t distance, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        Word word;
        std::memcpy(&word, from + i * distance, sizeof word);
        to[i * kBlocks] = word;
    }
}

// A channel a row of signs, offset by 1, of the `count` pixels that a tap leads to; up to `depth` there are none.
inline void spread_channels(const uint8_t* x, const Taps& taps, int64_t tap, int64_t first, int64_t count,
                            int64_t first_bit, int64_t channels, int64_t depth, int64_t stride, uint8_t* rows) {
    Blocks blocks[kColumns];  // at first, lane b of row i holds the channels of pixel 32 b + i
    uint32_t* words = reinterpret_cast<uint32_t*>(blocks);
    uint64_t present[kDepth / kWordBits] = {};
    int64_t pixel = 0;
    taps.for_stretches(tap, first, count, [&](int64_t offset, int64_t distance, int64_t pixels) {
        const int64_t end = pixel + pixels;
        if (offset == kNowhere) {
            pixel = end;
            return;
        }
        int64_t bit = offset + first_bit;
        const bool in_bytes = bit % 8 == 0 && distance % 8 == 0;
        while (pixel < end) {
            const int64_t run = minimum(end - pixel, kColumns - pixel % kColumns);
            uint32_t* to = words + pixel % kColumns * kBlocks + pixel / kColumns;
            if (in_bytes && channels == 32) {
                load_words<uint32_t>(to, x + bit / 8, distance / 8, run);
            } else if (in_bytes && channels == 16) {
                load_words<uint16_t>(to, x + bit / 8, distance / 8, run);
            } else {
                for (int64_t i = 0; i < run; ++i) to[i * kBlocks] = load_bits(x, bit + i * distance, channels);
            }
            present[pixel / kWordBits] |= ((uint64_t{1} << run) - 1) << pixel % kWordBits;
            pixel += run;
            bit += run * distance;
        }
    });
    transpose_bits(blocks);
    const uint8_t* masks = reinterpret_cast<const uint8_t*>(blocks);
    for (int64_t k = 0; k < depth; k += kWordBits) {
        for (int64_t c = 0; c < channels; ++c) {
            spread_signs(rows + c * stride + k, load_word(masks + c * sizeof(Blocks) + k / 8), present[k / kWordBits]);
        }
    }
}

// Calls finish(first output, outputs, first element, elements, sums[element][output], excess[output]) for parts of the
// weight's gradient, which is sums - excess, of kColumns outputs and elements at most. A task owns some panels of a group's elements and goes through
// all pixels, a chunk at a time, so that its sums stay in its cache.
template <class Finish>
void backward_weight(const int8_t* grad, const uint8_t* x, const Layer& layer, int threads, const Finish& finish) {
    const Window& window = layer.window;
    const Taps taps(window, window.channels, image_bytes(window) * 8);
    const int64_t pixels = window.images * layer.out_pixels;
    const int64_t output_panels = divide_up(layer.group_outputs, kColumns), panels = layer.taps * layer.channel_panels;
    const int64_t panel_sums = output_panels * kColumns * kColumns;
    const int64_t most_panels = maximum(1, kScratchBytes / 4 / panel_sums);
    const int64_t group_tasks = minimum(panels, round_up(divide_up(panels, most_panels), threads));
    const int64_t most = maximum(kScratchBytes / (output_panels * kColumns) / kWordBits * kWordBits, kWordBits);
    const int64_t chunk = minimum(minimum(kDepth, most), round_up(pixels, kWordBits));
    // Not powers of two, which would crowd a cache's sets.
    const int64_t stride = chunk + kWordBits, output_panel_bytes = (chunk + 4) * kColumns;

    const Buffer channel_rows(threads, kColumns * stride), output_parts(threads, output_panels * output_panel_bytes),
        sum_parts(threads, divide_up(panels, group_tasks) * panel_sums * 4),
        excess_parts(threads, output_panels * kRows * kColumns * 4);
    parallel_for(layer.groups * group_tasks, threads, [&](int64_t task, int thread) {
        const Tiles tiles;
        const int64_t group = task / group_tasks, part = task % group_tasks;
        const int64_t first_panel = part * panels / group_tasks, end_panel = (part + 1) * panels / group_tasks;
        uint8_t* rows = channel_rows.part<uint8_t>(thread);
        int8_t* outputs = output_parts.part<int8_t>(thread);
        int32_t *sums = sum_parts.part<int32_t>(thread), *excess = excess_parts.part<int32_t>(thread);
        std::memset(sums, 0, (end_panel - first_panel) * panel_sums * 4);
        std::memset(excess, 0, output_panels * kRows * kColumns * 4);
        for (int64_t first = 0; first < pixels; first += chunk) {
            const int64_t count = minimum(chunk, pixels - first), depth = round_up(count, kWordBits);
            interleave(grad + first * layer.outputs + group * layer.group_outputs, layer.outputs, count,
                       layer.group_outputs, depth, output_panel_bytes, outputs);
            for (int64_t panel = 0; panel < output_panels; ++panel) {
                add_column_sums(outputs + panel * output_panel_bytes, depth, excess + panel * kRows * kColumns);
            }
            for (int64_t index = first_panel; index < end_panel; ++index) {
                const int64_t channel_panel = index % layer.channel_panels;
                const int64_t first_bit = group * layer.group_channels + channel_panel * kColumns;
                const int64_t channels = layer.panel_channels(channel_panel);
                spread_channels(x, taps, index / layer.channel_panels, first, count, first_bit, channels, depth, stride,
                                rows);
                int32_t* to = sums + (index - first_panel) * panel_sums;
                for (int64_t panel = 0; panel < output_panels; ++panel) {
                    for (int64_t row = 0; row < channels; row += kRows) {
                        multiply_tile(rows + row * stride, stride, outputs + panel * output_panel_bytes, depth,
                                      layer.panel_outputs(panel), to + row * kColumns);
                    }
                    to += kColumns * kColumns;
                }
            }
        }
        for (int64_t index = first_panel; index < end_panel; ++index) {
            const int64_t tap = index / layer.channel_panels, channel_panel = index % layer.channel_panels;
            for (int64_t panel = 0; panel < output_panels; ++panel) {
                finish(group * layer.group_outputs + panel * kColumns, layer.panel_outputs(panel),
                       tap * layer.group_channels + channel_panel * kColumns, layer.panel_channels(channel_panel),
                       sums + ((index - first_panel) * output_panels + panel) * kColumns * kColumns,
                       excess + panel * kRows * kColumns);
            }
        }
    });
}

void conv2d_backward_weight(const int8_t* grad, float scale, const uint8_t* x, float* out, const Window& window,
                            int64_t outputs, int64_t groups, int threads) {
    const Layer layer(window, outputs, groups);
    backward_weight(grad, x, layer, threads,
                    [&](int64_t row, int64_t rows, int64_t first, int64_t count, const int32_t* sums,
                        const int32_t* excess) {
                        for (int64_t i = 0; i < rows; ++i) {
                            float* to = out + (row + i) * layer.row_elements() + first;
                            for (int64_t k = 0; k < count; ++k) {
                                to[k] = static_cast<float>(sums[k * kColumns + i] - excess[i]) * scale;
                            }
                        }
                    });
}

// Which of a part's sums are above the excess, and which equal it: a word of elements for each output.
struct SignWords {
    SignWords(const int32_t* sums, const int32_t* excess) {
        for (int64_t k = 0; k < kColumns; ++k, sums += kColumns) {
#if defined(BNN_USE_AMX) || defined(BNN_USE_AVX512)
            for (int64_t i = 0; i < kColumns; i += 16) {
                const Vector v = _mm512_loadu_si512(sums + i), least = _mm512_loadu_si512(excess + i);
                words[k][0] |= static_cast<uint32_t>(_mm512_cmpgt_epi32_mask(v, least)) << i;
                words[k][1] |= static_cast<uint32_t>(_mm512_cmpeq_epi32_mask(v, least)) << i;
            }
#else
            for (int64_t i = 0; i < kColumns; i += 8) {
                Mask v, least;
                std::memcpy(&v, sums + i, sizeof v);
                std::memcpy(&least, excess + i, sizeof least);
                v -= least;
                words[k][0] |= static_cast<uint32_t>(byte_of(if_negative(-v))) << i;
                words[k][1] |= static_cast<uint32_t>(byte_of(if_negative(~(v | -v)))) << i;
            }
#endif
        }
        transpose_bits(words);
    }

    uint32_t positive(int64_t output) const { return words[output][0]; }
    uint32_t zero(int64_t output) const { return words[output][1]; }

    TwoWords words[kColumns] = {};
};

// Packed signs into `out`, which is clear; the sign of 0 is random.
void conv2d_backward_weight_sign(const int8_t* grad, const uint8_t* x, uint8_t* out, const Window& window,
                                 int64_t outputs, int64_t groups, uint32_t key, int threads) {
    const Layer layer(window, outputs, groups);
    const bool shared_bytes = layer.group_channels % 8 && layer.taps > 1;  // by the end of a tap and the next
    const auto finish = [&](int64_t row, int64_t rows, int64_t first, int64_t count, const int32_t* sums,
                            const int32_t* excess) {
        const SignWords words(sums, excess);
        for (int64_t i = 0; i < rows; ++i) {
            const int64_t index = (row + i) * layer.row_elements() + first;
            uint64_t bits = words.positive(i);
            for (uint32_t rest = words.zero(i); rest; rest &= rest - 1) {
                const int k = __builtin_ctz(rest);
                bits |= static_cast<uint64_t>(random_bits(key, static_cast<uint32_t>(index + k)) >> 31) << k;
            }
            bits &= (uint64_t{1} << count) - 1;
            uint8_t* to = out + (row + i) * packed_bytes(layer.row_elements()) + first / 8;
            if (count == kColumns && !shared_bytes) {
                std::memcpy(to, &bits, kColumns / 8);
                continue;
            }
            if (!shared_bytes) {
                std::memcpy(to, &bits, packed_bytes(count));
                continue;
            }
            bits <<= first % 8;
            for (int64_t byte = 0; byte < packed_bytes(first % 8 + count); ++byte) {
                const uint8_t value = static_cast<uint8_t>(bits >> 8 * byte);
#pragma omp atomic
                to[byte] |= value;
            }
        }
    };
    backward_weight(grad, x, layer, threads, finish);
}

}  // namespace
