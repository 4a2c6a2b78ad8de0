// What the gradients of a convolution of ±1 values share, which are formed from an int8 gradient of its output. Sums are
// exact in int32.
// A fully connected layer is a convolution of images and kernels of one pixel.
#pragma once

#include "taps.h"
#include "tile.h"
#include "transpose.h"

namespace {

constexpr int64_t kDepth = kColumns * kBlocks;  // of a panel that stays in the nearest cache

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

// Adds the sums of a panel's columns to each row of sums[kRows][kColumns].
inline void add_column_sums(const int8_t* panel, int64_t depth, int32_t* sums) {
    uint8_t ones[kDepth];
    std::memset(ones, 1, sizeof ones);
    for (int64_t k = 0; k < depth; k += kDepth) {
        multiply_rows(ones, 0, kRows, panel + k * kColumns, minimum(kDepth, depth - k), kColumns, sums);
    }
}

}  // namespace
