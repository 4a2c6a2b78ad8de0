// What the gradients of a convolution of ±1 values share, which are formed from an int8 gradient of its output. Sums are
// exact in int32.
// A fully connected layer is a convolution of images and kernels of one pixel.
#pragma once

#include "taps.h"
#include "transpose.h"

namespace {

constexpr int64_t kColumns = 32;                 // of a panel; one word of bits holds a row of it
constexpr int64_t kDepth = kColumns * kBlocks;   // of a chunk of pixels
constexpr int64_t kWordBits = 64;
constexpr int64_t kChunkWords = kDepth / kWordBits;
constexpr int64_t kScratchBytes = 512 << 10;  // of a thread's panels of gradients, and of its sums
constexpr int64_t kPixelsAhead = 8;           // that are fetched early, of a gradient that no cache holds

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

// Whether all of a layer's gradient is within ±`most`.
inline bool is_within(const int8_t* grad, const Layer& layer, uint8_t most, int threads) {
    constexpr int64_t kChunk = 1 << 16;
    const int64_t n = layer.window.images * layer.out_pixels * layer.outputs;
    bool within = true;
    parallel_for(divide_up(n, kChunk), threads, [&](int64_t index, int) {
        const int8_t* from = grad + index * kChunk;
        const int64_t count = minimum(kChunk, n - index * kChunk);
        uint8_t beyond = 0;
        for (int64_t i = 0; i < count; ++i) {
            const uint8_t raised = static_cast<uint8_t>(from[i] + most);
            beyond = raised > beyond ? raised : beyond;
        }
        if (beyond > 2 * most) {
#pragma omp atomic write
            within = false;
        }
    });
    return within;
}

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

// `bytes` of each of `pixels`.
inline void copy_strided(int8_t* to, int64_t to_step, const int8_t* from, int64_t from_step, int64_t pixels,
                         int64_t bytes) {
    if (bytes == 64) {
        for (int64_t i = 0; i < pixels; ++i) std::memcpy(to + i * to_step, from + i * from_step, 64);
    } else if (bytes == 32) {
        for (int64_t i = 0; i < pixels; ++i) std::memcpy(to + i * to_step, from + i * from_step, 32);
    } else if (bytes == 16) {
        for (int64_t i = 0; i < pixels; ++i) std::memcpy(to + i * to_step, from + i * from_step, 16);
    } else {
        for (int64_t i = 0; i < pixels; ++i) std::memcpy(to + i * to_step, from + i * from_step, bytes);
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

}  // namespace
