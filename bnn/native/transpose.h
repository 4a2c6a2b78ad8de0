// Small blocks of bits or bytes, transposed in vectors that the compiler makes of what registers there are.
#pragma once

#include "common.h"

namespace {

constexpr int kBlocks = 16;  // of 32 x 32 bits, that are transposed at a time

typedef uint32_t Blocks __attribute__((vector_size(64)));  // one row of each block
typedef uint32_t TwoWords __attribute__((vector_size(8)));
typedef uint8_t Sixteen __attribute__((vector_size(16)));
typedef uint8_t SixtyFour __attribute__((vector_size(64)));
typedef uint16_t Pairs __attribute__((vector_size(16)));  // of bytes

// Swaps the bits `low` of some rows with those `distance` higher of the rows `distance` before them.
template <int distance, class Row>
inline void swap_bits(Row (&rows)[32], uint32_t low) {
#pragma GCC unroll 32
    for (int i = 0; i < 32; ++i) {
        if (i & distance) continue;
        const Row change = ((rows[i] >> distance) ^ rows[i + distance]) & low;
        rows[i + distance] ^= change;
        rows[i] ^= change << distance;
    }
}

// Bit j of row i becomes bit i of row j. A row is a word, or a vector of a word of each of several blocks.
template <class Row>
[[gnu::noinline]] void transpose_bits(Row (&rows)[32]) {
    swap_bits<16>(rows, 0x0000FFFF);
    swap_bits<8>(rows, 0x00FF00FF);
    swap_bits<4>(rows, 0x0F0F0F0F);
    swap_bits<2>(rows, 0x33333333);
    swap_bits<1>(rows, 0x55555555);
}

#ifdef __clang__
#define BNN_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define BNN_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype(a){__VA_ARGS__})
#endif

// The elements of two vectors' lower or upper halves in turns.
inline Sixteen lower_halves(Sixteen a, Sixteen b) {
    return BNN_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Sixteen upper_halves(Sixteen a, Sixteen b) {
    return BNN_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
inline Pairs lower_halves(Pairs a, Pairs b) { return BNN_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Pairs upper_halves(Pairs a, Pairs b) { return BNN_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

#if defined(__AVX2__)
typedef uint8_t ByteColumns __attribute__((vector_size(32)));  // two blocks of 16, each in a half of the register
inline ByteColumns lower_halves(ByteColumns a, ByteColumns b) {
    return BNN_SHUFFLE(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,  //
                       16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55);
}
inline ByteColumns upper_halves(ByteColumns a, ByteColumns b) {
    return BNN_SHUFFLE(a, b, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47,  //
                       24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
}
#else
typedef Sixteen ByteColumns;
#endif

// Byte j of row i becomes byte i of row j, in each block.
inline void transpose_bytes(ByteColumns (&rows)[16]) {
#pragma GCC unroll 4
    for (int round = 0; round < 4; ++round) {
        ByteColumns next[16];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            next[2 * i] = lower_halves(rows[i], rows[i + 8]);
            next[2 * i + 1] = upper_halves(rows[i], rows[i + 8]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) rows[i] = next[i];
    }
}

// 32 bytes from each of from[rows] to to[32][rows]; `rows`: a multiple of 16.
template <int rows>
[[gnu::noinline]] void transpose_bytes(const int8_t* const* from, int8_t* to) {
    for (int64_t row = 0; row < rows; row += 16) {
        for (int64_t column = 0; column < 32; column += sizeof(ByteColumns)) {
            ByteColumns block[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) std::memcpy(block + i, from[row + i] + column, sizeof(ByteColumns));
            transpose_bytes(block);
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) {
                for (int64_t half = 0; half < static_cast<int64_t>(sizeof(ByteColumns)); half += 16) {
                    std::memcpy(to + (column + half + i) * rows + row, reinterpret_cast<char*>(block + i) + half, 16);
                }
            }
        }
    }
}

// Word j of row i becomes word i of row j.
template <class EightWords>
inline void transpose_words(EightWords (&rows)[8]) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 2) {
        const EightWords a = rows[i], b = rows[i + 1];
        rows[i] = BNN_SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
        rows[i + 1] = BNN_SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        if (i & 2) continue;
        const EightWords a = rows[i], b = rows[i + 2];
        rows[i] = BNN_SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
        rows[i + 2] = BNN_SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4; ++i) {
        const EightWords a = rows[i], b = rows[i + 4];
        rows[i] = BNN_SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
        rows[i + 4] = BNN_SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

}  // namespace
