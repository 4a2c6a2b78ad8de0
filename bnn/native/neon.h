// The tiles of ARMv8: products of bits, and with dot products those of bytes with int32 sums, for registers of 128 bits.
// Bytes are of either sign.
#pragma once

#include "common.h"

#include <arm_neon.h>

namespace {

constexpr int kNeonRows = 4;
constexpr int64_t kMostWords = 31;  // whose differing bits, 8 of each byte and word, a byte counts

// Four rows times four outputs, see multiply_tile in product.h: bytes count differing bits, and are added up now and then.
inline void multiply_bits_neon(const uint64_t* x, int64_t words, const uint64_t* panel, float elements, float* out,
                               int64_t out_stride) {
    uint32x4_t differing[kNeonRows][2] = {};
    for (int64_t begin = 0; begin < words; begin += kMostWords) {
        const int64_t end = minimum(begin + kMostWords, words);
        const uint64_t* from[kNeonRows] = {x, x + words, x + 2 * words, x + 3 * words};
        uint8x16_t counts[kNeonRows][2] = {};
        for (int64_t i = begin; i < end; ++i) {
            const uint64x2_t left = vld1q_u64(panel + 4 * i), right = vld1q_u64(panel + 4 * i + 2);
#pragma GCC unroll 4
            for (int row = 0; row < kNeonRows; ++row) {
                const uint64x2_t word = vld1q_dup_u64(from[row] + i);
                counts[row][0] = vaddq_u8(counts[row][0], vcntq_u8(vreinterpretq_u8_u64(veorq_u64(word, left))));
                counts[row][1] = vaddq_u8(counts[row][1], vcntq_u8(vreinterpretq_u8_u64(veorq_u64(word, right))));
            }
        }
#pragma GCC unroll 4
        for (int row = 0; row < kNeonRows; ++row) {
            differing[row][0] = vpadalq_u16(differing[row][0], vpaddlq_u8(counts[row][0]));
            differing[row][1] = vpadalq_u16(differing[row][1], vpaddlq_u8(counts[row][1]));
        }
    }
    for (int row = 0; row < kNeonRows; ++row) {
        const uint32x4_t four = vpaddq_u32(differing[row][0], differing[row][1]);
        const float32x4_t count = vcvtq_f32_u32(four);
        vst1q_f32(out + row * out_stride, vsubq_f32(vdupq_n_f32(elements), vaddq_f32(count, count)));
    }
}

// to[i][k] = from[k][i] - less[i] of four rows and columns.
inline void subtract_four_by_four(const int32_t* from, int64_t from_stride, const int32_t* less, int32_t* to,
                                  int64_t to_stride) {
    int32x4_t rows[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) rows[k] = vsubq_s32(vld1q_s32(from + k * from_stride), vld1q_s32(less));
    const int64x2_t pairs[4] = {
        vreinterpretq_s64_s32(vtrn1q_s32(rows[0], rows[1])), vreinterpretq_s64_s32(vtrn2q_s32(rows[0], rows[1])),
        vreinterpretq_s64_s32(vtrn1q_s32(rows[2], rows[3])), vreinterpretq_s64_s32(vtrn2q_s32(rows[2], rows[3]))};
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        vst1q_s32(to + i * to_stride, vreinterpretq_s32_s64(vtrn1q_s64(pairs[i], pairs[i + 2])));
        vst1q_s32(to + (i + 2) * to_stride, vreinterpretq_s32_s64(vtrn2q_s64(pairs[i], pairs[i + 2])));
    }
}

#ifdef BNN_USE_NEON_DOT

// See spread_signs in tile.h.
inline void spread_signs_neon(uint8_t* to, uint64_t bits, uint64_t present) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201)), one = vdupq_n_u8(1);
    const uint8x16_t set = vreinterpretq_u8_u64(vdupq_n_u64(bits)), there = vreinterpretq_u8_u64(vdupq_n_u64(present));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const uint8x16_t byte = vcombine_u8(vdup_n_u8(2 * i), vdup_n_u8(2 * i + 1));
        const uint8x16_t two = vandq_u8(vtstq_u8(vqtbl1q_u8(set, byte), bit), vdupq_n_u8(2));
        vst1q_u8(to + 16 * i, vbslq_u8(vtstq_u8(vqtbl1q_u8(there, byte), bit), two, one));
    }
}

// Four rows of a panel, see spread_panel in tile.h: `byte` and `bit` say where a word has each column's bit.
inline void spread_rows_neon(int8_t* panel, const uint32_t* rows, const uint32_t* byte, const uint32_t* bit,
                             int64_t columns, uint32_t present) {
    const uint8x16_t words = vreinterpretq_u8_u32(vld1q_u32(rows)), one = vdupq_n_u8(1);
    const uint8x16_t mask = vreinterpretq_u8_u32(vdupq_n_u32(present));
#pragma GCC unroll 8
    for (int64_t column = 0; column < columns; column += 4) {
        const uint8x16_t bytes = vqtbl1q_u8(words, vreinterpretq_u8_u32(vld1q_u32(byte + column)));
        const uint8x16_t set = vtstq_u8(bytes, vreinterpretq_u8_u32(vld1q_u32(bit + column)));
        vst1q_s8(panel + 4 * column, vreinterpretq_s8_u8(vandq_u8(vornq_u8(one, set), mask)));
    }
}

inline int8x16_t broadcast_bytes(const uint8_t* bytes) {
    return vreinterpretq_s8_u32(vld1q_dup_u32(reinterpret_cast<const uint32_t*>(bytes)));
}

// See multiply_tile in tile.h; `columns_each` of a panel's row. Sixteen columns at a time stay in registers.
inline void multiply_bytes_neon(const uint8_t* a, int64_t a_stride, const int8_t* panel, int64_t depth,
                                int64_t columns_each, int32_t* sums) {
    for (int64_t column = 0; column < columns_each; column += 16) {
        int32x4_t products[kNeonRows][4];
        const int8_t* from = panel + 4 * column;
#pragma GCC unroll 4
        for (int row = 0; row < kNeonRows; ++row) {
#pragma GCC unroll 4
            for (int v = 0; v < 4; ++v) products[row][v] = vld1q_s32(sums + row * columns_each + column + 4 * v);
        }
        int64_t k = 0;
        for (; k + 16 <= depth; k += 16) {
            int8x16_t bytes[kNeonRows];
#pragma GCC unroll 4
            for (int row = 0; row < kNeonRows; ++row) bytes[row] = vreinterpretq_s8_u8(vld1q_u8(a + row * a_stride + k));
#define BNN_DOT_LANE(lane)                                                                                    \
    _Pragma("GCC unroll 4") for (int v = 0; v < 4; ++v) {                                                     \
        const int8x16_t weights = vld1q_s8(from + (k + 4 * (lane)) * columns_each + 16 * v);                  \
        _Pragma("GCC unroll 4") for (int row = 0; row < kNeonRows; ++row) {                                   \
            products[row][v] = vdotq_laneq_s32(products[row][v], weights, bytes[row], lane);                  \
        }                                                                                                     \
    }
            BNN_DOT_LANE(0)
            BNN_DOT_LANE(1)
            BNN_DOT_LANE(2)
            BNN_DOT_LANE(3)
#undef BNN_DOT_LANE
        }
        for (; k < depth; k += 4) {
            for (int row = 0; row < kNeonRows; ++row) {
                const int8x16_t quad = broadcast_bytes(a + row * a_stride + k);
#pragma GCC unroll 4
                for (int v = 0; v < 4; ++v) {
                    const int8x16_t weights = vld1q_s8(from + k * columns_each + 16 * v);
                    products[row][v] = vdotq_s32(products[row][v], weights, quad);
                }
            }
        }
#pragma GCC unroll 4
        for (int row = 0; row < kNeonRows; ++row) {
#pragma GCC unroll 4
            for (int v = 0; v < 4; ++v) vst1q_s32(sums + row * columns_each + column + 4 * v, products[row][v]);
        }
    }
}

#endif

}  // namespace
