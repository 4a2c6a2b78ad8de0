// Gradients of products where instructions add products of bytes (tile.h): panels of bytes are made of signs and of gradients.
#pragma once

#include "gradient.h"
#include "tile.h"

namespace {

constexpr int64_t kBlockPixels = 128;      // whose gradient is formed at a time
constexpr int64_t kPanelDepth = 640;       // of a panel of weights that stays in the nearest cache
constexpr int64_t kPanelsBytes = 1 << 20;  // of weights that are bytes at a time

// Adds the sums of a panel's columns to each row of sums[kRows][kColumns].
inline void add_column_sums(const int8_t* panel, int64_t depth, int32_t* sums) {
    uint8_t ones[kDepth];
    std::memset(ones, 1, sizeof ones);
    for (int64_t k = 0; k < depth; k += kDepth) {
        multiply_rows(ones, 0, kRows, panel + k * kColumns, minimum(kDepth, depth - k), sums);
    }
}

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
                copy_offset(to, stride, grad + offset * layer.outputs + group * bytes, distance * layer.outputs, pixels, bytes);
            } else {
                for (int64_t i = 0; i < pixels; ++i) std::memset(to + i * stride, kOffset, bytes);
            }
            to += pixels * stride;
        });
    }
}

// The gradient of the pixels that `taps` begin at.
template <class Result>
void backward_input_of(const Taps& taps, const int8_t* grad, const uint8_t* weight, const Layer& layer,
                       const Result& result, int threads) {
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
                    multiply_rows(rows + k, stride, count, bytes + k * kColumns, minimum(part, depth - k), sums);
                }
                result.store(taps, first, count, group * layer.group_channels + channel_panel * kColumns, channels,
                             sums);
            }
        });
    }
}

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
                    multiply_rows(rows, stride, channels, outputs + panel * output_panel_bytes, depth, to);
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

}  // namespace
