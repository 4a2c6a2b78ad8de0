// Neighbouring elements as one vector of floats, 16 where the registers hold them and 8 elsewhere, and truths of them.
// Loads and stores take the number of elements that there are; the others are zero.
#pragma once

#include "octet.h"

namespace {

constexpr int64_t kMostWide = 16;  // whatever the registers, so that sums are formed in one order

#ifdef __AVX512F__

constexpr int64_t kWide = 16;

typedef float Wide __attribute__((vector_size(64)));
typedef uint32_t WideWords __attribute__((vector_size(64)));
typedef __mmask16 Truths;

constexpr Truths kAllTruths = 0xFFFF;  // for the forms with a mask: of the plain ones GCC warns
constexpr WideWords kPlaces = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline Truths first_truths(int64_t count) { return static_cast<Truths>((1u << count) - 1); }

inline Truths load_truths(const uint8_t* bits, int64_t count) {
    if (count <= 8) return *bits;
    uint16_t word;
    std::memcpy(&word, bits, sizeof word);
    return word;
}

inline void store_truths(uint8_t* bits, Truths truths, int64_t count) {
    const uint16_t word = truths;
    std::memcpy(bits, &word, count <= 8 ? 1 : 2);
}

inline Truths truths_of(uint32_t bits) { return static_cast<Truths>(bits); }
inline bool any(Truths truths) { return truths != 0; }
inline Truths none() { return 0; }
inline Truths opposite(Truths a) { return static_cast<Truths>(~a); }
inline Truths both(Truths a, Truths b) { return a & b; }
inline Truths either(Truths a, Truths b) { return a | b; }

inline Wide choose_wide(Truths which, Wide a, Wide b) { return (Wide)_mm512_mask_mov_ps((__m512)b, which, (__m512)a); }
inline Wide select_wide(Truths which, Wide v) { return (Wide)_mm512_maskz_mov_ps(which, (__m512)v); }
inline Truths greater(Wide a, Wide b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
inline Truths is_nan(Wide v) { return _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q); }
inline Wide magnitude(Wide v) { return (Wide)((WideWords)v & 0x7FFFFFFF); }

inline Wide floor_of(Wide v) {
    constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    return (Wide)_mm512_maskz_roundscale_ps(kAllTruths, (__m512)v, kDown);
}

inline Wide clamped(Wide v, Wide limit) {
    const __m512 below = _mm512_maskz_min_ps(kAllTruths, (__m512)v, (__m512)limit);
    return (Wide)_mm512_maskz_max_ps(kAllTruths, below, (__m512)-limit);
}

inline Wide floats_of(WideWords words) { return (Wide)_mm512_maskz_cvtepi32_ps(kAllTruths, (__m512i)words); }

inline Wide load_wide(const float* from, int64_t count = kWide) {
    return (Wide)_mm512_maskz_loadu_ps(first_truths(count), from);
}
inline Wide load_wide(const BFloat16* from, int64_t count = kWide) {
    const Truths lanes = first_truths(count);
    const __m512i words = _mm512_maskz_cvtepu16_epi32(lanes, _mm256_maskz_loadu_epi16(lanes, from));
    return (Wide)((WideWords)words << 16);
}
inline Wide load_wide(const Float16* from, int64_t count = kWide) {
    const Truths lanes = first_truths(count);
    return (Wide)_mm512_maskz_cvtph_ps(lanes, _mm256_maskz_loadu_epi16(lanes, from));
}
inline Wide load_wide(const int8_t* from, int64_t count = kWide) {
    const Truths lanes = first_truths(count);
    return floats_of((WideWords)_mm512_maskz_cvtepi8_epi32(lanes, _mm_maskz_loadu_epi8(lanes, from)));
}
inline Wide load_sums(const int32_t* from) { return floats_of((WideWords)_mm512_loadu_si512(from)); }

inline void store_wide(float* to, Wide v, int64_t count = kWide) {
    _mm512_mask_storeu_ps(to, first_truths(count), (__m512)v);
}
inline void store_wide(BFloat16* to, Wide v, int64_t count = kWide) {
    const WideWords word = (WideWords)v, rounded = (word + 0x7FFF + (word >> 16 & 1)) >> 16;
    const __m512i halves = _mm512_mask_set1_epi32((__m512i)rounded, is_nan(v), 0x7FC0);
    _mm512_mask_cvtepi32_storeu_epi16(to, first_truths(count), halves);
}
inline void store_wide(Float16* to, Wide v, int64_t count = kWide) {  // rounds to even
    const Truths lanes = first_truths(count);
    const __m256i halves = _mm512_maskz_cvtps_ph(lanes, (__m512)v, _MM_FROUND_TO_NEAREST_INT);
    _mm256_mask_storeu_epi16(to, lanes, halves);
}
inline void store_wide(int8_t* to, Wide v, int64_t count = kWide) {
    const Truths lanes = first_truths(count);
    _mm512_mask_cvtepi32_storeu_epi8(to, lanes, _mm512_maskz_cvttps_epi32(lanes, (__m512)v));
}

// Raises the bits of magnitudes, whose order is theirs.
inline void raise_wide(int32_t* largest, Wide v) {
    const __m512i bits = (__m512i)magnitude(v);
    _mm512_storeu_si512(largest, _mm512_maskz_max_epi32(kAllTruths, _mm512_loadu_si512(largest), bits));
}

inline void add_wide(double* sums, Wide v) {
    add_octet(sums, (Octet)_mm512_maskz_extractf32x8_ps(0xFF, (__m512)v, 0));
    add_octet(sums + 8, (Octet)_mm512_maskz_extractf32x8_ps(0xFF, (__m512)v, 1));
}

#else

constexpr int64_t kWide = 8;

typedef Octet Wide;
typedef Words WideWords;
typedef Mask Truths;

constexpr WideWords kPlaces = {0, 1, 2, 3, 4, 5, 6, 7};

inline Truths first_truths(int64_t count) { return first_lanes(count); }
inline Truths load_truths(const uint8_t* bits, int64_t) { return mask_of(*bits); }
inline void store_truths(uint8_t* bits, Truths truths, int64_t) { *bits = byte_of(truths); }
inline Truths truths_of(uint32_t bits) { return mask_of(static_cast<uint8_t>(bits)); }
inline bool any(Truths truths) { return byte_of(truths) != 0; }
inline Truths none() { return Truths{}; }
inline Truths opposite(Truths a) { return ~a; }
inline Truths both(Truths a, Truths b) { return a & b; }
inline Truths either(Truths a, Truths b) { return a | b; }

inline Wide choose_wide(Truths which, Wide a, Wide b) { return choose(which, a, b); }
inline Wide select_wide(Truths which, Wide v) { return select(which, v); }
inline Wide floats_of(WideWords words) { return floats_of((Mask)words); }

template <class Float>
inline Wide load_wide(const Float* from, int64_t count = kWide) { return load_octet(from, count); }
inline Wide load_sums(const int32_t* from) {
    WideWords sums;
    std::memcpy(&sums, from, sizeof sums);
    return floats_of(sums);
}
template <class Float>
inline void store_wide(Float* to, Wide v, int64_t count = kWide) { store_octet(to, v, count); }
inline void raise_wide(int32_t* largest, Wide v) { raise_octet(largest, (Mask)magnitude(v)); }
inline void add_wide(double* sums, Wide v) { add_octet(sums, v); }

#endif

inline Wide all_wide(float v) { return v - Wide{}; }  // not the sum, by which -0 would lose its sign

}  // namespace
