// The gradient of a convolution's weight from one of its output that is drawn to be -1, 0 or 1: by counts of bits.
#pragma once

#include "weight_gradient.h"

namespace {

constexpr int kLaneOutputs = kLanes * kTileVectors;     // whose bits lie side by side in the planes
constexpr int kCountedRows = 8;                         // of the input, that meet a vector of outputs at a time
constexpr int64_t kDrawnPixels = 1024;                  // the squares of whose gradients are below 2^24 together

// Adds the magnitudes of some outputs' gradients, and their squares, to sums[outputs] and to those behind them: floats
// hold the sums of kDrawnPixels exactly.
inline void add_sizes(const int8_t* grad, int64_t pixels, int64_t outputs, int64_t first, int64_t* sums) {
    constexpr int kVectors = 4;
    Wide sizes[kVectors] = {}, squares[kVectors] = {};
    for (int64_t pixel = 0; pixel < pixels; ++pixel, grad += outputs) {
        for (int v = 0; v < kVectors && first + v * kWide < outputs; ++v) {
            const int64_t output = first + v * kWide;
            const Wide q = load_wide(grad + output, minimum(kWide, outputs - output));
            sizes[v] += magnitude(q);
            squares[v] += q * q;
        }
    }
    for (int v = 0; v < kVectors; ++v) {
        for (int64_t lane = 0; lane < minimum(kWide, outputs - first - v * kWide); ++lane) {
            sums[first + v * kWide + lane] += static_cast<int64_t>(sizes[v][lane]);
            sums[outputs + first + v * kWide + lane] += static_cast<int64_t>(squares[v][lane]);
        }
    }
}

// Of each output: what 65,536 times the probability of a 1 or -1 is for a gradient of 1, and the value of a 1.
struct TernaryDraw {
    TernaryDraw(const int8_t* grad, int64_t pixels, int64_t outputs, float scale, int threads)
        : factors(1, outputs * sizeof(float)), values(1, outputs * sizeof(float)) {
        const Buffer parts(threads, outputs * 2 * sizeof(int64_t));
        parallel_for(divide_up(pixels, kDrawnPixels), threads, [&](int64_t index, int thread) {
            const int64_t first = index * kDrawnPixels, count = minimum(kDrawnPixels, pixels - first);
            for (int64_t output = 0; output < outputs; output += 4 * kWide) {
                add_sizes(grad + first * outputs, count, outputs, output, parts.part<int64_t>(thread));
            }
        });
        for (int64_t o = 0; o < outputs; ++o) {
            int64_t sizes = 0, squares = 0;
            for (int thread = 0; thread < threads; ++thread) {
                sizes += parts.part<int64_t>(thread)[o];
                squares += parts.part<int64_t>(thread)[outputs + o];
            }
            const int64_t factor = squares ? (sizes << 15) / squares : 0;
            factors.part<float>(0)[o] = static_cast<float>(factor);
            values.part<float>(0)[o] = factor ? scale * (65536.0f / static_cast<float>(factor)) : 0;
        }
    }
    Buffer factors, values;
};

// The drawn gradient as bits, pixels in the order of memory: of each chunk, each kLaneOutputs outputs of a group and each
// word of 64 pixels a word of each output that tells where it is not 0, and then one where it is above 0.
class TernaryPlanes {
   public:
    TernaryPlanes(const int8_t* grad, const TernaryDraw& draw, const Layer& layer, uint32_t key, int threads)
        : lane_panels_(divide_up(layer.group_outputs, kLaneOutputs)),
          chunks_(divide_up(layer.window.images * layer.out_pixels, kDepth)),
          words_(chunks_ * layer.groups, lane_panels_ * kChunkWords * 2 * kLaneOutputs * 8) {
        const int64_t pixels = layer.window.images * layer.out_pixels;
        const int64_t panels = divide_up(layer.group_outputs, kColumns), of_chunk = layer.groups * panels;
        parallel_for(chunks_ * of_chunk, threads, [&](int64_t task, int) {
            const int64_t panel = task % panels, group = task / panels % layer.groups, chunk = task / of_chunk;
            const int64_t output = group * layer.group_outputs + panel * kColumns;
            fill(grad, draw, layer.outputs, output, layer.panel_outputs(panel), chunk * kDepth,
                 minimum(kDepth, pixels - chunk * kDepth), key, of(chunk, group, layer.groups), panel * kColumns);
        });
    }

    uint64_t* of(int64_t chunk, int64_t group, int64_t groups) const {
        return words_.part<uint64_t>(chunk * groups + group);
    }
    int64_t lane_panels() const { return lane_panels_; }

   private:
    void fill(const int8_t* grad, const TernaryDraw& draw, int64_t outputs, int64_t output, int64_t count, int64_t first,
              int64_t pixels, uint32_t key, uint64_t* words, int64_t lane) const {
        Blocks drawn[2][kColumns] = {};  // at first, lane b of row i holds the outputs of pixel 32 b + i
        const float* factors = draw.factors.part<float>(0) + output;
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            const int64_t element = (first + pixel) * outputs + output;
            uint8_t* some = reinterpret_cast<uint8_t*>(drawn[0] + pixel % kColumns) + pixel / kColumns * 4;
            uint8_t* positive = reinterpret_cast<uint8_t*>(drawn[1] + pixel % kColumns) + pixel / kColumns * 4;
            for (int64_t o = 0; o < count; o += kWide) {
                const int64_t lanes = minimum(kWide, count - o);
                const Wide q = load_wide(grad + element + o, lanes);
                const auto index = static_cast<uint32_t>(element + o);
                const WideWords random = mix((kPlaces * kIndexFactor + index * kIndexFactor) ^ key) >> 16;
                const Wide limit = magnitude(q) * load_wide(factors + o, lanes);
                store_truths(some + o / 8, greater(limit, floats_of(random)), kWide);
                store_truths(positive + o / 8, greater(q, Wide{}), kWide);
            }
        }
        for (int plane = 0; plane < 2; ++plane) {
            transpose_bits(drawn[plane]);
            const uint8_t* rows = reinterpret_cast<const uint8_t*>(drawn[plane]);
            for (int64_t o = 0; o < count; ++o) {
                const int64_t panel = (lane + o) / kLaneOutputs, place = (lane + o) % kLaneOutputs;
                for (int64_t word = 0; word < kChunkWords; ++word) {
                    words[((panel * kChunkWords + word) * 2 + plane) * kLaneOutputs + place] =
                        load_word(rows + (o * kChunkWords + word) * 8);
                }
            }
        }
    }

    int64_t lane_panels_, chunks_;
    Buffer words_;
};

// Adds to counts[kCountedRows][stride], of kLaneOutputs outputs, how often the drawn gradient is not 0 and has the other
// sign than the input's row.
[[gnu::noinline]] void count_opposite(const uint8_t* rows, const uint64_t* planes, const uint64_t* present,
                                      int64_t words, int64_t stride, uint64_t* counts) {
    static_assert(kChunkWords <= kMostCounts);
    Vector sums[kCountedRows][kTileVectors] = {};
    for (int64_t word = 0; word < words; ++word, planes += 2 * kLaneOutputs) {
        Vector some[kTileVectors], positive[kTileVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
            some[v] = both(load(planes + v * kLanes), broadcast(present[word]));
            positive[v] = load(planes + kLaneOutputs + v * kLanes);
        }
#pragma GCC unroll 8
        for (int row = 0; row < kCountedRows; ++row) {
            const Vector x = broadcast(load_word(rows + (row * kChunkWords + word) * 8));
#pragma GCC unroll 2
            for (int v = 0; v < kTileVectors; ++v) {
                sums[row][v] = add(sums[row][v], counts_of(both_differing(some[v], positive[v], x)));
            }
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < kCountedRows; ++row) {
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
            uint64_t* to = counts + row * stride + v * kLanes;
            store(to, add(load(to), added_up(sums[row][v])));
        }
    }
}

// Adds to counts[kLaneOutputs] how often the drawn gradient is not 0.
inline void count_some(const uint64_t* planes, const uint64_t* present, int64_t words, uint64_t* counts) {
    for (int v = 0; v < kTileVectors; ++v) {
        Vector sum = load(counts + v * kLanes);
        for (int64_t word = 0; word < words; ++word) {
            const Vector some = load(planes + word * 2 * kLaneOutputs + v * kLanes);
            sum = add(sum, added_up(counts_of(both(some, broadcast(present[word])))));
        }
        store(counts + v * kLanes, sum);
    }
}

// As `backward_weight`, for the drawn gradient; sums - excess are whole numbers of the outputs' values.
template <class Finish>
void backward_weight_ternary(const TernaryPlanes& planes, const uint8_t* x, const Layer& layer, int threads,
                             const Finish& finish) {
    const Window& window = layer.window;
    const Taps taps(window, window.channels, image_bytes(window) * 8);
    const int64_t pixels = window.images * layer.out_pixels;
    const int64_t lane_panels = planes.lane_panels(), stride = lane_panels * kLaneOutputs;
    const int64_t panel_counts = (kColumns + 1) * stride;  // the last row: of how often there is a gradient
    const int64_t step = minimum(layer.channel_panels, maximum(1, kScratchBytes / 8 / panel_counts));
    const int64_t parts = minimum(layer.channel_panels, round_up(divide_up(layer.channel_panels, step), threads));

    const Buffer scratch(threads, divide_up(layer.channel_panels, parts) * panel_counts * 8);
    parallel_for(layer.groups * layer.taps * parts, threads, [&](int64_t task, int thread) {
        const int64_t group = task / (layer.taps * parts), tap = task / parts % layer.taps, part = task % parts;
        const int64_t first_panel = part * layer.channel_panels / parts;
        const int64_t end_panel = (part + 1) * layer.channel_panels / parts;
        uint64_t* counts = scratch.part<uint64_t>(thread);
        std::memset(counts, 0, (end_panel - first_panel) * panel_counts * 8);
        for (int64_t first = 0; first < pixels; first += kDepth) {
            const int64_t count = minimum(kDepth, pixels - first), words = divide_up(count, kWordBits);
            const uint64_t* drawn = planes.of(first / kDepth, group, layer.groups);
            for (int64_t panel = first_panel; panel < end_panel; ++panel) {
                Blocks blocks[kColumns];
                uint64_t present[kChunkWords];
                gather_channels(x, taps, tap, first, count, group * layer.group_channels + panel * kColumns,
                                layer.panel_channels(panel), blocks, present);
                const uint8_t* rows = reinterpret_cast<const uint8_t*>(blocks);
                uint64_t* to = counts + (panel - first_panel) * panel_counts;
                for (int64_t lanes = 0; lanes < lane_panels; ++lanes, to += kLaneOutputs) {
                    const uint64_t* of_lanes = drawn + lanes * kChunkWords * 2 * kLaneOutputs;
                    for (int64_t row = 0; row < layer.panel_channels(panel); row += kCountedRows) {
                        count_opposite(rows + row * sizeof(Blocks), of_lanes, present, words, stride, to + row * stride);
                    }
                    if (panel == first_panel) count_some(of_lanes, present, words, to + kColumns * stride);
                }
            }
        }
        alignas(64) int32_t sums[kColumns * kColumns], excess[kColumns];
        for (int64_t panel = first_panel; panel < end_panel; ++panel) {
            const uint64_t* of_panel = counts + (panel - first_panel) * panel_counts;
            for (int64_t output = 0; output < layer.group_outputs; output += kColumns) {
                const int64_t outputs = minimum(kColumns, layer.group_outputs - output);
                for (int64_t i = 0; i < outputs; ++i) {
                    excess[i] = -static_cast<int32_t>(counts[kColumns * stride + output + i]);
                }
                for (int64_t k = 0; k < layer.panel_channels(panel); ++k) {
                    for (int64_t i = 0; i < outputs; ++i) {
                        sums[k * kColumns + i] = -2 * static_cast<int32_t>(of_panel[k * stride + output + i]);
                    }
                }
                finish(group * layer.group_outputs + output, outputs,
                       tap * layer.group_channels + panel * kColumns, layer.panel_channels(panel), sums, excess);
            }
        }
    });
}

void conv2d_backward_weight_ternary(const int8_t* grad, float scale, const uint8_t* x, void* out, const Window& window,
                                    int64_t outputs, int64_t groups, int itemsize, uint32_t key, int threads) {
    const Layer layer(window, outputs, groups);
    const TernaryDraw draw(grad, window.images * layer.out_pixels, outputs, scale, threads);
    const TernaryPlanes planes(grad, draw, layer, key, threads);
    const float* values = draw.values.part<float>(0);
    if (itemsize == 2) {
        const WeightGradient<BFloat16> finish{static_cast<BFloat16*>(out), layer, values};
        backward_weight_ternary(planes, x, layer, threads, finish);
    } else {
        const WeightGradient<float> finish{static_cast<float*>(out), layer, values};
        backward_weight_ternary(planes, x, layer, threads, finish);
    }
}

}  // namespace
