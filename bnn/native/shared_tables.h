// The gradient of a convolution's input by tables, of tables.h or byte_tables.h, that all taps share.
//
// The pixels of all images are laid out on a line, row behind row, with zeros between rows and between images that serve as
// the padding of both neighbours. A tap then leads from any position to the one at a constant distance, so that the sums of
// four outputs' gradients are formed once for each position, and looked up by each tap at its distance. Which sum that is
// depends on the weight alone: the offsets of all lookups are found once for all positions.
#pragma once

#include "gradients_by_tables.h"

namespace {

constexpr int64_t kBand = 256;  // positions whose sums are formed at a time
constexpr int64_t kBandStep = kBand + 16;  // from a channel's sums to the next one's, which share no set of a cache
constexpr int64_t kBlockQuads = 4;  // of outputs, whose tables for a tile stay in the first cache
constexpr int64_t kBlockOutputs = 4 * kBlockQuads;
constexpr int64_t kPartSums = 128;  // of phases and channels, for which tables are made once
constexpr int64_t kMostPhases = 4;
constexpr int kTile = 4 * kShortsBytes;  // positions whose sums registers hold
constexpr int64_t kMostLength = (1 << 16) / (16 * kBlockQuads);  // of tables, so that 16 bits hold an offset

// Where pixels lie on the line: those of the output, and those of the input by phase, which see in taps.h.
class Line {
   public:
    explicit Line(const Window& window) : window_(window) {
        for (int dim = 0; dim < 2; ++dim) {
            const int64_t count = divide_up(window.size[dim], window.stride[dim]), outputs = window.out_size[dim];
            const int64_t before = -step(dim, window.kernel[dim] - 1), after = count + step(dim, 0) - outputs;
            pitch_[dim] = maximum(outputs + maximum(0, maximum(before, after)), count);
        }
    }

    // Positions of the input's pixels of a phase, from the first one of a batch to the last one.
    int64_t count() const {
        return ((window_.images - 1) * pitch_[0] + divide_up(window_.size[0], window_.stride[0]) - 1) * pitch_[1] +
               divide_up(window_.size[1], window_.stride[1]);
    }
    int64_t of_image() const { return pitch_[0] * pitch_[1]; }
    int64_t phases() const { return window_.stride[0] * window_.stride[1]; }
    // From which a tap leads to the output.
    int64_t phase(int64_t tap) const {
        return first(0, tap / window_.kernel[1]) * window_.stride[1] + first(1, tap % window_.kernel[1]);
    }
    // From the input's pixel of a phase to the one of the output that a tap leads to.
    int64_t distance(int64_t tap) const {
        return step(0, tap / window_.kernel[1]) * pitch_[1] + step(1, tap % window_.kernel[1]);
    }
    int64_t least() const { return distance(window_.kernel[0] * window_.kernel[1] - 1); }
    int64_t reach() const { return distance(0) - least(); }

    // Calls task(index, image, row, column, pixels) for each run of pixels of images of some `size` among the positions
    // [begin, end), of which the run begins at the `index`th.
    template <class Task>
    void for_runs(int64_t begin, int64_t end, const int64_t (&size)[2], const Task& task) const {
        for (int64_t at = maximum(begin, 0); at < end;) {
            const int64_t column = at % pitch_[1], row = at / pitch_[1] % pitch_[0], image = at / of_image();
            if (image == window_.images) return;
            if (row < size[0] && column < size[1]) {
                task(at - begin, image, row, column, minimum(size[1] - column, end - at));
            }
            at += pitch_[1] - column;
        }
    }

   private:
    // The first row or column of the phase from which a tap leads to the output.
    int64_t first(int dim, int64_t tap) const {
        const int64_t stride = window_.stride[dim];
        const int64_t rest = (tap * window_.dilation[dim] - window_.padding[dim]) % stride;
        return rest < 0 ? rest + stride : rest;
    }
    // How many rows or columns further.
    int64_t step(int dim, int64_t tap) const {
        return (first(dim, tap) + window_.padding[dim] - tap * window_.dilation[dim]) / window_.stride[dim];
    }

    const Window& window_;
    int64_t pitch_[2];
};

typedef int32_t EightSums __attribute__((vector_size(32)));

// 16 bytes from each of from[32], from a column on, to to[16][32].
[[gnu::noinline]] void transpose_sixteen(const int8_t* const* from, int64_t column, int8_t* to) {
    for (int64_t row = 0; row < 32; row += sizeof(ByteColumns)) {
        ByteColumns block[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            for (int64_t half = 0; half < static_cast<int64_t>(sizeof(ByteColumns)); half += 16) {
                std::memcpy(reinterpret_cast<char*>(block + i) + half, from[row + half + i] + column, 16);
            }
        }
        transpose_bytes(block);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) std::memcpy(to + 32 * i + row, block + i, sizeof(ByteColumns));
    }
}

// Sums of gradients within ±kSmallByte, from tables of bytes: see byte_tables.h.
struct SharedBytes {
    using Element = uint8_t;
    template <int columns>
    using Row = ByteRow<columns>;
    static constexpr int64_t kMostQuads = 2 * kMostPairs;  // whose sums a short holds

    // Adds to sums[channel][kBandStep], as add_chosen_bytes does, what each channel's offsets choose from `tables`.
    template <bool first>
    [[gnu::noinline]] static void add(const uint8_t* tables, const uint16_t* offsets, int64_t quads, int64_t channels,
                                      uint16_t* sums) {
        using Tile = ByteRow<kTile>;
        using Bytes = typename Tile::Vector;
        using Shorts = typename Tile::Shorts;
        for (int64_t channel = 0; channel < channels; ++channel, sums += kBandStep) {
            Shorts both[Tile::kVectors] = {}, odd[Tile::kVectors] = {};
            if (!first) {
#pragma GCC unroll 4
                for (int v = 0; v < Tile::kVectors; ++v) {
                    both[v] = load_any<Shorts>(sums + v * Tile::kBytes);
                    odd[v] = load_any<Shorts>(sums + v * Tile::kBytes + Tile::kBytes / 2);
                }
            }
            for (int64_t quad = 0; quad < quads; quad += 2, offsets += 2) {
                const uint8_t *left = tables + offsets[0], *right = tables + offsets[1];
#pragma GCC unroll 4
                for (int v = 0; v < Tile::kVectors; ++v) {
                    const Shorts sum = (Shorts)(load_any<Bytes>(left + v * Tile::kBytes) +
                                                load_any<Bytes>(right + v * Tile::kBytes));
                    both[v] += sum;
                    odd[v] += sum >> 8;
                }
            }
#pragma GCC unroll 4
            for (int v = 0; v < Tile::kVectors; ++v) {
                store_any(sums + v * Tile::kBytes, both[v]);
                store_any(sums + v * Tile::kBytes + Tile::kBytes / 2, odd[v]);
            }
        }
    }

    // The sums of 16 positions of a channel, from the one at `at` on, to which `quads` quads were added.
    static void widen(const uint16_t* sums, int64_t at, int64_t quads, EightSums& low, EightSums& high) {
        using Tile = ByteRow<kTile>;
        const EightSums offset = EightSums{} + static_cast<int32_t>(kQuadOffset * quads);
        const uint16_t* from = sums + at / Tile::kBytes * Tile::kBytes + at % Tile::kBytes / 2;
        const Pairs odd = load_any<Pairs>(from + Tile::kBytes / 2), even = load_any<Pairs>(from) - (odd << 8);
        low = __builtin_convertvector(lower_halves(even, odd), EightSums) - offset;
        high = __builtin_convertvector(upper_halves(even, odd), EightSums) - offset;
    }
};

// Sums of any gradients, from tables of shorts.
struct SharedShorts {
    using Element = int16_t;
    template <int columns>
    using Row = ShortRow<columns>;
    static constexpr int64_t kMostQuads = kMostBlocks * kQuads;

    template <bool first>
    [[gnu::noinline]] static void add(const int16_t* tables, const uint16_t* offsets, int64_t quads, int64_t channels,
                                      uint16_t* sums) {
        using Tile = ShortRow<kTile>;
        using Shorts = typename Tile::Vector;
        for (int64_t channel = 0; channel < channels; ++channel, sums += kBandStep, offsets += quads) {
            Shorts all[Tile::kVectors] = {};
            if (!first) {
#pragma GCC unroll 8
                for (int v = 0; v < Tile::kVectors; ++v) all[v] = load_any<Shorts>(sums + v * Tile::kEach);
            }
            for (int64_t quad = 0; quad < quads; ++quad) {
                const int16_t* chosen = tables + offsets[quad];
#pragma GCC unroll 8
                for (int v = 0; v < Tile::kVectors; ++v) all[v] += load_any<Shorts>(chosen + v * Tile::kEach);
            }
#pragma GCC unroll 8
            for (int v = 0; v < Tile::kVectors; ++v) store_any(sums + v * Tile::kEach, all[v]);
        }
    }

    static void widen(const uint16_t* sums, int64_t at, int64_t, EightSums& low, EightSums& high) {
        typedef int16_t Eight __attribute__((vector_size(16)));
        low = __builtin_convertvector(load_any<Eight>(sums + at), EightSums);
        high = __builtin_convertvector(load_any<Eight>(sums + at + 8), EightSums);
    }
};

template <class Sums>
class SharedTables {
   public:
    SharedTables(const Layer& layer, int threads)
        : layer_(layer),
          line_(layer.window),
          length_(round_up(kBand + line_.reach(), 32)),
          part_channels_(minimum(layer.group_channels, kPartSums / line_.phases())),
          blocks_(divide_up(layer.outputs, kBlockOutputs)),
          taps_(1, layer.taps * sizeof(int64_t)),
          zeros_(1, layer.outputs),
          offsets_(blocks_, part_channels_ * layer.taps * kBlockQuads * sizeof(uint16_t)),
          tables_(threads, kBlockQuads * 16 * length_ * sizeof(Element)),
          shorts_(threads, line_.phases() * part_channels_ * kBandStep * sizeof(uint16_t)),
          sums_(threads, (line_.phases() * part_channels_ + 7) * kBandStep * sizeof(int32_t)) {
        for (int64_t phase = 0; phase < line_.phases(); ++phase) {
            begins_[phase + 1] = begins_[phase];
            for (int64_t tap = 0; tap < layer.taps; ++tap) {
                if (line_.phase(tap) == phase) taps_.part<int64_t>(0)[begins_[phase + 1]++] = tap;
            }
        }
    }

    // Whether they serve a layer, and better than tables of each tap: not where more channels look up what each tap's
    // tables have side by side, where much of the line is padding, or where offsets are found for few pixels.
    static bool serve(const Layer& layer) {
        const Window& window = layer.window;
        const Line line(window);
        const int64_t pixels = window.size[0] * window.size[1], positions = line.of_image() * line.phases();
        return layer.groups == 1 && layer.taps > 1 && layer.taps * kBlockQuads <= Sums::kMostQuads &&
               line.phases() <= kMostPhases && kBand + line.reach() <= kMostLength - 32 &&
               layer.group_channels * positions <= 100 * pixels && window.images * pixels >= 2 * kBand;
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
    using Element = typename Sums::Element;

    // An even number, so that they make pairs.
    int64_t quads_of(int64_t block) const {
        return minimum(kBlockQuads, divide_up(layer_.outputs - block * kBlockOutputs, 8) * 2);
    }

    // Of a block, offsets[channel][tap][quad] of the taps of each phase.
    void find_offsets(const uint8_t* weight, int64_t block, int64_t first_channel, int64_t channels) const {
        const int64_t quads = quads_of(block), row_bytes = packed_bytes(layer_.row_elements());
        uint16_t* offsets = offsets_.part<uint16_t>(block);
        for (int64_t phase = 0; phase < line_.phases(); ++phase) {
            const int64_t step = taps_of(phase) * quads;
            for (int64_t index = 0; index < step; ++index) {
                const int64_t tap = taps_.part<int64_t>(0)[begins_[phase] + index / quads], quad = index % quads;
                const int64_t output = block * kBlockOutputs + 4 * quad, outputs = minimum(4, layer_.outputs - output);
                const int64_t start = line_.distance(tap) - line_.least() + quad * 16 * length_;
                for (int64_t c = 0; c < channels; c += 8) {
                    const int64_t some = minimum(8, channels - c), bit = tap * layer_.group_channels + first_channel + c;
                    uint8_t choices[8] = {};
                    for (int64_t i = outputs - 1; i >= 0; --i) {
                        uint8_t set[8];
                        spread_byte(set, static_cast<uint8_t>(load_bits(weight + (output + i) * row_bytes, bit, some)));
                        for (int k = 0; k < 8; ++k) choices[k] = static_cast<uint8_t>(2 * choices[k] + set[k]);
                    }
                    for (int64_t k = 0; k < some; ++k) {
                        offsets[(c + k) * step + index] = static_cast<uint16_t>(start + choices[k] * length_);
                    }
                }
            }
            offsets += channels * step;
        }
    }

    // The sums of a band's positions, sums[phase][channel][kBandStep].
    void add_up(const int8_t* grad, int64_t begin, int64_t count, int64_t channels, int thread) const {
        Element* tables = tables_.template part<Element>(thread);
        const int64_t first = begin + line_.least(), length = round_up(count + line_.reach(), 32);
        const int8_t* pixels[kMostLength];
        for (int64_t i = 0; i < length; ++i) pixels[i] = zeros_.part<int8_t>(0);
        const auto& size = layer_.window.out_size;
        line_.for_runs(first, first + length, size,
                       [&](int64_t index, int64_t image, int64_t row, int64_t column, int64_t run) {
            const int8_t* from = grad + ((image * size[0] + row) * size[1] + column) * layer_.outputs;
            for (int64_t i = 0; i < run; ++i) pixels[index + i] = from + i * layer_.outputs;
        });
        int64_t added = 0;  // quads of each tap
        bool is_first = true;
        for (int64_t block = 0; block < blocks_; ++block) {
            make_band(pixels, length, block, tables);
            const uint16_t* offsets = offsets_.part<uint16_t>(block);
            const int64_t quads = quads_of(block);
            const auto add = added ? Sums::template add<false> : Sums::template add<true>;
            for (int64_t phase = 0; phase < line_.phases(); ++phase) {
                uint16_t* shorts = shorts_.part<uint16_t>(thread) + phase * channels * kBandStep;
                for (int64_t tile = 0; tile < count; tile += kTile) {
                    add(tables + tile, offsets, taps_of(phase) * quads, channels, shorts + tile);
                }
                offsets += channels * taps_of(phase) * quads;
            }
            added += quads;
            if (block + 1 == blocks_ || layer_.taps * (added + kBlockQuads) > Sums::kMostQuads) {
                for (int64_t phase = 0; phase < line_.phases(); ++phase) {
                    flush(phase, added * taps_of(phase), is_first, round_up(count, kTile), channels, thread);
                }
                added = 0;
                is_first = false;
            }
        }
    }

    // tables[quad][16][length_] of a block.
    void make_band(const int8_t* const* pixels, int64_t count, int64_t block, Element* tables) const {
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
            make_tables<typename Sums::template Row<32>>(rows, 32, quads, tables + at, length_);
        }
    }

    // Adds the shorts of a phase, of `quads` quads, to its sums.
    void flush(int64_t phase, int64_t quads, bool is_first, int64_t count, int64_t channels, int thread) const {
        const uint16_t* shorts = shorts_.part<uint16_t>(thread) + phase * channels * kBandStep;
        int32_t* sums = sums_.part<int32_t>(thread) + phase * channels * kBandStep;
        for (int64_t channel = 0; channel < channels; ++channel, shorts += kBandStep, sums += kBandStep) {
            for (int64_t at = 0; at < count; at += 16) {
                EightSums low, high;
                Sums::widen(shorts, at, quads, low, high);
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
        const Window& window = layer_.window;
        for (int64_t phase = 0; phase < line_.phases(); ++phase) {
            const int32_t* sums = sums_.part<int32_t>(thread) + phase * channels * kBandStep;
            const int64_t first[2] = {phase / window.stride[1], phase % window.stride[1]};
            const int64_t size[2] = {divide_up(window.size[0] - first[0], window.stride[0]),
                                     divide_up(window.size[1] - first[1], window.stride[1])};
            line_.for_runs(begin, begin + count, size,
                           [&](int64_t index, int64_t image, int64_t row, int64_t column, int64_t run) {
                const int64_t at = (first[0] + row * window.stride[0]) * window.size[1] + first[1];
                for (int64_t done = 0; done < run; done += kSome) {
                    const int64_t pixels = minimum(kSome, run - done), pixel = at + (column + done) * window.stride[1];
                    for (int64_t c = 0; c < channels; c += kColumns) {
                        const int64_t some = minimum(kColumns, channels - c);
                        transpose_sums(sums + c * kBandStep + index + done, kBandStep, some, pixels, of_pixels);
                        result.store_run(image, pixel, window.stride[1], pixels, first_channel + c, some, of_pixels);
                    }
                }
            });
        }
    }

    int64_t taps_of(int64_t phase) const { return begins_[phase + 1] - begins_[phase]; }

    const Layer& layer_;
    const Line line_;
    const int64_t length_, part_channels_, blocks_;
    int64_t begins_[kMostPhases + 1] = {};  // of the taps of each phase among `taps_`
    const Buffer taps_, zeros_, offsets_, tables_, shorts_, sums_;
};

}  // namespace
