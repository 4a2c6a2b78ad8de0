// The product of packed ±1 rows: K - 2 popcount(a xor b), with 64 elements a word and one output a vector lane.
#pragma once

#include "bits.h"
#include "vector.h"

namespace {

constexpr int kPanel = kLanes * kTileVectors;  // outputs of one panel of weights
constexpr int64_t kBlockRows = 64;             // rows of x that meet a panel while it is in the nearest cache

// The words of `outputs` weight rows, interleaved: word i of a panel's outputs lies side by side. Clear at first.
class Panels {
   public:
    Panels(int64_t outputs, int64_t words)
        : words_(words), buffer_(divide_up(outputs, kPanel), words * kPanel * 8) {}

    void set(int64_t output, int64_t word, uint64_t value) {
        buffer_.part<uint64_t>(output / kPanel)[word * kPanel + output % kPanel] = value;
    }
    const uint64_t* operator[](int64_t panel) const { return buffer_.part<uint64_t>(panel); }
    int64_t words() const { return words_; }

   private:
    int64_t words_;
    Buffer buffer_;
};

// out[kTileRows][kPanel] of a panel and of kTileRows rows, each `words` long.
//
// Two words of differing bits are added to `ones` by a carry-save adder, so that one popcount serves both: the
// number of differing bits is 2 popcount(all carries) + popcount(ones). With d the word x xor w, the carry of
// (ones, d0, d1) is ones where ones == d0, else d1; and there d1 is the complement of ones ^ d0 ^ d1.
// The loops are unrolled by decree, for the arrays to stay in registers; not inlined, for one compilation to be enough.
[[gnu::noinline]] void multiply_tile(const uint64_t* x, int64_t words, const uint64_t* panel, float elements,
                                     float* out, int64_t out_stride) {
#ifdef BNN_HAS_NEON
    multiply_bits_neon(x, words, panel, elements, out, out_stride);
#else
    Vector carries[kTileRows][kTileVectors], ones[kTileRows][kTileVectors];
    const int64_t odd = words % 2;
#pragma GCC unroll 4
    for (int row = 0; row < kTileRows; ++row) {
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v) {
            carries[row][v] = zero();
            ones[row][v] = odd ? xor3(broadcast(x[row * words]), load(panel + v * kLanes), zero()) : zero();
        }
    }
    for (int64_t begin = odd; begin < words; begin += 2 * kMostCounts) {
        const int64_t end = minimum(begin + 2 * kMostCounts, words);
        Vector counts[kTileRows][kTileVectors] = {};
        for (int64_t i = begin; i < end; i += 2) {
            Vector weight0[kTileVectors], weight1[kTileVectors];
#pragma GCC unroll 4
            for (int v = 0; v < kTileVectors; ++v) {
                weight0[v] = load(panel + i * kPanel + v * kLanes);
                weight1[v] = load(panel + (i + 1) * kPanel + v * kLanes);
            }
#pragma GCC unroll 4
            for (int row = 0; row < kTileRows; ++row) {
                const Vector x0 = broadcast(x[row * words + i]), x1 = broadcast(x[row * words + i + 1]);
#pragma GCC unroll 4
                for (int v = 0; v < kTileVectors; ++v) {
                    const Vector half = xor3(x0, ones[row][v], weight0[v]);
                    const Vector sum = xor3(x1, half, weight1[v]);
                    counts[row][v] = add(counts[row][v], counts_of(select_not(half, sum, ones[row][v])));
                    ones[row][v] = sum;
                }
            }
        }
#pragma GCC unroll 4
        for (int row = 0; row < kTileRows; ++row) {
#pragma GCC unroll 4
            for (int v = 0; v < kTileVectors; ++v) carries[row][v] = add(carries[row][v], added_up(counts[row][v]));
        }
    }
#pragma GCC unroll 4
    for (int row = 0; row < kTileRows; ++row) {
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v) {
            const Vector differing = add(add(carries[row][v], carries[row][v]), added_up(counts_of(ones[row][v])));
            store_products(out + row * out_stride + v * kLanes, elements, differing);
        }
    }
#endif
}

// out[row][output] for `rows` rows of x, which lie `panels.words()` words apart, and the `outputs` outputs that begin
// at `first_panel`. x is readable up to a whole tile.
inline void multiply_rows(const uint64_t* x, int64_t rows, const Panels& panels, int64_t first_panel, int64_t outputs,
                          int64_t elements, float* out, int64_t out_stride) {
    const float k = static_cast<float>(elements);
    const int64_t words = panels.words();
    for (int64_t first = 0; first < outputs; first += kPanel) {
        const uint64_t* panel = panels[first_panel + first / kPanel];
        const int64_t columns = minimum(kPanel, outputs - first);
        float* to = out + first;
        for (int64_t row = 0; row < rows; row += kTileRows) {
            const int64_t tile_rows = minimum(kTileRows, rows - row);
            if (columns == kPanel && tile_rows == kTileRows) {
                multiply_tile(x + row * words, words, panel, k, to + row * out_stride, out_stride);
                continue;
            }
            float tile[kTileRows * kPanel];
            multiply_tile(x + row * words, words, panel, k, tile, kPanel);
            for (int64_t i = 0; i < tile_rows; ++i) {
                std::memcpy(to + (row + i) * out_stride, tile + i * kPanel, columns * sizeof(float));
            }
        }
    }
}

// Copies a packed row of `bits` bits to words whose last bits are clear.
inline void copy_row(uint64_t* words, const uint8_t* row, int64_t bits) {
    words[maximum(divide_up(bits, 64), 1) - 1] = 0;
    if (bits) std::memcpy(words, row, packed_bytes(bits));  // an empty tensor has no address
    if (bits % 64) words[bits / 64] &= (uint64_t{1} << bits % 64) - 1;
}

void linear(const uint8_t* x, const uint8_t* weight, float* out, int64_t rows, int64_t outputs, int64_t features,
            int threads) {
    const int64_t words = maximum(divide_up(features, 64), 1), row_bytes = packed_bytes(features);
    Panels panels(outputs, words);
    const Buffer scratch(threads, kBlockRows * words * 8);
    parallel_for(divide_up(outputs, kPanel), threads, [&](int64_t panel, int thread) {
        uint64_t* row = scratch.part<uint64_t>(thread);
        for (int64_t o = panel * kPanel; o < minimum((panel + 1) * kPanel, outputs); ++o) {
            copy_row(row, weight + o * row_bytes, features);
            for (int64_t i = 0; i < words; ++i) panels.set(o, i, row[i]);
        }
    });
    const int64_t block_rows = minimum(kBlockRows, round_up(divide_up(rows, threads), kTileRows));
    parallel_for(block_rows ? divide_up(rows, block_rows) : 0, threads, [&](int64_t block, int thread) {
        uint64_t* copy = scratch.part<uint64_t>(thread);
        const int64_t first = block * block_rows, count = minimum(block_rows, rows - first);
        for (int64_t i = 0; i < count; ++i) copy_row(copy + i * words, x + (first + i) * row_bytes, features);
        multiply_rows(copy, count, panels, 0, outputs, features, out + first * outputs, outputs);
    });
}

}  // namespace
