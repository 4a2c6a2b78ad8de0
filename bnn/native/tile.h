// Products of bytes with int32 sums, under the instruction set that this translation unit is compiled for.
//
// A panel is a matrix of signed bytes [depth][kColumns] whose rows are interleaved by four, panel[depth / 4][column][4]:
// one instruction then adds four products to every column's sum. Where it multiplies unsigned by signed bytes, a factor of
// both signs is offset, and offset times each column's sum, which is the same for all rows, is taken away.
//
// Each definition offers the same: Tiles, which lives while tiles are multiplied; multiply_rows, which adds unsigned
// a[rows][depth] times a panel to sums[rows][kColumns], where either `a` is within 2 or the panel within ±1, need not form
// those past the first `columns`, and reads and forms rows up to a multiple of kRows; spread_signs, which makes bytes of a row of bits; and spread_panel, which makes a panel of words of 32 bits.
#pragma once

#include "vector.h"

namespace {

constexpr int kColumns = 32;        // of a panel; one word of bits holds a row of it
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

inline uint32_t load_quad(const uint8_t* bytes) {
    uint32_t quad;
    std::memcpy(&quad, bytes, 4);
    return quad;
}

#endif

#if defined(BNN_USE_AVX512)

constexpr int kRows = 4;

inline Vector broadcast_quad(const uint8_t* bytes) { return _mm512_set1_epi32(static_cast<int>(load_quad(bytes))); }

// By its name, since GCC gives the result of the builtin a register of its own: the sums of a loop then move, or do not fit.
inline void add_products(Vector& sums, Vector unsigned_bytes, Vector signed_bytes) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// `rows`: a multiple of 4. All columns, or the first half: then two sums of each row take depths in turns, for as many
// instructions at a time.
template <int rows, bool all>
[[gnu::noinline]] void multiply_columns(const uint8_t* a, int64_t a_stride, const int8_t* panel, int64_t depth,
                                        int32_t* sums) {
    constexpr int64_t kStep = all ? 4 : 8, kSecond = all ? 64 : 4 * kColumns;
    Vector products[rows][2];
    const uint8_t* fours[rows / 4];  // few addresses, for the registers to hold them
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
        products[row][0] = _mm512_loadu_si512(sums + row * kColumns);
        products[row][1] = all ? _mm512_loadu_si512(sums + row * kColumns + 16) : zero();
        fours[row / 4] = a + row / 4 * 4 * a_stride;
    }
    int64_t k = 0;
#pragma GCC unroll 2
    for (; k + kStep <= depth; k += kStep) {
        const Vector first = _mm512_loadu_si512(panel + k * kColumns);
        const Vector second = _mm512_loadu_si512(panel + k * kColumns + kSecond);
#pragma GCC unroll 16
        for (int row = 0; row < rows; ++row) {
            const uint8_t* from = fours[row / 4] + row % 4 * a_stride + k;
            const Vector quad = broadcast_quad(from), other = all ? quad : broadcast_quad(from + 4);
            add_products(products[row][0], quad, first);
            add_products(products[row][1], other, second);
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
        if (all) {
            _mm512_storeu_si512(sums + row * kColumns + 16, products[row][1]);
        } else {
            products[row][0] = _mm512_add_epi32(products[row][0], products[row][1]);
            if (k < depth) {
                const Vector last = _mm512_loadu_si512(panel + k * kColumns);
                add_products(products[row][0], broadcast_quad(fours[row / 4] + row % 4 * a_stride + k), last);
            }
        }
        _mm512_storeu_si512(sums + row * kColumns, products[row][0]);
    }
}

template <bool all>
inline void multiply_columns(const uint8_t* a, int64_t a_stride, int64_t rows, const int8_t* panel, int64_t depth,
                             int32_t* sums) {
    for (; rows > 8; rows -= 12, a += 12 * a_stride, sums += 12 * kColumns) {
        multiply_columns<12, all>(a, a_stride, panel, depth, sums);
    }
    if (rows > 4) {
        multiply_columns<8, all>(a, a_stride, panel, depth, sums);
    } else if (rows > 0) {
        multiply_columns<4, all>(a, a_stride, panel, depth, sums);
    }
}

inline void multiply_rows(const uint8_t* a, int64_t a_stride, int64_t rows, const int8_t* panel, int64_t depth,
                          int64_t columns, int32_t* sums) {
    columns > kColumns / 2 ? multiply_columns<true>(a, a_stride, rows, panel, depth, sums)
                           : multiply_columns<false>(a, a_stride, rows, panel, depth, sums);
}

#elif defined(BNN_USE_AVX2)

constexpr int kRows = 4;

inline Vector load_bytes(const void* bytes) { return _mm256_loadu_si256(static_cast<const __m256i*>(bytes)); }
inline void store_bytes(void* bytes, Vector v) { _mm256_storeu_si256(static_cast<__m256i*>(bytes), v); }

// By its name, as is the load, since GCC else moves the sums of a loop and loads columns once for each row.
inline void add_pairs(Vector& sums, Vector pairs) { asm("vpaddw %1, %0, %0" : "+x"(sums) : "x"(pairs)); }
inline Vector load_once(const int8_t* bytes) {
    Vector v;
    asm("vmovdqu %1, %0" : "=x"(v) : "m"(*reinterpret_cast<const int8_t(*)[32]>(bytes)));
    return v;
}

// Of the first 8 `vectors` columns; sums of as many rows as leave registers for the rest. The instruction adds products in
// pairs, of at most 512; a short holds 64 such pairs.
template <int vectors>
[[gnu::noinline]] void multiply_tile(const uint8_t* a, int64_t a_stride, const int8_t* panel, int64_t depth,
                                     int32_t* sums) {
    constexpr int rows = 8 / vectors;
    constexpr int64_t kMost = 4 * 64;
    const Vector ones = _mm256_set1_epi16(1);
    for (int64_t begin = 0; begin < depth; begin += kMost) {
        Vector pairs[rows][vectors] = {};
        const int64_t end = minimum(begin + kMost, depth);
        for (int64_t k = begin; k < end; k += 4) {
            Vector quads[rows];
#pragma GCC unroll 4
            for (int row = 0; row < rows; ++row) {
                quads[row] = _mm256_set1_epi32(static_cast<int>(load_quad(a + row * a_stride + k)));
            }
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) {
                const Vector columns = load_once(panel + k * kColumns + 32 * v);
#pragma GCC unroll 4
                for (int row = 0; row < rows; ++row) {
                    add_pairs(pairs[row][v], _mm256_maddubs_epi16(quads[row], columns));
                }
            }
        }
#pragma GCC unroll 4
        for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) {
                int32_t* to = sums + row * kColumns + 8 * v;
                store_bytes(to, _mm256_add_epi32(load_bytes(to), _mm256_madd_epi16(pairs[row][v], ones)));
            }
        }
    }
}

inline void multiply_rows(const uint8_t* a, int64_t a_stride, int64_t rows, const int8_t* panel, int64_t depth,
                          int64_t columns, int32_t* sums) {
    const bool all = columns > kColumns / 2;
    for (int64_t row = 0; row < rows; row += all ? 2 : 4) {
        const auto multiply = all ? multiply_tile<4> : multiply_tile<2>;
        multiply(a + row * a_stride, a_stride, panel, depth, sums + row * kColumns);
    }
}

#elif defined(BNN_HAS_NEON)

constexpr int kRows = kNeonRows;

[[gnu::noinline]] void multiply_tile(const uint8_t* a, int64_t a_stride, const int8_t* panel, int64_t depth,
                                     int32_t* sums) {
    multiply_bytes_neon(a, a_stride, panel, depth, kColumns, sums);
}

#elif !defined(BNN_USE_AMX)

constexpr int kRows = 2;

using SignedBytes [[gnu::vector_size(8)]] = int8_t;
using UnsignedBytes [[gnu::vector_size(8)]] = uint8_t;
using Shorts [[gnu::vector_size(16)]] = int16_t;

template <class Bytes>
inline Shorts load_shorts(const void* bytes) {
    Bytes narrow;
    std::memcpy(&narrow, bytes, sizeof narrow);
    return __builtin_convertvector(narrow, Shorts);
}

// Eight columns at a time stay in registers. A short holds the sum of 128 products, which are at most 256.
[[gnu::noinline]] void multiply_tile(const uint8_t* a, int64_t a_stride, const int8_t* panel, int64_t depth,
                                     int32_t* sums) {
    constexpr int64_t kPart = 8, kMost = 4 * 128;
    for (int64_t part = 0; part < kColumns / kPart * divide_up(depth, kMost); ++part) {
        const int64_t column = part * kPart % kColumns, begin = part * kPart / kColumns * kMost;
        Shorts products[kRows][4] = {};
        for (int64_t k = begin; k < minimum(begin + kMost, depth); k += 4) {
            Shorts quads[kRows];
#pragma GCC unroll 2
            for (int row = 0; row < kRows; ++row) {
                const uint64_t twice = load_quad(a + row * a_stride + k) * 0x100000001;
                quads[row] = load_shorts<UnsignedBytes>(&twice);
            }
#pragma GCC unroll 4
            for (int v = 0; v < 4; ++v) {
                const Shorts columns = load_shorts<SignedBytes>(panel + k * kColumns + 4 * column + 8 * v);
#pragma GCC unroll 2
                for (int row = 0; row < kRows; ++row) products[row][v] += quads[row] * columns;
            }
        }
        for (int row = 0; row < kRows; ++row) {
            int32_t* to = sums + row * kColumns + column;
            for (int i = 0; i < 4 * kPart; ++i) to[i / 4] += products[row][i / 8][i % 8];
        }
    }
}

#endif

#if !defined(BNN_USE_AVX512) && !defined(BNN_USE_AVX2)

inline void multiply_rows(const uint8_t* a, int64_t a_stride, int64_t rows, const int8_t* panel, int64_t depth,
                          int64_t /*columns*/, int32_t* sums) {
    for (int64_t row = 0; row < rows; row += kRows) {
        multiply_tile(a + row * a_stride, a_stride, panel, depth, sums + row * kColumns);
    }
}

#endif

#ifdef BNN_USE_AVX2
// Which byte of a word holds the bit of each of 32 bytes.
alignas(32) constexpr uint64_t kHalves[2][4] = {
    {0x0000000000000000, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303},
    {0x0404040404040404, 0x0505050505050505, 0x0606060606060606, 0x0707070707070707}};
#endif

// The bytes of 64 bits: a set bit becomes 2, a clear one 0; one that is not present, 1.
inline void spread_signs(uint8_t* to, uint64_t bits, uint64_t present) {
#if defined(BNN_USE_AMX) || defined(BNN_USE_AVX512)
    const Vector absent = _mm512_maskz_set1_epi8(~present, 1);
    _mm512_storeu_si512(to, _mm512_mask_set1_epi8(absent, bits & present, 2));
#elif defined(BNN_USE_AVX2)
    const Vector bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    for (int half = 0; half < 2; ++half) {
        const Vector byte = load_bytes(kHalves[half]);
        const auto truths = [&](uint64_t word) {
            const Vector bytes = _mm256_shuffle_epi8(_mm256_set1_epi64x(static_cast<long long>(word)), byte);
            return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
        };
        const Vector there = truths(present), two = _mm256_and_si256(truths(bits), _mm256_set1_epi8(2));
        store_bytes(to + 32 * half, _mm256_blendv_epi8(_mm256_set1_epi8(1), two, there));
    }
#elif defined(BNN_HAS_NEON)
    spread_signs_neon(to, bits, present);
#else
    for (int i = 0; i < 8; ++i) {
        constexpr uint64_t kBits = 0x8040201008040201, kOnes = 0x0101010101010101, kHigh = 0x8080808080808080;
        const auto truths = [=](uint64_t word) {  // eight bytes of 0 or 1
            return (((word >> 8 * i & 0xFF) * kOnes & kBits) + ~kHigh) >> 7 & kOnes;
        };
        const uint64_t signs = truths(bits & present) + truths(bits | ~present);
        std::memcpy(to + 8 * i, &signs, 8);
    }
#endif
}

// A set bit becomes 1, a clear one -1; a row whose byte of `present` is not all ones but 0 becomes zeros.
void spread_panel(int8_t* panel, const uint32_t* rows, const uint8_t* present, int64_t depth) {
    for (int64_t k = 0; k < depth; k += 4, panel += 4 * kColumns) {
        uint32_t mask;
        std::memcpy(&mask, present + k, 4);
#if defined(BNN_USE_AMX) || defined(BNN_USE_AVX512)
        const __m128i quad = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + k));
        const Vector words = _mm512_maskz_broadcast_i32x4(0xFFFF, quad);
        for (int v = 0; v < 2; ++v) {
            const Vector bytes = _mm512_shuffle_epi8(words, _mm512_load_si512(kColumnBits.byte + 16 * v));
            const __mmask64 set = _mm512_test_epi8_mask(bytes, _mm512_load_si512(kColumnBits.bit + 16 * v));
            const Vector signs = _mm512_mask_blend_epi8(set, _mm512_set1_epi8(-1), _mm512_set1_epi8(1));
            _mm512_storeu_si512(panel + 64 * v, _mm512_and_si512(signs, _mm512_set1_epi32(static_cast<int>(mask))));
        }
#elif defined(BNN_USE_AVX2)
        const Vector words =
            _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + k)));
        for (int v = 0; v < 4; ++v) {
            const Vector bit = load_bytes(kColumnBits.bit + 8 * v);
            const Vector bytes = _mm256_shuffle_epi8(words, load_bytes(kColumnBits.byte + 8 * v));
            const Vector set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
            const Vector clear_to_ones = _mm256_andnot_si256(set, _mm256_set1_epi8(-2));
            const Vector signs = _mm256_add_epi8(_mm256_set1_epi8(1), clear_to_ones);
            store_bytes(panel + 32 * v, _mm256_and_si256(signs, _mm256_set1_epi32(static_cast<int>(mask))));
        }
#elif defined(BNN_HAS_NEON)
        spread_rows_neon(panel, rows + k, kColumnBits.byte, kColumnBits.bit, kColumns, mask);
#else
        for (int column = 0; column < kColumns; ++column) {
            uint32_t set = 0;
            for (int i = 0; i < 4; ++i) set |= (rows[k + i] >> column & 1) << 8 * i;
            const uint32_t signs = set | (set ^ 0x01010101) * 0xFF;
            const uint32_t quad = signs & mask;
            std::memcpy(panel + 4 * column, &quad, 4);
        }
#endif
    }
}

}  // namespace
