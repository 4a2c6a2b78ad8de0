// The gradient of a convolution's weight: of each element the sum over the output's pixels of their gradient times the sign
// of the input that the element's tap leads to; or the packed signs of these sums.
#pragma once

#include "gradient.h"
#include "random.h"
#include "wide.h"

namespace {

constexpr int64_t kWordBits = 64;
constexpr int64_t kChunkWords = kDepth / kWordBits;  // of a chunk of pixels
constexpr int64_t kScratchBytes = 512 << 10;  // of a thread's panels of gradients, and of its sums
constexpr int64_t kPixelsAhead = 8;           // that are fetched early, of a gradient that no cache holds

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

// A channel a row of bits, of the `count` pixels from `first` on that a tap leads to; and a bit of each that there is.
inline void gather_channels(const uint8_t* x, const Taps& taps, int64_t tap, int64_t first, int64_t count,
                            int64_t first_bit, int64_t channels, Blocks (&blocks)[kColumns],
                            uint64_t (&present)[kChunkWords]) {
    uint32_t* words = reinterpret_cast<uint32_t*>(blocks);  // at first, lane b of row i: the channels of pixel 32 b + i
    std::memset(present, 0, sizeof present);
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
}

// The same as bytes of signs, offset by 1; up to `depth` there are none.
inline void spread_channels(const uint8_t* x, const Taps& taps, int64_t tap, int64_t first, int64_t count,
                            int64_t first_bit, int64_t channels, int64_t depth, int64_t stride, uint8_t* rows) {
    Blocks blocks[kColumns];
    uint64_t present[kChunkWords];
    gather_channels(x, taps, tap, first, count, first_bit, channels, blocks, present);
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
            const int64_t count = minimum(chunk, pixels - first), depth = round_up(count, kDepthStep);
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
                    multiply_rows(rows, stride, channels, outputs + panel * output_panel_bytes, depth,
                                  layer.panel_outputs(panel), to);
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

// of_outputs[output][element] = sums[element][output] - excess[output] of some outputs and elements; the others hold anything.
inline void sums_of_outputs(const int32_t* sums, const int32_t* excess, [[maybe_unused]] int64_t rows, int64_t count,
                            int32_t (&of_outputs)[kColumns][kColumns]) {
#ifdef BNN_HAS_NEON
    for (int64_t k = 0; k < count; k += 4) {
        for (int64_t i = 0; i < kColumns; i += 4) {
            subtract_four_by_four(sums + k * kColumns + i, kColumns, excess + i, &of_outputs[i][k], kColumns);
        }
    }
#else
    for (int64_t output = 0; output < rows; output += 8) {
        const Mask less = load_mask(excess + output);
        for (int64_t k = 0; k < count; k += 8) {
            Mask block[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) block[i] = load_mask(sums + (k + i) * kColumns + output) - less;
            transpose_words(block);
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                const Mask row = block[i];
                std::memcpy(of_outputs[output + i] + k, &row, sizeof row);
            }
        }
    }
#endif
}

// Stores parts of the weight's gradient, each output's by a factor of its own, or all by one.
template <class Float>
struct WeightGradient {
    Float* out;
    const Layer& layer;
    const float* factors;
    bool is_one = false;  // of the factors

    void operator()(int64_t row, int64_t rows, int64_t first, int64_t count, const int32_t* sums,
                    const int32_t* excess) const {
        alignas(64) int32_t of_outputs[kColumns][kColumns];
        sums_of_outputs(sums, excess, rows, count, of_outputs);
        for (int64_t i = 0; i < rows; ++i) {
            const float factor = factors[is_one ? 0 : row + i];
            Float* to = out + (row + i) * layer.row_elements() + first;
#ifdef BNN_HAS_NEON
            for (int64_t k = 0; k < count; k += 8) {
                store_octet(to + k, floats_of(load_mask(of_outputs[i] + k)) * factor, minimum(8, count - k));
            }
#else
            const Wide same_factor = all_wide(factor);
            for (int64_t k = 0; k < count; k += kWide) {
                store_wide(to + k, load_sums(of_outputs[i] + k) * same_factor, minimum(kWide, count - k));
            }
#endif
        }
    }
};

void conv2d_backward_weight(const int8_t* grad, float scale, const uint8_t* x, void* out, const Window& window,
                            int64_t outputs, int64_t groups, int itemsize, int threads) {
    const Layer layer(window, outputs, groups);
    if (itemsize == 2) {
        const WeightGradient<BFloat16> finish{static_cast<BFloat16*>(out), layer, &scale, true};
        backward_weight(grad, x, layer, threads, finish);
    } else {
        const WeightGradient<float> finish{static_cast<float*>(out), layer, &scale, true};
        backward_weight(grad, x, layer, threads, finish);
    }
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
                const Mask v = load_mask(sums + i) - load_mask(excess + i);
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
