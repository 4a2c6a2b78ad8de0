// Words of 32 signs each, a bit each row of a product's depth, of each of a panel's channels side by side.
#pragma once

#include "gradient.h"
#include "octet.h"

namespace {

constexpr int64_t kWordRows = 32;

// words[block * words_step + channel] of `channels` rows of a word of each block.
inline void store_columns(const Blocks (&rows)[kColumns], int64_t channels, int64_t blocks, uint32_t* words,
                          int64_t words_step) {
    const int32_t* from = reinterpret_cast<const int32_t*>(rows);
    for (int64_t c = 0; c < channels; c += 8) {
        for (int64_t block = 0; block < blocks; block += 8) {
            Mask some[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) some[i] = load_mask(from + (c + i) * kBlocks + block);
            transpose_words(some);
            for (int64_t i = 0; i < minimum(8, blocks - block); ++i) {
                uint32_t* to = words + (block + i) * words_step + c;
                if (channels - c >= 8) {
                    std::memcpy(to, some + i, sizeof(Mask));
                } else {
                    std::memcpy(to, some + i, (channels - c) * sizeof(uint32_t));
                }
            }
        }
    }
}

// Bits of the weights that lead back from (tap, output), a row of which a tap has `tap_rows`, to the channels of one panel, as
// words of kWordRows rows: words[block][channel].
inline void gather_weights(const Layer& layer, const Taps& taps, const uint8_t* weight, int64_t group,
                           int64_t channel_panel, int64_t tap_rows, int64_t row_blocks, uint32_t* words,
                           int64_t words_step) {
    const int64_t row_bytes = packed_bytes(layer.row_elements()), channels = layer.panel_channels(channel_panel);
    const int64_t depth = taps.count() * tap_rows;
    for (int64_t block = 0; block < row_blocks; block += kBlocks) {
        Blocks blocks[kWordRows] = {};
        uint32_t* bits = reinterpret_cast<uint32_t*>(blocks);  // lane b of row i: row 32 b + i
        for (int64_t i = 0; i < minimum(kBlocks * kWordRows, depth - block * kWordRows); ++i) {
            const int64_t row = block * kWordRows + i, output = row % tap_rows;
            if (output >= layer.group_outputs) continue;
            const int64_t first_bit =
                taps.of_kernel(row / tap_rows) * layer.group_channels + channel_panel * kColumns;
            bits[i % kWordRows * kBlocks + i / kWordRows] =
                load_bits(weight + (group * layer.group_outputs + output) * row_bytes, first_bit, channels);
        }
        transpose_bits(blocks);
        store_columns(blocks, channels, minimum(kBlocks, row_blocks - block), words + block * words_step, words_step);
    }
}

}  // namespace
