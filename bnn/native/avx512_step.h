// The steps of step.h for registers of 512 bits: the same bits in fewer instructions.
#pragma once

#include "floats.h"
#include "random.h"

#include <immintrin.h>

namespace {

// The random half words of 32 elements from an even `index` on.
inline __m512i thirty_two_randoms(uint32_t key, uint32_t index) {
    typedef uint32_t Sixteen __attribute__((vector_size(64)));
    const Sixteen places = Sixteen{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} * kIndexFactor;
    return (__m512i)mix((places + index / 2 * kIndexFactor) ^ key);
}

// See ValueStep::moves. `gradient` has numbers of bfloat16 in the upper halves of words, and `random` half words u, of which
// (u + 1/2) 2^-16 is read as 2^16 u + 2^15 of 2^32 parts.
inline __m512i sixteen_moves(__m512i gradient, __m512i random, float rate, float bound) {
    constexpr __mmask16 all = 0xFFFF;  // of the plain forms GCC warns
    const __m512 limit = _mm512_set1_ps(bound), move = (__m512)gradient * rate;
    const __m512 clamped = _mm512_maskz_max_ps(all, _mm512_maskz_min_ps(all, move, limit), -limit);
    const __m512 shift = _mm512_maskz_cvtepu32_ps(all, random) * 0x1p-32f;
    return _mm512_maskz_cvt_roundps_epi32(all, clamped + shift, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

inline __m512i thirty_two_moves(__m512i gradient, __m512i random, float rate, float bound) {
    const __m512i zero = _mm512_setzero_si512(), half = _mm512_set1_epi16(static_cast<int16_t>(0x8000));
    // By lanes of 128 bits, as what they give is packed again.
    const __m512i lower = _mm512_unpacklo_epi16(half, random), upper = _mm512_unpackhi_epi16(half, random);
    return _mm512_packs_epi32(sixteen_moves(_mm512_unpacklo_epi16(zero, gradient), lower, rate, bound),
                              sixteen_moves(_mm512_unpackhi_epi16(zero, gradient), upper, rate, bound));
}

// See settled in step.h.
inline __m256i settled(__m512i codes, __m512i moved, int16_t beyond) {
    const __m512i limit = _mm512_set1_epi16(beyond), least = _mm512_set1_epi16(-beyond);
    const __mmask32 negative = _mm512_movepi16_mask(moved);
    const __m512i away = _mm512_mask_min_epi16(_mm512_max_epi16(moved, limit), negative, moved, least);
    const __mmask32 changed = _mm512_movepi16_mask(_mm512_xor_si512(codes, moved));
    return _mm512_maskz_cvtsepi16_epi8(~__mmask32{}, _mm512_mask_mov_epi16(moved, changed, away));
}

// The sum of the squares of a row's numbers, below 2^15 `units` each, which are rounded to whole ones.
inline double sum_of_squares(const BFloat16* row, int64_t n, float units) {
    constexpr __mmask16 all = 0xFFFF;
    const __m512i zero = _mm512_setzero_si512();
    __m512i low = zero, high = zero;
    const auto wholes = [&](__m512i words) {
        return _mm512_maskz_cvttps_epi32(all, (__m512)words * units + 0.5f);  // of numbers above 0: the floor
    };
    const auto add = [&](__m512i halves) {
        const __m512i sizes = _mm512_and_si512(halves, _mm512_set1_epi16(0x7FFF));
        const __m512i lower = _mm512_unpacklo_epi16(zero, sizes), upper = _mm512_unpackhi_epi16(zero, sizes);
        const __m512i numbers = _mm512_packs_epi32(wholes(lower), wholes(upper));
        const __m512i squares = _mm512_madd_epi16(numbers, numbers);  // of two below 2^15: below 2^31
        low = _mm512_add_epi64(low, _mm512_and_si512(squares, _mm512_set1_epi64(0xFFFFFFFF)));
        high = _mm512_add_epi64(high, _mm512_maskz_srli_epi64(0xFF, squares, 32));
    };
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) add(_mm512_loadu_si512(row + i));
    if (i < n) add(_mm512_maskz_loadu_epi16((1u << (n - i)) - 1, row + i));
    int64_t sums[8], sum = 0;
    _mm512_storeu_si512(sums, _mm512_add_epi64(low, high));
    for (const int64_t of_lane : sums) sum += of_lane;
    return static_cast<double>(sum);
}

}  // namespace
