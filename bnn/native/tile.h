// Products of bytes with int32 sums, where instructions add four of them at a time (AMX, ARMv8.2); elsewhere see tables.h, and
// lookups.h.
//
// A panel is a matrix of signed bytes [depth][kColumns] whose rows are interleaved by four, panel[depth / 4][column][4]:
// one instruction then adds four products to every column's sum. Where it multiplies unsigned by signed bytes, a factor of
// both signs is offset, and offset times each column's sum, which is the same for all rows, is taken away.
//
// Each definition offers the same: Tiles, which lives while tiles are multiplied; multiply_rows, which adds unsigned
// a[rows][depth] times a panel to sums[rows][kColumns], and reads and forms rows up to a multiple of kRows; spread_signs, which makes bytes of a row of bits; and spread_panel, which makes a panel of
// words of 32 bits.
#pragma once

#include "gradient.h"
#include "vector.h"

namespace {

#ifdef BNN_HAS_NEON
constexpr uint8_t kOffset = 0;      // of bytes of both signs: instructions take them as they are
#else
constexpr uint8_t kOffset = 128;    // of bytes of both signs, for them to be unsigned
#endif

// For every column: which byte of four words of bits holds it (of each of the four), and its bit in there.
struct ColumnBits {
    constexpr ColumnBits() {
        for (uint32_t column = 0; column < kColumns; ++column) {
            byte[column] = 0x0C080400 + column / 8 * 0x01010101;
            bit[column] = (1u << column % 8) * 0x01010101;
        }
    }
    alignas(64) uint32_t byte[kColumns]{};
    alignas(64) uint32_t bit[kColumns]{};
};
constexpr ColumnBits kColumnBits;

#if defined(BNN_USE_AMX)

constexpr int kRows = 32;
constexpr int64_t kDepthStep = 64;  // what depths are a multiple of

// The shape of this thread's eight tiles: 16 rows of 64 bytes each. Released, they cost nothing to switch threads.
class Tiles {
   public:
    Tiles() {
        struct {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        asm volatile("" : : "m"(config));  // of which the next instruction, as some compilers know it, reads 8 bytes
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

[[gnu::noinline]] void multiply_tile(const uint8_t* a, int64_t a_stride, const int8_t* panel, int64_t depth,
                                     int32_t* sums) {
    constexpr int64_t sums_stride = kColumns * sizeof(int32_t);
    asm volatile("" ::: "memory");  // the compiler does not know that tile loads read memory
    _tile_loadd(0, sums, sums_stride);
    _tile_loadd(1, sums + 16, sums_stride);
    _tile_loadd(2, sums + 16 * kColumns, sums_stride);
    _tile_loadd(3, sums + 16 * kColumns + 16, sums_stride);
    for (int64_t k = 0; k < depth; k += kDepthStep) {
        _tile_loadd(4, a + k, a_stride);
        _tile_loadd(6, panel + k * kColumns, 4 * kColumns);
        _tile_loadd(7, panel + k * kColumns + 64, 4 * kColumns);
        _tile_loadd(5, a + 16 * a_stride + k, a_stride);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, sums, sums_stride);
    _tile_stored(1, sums + 16, sums_stride);
    _tile_stored(2, sums + 16 * kColumns, sums_stride);
    _tile_stored(3, sums + 16 * kColumns + 16, sums_stride);
}

#else

constexpr int64_t kDepthStep = 4;

struct Tiles {
    Tiles() {}  // nothing to prepare; declared for no compiler to call it unused
};

constexpr int kRows = kNeonRows;

[[gnu::noinline]] void multiply_tile(const uint8_t* a, int64_t a_stride, const int8_t* panel, int64_t depth,
                                     int32_t* sums) {
    multiply_bytes_neon(a, a_stride, panel, depth, kColumns, sums);
}

#endif

inline void multiply_rows(const uint8_t* a, int64_t a_stride, int64_t rows, const int8_t* panel, int64_t depth,
                          int32_t* sums) {
    for (int64_t row = 0; row < rows; row += kRows) {
        multiply_tile(a + row * a_stride, a_stride, panel, depth, sums + row * kColumns);
    }
}

// The bytes of 64 bits: a set bit becomes 2, a clear one 0; one that is not present, 1.
inline void spread_signs(uint8_t* to, uint64_t bits, uint64_t present) {
#ifndef BNN_HAS_NEON
    const Vector absent = _mm512_maskz_set1_epi8(~present, 1);
    _mm512_storeu_si512(to, _mm512_mask_set1_epi8(absent, bits & present, 2));
#else
    spread_signs_neon(to, bits, present);
#endif
}

// A set bit becomes 1, a clear one -1; a row whose byte of `present` is not all ones but 0 becomes zeros.
void spread_panel(int8_t* panel, const uint32_t* rows, const uint8_t* present, int64_t depth) {
    for (int64_t k = 0; k < depth; k += 4, panel += 4 * kColumns) {
        uint32_t mask;
        std::memcpy(&mask, present + k, 4);
#ifndef BNN_HAS_NEON
        const __m128i quad = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + k));
        const Vector words = _mm512_maskz_broadcast_i32x4(0xFFFF, quad);
        for (int v = 0; v < 2; ++v) {
            const Vector bytes = _mm512_shuffle_epi8(words, _mm512_load_si512(kColumnBits.byte + 16 * v));
            const __mmask64 set = _mm512_test_epi8_mask(bytes, _mm512_load_si512(kColumnBits.bit + 16 * v));
            const Vector signs = _mm512_mask_blend_epi8(set, _mm512_set1_epi8(-1), _mm512_set1_epi8(1));
            _mm512_storeu_si512(panel + 64 * v, _mm512_and_si512(signs, _mm512_set1_epi32(static_cast<int>(mask))));
        }
#else
        spread_rows_neon(panel, rows + k, kColumnBits.byte, kColumnBits.bit, kColumns, mask);
#endif
    }
}

}  // namespace
