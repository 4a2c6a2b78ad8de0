// Convolutions of few channels by lookups in registers (lookups.h): a pixel's tables hold how many of four of its channels have
// the sign of the weight, for each of 16 choices of these, and the bits of the weights choose.
#pragma once

#include "bits.h"
#include "gradient.h"
#include "lookups.h"
#include "wide.h"
#include "window.h"

namespace {

// A table of 16 channels: how many of four have the sign that is chosen.
struct CountPlaces {
    constexpr CountPlaces() {
        for (int i = 0; i < 64; ++i) {
            quads[i] = static_cast<uint8_t>(i / 16 * 4);
            choices[i] = static_cast<uint8_t>(i % 16);
            for (int bit = 0; bit < 4; ++bit) counts[i] = static_cast<uint8_t>(counts[i] + (i % 16 >> bit & 1));
        }
    }
    alignas(64) uint8_t quads[64]{};    // where the four channels' bits begin
    alignas(64) uint8_t choices[64]{};
    alignas(64) uint8_t counts[64]{};   // of the bits of four
};
constexpr CountPlaces kCountPlaces;
constexpr uint8_t kHalf = 2;  // of four: what no channels count

// tables[pixel][channels / 16] of the packed pixels of a row.
inline void make_count_tables(const uint8_t* x, int64_t pixels, int64_t channels, uint8_t* tables) {
    const Vector quads = _mm512_load_si512(kCountPlaces.quads), choices = _mm512_load_si512(kCountPlaces.choices);
    const Vector counts = _mm512_load_si512(kCountPlaces.counts), four_bits = _mm512_set1_epi8(15);
    for (int64_t i = 0; i < pixels * channels / kTableDepth; ++i, x += 2, tables += kTableBytes) {
        int16_t word;
        std::memcpy(&word, x, sizeof word);
        const Vector bits = _mm512_maskz_multishift_epi64_epi8(~uint64_t{0}, quads, _mm512_set1_epi16(word));
        const Vector same = _mm512_ternarylogic_epi64(bits, choices, four_bits, 0x82);  // ~(a ^ b) & c
        _mm512_storeu_si512(tables, _mm512_shuffle_epi8(counts, same));
    }
}

// Ready to be applied: the weights' indices, and room for each thread to work in. As `Convolver`, which see.
class LookupConvolver {
   public:
    LookupConvolver(const uint8_t* weight, const Window& window, int64_t outputs, int threads)
        : window_(window),
          outputs_(outputs),
          taps_(window.kernel[0] * window.kernel[1]),
          steps_(window.channels / kTableDepth),
          panels_(divide_up(outputs, kColumns)),
          row_tiles_(divide_up(window.out_size[1], kTileTables)),
          band_rows_(minimum(window.out_size[0], divide_up(kBandPixels, window.out_size[1]))),
          columns_(maximum(window.size[1] + 2 * window.padding[1], extent(window, 1, row_tiles_ * kTileTables))),
          indices_(panels_, taps_ * steps_ * kPanelStep, Contents::kAny),
          tables_(threads, extent(window, 0, band_rows_) * row_bytes(), Contents::kAny),
          tiles_(threads, taps_ * kTileTables * sizeof(uint8_t*), Contents::kAny) {
        parallel_for(panels_, threads, [&](int64_t panel, int) { prepare(weight, panel); });
        for (int thread = 0; thread < threads; ++thread) find_tables(thread);
    }

    static bool serves(const Window& window, int64_t groups) {
        return groups == 1 && window.channels % kTableDepth == 0 && window.channels <= kMostChannels;
    }

    int64_t bands() const { return divide_up(window_.out_size[0], band_rows_); }  // of an image
    int64_t out_elements() const { return window_.out_size[0] * window_.out_size[1] * outputs_; }

    // One band of the result's image, `out`, from the packed image `x`.
    template <class Float>
    void apply(const uint8_t* x, int64_t index, int thread, Float* out) const {
        const int64_t row = index * band_rows_, rows = minimum(band_rows_, window_.out_size[0] - row);
        const int64_t width = window_.out_size[1];
        uint8_t* tables = tables_.part<uint8_t>(thread);
        make_tables(x, row * window_.stride[0] - window_.padding[0], extent(window_, 0, rows), tables);
        for (int64_t i = 0; i < rows; ++i) {
            int64_t at = i * window_.stride[0] * row_bytes();
            for (int64_t column = 0; column < width; column += kTileTables) {
                const int64_t count = minimum(kTileTables, width - column);
                multiply_tile(thread, at, count, out + ((row + i) * width + column) * outputs_);
                at += kTileTables * window_.stride[1] * pixel_bytes();
            }
        }
    }

   private:
    static constexpr int64_t kMostChannels = 64;  // beyond them counts of whole words take less time
    static constexpr int64_t kBandPixels = 256;

    int64_t pixel_bytes() const { return steps_ * kTableBytes; }
    int64_t row_bytes() const { return columns_ * pixel_bytes(); }

    void prepare(const uint8_t* weight, int64_t panel) const {
        const int64_t output = panel * kColumns, weight_bytes = packed_bytes(taps_ * window_.channels);
        uint8_t* to = indices_.part<uint8_t>(panel);
        for (int64_t step = 0; step < taps_ * steps_; ++step, to += kPanelStep) {
            alignas(64) uint32_t words[kColumns] = {};
            for (int64_t i = 0; i < minimum(kColumns, outputs_ - output); ++i) {
                words[i] = load_bits(weight + (output + i) * weight_bytes, step * kTableDepth, kTableDepth);
            }
            for (int64_t half = 0; half < 2; ++half) {
                const Vector bits = _mm512_load_si512(words + 16 * half);
                _mm512_storeu_si512(to + half * kIndexBytes, indices_of(bits, lower_halves_of_words()));
            }
        }
    }

    // Of `rows` rows of the padded image, from the one at `first` on.
    void make_tables(const uint8_t* x, int64_t first, int64_t rows, uint8_t* tables) const {
        const int64_t before = window_.padding[1], width = window_.size[1];
        for (int64_t i = 0; i < rows; ++i, tables += row_bytes()) {
            if (!inside(first + i, window_.size[0])) {
                std::memset(tables, kHalf, row_bytes());
                continue;
            }
            std::memset(tables, kHalf, before * pixel_bytes());
            make_count_tables(x + (first + i) * width * window_.channels / 8, width, window_.channels,
                              tables + before * pixel_bytes());
            std::memset(tables + (before + width) * pixel_bytes(), kHalf, (columns_ - before - width) * pixel_bytes());
        }
    }

    // Where the tables of the taps of a thread's first tile lie.
    void find_tables(int thread) const {
        const uint8_t** to = tiles_.part<const uint8_t*>(thread);
        for (int64_t tap = 0; tap < taps_; ++tap) {
            const int64_t row = tap / window_.kernel[1] * window_.dilation[0];
            const int64_t column = tap % window_.kernel[1] * window_.dilation[1];
            for (int64_t i = 0; i < kTileTables; ++i) {
                *to++ = tables_.part<uint8_t>(thread) + row * row_bytes() +
                        (column + i * window_.stride[1]) * pixel_bytes();
            }
        }
    }

    template <class Float>
    void multiply_tile(int thread, int64_t at, int64_t count, Float* out) const {
        const Vector start = _mm512_set1_epi32(static_cast<int>(-taps_ * window_.channels));
        alignas(64) int32_t sums[kTileTables * kColumns];
        for (int64_t panel = 0; panel < panels_; ++panel) {
            const int64_t output = panel * kColumns, columns = minimum(kColumns, outputs_ - output);
            for (int64_t i = 0; i < kTileTables * kColumns; i += 16) {
                if (i % kColumns < columns) _mm512_store_si512(sums + i, start);
            }
            const auto add = columns > 16 ? add_lookups<false, 2> : add_lookups<false, 1>;
            add(tiles_.part<const uint8_t*>(thread), at, taps_, steps_, indices_.part<uint8_t>(panel), sums);
            for (int64_t i = 0; i < count; ++i) {
                for (int64_t column = 0; column < columns; column += kWide) {
                    store_wide(out + i * outputs_ + output + column, load_sums(sums + i * kColumns + column),
                               minimum(kWide, columns - column));
                }
            }
        }
    }

    Window window_;
    int64_t outputs_, taps_, steps_, panels_, row_tiles_, band_rows_, columns_;
    Buffer indices_, tables_, tiles_;
};

}  // namespace
