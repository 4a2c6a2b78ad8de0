// The gradient of a convolution's input by tables of byte_tables.h that all taps share, where strides are 1.
//
// The pixels of all images are laid out on a line, row behind row, with zeros between rows and between images that serve as
// the padding of both neighbours. A tap then leads from any position to the one at a constant distance, so that the sums of
// four outputs' gradients are formed once for each position, and looked up by each tap at its distance. Which sum that is
// depends on the weight alone: the offsets of all lookups are found once for all positions.
#pragma once

#include "byte_tables.h"
#include "gradient.h"
#include "octet.h"

namespace {

constexpr int64_t kBand = 256;  // positions whose sums are formed at a time
constexpr int64_t kBandStep = kBand + 16;  // from a channel's sums to the next one's, which share no set of a cache
constexpr int64_t kBlockQuads = 4;  // of outputs, whose tables for a tile stay in the first cache
constexpr int64_t kBlockOutputs = 4 * kBlockQuads;
constexpr int64_t kPartChannels = 128;  // for which tables are made once
constexpr int kTile = 4 * kShortsBytes;  // positions whose sums registers hold
constexpr int64_t kMostLength = (1 << 16) / (16 * kBlockQuads);  // of tables, so that 16 bits hold an offset

// Where pixels lie on the line.
class Line {
   public:
    explicit Line(const Window& window) : window_(window) {
        int64_t margin[2];
        for (int dim = 0; dim < 2; ++dim) {
            margin[dim] = maximum(0, window.dilation[dim] * (window.kernel[dim] - 1) - window.padding[dim]);
        }
        pitch_ = window.out_size[1] + margin[1];
        rows_ = window.out_size[0] + margin[0];
    }

    // Positions of the input, from its first pixel to its last one.
    int64_t count() const {
        return ((window_.images - 1) * rows_ + window_.size[0] - 1) * pitch_ + window_.size[1];
    }
    int64_t of_image() const { return rows_ * pitch_; }
    // From a pixel of the input to the one of the output that a tap leads to.
    int64_t distance(int64_t tap) const { return distance(tap / window_.kernel[1], tap % window_.kernel[1]); }
    int64_t least() const { return distance(window_.kernel[0] - 1, window_.kernel[1] - 1); }
    int64_t most() const { return distance(0, 0); }

    // Calls task(index, image, pixel of the image, pixels) for each run of pixels of images of some `size` among the
    // positions [begin, end), of which the run begins at the `index`th.
    template <class Task>
    void for_runs(int64_t begin, int64_t end, const int64_t (&size)[2], const Task& task) const {
        for (int64_t at = maximum(begin, 0); at < end;) {
            const int64_t column = at % pitch_, row = at / pitch_ % rows_, image = at / pitch_ / rows_;
            if (image == window_.images) return;
            if (row < size[0] && column < size[1]) {
                task(at - begin, image, row * size[1] + column, minimum(size[1] - column, end - at));
            }
            at += pitch_ - column;
        }
    }

   private:
    int64_t distance(int64_t row, int64_t column) const {
        return (window_.padding[0] - row * window_.dilation[0]) * pitch_ + window_.padding[1] -
               column * window_.dilation[1];
    }

    const Window& window_;
    int64_t pitch_, rows_;
};

// Adds to sums[channel][kBandStep], as add_chosen_bytes does, what each channel's offsets choose from `tables`.
template <bool first>
[[gnu::noinline]] void add_shared(const uint8_t* tables, const uint16_t* offsets, int64_t pairs, int64_t channels,
                                  uint16_t* sums) {
    using Row = ByteRow<kTile>;
    using Bytes = typename Row::Vector;
    using Shorts = typename Row::Shorts;
    for (int64_t channel = 0; channel < channels; ++channel, sums += kBandStep) {
        Shorts both[Row::kVectors] = {}, odd[Row::kVectors] = {};
        if (!first) {
#pragma GCC unroll 4
            for (int v = 0; v < Row::kVectors; ++v) {
                both[v] = load_any<Shorts>(sums + v * Row::kBytes);
                odd[v] = load_any<Shorts>(sums + v * Row::kBytes + Row::kBytes / 2);
            }
        }
        for (int64_t pair = 0; pair < pairs; ++pair, offsets += 2) {
            const uint8_t *left = tables + offsets[0], *right = tables + offsets[1];
#pragma GCC unroll 4
            for (int v = 0; v < Row::kVectors; ++v) {
                const Shorts sum = (Shorts)(load_any<Bytes>(left + v * Row::kBytes) +
                                            load_any<Bytes>(right + v * Row::kBytes));
                both[v] += sum;
                odd[v] += sum >> 8;
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < Row::kVectors; ++v) {
            store_any(sums + v * Row::kBytes, both[v]);
            store_any(sums + v * Row::kBytes + Row::kBytes / 2, odd[v]);
        }
    }
}

// of_pixels[pixel][kColumns] of sums[channel][step]; up to 7 more of each are read and written.
inline void transpose_sums(const int32_t* sums, int64_t step, int64_t channels, int64_t pixels, int32_t* of_pixels) {
    for (int64_t pixel = 0; pixel < pixels; pixel += 8) {
        for (int64_t c = 0; c < channels; c += 8) {
            Mask block[8];
#pragma GCC unroll 4
            for (int i = 0; i < 8; ++i) block[i] = load_mask(sums + (c + i) * step + pixel);
            transpose_words(block);
#pragma GCC unroll 4
            for (int i = 0; i < 8; ++i) store_any(of_pixels + (pixel + i) * kColumns + c, block[i]);
        }
    }
}

class SharedTables {
   public:
    SharedTables(const Layer& layer, int threads)
        : layer_(layer),
          line_(layer.window),
          length_(round_up(kBand + line_.most() - line_.least(), 32)),
          part_channels_(minimum(layer.group_channels, kPartChannels)),
          blocks_(divide_up(layer.outputs, kBlockOutputs)),
          zeros_(1, layer.outputs),
          offsets_(blocks_, part_channels_ * layer.taps * kBlockQuads * sizeof(uint16_t)),
          tables_(threads, kBlockQuads * 16 * length_),
          shorts_(threads, part_channels_ * kBandStep * sizeof(uint16_t)),
          sums_(threads, round_up(part_channels_, 8) * kBandStep * sizeof(int32_t)) {}

    // Whether they serve a layer better than tables of each tap.
    static bool serve(const Layer& layer) {
        const Window& window = layer.window;
        const Line line(window);
        const int64_t pixels = window.size[0] * window.size[1];
        return window.stride[0] == 1 && window.stride[1] == 1 && layer.groups == 1 && layer.taps > 1 &&
               window.images * pixels >= 64 && line.of_image() <= 2 * pixels &&
               kBand + line.most() - line.least() <= kMostLength;
    }

    template <class Result>
    void backward_input(const int8_t* grad, const uint8_t* weight, const Result& result, int threads) const {
        for (int64_t first = 0; first < layer_.group_channels; first += part_channels_) {
            const int64_t channels = minimum(part_channels_, layer_.group_channels - first);
            parallel_for(blocks_, threads, [&](int64_t block, int) { find_offsets(weight, block, first, channels); });
            parallel_for(divide_up(line_.count(), kBand), threads, [&](int64_t band, int thread) {
                const int64_t begin = band * kBand, count = minimum(kBand, line_.count() - begin);
                add_up(grad, begin, count, channels, thread);
                store(begin, count, first, channels, result, thread);
            });
        }
    }

   private:
    // An even number, so that they make pairs.
    int64_t quads_of(int64_t block) const {
        return minimum(kBlockQuads, divide_up(layer_.outputs - block * kBlockOutputs, 8) * 2);
    }

    // offsets[channel][tap][quad] of a block
    void find_offsets(const uint8_t* weight, int64_t block, int64_t first_channel, int64_t channels) const {
        const int64_t quads = quads_of(block), row_bytes = packed_bytes(layer_.row_elements());
        uint16_t* offsets = offsets_.part<uint16_t>(block);
        for (int64_t index = 0; index < layer_.taps * quads; ++index) {
            const int64_t tap = index / quads, quad = index % quads, output = block * kBlockOutputs + 4 * quad;
            const int64_t start = line_.distance(tap) - line_.least() + quad * 16 * length_;
            for (int64_t c = 0; c < channels; c += 8) {
                const int64_t some = minimum(8, channels - c), bit = tap * layer_.group_channels + first_channel + c;
                uint8_t choices[8] = {};
                for (int64_t i = minimum(4, layer_.outputs - output) - 1; i >= 0; --i) {
                    uint8_t set[8];
                    spread_byte(set, static_cast<uint8_t>(load_bits(weight + (output + i) * row_bytes, bit, some)));
                    for (int k = 0; k < 8; ++k) choices[k] = static_cast<uint8_t>(2 * choices[k] + set[k]);
                }
                for (int64_t k = 0; k < some; ++k) {
                    offsets[(c + k) * layer_.taps * quads + index] =
                        static_cast<uint16_t>(start + choices[k] * length_);
                }
            }
        }
    }

    // The sums of a band's positions, sums[channel][kBandStep].
    void add_up(const int8_t* grad, int64_t begin, int64_t count, int64_t channels, int thread) const {
        uint8_t* tables = tables_.part<uint8_t>(thread);
        uint16_t* shorts = shorts_.part<uint16_t>(thread);
        const int64_t first = begin + line_.least(), length = round_up(count + line_.most() - line_.least(), 32);
        const int8_t* pixels[kMostLength];
        for (int64_t i = 0; i < length; ++i) pixels[i] = zeros_.part<int8_t>(0);
        line_.for_runs(first, first + length, layer_.window.out_size,
                       [&](int64_t index, int64_t image, int64_t pixel, int64_t run) {
                           const int8_t* from = grad + (image * layer_.out_pixels + pixel) * layer_.outputs;
                           for (int64_t i = 0; i < run; ++i) pixels[index + i] = from + i * layer_.outputs;
                       });
        int64_t pairs = 0;
        bool is_first = true;
        for (int64_t block = 0; block < blocks_; ++block) {
            make_band(pixels, length, block, tables);
            const int64_t some_pairs = layer_.taps * quads_of(block) / 2;
            for (int64_t tile = 0; tile < count; tile += kTile) {
                const auto add = pairs ? add_shared<false> : add_shared<true>;
                add(tables + tile, offsets_.part<uint16_t>(block), some_pairs, channels, shorts + tile);
            }
            pairs += some_pairs;
            if (block + 1 == blocks_ || pairs + layer_.taps * kBlockQuads / 2 > kMostPairs) {
                flush(pairs, is_first, round_up(count, kTile), channels, thread);
                pairs = 0;
                is_first = false;
            }
        }
    }

    // tables[quad][16][length_] of a block.
    void make_band(const int8_t* const* pixels, int64_t count, int64_t block, uint8_t* tables) const {
        const int64_t output = block * kBlockOutputs, some = minimum(kBlockOutputs, layer_.outputs - output);
        const int64_t quads = quads_of(block);
        alignas(64) int8_t copies[32][kBlockOutputs] = {}, rows[kBlockOutputs * 32];
        const int8_t* of_copies[32];
        for (int64_t i = 0; i < 32; ++i) of_copies[i] = copies[i];
        for (int64_t at = 0; at < count; at += 32) {
            if (some == kBlockOutputs) {
                transpose_sixteen(pixels + at, output, rows);
            } else {
                for (int64_t i = 0; i < 32; ++i) std::memcpy(copies[i], pixels[at + i] + output, some);
                transpose_sixteen(of_copies, 0, rows);
            }
            make_tables<ByteRow<32>>(rows, 32, quads, tables + at, length_);
        }
    }

    // Adds the shorts of `pairs` pairs to the sums.
    void flush(int64_t pairs, bool is_first, int64_t count, int64_t channels, int thread) const {
        using Row = ByteRow<kTile>;
        typedef int32_t EightSums __attribute__((vector_size(32)));
        const EightSums offset = EightSums{} + static_cast<int32_t>(2 * kQuadOffset * pairs);
        const uint16_t* shorts = shorts_.part<uint16_t>(thread);
        int32_t* sums = sums_.part<int32_t>(thread);
        for (int64_t channel = 0; channel < channels; ++channel, shorts += kBandStep, sums += kBandStep) {
            for (int64_t at = 0; at < count; at += 16) {
                const uint16_t* from = shorts + at / Row::kBytes * Row::kBytes + at % Row::kBytes / 2;
                const Pairs odd = load_any<Pairs>(from + Row::kBytes / 2), even = load_any<Pairs>(from) - (odd << 8);
                EightSums low = __builtin_convertvector(lower_halves(even, odd), EightSums) - offset;
                EightSums high = __builtin_convertvector(upper_halves(even, odd), EightSums) - offset;
                if (!is_first) {
                    low += load_any<EightSums>(sums + at);
                    high += load_any<EightSums>(sums + at + 8);
                }
                store_any(sums + at, low);
                store_any(sums + at + 8, high);
            }
        }
    }

    template <class Result>
    void store(int64_t begin, int64_t count, int64_t first_channel, int64_t channels, const Result& result,
               int thread) const {
        constexpr int64_t kSome = 64;
        alignas(64) int32_t of_pixels[kSome * kColumns];
        const int32_t* sums = sums_.part<int32_t>(thread);
        line_.for_runs(begin, begin + count, layer_.window.size,
                       [&](int64_t index, int64_t image, int64_t pixel, int64_t run) {
            for (int64_t done = 0; done < run; done += kSome) {
                const int64_t pixels = minimum(kSome, run - done);
                for (int64_t c = 0; c < channels; c += kColumns) {
                    const int64_t some = minimum(kColumns, channels - c);
                    transpose_sums(sums + c * kBandStep + index + done, kBandStep, some, pixels, of_pixels);
                    result.store_run(image, pixel + done, 1, pixels, first_channel + c, some, of_pixels);
                }
            }
        });
    }

    const Layer& layer_;
    const Line line_;
    const int64_t length_, part_channels_, blocks_;
    const Buffer zeros_, offsets_, tables_, shorts_, sums_;
};

}  // namespace
