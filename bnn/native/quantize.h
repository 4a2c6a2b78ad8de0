// Rounding of gradients to integers within ±largest, at random so that the mean stays right.
#pragma once

#include "bits.h"
#include "random.h"

namespace {

inline float load_float(const int32_t* bits) {
    float value;
    std::memcpy(&value, bits, 4);
    return value;
}
inline float load_float(const int16_t* bits) {  // bfloat16
    const int32_t wide = static_cast<int32_t>(*bits) * 65536;
    return load_float(&wide);
}

// The order of floats' magnitudes is that of their bits as integers; infinity and NaN come last.
template <class Int>
int64_t largest_magnitude(const Int* x, int64_t n, int threads) {
    constexpr Int magnitude = static_cast<Int>(~(Int{1} << (8 * sizeof(Int) - 1)));
    const Buffer parts(threads, sizeof(Int));
    for_chunks(1, n, threads, [&](int64_t, int64_t first, int64_t count, int64_t, int thread) {
        Int largest = 0;
        for (int64_t i = first; i < first + count; ++i) {
            const Int bits = static_cast<Int>(x[i] & magnitude);
            largest = bits > largest ? bits : largest;
        }
        Int* part = parts.part<Int>(thread);
        if (largest > *part) *part = largest;
    });
    int64_t largest = 0;
    for (int thread = 0; thread < threads; ++thread) largest = maximum(largest, *parts.part<Int>(thread));
    return largest;
}

template <class Int>
void quantize_chunk(const Int* __restrict x, int8_t* __restrict out, int64_t n, float inverse, int32_t largest,
                    uint32_t key, uint32_t first_index) {
    for (int64_t i = 0; i < n; ++i) {
        const float value = load_float(x + i) * inverse;
        const float truncated = static_cast<float>(static_cast<int32_t>(value));
        const float floor = truncated - static_cast<float>(truncated > value);
        const uint32_t random = random_bits(key, first_index + static_cast<uint32_t>(i));
        const float uniform = static_cast<float>(static_cast<int32_t>(random >> 8)) * 0x1p-24f;
        const int32_t rounded = static_cast<int32_t>(floor) + (uniform < value - floor);
        out[i] = static_cast<int8_t>(rounded > largest ? largest : rounded < -largest ? -largest : rounded);
    }
}

template <class Int>
void quantize(const Int* x, int8_t* out, int64_t n, float inverse, int32_t largest, uint32_t key, int threads) {
    for_chunks(1, n, threads, [&](int64_t, int64_t first, int64_t count, int64_t, int) {
        quantize_chunk(x + first, out + first, count, inverse, largest, key, static_cast<uint32_t>(first));
    });
}

int64_t largest_magnitude(const void* x, int64_t n, int itemsize, int threads) {
    return itemsize == 2 ? largest_magnitude(static_cast<const int16_t*>(x), n, threads)
                         : largest_magnitude(static_cast<const int32_t*>(x), n, threads);
}

void quantize_integers(const void* x, int8_t* out, int64_t n, int itemsize, float inverse, int32_t largest,
                       uint32_t key, int threads) {
    if (itemsize == 2) return quantize(static_cast<const int16_t*>(x), out, n, inverse, largest, key, threads);
    quantize(static_cast<const int32_t*>(x), out, n, inverse, largest, key, threads);
}

}  // namespace
