// Eight neighbouring elements, whose bits are one byte of a packed row, as a vector that the compiler lowers to
// whatever registers there are.
#pragma once

#include "bfloat16.h"
#include "common.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

typedef float Octet __attribute__((vector_size(32)));
typedef double WideOctet __attribute__((vector_size(64)));
typedef int32_t Mask __attribute__((vector_size(32)));  // all bits of a lane are set, or none
typedef uint32_t Words __attribute__((vector_size(32)));
typedef uint16_t HalfWords __attribute__((vector_size(16)));

constexpr Mask kBitOfLane = {1, 2, 4, 8, 16, 32, 64, 128};

inline Mask if_negative(Mask v) { return v >> 31; }
inline Mask mask_of(uint8_t byte) { return if_negative(-(kBitOfLane & static_cast<int32_t>(byte))); }
inline Mask first_lanes(int64_t count) { return mask_of(static_cast<uint8_t>((1u << count) - 1)); }

inline uint8_t byte_of(Mask mask) {
#ifdef __AVX2__
    return static_cast<uint8_t>(_mm256_movemask_ps((__m256)mask));
#else
    const Mask bits = mask & kBitOfLane;
    int32_t byte = 0;
    for (int lane = 0; lane < 8; ++lane) byte |= bits[lane];
    return static_cast<uint8_t>(byte);
#endif
}

// The lanes of a mask, zero elsewhere, where even a NaN is dropped.
inline Octet select(Mask mask, Octet v) { return (Octet)(mask & (Mask)v); }
// GCC takes `mask ? a : b` and `a > b` apart, lane by lane, where the registers are narrower.
inline Mask choose(Mask mask, Mask a, Mask b) { return (mask & a) | (~mask & b); }
inline Octet choose(Mask mask, Octet a, Octet b) { return (Octet)choose(mask, (Mask)a, (Mask)b); }
inline Octet magnitude(Octet v) { return (Octet)((Mask)v & 0x7FFFFFFF); }
inline Mask is_nan(Octet v) { return if_negative(0x7F800000 - (Mask)magnitude(v)); }

inline Mask greater(Octet a, Octet b) {
#ifdef __AVX2__
    return a > b;
#else
    typedef float Half __attribute__((vector_size(16)));
    Half halves_of_a[2], halves_of_b[2];
    std::memcpy(halves_of_a, &a, sizeof a);
    std::memcpy(halves_of_b, &b, sizeof b);
    const auto low = halves_of_a[0] > halves_of_b[0], high = halves_of_a[1] > halves_of_b[1];
    return Mask{low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]};
#endif
}

inline Octet load_octet(const float* from) {
    Octet v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline Octet load_octet(const BFloat16* from) {
    HalfWords halves;
    std::memcpy(&halves, from, sizeof halves);
    return (Octet)(__builtin_convertvector(halves, Words) << 16);
}

inline void store_octet(float* to, Octet v) { std::memcpy(to, &v, sizeof v); }

inline void store_octet(BFloat16* to, Octet v) {
    const Words word = (Words)v, rounded = (word + 0x7FFF + (word >> 16 & 1)) >> 16, nan = (Words)is_nan(v);
    const HalfWords halves = __builtin_convertvector((rounded & ~nan) | (0x7FC0 & nan), HalfWords);
    std::memcpy(static_cast<void*>(to), &halves, sizeof halves);
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

inline void add_octet(double* sums, Octet v) {
    WideOctet sum;
    std::memcpy(&sum, sums, sizeof sum);
    sum += __builtin_convertvector(v, WideOctet);
    std::memcpy(sums, &sum, sizeof sum);
}

}  // namespace
