// A vector of 64-bit words under the instruction set that this translation unit is compiled for.
// Each definition offers the same few functions, and the tile that its registers hold best. `counts_of` counts the bits of a
// vector, by bytes or by words: `add` adds up to kMostCounts of them, and `added_up` makes words of the sum.
#pragma once

#include "common.h"

#if defined(BNN_USE_AVX512)
#define BNN_HAS_LOOKUPS  // of bytes in registers
#elif defined(BNN_USE_AMX) || defined(BNN_USE_NEON_DOT)
#define BNN_HAS_DOT_PRODUCTS  // of bytes
#endif

#if defined(BNN_USE_AMX) || defined(BNN_USE_AVX512) || defined(BNN_USE_AVX2)
#include <immintrin.h>
#elif defined(BNN_USE_NEON) || defined(BNN_USE_NEON_DOT)
#define BNN_HAS_NEON
#include "neon.h"
#endif

namespace {

constexpr int64_t kMostCounts = 31;  // of at most 8 in a byte

#if defined(BNN_USE_AMX) || defined(BNN_USE_AVX512)

using Vector = __m512i;
constexpr int kLanes = 8, kTileRows = 4, kTileVectors = 2;

inline Vector zero() { return _mm512_setzero_si512(); }
inline Vector load(const uint64_t* words) { return _mm512_loadu_si512(words); }
inline void store(uint64_t* words, Vector v) { _mm512_storeu_si512(words, v); }
inline Vector broadcast(uint64_t word) { return _mm512_set1_epi64(static_cast<long long>(word)); }
inline Vector xor3(Vector a, Vector b, Vector c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
inline Vector select_not(Vector mask, Vector a, Vector b) { return _mm512_ternarylogic_epi64(mask, a, b, 0x3A); }
inline Vector both(Vector a, Vector b) { return _mm512_and_si512(a, b); }
inline Vector both_differing(Vector mask, Vector a, Vector b) { return _mm512_ternarylogic_epi64(mask, a, b, 0x60); }
inline Vector add(Vector a, Vector b) { return _mm512_add_epi64(a, b); }
inline Vector counts_of(Vector v) { return _mm512_popcnt_epi64(v); }
inline Vector added_up(Vector counts) { return counts; }
inline void store_products(float* out, float elements, Vector differing) {
    // Floats of 256 bits: those of 512 bits lower the clock of many processors.
    const __m256 count = _mm256_cvtepi32_ps(_mm512_maskz_cvtepi64_epi32(0xFF, differing));
    _mm256_storeu_ps(out, _mm256_sub_ps(_mm256_set1_ps(elements), _mm256_add_ps(count, count)));
}

#elif defined(BNN_USE_AVX2)

using Vector = __m256i;
constexpr int kLanes = 4, kTileRows = 2, kTileVectors = 2;

inline Vector zero() { return _mm256_setzero_si256(); }
inline Vector load(const uint64_t* words) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
}
inline void store(uint64_t* words, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), v); }
inline Vector broadcast(uint64_t word) { return _mm256_set1_epi64x(static_cast<long long>(word)); }
inline Vector xor3(Vector a, Vector b, Vector c) { return _mm256_xor_si256(a, _mm256_xor_si256(b, c)); }
inline Vector select_not(Vector mask, Vector a, Vector b) {
    return _mm256_or_si256(_mm256_andnot_si256(a, mask), _mm256_andnot_si256(mask, b));
}
inline Vector both(Vector a, Vector b) { return _mm256_and_si256(a, b); }
inline Vector add(Vector a, Vector b) { return _mm256_add_epi64(a, b); }
inline Vector counts_of(Vector v) {
    const Vector of_nibble = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                              0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const Vector nibble = _mm256_set1_epi8(15);
    const Vector low = _mm256_shuffle_epi8(of_nibble, _mm256_and_si256(v, nibble));
    const Vector high = _mm256_shuffle_epi8(of_nibble, _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble));
    return _mm256_add_epi8(low, high);
}
inline Vector added_up(Vector counts) { return _mm256_sad_epu8(counts, _mm256_setzero_si256()); }
inline void store_products(float* out, float elements, Vector differing) {
    const Vector low_halves = _mm256_permutevar8x32_epi32(differing, _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0));
    const __m128 count = _mm_cvtepi32_ps(_mm256_castsi256_si128(low_halves));
    _mm_storeu_ps(out, _mm_sub_ps(_mm_set1_ps(elements), _mm_add_ps(count, count)));
}

#elif defined(BNN_HAS_NEON)

using Vector = uint64x2_t;
constexpr int kLanes = 2, kTileRows = 4, kTileVectors = 2;

inline Vector zero() { return vdupq_n_u64(0); }
inline Vector load(const uint64_t* words) { return vld1q_u64(words); }
inline void store(uint64_t* words, Vector v) { vst1q_u64(words, v); }
inline Vector broadcast(uint64_t word) { return vdupq_n_u64(word); }
inline Vector xor3(Vector a, Vector b, Vector c) { return veorq_u64(a, veorq_u64(b, c)); }
inline Vector select_not(Vector mask, Vector a, Vector b) {
    return vorrq_u64(vbicq_u64(mask, a), vbicq_u64(b, mask));
}
inline Vector both(Vector a, Vector b) { return vandq_u64(a, b); }
inline Vector add(Vector a, Vector b) { return vaddq_u64(a, b); }
inline Vector counts_of(Vector v) { return vreinterpretq_u64_u8(vcntq_u8(vreinterpretq_u8_u64(v))); }
inline Vector added_up(Vector counts) { return vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(vreinterpretq_u8_u64(counts)))); }

#else

using Vector = uint64_t;
constexpr int kLanes = 1, kTileRows = 2, kTileVectors = 2;

inline Vector zero() { return 0; }
inline Vector load(const uint64_t* words) { return *words; }
inline void store(uint64_t* words, Vector v) { *words = v; }
inline Vector broadcast(uint64_t word) { return word; }
inline Vector xor3(Vector a, Vector b, Vector c) { return a ^ b ^ c; }
inline Vector select_not(Vector mask, Vector a, Vector b) { return (mask & ~a) | (~mask & b); }
inline Vector both(Vector a, Vector b) { return a & b; }
inline Vector add(Vector a, Vector b) { return a + b; }
inline Vector counts_of(Vector v) { return popcount_of_word(v); }
inline Vector added_up(Vector counts) { return counts; }

#endif

#if !defined(BNN_USE_AMX) && !defined(BNN_USE_AVX512)
inline Vector both_differing(Vector mask, Vector a, Vector b) { return both(mask, xor3(a, b, zero())); }
#endif

#if !defined(BNN_USE_AMX) && !defined(BNN_USE_AVX512) && !defined(BNN_USE_AVX2)
// elements - 2 differing of each lane
inline void store_products(float* out, float elements, Vector differing) {
    uint64_t counts[kLanes];
    store(counts, differing);
    for (int i = 0; i < kLanes; ++i) {
        out[i] = elements - 2.0f * static_cast<float>(static_cast<int64_t>(counts[i]));
    }
}
#endif

}  // namespace
