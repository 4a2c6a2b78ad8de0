// The gradient of a convolution's weight by lookups in registers (lookups.h): tables are made of sixteen pixels of each output's
// gradient, and the bits of the inputs choose from them.
#pragma once

#include "lookups.h"
#include "weight_tasks.h"
#include "words.h"

namespace {

constexpr int64_t kSumsBytes = 512 << 10;  // of a task

// tables[output][steps] of kColumns outputs at most, of a chunk of pixels, whose magnitudes are added up by output.
template <bool wide>
[[gnu::noinline]] void make_output_tables(const int8_t* grad, int64_t pixel_step, int64_t pixels, int64_t outputs,
                                          int64_t output_bytes, uint8_t* tables, int32_t* magnitudes) {
    alignas(64) int8_t copies[kWordRows * kColumns] = {}, rows[kColumns * kWordRows];
    const int8_t* from[kWordRows];
    __m256i sums[kColumns] = {};
    for (int64_t first = 0; first < pixels; first += kWordRows, tables += 2 * kTableStep<wide>) {
        const int64_t some = minimum(kWordRows, pixels - first);
        if (some == kWordRows && outputs == kColumns) {
            for (int64_t i = 0; i < kWordRows; ++i) from[i] = grad + (first + i) * pixel_step;
        } else {
            if (some < kWordRows) std::memset(copies, 0, sizeof copies);
            copy_strided(copies, kColumns, grad + first * pixel_step, pixel_step, some, outputs);
            for (int64_t i = 0; i < kWordRows; ++i) from[i] = copies + i * kColumns;
        }
        transpose_bytes<kWordRows>(from, rows);
        for (int64_t output = 0; output < outputs; ++output) {
            const __m256i bytes = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows + output * kWordRows));
            sums[output] = _mm256_add_epi64(sums[output], store_tables<wide>(bytes, tables + output * output_bytes));
        }
    }
    for (int64_t output = 0; output < outputs; ++output) magnitudes[output] += added_up(sums[output]);
}

// The indices of 32 channels of 16 pixels, of which pixels[32 bits] each hold one: indices[2][kIndexBytes].
struct PixelPlaces {
    constexpr PixelPlaces() {
        for (int i = 0; i < 64; ++i) {
            const int group = i / 32, byte = i / 8 % 4;  // of eight pixels, of their channels
            squares[i] = static_cast<uint8_t>(4 * (8 * group + 7 - i % 8) + byte);
            for (int half = 0; half < 2; ++half) {
                const int channel = 16 * half + i / 8 * 2 + i % 4 / 2;
                halves[half][i] = static_cast<uint8_t>((i % 2 * 4 + channel / 8) * 8 + channel % 8);
            }
        }
    }
    alignas(64) uint8_t squares[64]{};
    alignas(64) uint8_t halves[2][64]{};
};
constexpr PixelPlaces kPixelPlaces;

// Of `steps` times 16 pixels, of which those count that are present; of the first 16 channels, or of 32.
template <int halves>
[[gnu::noinline]] void store_pixel_indices(const uint32_t* pixels, const Blocks& present, int64_t steps,
                                           uint8_t* indices) {
    uint16_t of_step[kDepth / kTableDepth];
    static_assert(sizeof of_step == sizeof present);
    std::memcpy(of_step, &present, sizeof present);
    const Vector squares = _mm512_load_si512(kPixelPlaces.squares);
    const Vector diagonal = _mm512_set1_epi64(static_cast<long long>(0x8040201008040201));
    const Vector places = _mm512_set1_epi64(0x1C1814100C080400);  // of four pixels each, of two channels
    for (int64_t step = 0; step < steps; ++step, indices += kPanelStep) {
        const Vector words = _mm512_maskz_loadu_epi32(of_step[step], pixels + step * kTableDepth);
        // Eight pixels of eight channels become eight channels of eight pixels.
        const Vector channels = _mm512_gf2p8affine_epi64_epi8(diagonal, look_up(squares, words), 0);
#pragma GCC unroll 2
        for (int half = 0; half < halves; ++half) {
            const Vector pairs = look_up(_mm512_load_si512(kPixelPlaces.halves[half]), channels);
            _mm512_storeu_si512(indices + half * kIndexBytes, indices_of(pairs, places));
        }
    }
}

// A word each of the pixels of the input that those of a chunk are led to, of a panel of channels.
class PixelWords {
   public:
    PixelWords(const uint8_t* x, const Taps& taps, const Layer& layer)
        : x_(x), taps_(taps), layer_(layer), on_line_(ShiftedChannels::serve(layer)) {
        if (on_line_) margin_ = ShiftedChannels::reach(layer);
    }

    int64_t bytes() const { return (kDepth + 2 * margin_ + kTableDepth) * sizeof(uint32_t); }

    // Where the words of the pixels begin that a tap leads to. `is_new`: the panel is another one than before.
    const uint32_t* of_tap(int64_t first, int64_t pixels, int64_t group, int64_t panel, int64_t tap, bool is_new,
                           uint32_t* words) const {
        const int64_t first_bit = group * layer_.group_channels + panel * kColumns;
        const int64_t channels = layer_.panel_channels(panel);
        if (!on_line_) {
            taps_.for_stretches(tap, first, pixels, [&](int64_t offset, int64_t distance, int64_t run) {
                if (offset != kNowhere) load(words, offset + first_bit, distance, channels, run);
                words += run;
            });
            return words - pixels;
        }
        if (is_new) {
            const int64_t begin = maximum(first - margin_, 0), step = layer_.window.channels;
            const int64_t end = minimum(first + pixels + margin_, layer_.window.images * layer_.out_pixels);
            load(words + begin - first + margin_, begin * step + first_bit, step, channels, end - begin);
        }
        return words + margin_ + ShiftedChannels::distance(layer_, tap);
    }

   private:
    template <class Word>
    void load_words(uint32_t* words, int64_t bit, int64_t distance, int64_t count) const {
        for (int64_t i = 0; i < count; ++i) {
            Word word;
            std::memcpy(&word, x_ + (bit + i * distance) / 8, sizeof word);
            words[i] = word;
        }
    }
    void load(uint32_t* words, int64_t bit, int64_t distance, int64_t channels, int64_t count) const {
        const bool in_bytes = bit % 8 == 0 && distance % 8 == 0;
        if (in_bytes && channels == 32) return load_words<uint32_t>(words, bit, distance, count);
        if (in_bytes && channels == 16) return load_words<uint16_t>(words, bit, distance, count);
        for (int64_t i = 0; i < count; ++i) words[i] = load_bits(x_, bit + i * distance, channels);
    }

    const uint8_t* x_;
    const Taps& taps_;
    const Layer& layer_;
    bool on_line_;
    int64_t margin_ = 0;
};

// The sums of tasks of weight_tasks.h: of kTileTables outputs and the columns of a panel side by side; and behind those of all
// outputs the magnitudes of each one's gradient, which are part of the excess. A pixel that a tap does not lead to counts as
// if its bit were clear: the sum of what there is, less the sum of all, is twice the rest of the excess. Where there are such
// pixels, these two lie behind those of the panels.
template <bool wide>
class LookupSums {
   public:
    static constexpr int64_t kMostOutputs = 64;
    static int64_t most_panels(int64_t outputs) {
        return kSumsBytes / sizeof(int32_t) / kColumns / round_up(outputs, kTileTables);
    }

    LookupSums(const int8_t* grad, const uint8_t* x, const Layer& layer, int rooms, int64_t panels, int64_t outputs,
               int threads)
        : grad_(grad),
          layer_(layer),
          taps_(layer.window, layer.window.channels, image_bytes(layer.window) * 8),
          present_(taps_, layer, threads),
          words_of_(x, taps_, layer),
          pads_(layer.window.padding[0] || layer.window.padding[1]),
          panels_(panels + (pads_ ? divide_up(layer.taps + 1, kColumns) : 0)),
          outputs_(round_up(outputs, kColumns)),
          sums_count_(outputs_ * (panels_ * kColumns + 1)),
          words_(rooms, words_of_.bytes(), Contents::kAny),
          tables_(rooms, outputs_ * kOutputBytes, Contents::kAny),
          indices_(rooms, panels_ * kPanelBytes, Contents::kAny),
          sums_(rooms, sums_count_ * sizeof(int32_t), Contents::kAny) {}

    void clear(int room) const { std::memset(sums_.part<int32_t>(room), 0, sums_count_ * sizeof(int32_t)); }

    void add(int room, const WeightTask& task, int64_t first, int64_t pixels) const {
        uint8_t *tables = tables_.template part<uint8_t>(room), *indices = indices_.template part<uint8_t>(room);
        const int8_t* grad = grad_ + first * layer_.outputs + task.group * layer_.group_outputs + task.output;
        for (int64_t output = 0; output < task.outputs; output += kColumns) {
            make_output_tables<wide>(grad + output, layer_.outputs, pixels, minimum(kColumns, task.outputs - output),
                                     kOutputBytes, tables + output * kOutputBytes, magnitudes(room) + output);
        }
        const int64_t steps = divide_up(pixels, kTableDepth);
        make_indices(room, task, first, pixels, steps, indices);
        for (int64_t output = 0; output < task.outputs; output += kTileTables) {
            const uint8_t* of_tile[kTileTables];
            for (int64_t i = 0; i < kTileTables; ++i) of_tile[i] = tables + (output + i) * kOutputBytes;
            const auto add_panel = [&](int64_t panel, int64_t columns) {
                const auto add = columns > 16 ? add_lookups<wide, 2> : add_lookups<wide, 1>;
                add(of_tile, 0, 1, steps, indices + panel * kPanelBytes, sums(room, output, panel));
            };
            const int64_t panels = task.end_panel - task.first_panel;
            for (int64_t i = 0; i < panels; ++i) {
                add_panel(i, layer_.panel_channels((task.first_panel + i) / layer_.taps));
            }
            for (int64_t row = 0; pads_ && row <= layer_.taps; row += kColumns) {
                add_panel(panels + row / kColumns, layer_.taps + 1 - row);
            }
        }
    }

    const int32_t* read(int room, const WeightTask& task, int64_t output, int64_t panel, int32_t* to,
                        int32_t* excess) const {
        const int64_t panels = task.end_panel - task.first_panel, tap = panel % layer_.taps, taps = layer_.taps;
        for (int64_t i = 0; i < kColumns; ++i) {
            excess[i] = magnitudes(room)[output + i];
            if (!pads_) continue;
            const int32_t there = sum(room, output + i, panels + tap / kColumns, tap % kColumns);
            excess[i] += (there - sum(room, output + i, panels + taps / kColumns, taps % kColumns)) / 2;
        }
        static_assert(kTileTables == 8);
        for (int64_t i = 0; i < kColumns; i += kTileTables) {
            const int32_t* from = sums(room, output + i, panel - task.first_panel);
            for (int64_t k = 0; k < layer_.panel_channels(panel / layer_.taps); k += 8) {
                Mask block[8];
#pragma GCC unroll 8
                for (int j = 0; j < 8; ++j) block[j] = load_mask(from + j * kColumns + k);
                transpose_words(block);
#pragma GCC unroll 8
                for (int j = 0; j < 8; ++j) std::memcpy(to + (k + j) * kColumns + i, block + j, sizeof(Mask));
            }
        }
        return to;
    }

    void merge(int room, int other) const {
        int32_t* to = sums_.part<int32_t>(room);
        const int32_t* more = sums_.part<int32_t>(other);
        for (int64_t i = 0; i < sums_count_; ++i) to[i] += more[i];
    }

   private:
    static constexpr int64_t kPanelBytes = kDepth / kTableDepth * kPanelStep;
    // Not a power of two, which would crowd a cache's sets.
    static constexpr int64_t kOutputBytes = kDepth / kTableDepth * kTableStep<wide> + kTableBytes;

    // Of a chunk's pixels: of the panels, and of the bits that tell where taps lead to pixels, and of a bit that is set.
    void make_indices(int room, const WeightTask& task, int64_t first, int64_t pixels, int64_t steps,
                      uint8_t* indices) const {
        for (int64_t panel = task.first_panel; panel < task.end_panel; ++panel, indices += kPanelBytes) {
            const int64_t channel_panel = panel / layer_.taps, tap = panel % layer_.taps;
            const uint32_t* words =
                words_of_.of_tap(first, pixels, task.group, channel_panel, tap, tap == 0 || panel == task.first_panel,
                                 words_.part<uint32_t>(room));
            const auto store = layer_.panel_channels(channel_panel) > 16 ? store_pixel_indices<2> : store_pixel_indices<1>;
            store(words, present_(first, tap), steps, indices);
        }
        for (int64_t row = 0; pads_ && row <= layer_.taps; row += kColumns, indices += kPanelBytes) {
            for (int64_t block = 0; block < divide_up(steps, 2); ++block) {
                uint32_t words[kColumns] = {};
                for (int64_t i = 0; i < minimum(kColumns, layer_.taps - row); ++i) {
                    words[i] = present_(first, row + i)[block];
                }
                if (layer_.taps - row < kColumns) words[layer_.taps - row] = ~uint32_t{0};
                for (int64_t half = 0; half < 2; ++half) {
                    store_indices(words + 16 * half, indices + 2 * block * kPanelStep + half * kIndexBytes, kPanelStep);
                }
            }
        }
    }

    // Of a tile of outputs and a panel of a task.
    int32_t* sums(int room, int64_t output, int64_t panel) const {
        return sums_.part<int32_t>(room) + (output / kTileTables * panels_ + panel) * kTileTables * kColumns;
    }
    int32_t sum(int room, int64_t output, int64_t panel, int64_t column) const {
        return sums(room, output, panel)[output % kTileTables * kColumns + column];
    }
    int32_t* magnitudes(int room) const { return sums_.part<int32_t>(room) + outputs_ * panels_ * kColumns; }

    const int8_t* grad_;
    const Layer& layer_;
    Taps taps_;
    PresentBits present_;
    PixelWords words_of_;
    bool pads_;
    int64_t panels_, outputs_, sums_count_;
    Buffer words_, tables_, indices_, sums_;
};

template <class Finish>
void backward_weight(const int8_t* grad, const uint8_t* x, const Layer& layer, int threads, const Finish& finish) {
    const auto backward = is_within(grad, layer, kOneTable, threads) ? backward_weight_by<LookupSums<false>, Finish>
                                                                     : backward_weight_by<LookupSums<true>, Finish>;
    backward(grad, x, layer, threads, finish);
}

}  // namespace
