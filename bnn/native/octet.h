// Eight neighbouring elements, whose bits are one byte of a packed row, as a vector that the compiler lowers to
// whatever registers there are.
#pragma once

#include "common.h"
#include "floats.h"
#include "kernels.h"

#ifdef __AVX2__
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kDoubles = 8;
#elif defined(__AVX2__)
constexpr int kDoubles = 4;
#else
constexpr int kDoubles = 2;
#endif

typedef float Octet __attribute__((vector_size(32)));
typedef double Doubles __attribute__((vector_size(kDoubles * sizeof(double))));
typedef int32_t Mask __attribute__((vector_size(32)));  // all bits of a lane are set, or none
typedef uint32_t Words __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(8)));
typedef uint16_t HalfWords __attribute__((vector_size(16)));

#ifdef __aarch64__
// GCC takes conversions between vectors that no register holds apart, lane by lane: they go by registers' own types.
struct FloatHalves {
    explicit FloatHalves(Octet v) { std::memcpy(of, &v, sizeof of); }
    FloatHalves(float32x4_t low, float32x4_t high) : of{low, high} {}
    operator Octet() const {
        Octet v;
        std::memcpy(&v, of, sizeof v);
        return v;
    }
    float32x4_t of[2];
};

struct WordHalves {
    explicit WordHalves(Mask v) { std::memcpy(of, &v, sizeof of); }
    WordHalves(int32x4_t low, int32x4_t high) : of{low, high} {}
    operator Mask() const {
        Mask v;
        std::memcpy(&v, of, sizeof v);
        return v;
    }
    int32x4_t of[2];
};
#endif

constexpr Mask kBitOfLane = {1, 2, 4, 8, 16, 32, 64, 128};

inline Mask if_negative(Mask v) { return v >> 31; }

inline Mask mask_of(uint8_t byte) {
#ifdef __AVX512VL__
    return (Mask)_mm256_movm_epi32(byte);
#elif defined(__AVX2__)
    const __m256i lanes = (__m256i)kBitOfLane;
    return (Mask)_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi8(static_cast<char>(byte)), lanes), lanes);
#else
    return if_negative(-(kBitOfLane & static_cast<int32_t>(byte)));
#endif
}

inline Mask first_lanes(int64_t count) { return mask_of(static_cast<uint8_t>((1u << count) - 1)); }

inline uint8_t byte_of(Mask mask) {
#ifdef __AVX2__
    return static_cast<uint8_t>(_mm256_movemask_ps((__m256)mask));
#else
    const Mask bits = mask & kBitOfLane;
#ifdef __aarch64__
    int32x4_t halves[2];
    std::memcpy(halves, &bits, sizeof bits);
    return static_cast<uint8_t>(vaddvq_s32(vorrq_s32(halves[0], halves[1])));
#endif
    int32_t byte = 0;
    for (int lane = 0; lane < 8; ++lane) byte |= bits[lane];
    return static_cast<uint8_t>(byte);
#endif
}

// The lanes of a mask, zero elsewhere, where even a NaN is dropped.
inline Octet select(Mask mask, Octet v) { return (Octet)(mask & (Mask)v); }
// GCC takes `mask ? a : b` and `a > b` apart, lane by lane, where the registers are narrower.
inline Mask choose(Mask mask, Mask a, Mask b) {
#ifdef __AVX2__
    return (Mask)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
    return (mask & a) | (~mask & b);
#endif
}
inline Octet choose(Mask mask, Octet a, Octet b) { return (Octet)choose(mask, (Mask)a, (Mask)b); }
inline Octet magnitude(Octet v) { return (Octet)((Mask)v & 0x7FFFFFFF); }
inline Mask is_nan(Octet v) {
#ifdef __AVX2__
    return (Mask)_mm256_cmp_ps((__m256)v, (__m256)v, _CMP_UNORD_Q);
#else
    return if_negative(0x7F800000 - (Mask)magnitude(v));
#endif
}

inline Octet floats_of(Mask v) {
#ifdef __aarch64__
    const WordHalves words(v);
    return FloatHalves(vcvtq_f32_s32(words.of[0]), vcvtq_f32_s32(words.of[1]));
#else
    return __builtin_convertvector(v, Octet);
#endif
}

// Of numbers that int32 holds, towards 0.
inline Mask wholes_of(Octet v) {
#ifdef __aarch64__
    const FloatHalves floats(v);
    return WordHalves(vcvtq_s32_f32(floats.of[0]), vcvtq_s32_f32(floats.of[1]));
#else
    return __builtin_convertvector(v, Mask);
#endif
}

inline Mask greater(Octet a, Octet b) {
#ifdef __AVX2__
    return (Mask)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ);
#else
    typedef float Half __attribute__((vector_size(16)));
    Half halves_of_a[2], halves_of_b[2];
    std::memcpy(halves_of_a, &a, sizeof a);
    std::memcpy(halves_of_b, &b, sizeof b);
    const auto low = halves_of_a[0] > halves_of_b[0], high = halves_of_a[1] > halves_of_b[1];
    Mask mask;
    std::memcpy(&mask, &low, sizeof low);
    std::memcpy(reinterpret_cast<char*>(&mask) + sizeof low, &high, sizeof high);
    return mask;
#endif
}

// Whole numbers at most as large, of numbers that int32 holds.
inline Octet floor_of(Octet v) {
#ifdef __AVX2__
    return (Octet)_mm256_floor_ps((__m256)v);
#elif defined(__aarch64__)
    const FloatHalves floats(v);
    return FloatHalves(vrndmq_f32(floats.of[0]), vrndmq_f32(floats.of[1]));
#else
    const Octet truncated = floats_of(wholes_of(v));
    return truncated - (Octet)(greater(truncated, v) & (Mask)(Octet{} + 1));
#endif
}

inline Octet clamped(Octet v, Octet limit) {
#ifdef __AVX2__
    return (Octet)_mm256_max_ps(_mm256_min_ps((__m256)v, (__m256)limit), (__m256)-limit);
#elif defined(__aarch64__)
    const FloatHalves floats(v), most(limit), least(-limit);
    return FloatHalves(vmaxq_f32(vminq_f32(floats.of[0], most.of[0]), least.of[0]),
                       vmaxq_f32(vminq_f32(floats.of[1], most.of[1]), least.of[1]));
#else
    return choose(greater(v, limit), limit, choose(greater(-limit, v), -limit, v));
#endif
}

inline Mask larger(Mask a, Mask b) {
#ifdef __AVX2__
    return (Mask)_mm256_max_epi32((__m256i)a, (__m256i)b);
#else
    return choose(if_negative(a - b), b, a);
#endif
}

inline Octet all_lanes(float v) { return Octet{v, v, v, v, v, v, v, v}; }

// Into a register of its own: copied to an element of an array, it would go through narrower ones and memory.
inline Mask load_mask(const int32_t* from) {
    Mask v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline Octet load_octet(const float* from) {
    Octet v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

// GCC takes __builtin_convertvector between elements of different sizes apart.
inline Words widened(HalfWords halves) {
#ifdef __AVX2__
    return (Words)_mm256_cvtepu16_epi32((__m128i)halves);
#else
    return __builtin_convertvector(halves, Words);
#endif
}

inline Mask widened(Bytes bytes) {
#ifdef __AVX2__
    return (Mask)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128((long long)bytes));
#else
    return __builtin_convertvector(bytes, Mask);
#endif
}

// The lower halves.
inline HalfWords narrowed(Words words) {
#ifdef __AVX2__
    const __m256i pairs = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                           0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i halves = _mm256_shuffle_epi8((__m256i)words, pairs);
    return (HalfWords)_mm256_castsi256_si128(_mm256_permute4x64_epi64(halves, 0x08));
#else
    return __builtin_convertvector(words, HalfWords);
#endif
}

// The lowest bytes.
inline Bytes narrowed_to_bytes(Mask words) {
#ifdef __AVX2__
    const __m256i lowest = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                            0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i bytes = _mm256_shuffle_epi8((__m256i)words, lowest);
    return (Bytes)_mm_cvtsi128_si64(_mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
#else
    return __builtin_convertvector(words, Bytes);
#endif
}

// Lanes from `first` on, as many as a register holds of them.
inline Doubles doubles_of(Octet v, [[maybe_unused]] int first) {
#ifdef __AVX512F__
    return (Doubles)_mm512_maskz_cvtps_pd(0xFF, (__m256)v);  // of the plain form GCC warns
#elif defined(__AVX2__)
    return (Doubles)_mm256_cvtps_pd(first ? _mm256_extractf128_ps((__m256)v, 1) : _mm256_castps256_ps128((__m256)v));
#else
    Doubles doubles;
    for (int lane = 0; lane < kDoubles; ++lane) doubles[lane] = v[first + lane];
    return doubles;
#endif
}

inline Octet load_octet(const BFloat16* from) {
    HalfWords halves;
    std::memcpy(&halves, from, sizeof halves);
#ifdef __aarch64__
    const uint16x8_t eight = (uint16x8_t)halves, zeros = {};
    return FloatHalves(vreinterpretq_f32_u16(vzip1q_u16(zeros, eight)), vreinterpretq_f32_u16(vzip2q_u16(zeros, eight)));
#else
    return (Octet)(widened(halves) << 16);
#endif
}

inline Octet load_octet(const int8_t* from) {
    Bytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
#ifdef __aarch64__
    const int16x8_t shorts = vmovl_s8((int8x8_t)bytes);
    return floats_of(WordHalves(vmovl_s16(vget_low_s16(shorts)), vmovl_high_s16(shorts)));
#else
    return floats_of(widened(bytes));
#endif
}

inline Octet load_octet(const Float16* from) {
    HalfWords halves;
    std::memcpy(&halves, from, sizeof halves);
#ifdef __F16C__
    return (Octet)_mm256_cvtph_ps((__m128i)halves);
#elif defined(__aarch64__)
    const float16x8_t eight = (float16x8_t)halves;
    return FloatHalves(vcvt_f32_f16(vget_low_f16(eight)), vcvt_high_f32_f16(eight));
#else
    const Words words = widened(halves), sign = (words & 0x8000) << 16;
    const Words special = (Words)if_negative(0x7BFF - (Mask)(words & 0x7FFF));
    // The exponents' biases differ by 112; the product also brings numbers below 2^-14 to their place.
    const Words scaled = (Words)((Octet)((words & 0x7FFF) << 13) * 0x1p112f);
    return (Octet)(sign | scaled | (special & 0x7F800000));
#endif
}

inline void store_octet(float* to, Octet v) { std::memcpy(to, &v, sizeof v); }

inline void store_octet(BFloat16* to, Octet v) {
#ifdef __aarch64__
    const FloatHalves floats(v);
    uint16x4_t halves[2];
    for (int i = 0; i < 2; ++i) {
        const uint32x4_t word = vreinterpretq_u32_f32(floats.of[i]), odd = vandq_u32(vshrq_n_u32(word, 16), vdupq_n_u32(1));
        const uint32x4_t rounded = vaddq_u32(vaddq_u32(word, odd), vdupq_n_u32(0x7FFF));
        const uint32x4_t is_number = vceqq_f32(floats.of[i], floats.of[i]);
        halves[i] = vshrn_n_u32(vbslq_u32(is_number, rounded, vdupq_n_u32(0x7FC00000)), 16);
    }
    vst1q_u16(reinterpret_cast<uint16_t*>(to), vcombine_u16(halves[0], halves[1]));
#else
    const Words word = (Words)v, rounded = (word + 0x7FFF + (word >> 16 & 1)) >> 16, nan = (Words)is_nan(v);
    const HalfWords halves = narrowed((Words)choose((Mask)nan, Mask{} + 0x7FC0, (Mask)rounded));
    std::memcpy(static_cast<void*>(to), &halves, sizeof halves);
#endif
}

// Rounds to even.
inline void store_octet(Float16* to, Octet v) {
#ifdef __F16C__
    const __m128i halves = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__aarch64__)
    const FloatHalves floats(v);
    const float16x8_t halves = vcvt_high_f16_f32(vcvt_f16_f32(floats.of[0]), floats.of[1]);
#else
    const Words word = (Words)v, sign = word >> 16 & 0x8000, size = word & 0x7FFFFFFF;
    const Words rounded = (size - 0x38000000 + 0xFFF + (size >> 13 & 1)) >> 13;  // from 2^-14 on
    // Below 2^-14 the addition leaves the bits that count in the lowest place.
    const Words tiny = (Words)((Octet)size + 0.5f) - 0x3F000000;
    const Mask is_tiny = if_negative((Mask)size - 0x38800000), is_large = if_negative(0x477FEFFF - (Mask)size);
    const Words finite = (Words)choose(is_tiny, (Mask)tiny, choose(is_large, Mask{} + 0x7C00, (Mask)rounded));
    const Words nan = (Words)is_nan(v);
    const HalfWords halves = __builtin_convertvector(sign | (finite & ~nan) | (0x7E00 & nan), HalfWords);
#endif
    std::memcpy(static_cast<void*>(to), &halves, sizeof halves);
}

inline void store_octet(int8_t* to, Octet v) {
#ifdef __aarch64__
    const WordHalves words(wholes_of(v));
    const int8x8_t bytes = vmovn_s16(vuzp1q_s16((int16x8_t)words.of[0], (int16x8_t)words.of[1]));
#else
    const Bytes bytes = narrowed_to_bytes(wholes_of(v));
#endif
    std::memcpy(to, &bytes, sizeof bytes);
}

// The first `count` of eight elements; the others are zero.
template <class Float>
inline Octet load_octet(const Float* from, int64_t count) {
    if (count == 8) return load_octet(from);
    Float some[8] = {};
    std::memcpy(static_cast<void*>(some), from, count * sizeof(Float));
    return load_octet(some);
}

template <class Float>
inline void store_octet(Float* to, Octet v, int64_t count) {
    if (count == 8) return store_octet(to, v);
    Float some[8];
    store_octet(some, v);
    std::memcpy(static_cast<void*>(to), some, count * sizeof(Float));
}

// Calls run with a value of the type that `dtype` names.
template <class Run>
void with_dtype(int dtype, const Run& run) {
    switch (dtype) {
        case bnn::kBFloat16:
            return run(BFloat16{});
        case bnn::kFloat16:
            return run(Float16{});
        case bnn::kInt8:
            return run(int8_t{});
        default:
            return run(float{});
    }
}

inline void raise_octet(int32_t* largest, Mask v) {
    const Mask after = larger(load_mask(largest), v);
    std::memcpy(largest, &after, sizeof after);
}

inline void add_octet(double* sums, Octet v) {
#ifdef __aarch64__
    const FloatHalves floats(v);
    for (int i = 0; i < 2; ++i, sums += 4) {
        vst1q_f64(sums, vaddq_f64(vld1q_f64(sums), vcvt_f64_f32(vget_low_f32(floats.of[i]))));
        vst1q_f64(sums + 2, vaddq_f64(vld1q_f64(sums + 2), vcvt_high_f64_f32(floats.of[i])));
    }
#else
    for (int lane = 0; lane < 8; lane += kDoubles) {
        Doubles sum;
        std::memcpy(&sum, sums + lane, sizeof sum);
        sum += doubles_of(v, lane);
        std::memcpy(sums + lane, &sum, sizeof sum);
    }
#endif
}

inline void add_square(double* sums, Octet v) {
    for (int lane = 0; lane < 8; lane += kDoubles) {
        Doubles sum;
        std::memcpy(&sum, sums + lane, sizeof sum);
        const Doubles wide = doubles_of(v, lane);
        sum += wide * wide;
        std::memcpy(sums + lane, &sum, sizeof sum);
    }
}

}  // namespace
