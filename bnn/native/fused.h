// A register of floats, and products that are added to it in one rounding, as every instruction set has them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int64_t kVectorLanes = 16;
#elif defined(__AVX2__)
constexpr int64_t kVectorLanes = 8;
#else
constexpr int64_t kVectorLanes = 4;
#endif

// GCC takes wider vectors through memory.
typedef float RealLanes __attribute__((vector_size(kVectorLanes * sizeof(float))));

inline RealLanes load_lanes(const float* from) {
    RealLanes v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

#if defined(__AVX512F__)

inline RealLanes add_product(RealLanes sum, RealLanes v, float value) {
    return (RealLanes)_mm512_fmadd_ps((__m512)v, _mm512_set1_ps(value), (__m512)sum);
}

#elif defined(__AVX2__)

inline RealLanes add_product(RealLanes sum, RealLanes v, float value) {
    return (RealLanes)_mm256_fmadd_ps((__m256)v, _mm256_set1_ps(value), (__m256)sum);
}

#elif defined(__aarch64__)

inline RealLanes add_product(RealLanes sum, RealLanes v, float value) {
    return (RealLanes)vfmaq_n_f32((float32x4_t)sum, (float32x4_t)v, value);
}

#elif defined(__FP_FAST_FMAF)

inline RealLanes add_product(RealLanes sum, RealLanes v, float value) {
    for (int64_t i = 0; i < kVectorLanes; ++i) sum[i] = __builtin_fmaf(v[i], value, sum[i]);
    return sum;
}

#else

// Float64 holds the product. The sum is rounded to odd (Boldo and Melquiond 2008, doi:10.1109/TC.2007.70819), after which
// rounding to float32 gives what one rounding of the exact sum would.
inline RealLanes add_product(RealLanes sum, RealLanes v, float value) {
    typedef double Pair __attribute__((vector_size(16)));
    typedef int64_t PairBits __attribute__((vector_size(16)));
    RealLanes result;
    for (int64_t i = 0; i < kVectorLanes; i += 2) {
        const Pair factor = {v[i], v[i + 1]}, addend = {sum[i], sum[i + 1]}, product = factor * static_cast<double>(value);
        const Pair total = product + addend, of_product = total - addend;
        const Pair error = (product - of_product) + (addend - (total - of_product));
        const PairBits bits = (PairBits)total, is_even = (bits & 1) - 1;
        // Towards the exact sum from the nearest: one further from 0 where the error has the sign of the sum, else nearer.
        const PairBits away = ((bits ^ (PairBits)error) >> 63) | 1;
        const PairBits differs = (error < 0) | (error > 0);
        const Pair odd = (Pair)(bits + (away & is_even & differs));
        result[i] = static_cast<float>(odd[0]);
        result[i + 1] = static_cast<float>(odd[1]);
    }
    return result;
}

#endif

}  // namespace
