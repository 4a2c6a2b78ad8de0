// The gradients of a convolution of ±1 values, from an int8 gradient of its output. Sums are exact in int32.
// A fully connected layer is a convolution of images and kernels of one pixel.
#pragma once

#include "random.h"
#include "taps.h"
#include "tile.h"

namespace {

constexpr int64_t kBlockPixels = 128;         // of the input, whose gradient is formed at a time
constexpr int64_t kDepth = 512;               // of a panel that stays in the nearest cache
constexpr int64_t kPanelsBytes = 4 << 20;     // of weights that are bytes at a time
constexpr int64_t kScratchBytes = 512 << 10;  // of a thread's transposed gradient, and of its sums
constexpr int64_t kTransposed = 64;           // outputs that are transposed at a time
constexpr int64_t kTasksPerThread = 2;        // for threads to end at about the same time

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

    Window window;
    int64_t outputs, groups, group_outputs, group_channels, taps, channel_panels, out_pixels;
};

inline uint32_t load_bits(const uint8_t* from, int64_t first_bit, int64_t bits) {
    uint32_t word = 0;
    if (first_bit % 8 == 0 && bits == 32) {
        std::memcpy(&word, from + first_bit / 8, 4);
    } else {
        extract_bits(reinterpret_cast<uint8_t*>(&word), from, first_bit, bits);
    }
    return word;
}

// Rows of a panel before they are bytes.
struct PanelRows {
    PanelRows(int threads, int64_t depth) : bits(threads, depth * sizeof(uint32_t)), present(threads, depth) {}
    Buffer bits, present;
};

// --- the gradient of the input --------------------------------------------------------------------------------------

// The weights that lead back from (tap, output) to the channels of one panel.
inline void prepare_panel(const Layer& layer, const uint8_t* weight, int64_t index, int64_t depth, uint32_t* bits,
                          uint8_t* present, int8_t* panel) {
    const int64_t group = index / layer.channel_panels, channel_panel = index % layer.channel_panels;
    const int64_t row_bytes = packed_bytes(layer.row_elements());
    for (int64_t tap = 0, k = 0; tap < layer.taps; ++tap) {
        const int64_t first_bit = tap * layer.group_channels + channel_panel * kColumns;
        for (int64_t output = 0; output < layer.group_outputs; ++output, ++k) {
            const uint8_t* row = weight + (group * layer.group_outputs + output) * row_bytes;
            bits[k] = load_bits(row, first_bit, layer.panel_channels(channel_panel));
            present[k] = 0xFF;
        }
    }
    spread_panel(panel, bits, present, depth);
}

// Rows of the gradients that reach each of `count` input pixels, in (tap, output) order, `stride` bytes apart.
inline void gather_gradients(const Layer& layer, const Taps& taps, const int8_t* grad, int64_t group, int64_t first,
                             int64_t count, int64_t stride, int8_t* rows) {
    const int64_t bytes = layer.group_outputs;
    int64_t offsets[kBlockPixels];
    for (int64_t tap = 0; tap < layer.taps; ++tap) {
        taps.follow(tap, first, count, offsets);
        for (int64_t i = 0; i < count; ++i) {
            int8_t* to = rows + i * stride + tap * bytes;
            if (offsets[i] == kNowhere) {
                std::memset(to, 0, bytes);
            } else {
                std::memcpy(to, grad + offsets[i] + group * bytes, bytes);
            }
        }
    }
}

inline void store_float(float* to, float value) { *to = value; }

// Rounds to nearest, ties to even.
inline void store_float(uint16_t* to, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    *to = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

template <class Float>
void backward_input(const int8_t* grad, float scale, const uint8_t* weight, Float* out, const Layer& layer,
                    int threads) {
    const Window& window = layer.window;
    const Taps taps(window, false, layer.outputs, layer.out_pixels * layer.outputs);
    const int64_t pixels = window.images * window.size[0] * window.size[1];
    const int64_t block = minimum(kBlockPixels, round_up(divide_up(pixels, threads), kRows));
    const int64_t depth = round_up(layer.taps * layer.group_outputs, kDepthStep);
    const int64_t stride = depth + kDepthStep;  // not a power of two, which would crowd a cache's sets
    const int64_t panels = layer.groups * layer.channel_panels;
    const int64_t step = minimum(panels, maximum(1, kPanelsBytes / (depth * kColumns)));

    const PanelRows panel_rows(threads, depth);
    const Buffer prepared(step, depth * kColumns), gathered(threads, block * stride);
    for (int64_t first_panel = 0; first_panel < panels; first_panel += step) {
        const int64_t end_panel = minimum(first_panel + step, panels);
        parallel_for(end_panel - first_panel, threads, [&](int64_t i, int thread) {
            prepare_panel(layer, weight, first_panel + i, depth, panel_rows.bits.part<uint32_t>(thread),
                          panel_rows.present.part<uint8_t>(thread), prepared.part<int8_t>(i));
        });
        parallel_for(block ? divide_up(pixels, block) : 0, threads, [&](int64_t index, int thread) {
            const Tiles tiles;
            const int64_t first = index * block, count = minimum(block, pixels - first);
            int8_t* rows = gathered.part<int8_t>(thread);
            alignas(64) int32_t sums[kBlockPixels * kColumns];
            for (int64_t panel = first_panel, rows_of = -1; panel < end_panel; ++panel) {
                const int64_t group = panel / layer.channel_panels, channel_panel = panel % layer.channel_panels;
                if (group != rows_of) gather_gradients(layer, taps, grad, group, first, count, stride, rows);
                rows_of = group;
                std::memset(sums, 0, sizeof sums);
                const int8_t* bytes = prepared.part<int8_t>(panel - first_panel);
                for (int64_t k = 0; k < depth; k += kDepth) {
                    for (int64_t row = 0; row < count; row += kRows) {
                        multiply_tile(rows + row * stride + k, stride, bytes + k * kColumns,
                                      minimum(kDepth, depth - k), sums + row * kColumns);
                    }
                }
                Float* to = out + first * window.channels + group * layer.group_channels + channel_panel * kColumns;
                const int64_t channels = layer.panel_channels(channel_panel);
                for (int64_t i = 0; i < count; ++i, to += window.channels) {
                    for (int64_t c = 0; c < channels; ++c) {
                        store_float(to + c, static_cast<float>(sums[i * kColumns + c]) * scale);
                    }
                }
            }
        });
    }
}

// `itemsize` 2: bfloat16
void conv2d_backward_input(const int8_t* grad, float scale, const uint8_t* weight, void* out, const Window& window,
                           int64_t outputs, int64_t groups, int itemsize, int threads) {
    const Layer layer(window, outputs, groups);
    if (itemsize == 2) {
        backward_input(grad, scale, weight, static_cast<uint16_t*>(out), layer, threads);
    } else {
        backward_input(grad, scale, weight, static_cast<float*>(out), layer, threads);
    }
}

// --- the gradient of the weight -------------------------------------------------------------------------------------

using Lanes [[gnu::vector_size(64)]] = uint64_t;  // the compiler makes it of what vectors there are

// Swaps the bits `low` of some rows with those `shift` higher of the rows `distance` before them.
template <int distance>
inline void swap_bits(Lanes (&rows)[8], uint64_t low) {
    constexpr int shift = 8 * distance;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        if (i & distance) continue;
        const Lanes change = ((rows[i] >> shift) ^ rows[i + distance]) & low;
        rows[i + distance] ^= change;
        rows[i] ^= change << shift;
    }
}

// Eight rows of 64 bytes to 64 rows of eight: in each of the eight lanes, a block of 8 x 8 bytes is transposed.
inline void transpose_block(Lanes (&rows)[8], int8_t* to, int64_t stride) {
    swap_bits<4>(rows, 0x00000000FFFFFFFF);
    swap_bits<2>(rows, 0x0000FFFF0000FFFF);
    swap_bits<1>(rows, 0x00FF00FF00FF00FF);
    for (int lane = 0; lane < 8; ++lane) {
        for (int row = 0; row < 8; ++row) {
            std::memcpy(to + (8 * lane + row) * stride, reinterpret_cast<const uint64_t*>(rows + row) + lane, 8);
        }
    }
}

// `count` pixels of `outputs` bytes each, `pixel_step` apart, to rows of a pixel a byte; zeros up to `depth`.
[[gnu::noinline]] void transpose(const int8_t* pixels, int64_t pixel_step, int64_t count, int64_t outputs,
                                 int64_t depth, int64_t stride, int8_t* rows) {
    for (int64_t first = 0; first < outputs; first += kTransposed) {
        const int64_t bytes = minimum(kTransposed, outputs - first);
        for (int64_t k = 0; k < depth; k += 8) {
            const int8_t* from = pixels + k * pixel_step + first;
            Lanes block[8];
            if (bytes == kTransposed && k + 8 <= count) {
                for (int i = 0; i < 8; ++i) std::memcpy(block + i, from + i * pixel_step, kTransposed);
            } else {
                std::memset(block, 0, sizeof block);
                for (int64_t i = 0; i < count - k && i < 8; ++i) std::memcpy(block + i, from + i * pixel_step, bytes);
            }
            transpose_block(block, rows + first * stride + k, stride);
        }
    }
}

// Calls finish(output, first element, elements, sums) for parts of all rows of the weight's gradient. A task owns some
// panels of a group's columns and goes through all pixels, `depth` at a time, so that its sums stay in its cache.
template <class Finish>
void backward_weight(const int8_t* grad, const uint8_t* x, const Layer& layer, int threads, const Finish& finish) {
    const Window& window = layer.window;
    const Taps taps(window, true, window.channels, image_bytes(window) * 8);
    const int64_t pixels = window.images * layer.out_pixels, rows = round_up(layer.group_outputs, kTransposed);
    const int64_t most = maximum(kScratchBytes / rows / kDepthStep * kDepthStep, kDepthStep);
    const int64_t depth = minimum(minimum(kDepth, most), round_up(pixels, kDepthStep)), stride = depth + kDepthStep;
    const int64_t panels = layer.taps * layer.channel_panels, panel_sums = rows * kColumns;
    const int64_t share = divide_up(layer.groups * panels, kTasksPerThread * threads);
    const int64_t task_panels = maximum(1, minimum(kScratchBytes / 4 / panel_sums, minimum(share, panels)));
    const int64_t group_tasks = divide_up(panels, task_panels);

    const PanelRows panel_rows(threads, depth);
    const Buffer panel_bytes(threads, depth * kColumns), transposed(threads, rows * stride),
        offset_parts(threads, depth * sizeof(int64_t)), sum_parts(threads, task_panels * panel_sums * 4);
    parallel_for(layer.groups * group_tasks, threads, [&](int64_t task, int thread) {
        const Tiles tiles;
        const int64_t group = task / group_tasks, first_panel = task % group_tasks * task_panels;
        const int64_t end_panel = minimum(first_panel + task_panels, panels);
        int8_t *panel = panel_bytes.part<int8_t>(thread), *a = transposed.part<int8_t>(thread);
        uint32_t* bits = panel_rows.bits.part<uint32_t>(thread);
        uint8_t* present = panel_rows.present.part<uint8_t>(thread);
        int64_t* offsets = offset_parts.part<int64_t>(thread);
        int32_t* sums = sum_parts.part<int32_t>(thread);
        std::memset(sums, 0, task_panels * panel_sums * 4);
        for (int64_t first = 0; first < pixels; first += depth) {
            const int64_t count = minimum(depth, pixels - first), chunk = round_up(count, kDepthStep);
            transpose(grad + first * layer.outputs + group * layer.group_outputs, layer.outputs, count,
                      layer.group_outputs, chunk, stride, a);
            for (int64_t index = first_panel; index < end_panel; ++index) {
                const int64_t tap = index / layer.channel_panels, channel_panel = index % layer.channel_panels;
                const int64_t first_bit = group * layer.group_channels + channel_panel * kColumns;
                const int64_t channels = layer.panel_channels(channel_panel);
                if (channel_panel == 0 || index == first_panel) taps.follow(tap, first, count, offsets);
                for (int64_t k = 0; k < count; ++k) {
                    bits[k] = offsets[k] == kNowhere ? 0 : load_bits(x, offsets[k] + first_bit, channels);
                    present[k] = offsets[k] == kNowhere ? 0 : 0xFF;
                }
                spread_panel(panel, bits, present, chunk);
                int32_t* to = sums + (index - first_panel) * panel_sums;
                for (int64_t row = 0; row < layer.group_outputs; row += kRows) {
                    multiply_tile(a + row * stride, stride, panel, chunk, to + row * kColumns);
                }
            }
        }
        for (int64_t index = first_panel; index < end_panel; ++index) {
            const int64_t tap = index / layer.channel_panels, channel_panel = index % layer.channel_panels;
            for (int64_t output = 0; output < layer.group_outputs; ++output) {
                finish(group * layer.group_outputs + output,
                       tap * layer.group_channels + channel_panel * kColumns, layer.panel_channels(channel_panel),
                       sums + (index - first_panel) * panel_sums + output * kColumns);
            }
        }
    });
}

void conv2d_backward_weight(const int8_t* grad, float scale, const uint8_t* x, float* out, const Window& window,
                            int64_t outputs, int64_t groups, int threads) {
    const Layer layer(window, outputs, groups);
    backward_weight(grad, x, layer, threads, [&](int64_t row, int64_t first, int64_t count, const int32_t* sums) {
        float* to = out + row * layer.row_elements() + first;
        for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(sums[i]) * scale;
    });
}

// Packed signs into `out`, which is clear; the sign of 0 is random.
void conv2d_backward_weight_sign(const int8_t* grad, const uint8_t* x, uint8_t* out, const Window& window,
                                 int64_t outputs, int64_t groups, uint32_t key, int threads) {
    const Layer layer(window, outputs, groups);
    const bool shared_bytes = layer.group_channels % 8 && layer.taps > 1;  // by the end of a tap and the next
    backward_weight(grad, x, layer, threads, [&](int64_t row, int64_t first, int64_t count, const int32_t* sums) {
        const int64_t index = row * layer.row_elements() + first;
        uint64_t bits = 0;
        for (int64_t i = 0; i < count; ++i) {
            const uint64_t coin = random_bits(key, static_cast<uint32_t>(index + i)) >> 31;
            bits |= (sums[i] == 0 ? coin : sums[i] > 0) << i;
        }
        uint8_t* to = out + row * packed_bytes(layer.row_elements()) + first / 8;
        if (!shared_bytes) {
            std::memcpy(to, &bits, packed_bytes(count));
            return;
        }
        bits <<= first % 8;
        for (int64_t i = 0; i < packed_bytes(first % 8 + count); ++i) {
            const uint8_t byte = static_cast<uint8_t>(bits >> 8 * i);
#pragma omp atomic
            to[i] |= byte;
        }
    });
}

}  // namespace
