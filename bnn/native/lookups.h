// Sums of bytes by signs, exact, by lookups in registers (AVX-512 VBMI): tables are made as tables.h has it, of what four bytes
// have in common with each of 16 choices of signs: the sum of the magnitudes whose sign is the chosen one. Twice that, less
// all magnitudes, is the sum by signs; callers take the magnitudes away. A table holds those of sixteen bytes: VPERMB looks up
// four for each of 16 columns, and VPDPBUSD adds twice their sum in int32. The two instructions stand for 256 products.
//
// A column's signs are an index of a byte for each four of them: four bits that choose, and above them which four of the
// sixteen bytes these are. A set bit takes its byte as it is, a clear one its opposite.
#pragma once

#include "gradient.h"
#include "vector.h"

namespace {

constexpr int64_t kTableBytes = 64;
constexpr int64_t kTableDepth = 16;   // bytes of a table
constexpr int64_t kIndexBytes = 64;   // of 16 columns, for a table
constexpr int64_t kPanelStep = 2 * kIndexBytes;  // of the kColumns columns of a panel
constexpr int kTileTables = 8;        // whose sums registers hold
constexpr int kOneTable = 63;         // the largest magnitude of which the sum of four is a byte

// Where a table's sums are found among the magnitudes of 32 bytes above 0 and of those below: first those of pairs, then
// those of two pairs.
struct TablePlaces {
    constexpr TablePlaces() {
        for (int i = 0; i < 64; ++i) {
            const int pair = i / 4 * 2;
            first[i] = static_cast<uint8_t>(i & 1 ? pair : 32 + pair);
            second[i] = static_cast<uint8_t>(i & 2 ? pair + 1 : 32 + pair + 1);
            const int quad = i / 16, choice = i % 16;
            low[i] = static_cast<uint8_t>(8 * quad + choice % 4);
            high[i] = static_cast<uint8_t>(8 * quad + 4 + choice / 4);
        }
    }
    alignas(64) uint8_t first[64]{};
    alignas(64) uint8_t second[64]{};
    alignas(64) uint8_t low[64]{};
    alignas(64) uint8_t high[64]{};
};
constexpr TablePlaces kTablePlaces;

// VPERMB by its name: of the intrinsic GCC warns.
inline Vector look_up(Vector indices, Vector table) {
    Vector found;
    asm("vpermb %2, %1, %0" : "=v"(found) : "v"(indices), "v"(table));
    return found;
}

inline void store_table_pair(__m256i above, __m256i below, uint8_t* to, int64_t step) {
    const Vector both = _mm512_inserti64x4(_mm512_castsi256_si512(above), below, 1);
    const Vector pairs = _mm512_add_epi8(look_up(_mm512_load_si512(kTablePlaces.first), both),
                                         look_up(_mm512_load_si512(kTablePlaces.second), both));
    const Vector low = _mm512_load_si512(kTablePlaces.low), high = _mm512_load_si512(kTablePlaces.high);
    const Vector later = _mm512_set1_epi8(32);
    _mm512_storeu_si512(to, _mm512_add_epi8(look_up(low, pairs), look_up(high, pairs)));
    _mm512_storeu_si512(to + step, _mm512_add_epi8(look_up(_mm512_add_epi8(low, later), pairs),
                                                   look_up(_mm512_add_epi8(high, later), pairs)));
}

// The tables of bytes within ±kOneTable; or of any, where one of their lower four bits precedes each of what is above these, of
// which one stands for 16.
template <bool wide>
constexpr int64_t kTableStep = wide ? 2 * kTableBytes : kTableBytes;

// Stores the two tables of 32 bytes and returns their magnitudes' sums, of eight bytes each.
template <bool wide>
inline __m256i store_tables(__m256i bytes, uint8_t* to) {
    const __m256i none = _mm256_setzero_si256(), four_bits = _mm256_set1_epi8(15), sign = _mm256_set1_epi8(8);
    __m256i high = bytes, sums = none;
    if (wide) {
        const __m256i low = _mm256_and_si256(bytes, four_bits);
        store_table_pair(low, none, to, kTableStep<wide>);
        sums = _mm256_sad_epu8(low, none);
        to += kTableBytes;
        high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), four_bits);
        high = _mm256_sub_epi8(_mm256_xor_si256(high, sign), sign);
    }
    store_table_pair(_mm256_max_epi8(high, none), _mm256_max_epi8(_mm256_sub_epi8(none, high), none), to,
                     kTableStep<wide>);
    const __m256i of_high = _mm256_sad_epu8(_mm256_abs_epi8(high), none);
    return _mm256_add_epi64(sums, wide ? _mm256_slli_epi64(of_high, 4) : of_high);
}

inline int32_t added_up(__m256i sums) {
    const __m128i halves = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 2);
}

// Of eight fours of bits in each eight bytes, which lie at `places`: the four of each of two columns.
inline Vector indices_of(Vector bits, Vector places) {
    const Vector chosen = _mm512_maskz_multishift_epi64_epi8(~uint64_t{0}, places, bits);
    const Vector four_bits = _mm512_set1_epi8(15), quads = _mm512_set1_epi32(0x30201000);
    return _mm512_ternarylogic_epi64(chosen, four_bits, quads, 0xEA);  // (a & b) | c
}

// Where the fours of the lower halves of two words lie.
inline Vector lower_halves_of_words() { return _mm512_set1_epi64(0x2C2824200C080400); }

// indices[2][kIndexBytes] of 16 columns, of a word each: of its lower and of its upper half; `step` bytes apart.
inline void store_indices(const uint32_t* words, uint8_t* indices, int64_t step) {
    const Vector bits = _mm512_loadu_si512(words);
    _mm512_storeu_si512(indices, indices_of(bits, lower_halves_of_words()));
    _mm512_storeu_si512(indices + step, indices_of(bits, _mm512_set1_epi64(0x3C3834301C181410)));
}

// Both by their names, in one: of the intrinsics GCC gives the result a register of its own, and sums of a loop then move.
inline void add_found(Vector& sums, Vector indices, Vector table, Vector factors) {
    Vector found;
    asm("vpermb %3, %2, %1\n\tvpdpbusd %4, %1, %0" : "+v"(sums), "=&v"(found) : "v"(indices), "v"(table), "v"(factors));
}

// Adds to sums[kTileTables][kColumns], of the first 16 * halves columns, twice what `indices`, a panel's, choose from the
// tables of each row: `steps` of them begin `at` bytes behind tables[part][kTileTables].
template <bool wide, int halves>
[[gnu::noinline]] void add_lookups(const uint8_t* const* tables, int64_t at, int64_t parts, int64_t steps,
                                   const uint8_t* indices, int32_t* sums) {
    Vector found[kTileTables][halves];
    const Vector twice = _mm512_set1_epi8(2), sixteen_times_twice = _mm512_set1_epi8(32);
#pragma GCC unroll 8
    for (int row = 0; row < kTileTables; ++row) {
#pragma GCC unroll 2
        for (int i = 0; i < halves; ++i) found[row][i] = _mm512_loadu_si512(sums + row * kColumns + 16 * i);
    }
    const int64_t end = at + steps * kTableStep<wide>;
    for (int64_t part = 0; part < parts; ++part, tables += kTileTables) {
        const uint8_t* rows[kTileTables];
#pragma GCC unroll 8
        for (int row = 0; row < kTileTables; ++row) rows[row] = tables[row];
        for (int64_t k = at; k < end; k += kTableStep<wide>, indices += kPanelStep) {
            Vector columns[halves];
#pragma GCC unroll 2
            for (int i = 0; i < halves; ++i) columns[i] = _mm512_loadu_si512(indices + i * kIndexBytes);
#pragma GCC unroll 8
            for (int row = 0; row < kTileTables; ++row) {
                const Vector table = _mm512_loadu_si512(rows[row] + k);
#pragma GCC unroll 2
                for (int i = 0; i < halves; ++i) add_found(found[row][i], columns[i], table, twice);
                if (!wide) continue;
                const Vector high = _mm512_loadu_si512(rows[row] + k + kTableBytes);
#pragma GCC unroll 2
                for (int i = 0; i < halves; ++i) add_found(found[row][i], columns[i], high, sixteen_times_twice);
            }
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < kTileTables; ++row) {
#pragma GCC unroll 2
        for (int i = 0; i < halves; ++i) _mm512_storeu_si512(sums + row * kColumns + 16 * i, found[row][i]);
    }
}

}  // namespace
