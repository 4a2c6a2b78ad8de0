// Convolutions of bits whose vectors hold pixels, where bytes can be looked up in a register (AVX2's shuffle): four channels
// of a pixel are a nibble, and four signs of a weight choose the table that has, for each nibble, how many bits differ. A
// lookup and an addition then stand for four products of as many pixels as a vector has bytes.
//
// The nibbles of four channels are a plane: the rows of a band of the padded image one behind the other, so that a tap is a
// distance in it. A row's right padding is the next one's left padding.
#pragma once

#include "choice.h"
#include "transpose.h"
#include "window.h"

namespace {

constexpr int64_t kOutside = 0x80;       // a nibble of the padding: no bit of it differs
constexpr int64_t kPixels = 32;          // of a vector
constexpr int64_t kChunkVectors = 4;     // whose counts stay in registers
constexpr int64_t kChunkPixels = kChunkVectors * kPixels;
constexpr int64_t kSomeOutputs = 16;     // whose counts are brought to channels last together
constexpr int64_t kMostNibbles = 63;     // whose counts a byte holds
constexpr int64_t kBandPositions = 1024;  // of a band, at least, where the image has so many

// Counts of differing bits of kSomeOutputs outputs: their lower and their upper bytes.
struct Counts {
    alignas(32) uint8_t low[kSomeOutputs][kChunkPixels], high[kSomeOutputs][kChunkPixels];
};

// counts[two outputs][vectors * kPixels] of `steps` nibbles. At `offsets` of `planes` lie those of the pixels;
// `choices[step][2]` say where the tables of the weights begin.
template <int vectors>
[[gnu::noinline]] void count_pair(const uint8_t* planes, const int32_t* offsets, int64_t steps, const uint8_t* tables,
                                  const uint8_t* choices, uint8_t* low, uint8_t* high) {
    __m256i even[2][vectors], odd[2][vectors];
    const __m256i of_even = _mm256_set1_epi16(0xFF);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) even[i][v] = odd[i][v] = _mm256_setzero_si256();
    }
    for (int64_t begin = 0; begin < steps; begin += kMostNibbles) {
        __m256i counts[2][vectors];
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) counts[i][v] = _mm256_setzero_si256();
        }
        for (int64_t step = begin; step < minimum(begin + kMostNibbles, steps); ++step) {
            const uint8_t* nibbles = planes + offsets[step];
            const auto table = [&](int i) {
                return _mm256_broadcastsi128_si256(
                    _mm_load_si128(reinterpret_cast<const __m128i*>(tables + choices[2 * step + i])));
            };
            const __m256i first = table(0), second = table(1);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) {
                __m256i of_pixels = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(nibbles + v * kPixels));
                asm("" : "+x"(of_pixels));  // or GCC loads it for each lookup, and keeps sums in memory for want of registers
                counts[0][v] = _mm256_add_epi8(counts[0][v], _mm256_shuffle_epi8(first, of_pixels));
                counts[1][v] = _mm256_add_epi8(counts[1][v], _mm256_shuffle_epi8(second, of_pixels));
                asm("" : "+x"(counts[0][v]), "+x"(counts[1][v]));
            }
        }
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) {
                even[i][v] = _mm256_add_epi16(even[i][v], _mm256_and_si256(counts[i][v], of_even));
                odd[i][v] = _mm256_add_epi16(odd[i][v], _mm256_srli_epi16(counts[i][v], 8));
            }
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            const __m256i lower = _mm256_or_si256(_mm256_and_si256(even[i][v], of_even), _mm256_slli_epi16(odd[i][v], 8));
            const __m256i upper = _mm256_or_si256(_mm256_srli_epi16(even[i][v], 8),
                                                  _mm256_andnot_si256(of_even, odd[i][v]));
            _mm256_store_si256(reinterpret_cast<__m256i*>(low + i * kChunkPixels + v * kPixels), lower);
            _mm256_store_si256(reinterpret_cast<__m256i*>(high + i * kChunkPixels + v * kPixels), upper);
        }
    }
}

// A convolution that is ready to be applied, as `Convolver` is.
class NibbleConvolver {
   public:
    // Whether this is the faster way, where it is one: vectors have to be full of pixels, the more so where there are so many
    // channels that counting whole words is fast, too.
    static bool serves(const Window& window, int64_t groups) {
        const int64_t elements = window.channels * window.kernel[0] * window.kernel[1];
        const int64_t pitch = window.size[1] + window.padding[1], pixels = window.out_size[0] * window.out_size[1];
        const int64_t lanes = round_up((window.out_size[0] - 1) * pitch + window.out_size[1], kPixels);
        return groups == 1 && window.channels % 8 == 0 && window.stride[0] == 1 && window.stride[1] == 1 &&
               window.padding[1] <= window.dilation[1] * (window.kernel[1] - 1) && elements <= kMostElements &&
               100 * pixels >= (window.channels > 64 ? 85 : 60) * lanes;
    }

    NibbleConvolver(const uint8_t* weight, const Window& window, int64_t outputs, int threads)
        : window_(window),
          outputs_(outputs),
          planes_(window.channels / 4),
          steps_(planes_ * window.kernel[0] * window.kernel[1]),
          pitch_(window.size[1] + window.padding[1]),
          band_rows_(minimum(divide_up(kBandPositions, pitch_),
                             divide_up(window.out_size[0], divide_up(threads, maximum(window.images, 1))))),
          plane_bytes_(extent(window, 0, band_rows_) * pitch_ + window.padding[1]),
          tables_(16, 16),
          choices_(1, round_up(outputs, kSomeOutputs) * steps_),
          offsets_(1, steps_ * sizeof(int32_t)),
          column_elements_(1, window.out_size[1] * sizeof(int32_t)),
          separated_(2 * threads, extent(window, 0, band_rows_) * window.size[1] * planes_ / 2 + kPixels),
          bands_(threads, planes_ * plane_bytes_ + kChunkPixels + extent(window, 1, 1)),
          counts_(threads, sizeof(Counts)) {
        band_rows_ = maximum(band_rows_, 1);
        prepare(weight, threads);
    }

    int64_t bands() const { return divide_up(window_.out_size[0], band_rows_); }  // of an image
    int64_t out_elements() const { return window_.out_size[0] * window_.out_size[1] * outputs_; }

    // One band of the result's image, `out`, from the packed image `x`.
    template <class Float>
    void apply(const uint8_t* x, int64_t index, int thread, Float* out) const {
        const int64_t row = index * band_rows_, width = window_.out_size[1];
        const int64_t rows = minimum(band_rows_, window_.out_size[0] - row);
        const int64_t positions = (rows - 1) * pitch_ + width;
        uint8_t* planes = bands_.part<uint8_t>(thread);
        load_planes(x, row - window_.padding[0], extent(window_, 0, rows), thread, planes);
        Counts& counts = *counts_.part<Counts>(thread);
        for (int64_t output = 0; output < outputs_; output += kSomeOutputs) {
            for (int64_t first = 0; first < positions; first += kChunkPixels) {
                const int64_t count = minimum(kChunkPixels, positions - first), vectors = divide_up(count, kPixels);
                const auto count_two = vectors == 4   ? count_pair<4>
                                       : vectors == 3 ? count_pair<3>
                                       : vectors == 2 ? count_pair<2>
                                                      : count_pair<1>;
                for (int64_t i = 0; i < minimum(kSomeOutputs, outputs_ - output); i += 2) {
                    count_two(planes + first, offsets_.part<int32_t>(0), steps_, tables_.part<uint8_t>(0),
                              choices_.part<uint8_t>(0) + (output + i) * steps_, counts.low[i], counts.high[i]);
                }
                store_counts(counts, row, first, count, output, out);
            }
        }
    }

   private:
    static constexpr int64_t kMostElements = 1 << 14;  // twice their number is a short

    void prepare(const uint8_t* weight, int threads) {
        for (int64_t signs = 0; signs < 16; ++signs) {
            uint8_t* table = tables_.part<uint8_t>(0) + signs * 16;
            for (int64_t nibble = 0; nibble < 16; ++nibble) {
                table[nibble] = static_cast<uint8_t>(popcount_of_word(static_cast<uint64_t>(signs ^ nibble)));
            }
        }
        int32_t* offset = offsets_.part<int32_t>(0);
        for (int64_t i = 0; i < window_.kernel[0]; ++i) {
            for (int64_t j = 0; j < window_.kernel[1]; ++j) {
                const int64_t distance = i * window_.dilation[0] * pitch_ + j * window_.dilation[1];
                for (int64_t plane = 0; plane < planes_; ++plane) {
                    *offset++ = static_cast<int32_t>(plane * plane_bytes_ + distance);
                }
            }
        }
        for (int64_t column = 0; column < window_.out_size[1]; ++column) {
            column_elements_.part<int32_t>(0)[column] = static_cast<int32_t>(window_.channels * taps_inside(1, column));
        }
        const int64_t row_bytes = steps_ / 2;
        parallel_for(divide_up(outputs_, kSomeOutputs), threads, [&](int64_t block, int) {
            for (int64_t output = block * kSomeOutputs; output < minimum((block + 1) * kSomeOutputs, outputs_); ++output) {
                const uint8_t* from = weight + output * row_bytes;
                uint8_t* to = choices_.part<uint8_t>(0) + output / 2 * 2 * steps_ + output % 2;
                for (int64_t i = 0; i < row_bytes; ++i, to += 4) {
                    to[0] = static_cast<uint8_t>(from[i] << 4);
                    to[2] = from[i] & 0xF0;
                }
            }
        });
    }

    // Some rows of the padded image. What is stored behind the end of a row is stored again by the next one.
    void load_planes(const uint8_t* image, int64_t first_row, int64_t rows, int thread, uint8_t* planes) const {
        const int64_t begin = minimum(maximum(-first_row, 0), rows), width = window_.size[1];
        const int64_t end = maximum(minimum(rows, window_.size[0] - first_row), begin), pixels = (end - begin) * width;
        const uint8_t* bytes = separated(image + (first_row + begin) * width * planes_ / 2, pixels, thread);
        const __m256i low = _mm256_set1_epi8(15);
        for (int64_t plane = 0; plane < planes_; ++plane) {
            const uint8_t* from = bytes + plane / 2 * pixels;
            uint8_t* to = planes + plane * plane_bytes_;
            std::memset(to, kOutside, window_.padding[1] + begin * pitch_);
            to += window_.padding[1] + begin * pitch_;
            for (int64_t row = begin; row < end; ++row, from += width, to += pitch_) {
                for (int64_t column = 0; column < width; column += kPixels) {
                    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + column));
                    const __m256i nibbles = _mm256_and_si256(plane % 2 ? _mm256_srli_epi16(both, 4) : both, low);
                    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + column), nibbles);
                }
                std::memset(to + width, kOutside, window_.padding[1]);
            }
            std::memset(to, kOutside, (rows - end) * pitch_);
        }
    }

    // The first bytes of all pixels, their second bytes and so on.
    const uint8_t* separated(const uint8_t* from, int64_t pixels, int thread) const {
        const int64_t bytes = planes_ / 2, size = pixels * bytes;
        uint8_t *to = separated_.part<uint8_t>(2 * thread), *next = separated_.part<uint8_t>(2 * thread + 1);
        if (bytes & (bytes - 1)) {
            for (int64_t byte = 0; byte < bytes; ++byte) {
                for (int64_t i = 0; i < pixels; ++i) to[byte * pixels + i] = from[i * bytes + byte];
            }
            return to;
        }
        std::memcpy(to, from, size);
        // Each round brings even and odd bytes apart of parts that have had the same place in a pixel's bytes so far.
        for (int64_t parts = 1; parts < bytes; parts *= 2) {
            for (int64_t part = 0; part < parts; ++part) {
                const int64_t half = size / parts / 2;
                split_bytes(to + 2 * part * half, half, next + part * half, next + (part + parts) * half);
            }
            uint8_t* const last = to;
            to = next;
            next = last;
        }
        return to;
    }

    static void split_bytes(const uint8_t* from, int64_t count, uint8_t* even, uint8_t* odd) {
        const __m256i of_even = _mm256_set1_epi16(0xFF);
        int64_t i = 0;
        for (; i + kPixels <= count; i += kPixels) {
            const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * i));
            const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * i + kPixels));
            const __m256i evens = _mm256_packus_epi16(_mm256_and_si256(a, of_even), _mm256_and_si256(b, of_even));
            const __m256i odds = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(even + i), _mm256_permute4x64_epi64(evens, 0xD8));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(odd + i), _mm256_permute4x64_epi64(odds, 0xD8));
        }
        for (; i < count; ++i) {
            even[i] = from[2 * i];
            odd[i] = from[2 * i + 1];
        }
    }

    // How many of a dimension's taps lie inside of the image.
    int64_t taps_inside(int dim, int64_t output) const {
        int64_t taps = 0;
        for (int64_t tap = 0; tap < window_.kernel[dim]; ++tap) {
            taps += inside(output - window_.padding[dim] + tap * window_.dilation[dim], window_.size[dim]);
        }
        return taps;
    }

    // The products of `count` positions from `first` on of a band that begins at `first_row`, of some outputs.
    template <class Float>
    void store_counts(const Counts& counts, int64_t first_row, int64_t first, int64_t count, int64_t output,
                      Float* out) const {
        const int64_t width = window_.out_size[1], outputs = outputs_, there = minimum(kSomeOutputs, outputs_ - output);
        alignas(32) int8_t low[kPixels][kSomeOutputs], high[kPixels][kSomeOutputs] = {};
        const int32_t* column_elements = column_elements_.part<int32_t>(0);
        int64_t row = first / pitch_, column = first % pitch_;
        for (int64_t begin = 0; begin < count; begin += kPixels) {
            const int8_t *from_low[kSomeOutputs], *from_high[kSomeOutputs];
            for (int64_t i = 0; i < kSomeOutputs; ++i) {
                from_low[i] = reinterpret_cast<const int8_t*>(counts.low[i] + begin);
                from_high[i] = reinterpret_cast<const int8_t*>(counts.high[i] + begin);
            }
            transpose_bytes<kSomeOutputs>(from_low, low[0]);
            if (steps_ > kMostNibbles) transpose_bytes<kSomeOutputs>(from_high, high[0]);
            const int64_t end = minimum(kPixels, count - begin);
            for (int64_t i = 0; i < end;) {
                const int64_t run = minimum(width - column, end - i), row_taps = taps_inside(0, first_row + row);
                Float* to = out + ((first_row + row) * width + column) * outputs + output;
                for (int64_t pixel = 0; pixel < run; ++pixel, to += outputs) {
                    const int64_t elements = row_taps * column_elements[column + pixel];
                    store_pixel(low[i + pixel], high[i + pixel], elements, to, there);
                }
                const int64_t passed = minimum(pitch_ - column, end - i);
                i += passed;
                column += passed;
                if (column == pitch_) {
                    column = 0;
                    ++row;
                }
            }
        }
    }

    template <class Float>
    static void store_pixel(const int8_t* low, const int8_t* high, int64_t elements, Float* to, int64_t count) {
        const auto shorts = [](const int8_t* from) {
            return _mm256_cvtepu8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
        };
        const __m256i differing = _mm256_or_si256(shorts(low), _mm256_slli_epi16(shorts(high), 8));
        const __m256i products =
            _mm256_sub_epi16(_mm256_set1_epi16(static_cast<short>(elements)), _mm256_slli_epi16(differing, 1));
        const __m128i halves[2] = {_mm256_castsi256_si128(products), _mm256_extracti128_si256(products, 1)};
        for (int i = 0; i < 2; ++i) {
            const Octet eight = floats_of((Mask)_mm256_cvtepi16_epi32(halves[i]));
            if (count >= 8 * i + 8) {
                store_octet(to + 8 * i, eight);
            } else if (count > 8 * i) {
                store_octet(to + 8 * i, eight, count - 8 * i);
            }
        }
    }

    Window window_;
    int64_t outputs_, planes_, steps_, pitch_, band_rows_, plane_bytes_;
    Buffer tables_, choices_, offsets_, column_elements_, separated_, bands_, counts_;
};

}  // namespace
