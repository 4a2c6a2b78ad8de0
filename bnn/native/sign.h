// Signs together with the window that passes the gradient, and the gradient through that window.
#pragma once

#include "bits.h"

namespace {

// Non-negative floats are ordered as their bits are, so |x| <= window is a comparison of integers.
template <class Int>
bool signs_and_window(const void* from, uint8_t* bits, uint8_t* inside, int64_t rows, int64_t n, int64_t infinity,
                      int64_t window, int threads) {
    constexpr Int magnitude = static_cast<Int>(~(Int{1} << (8 * sizeof(Int) - 1)));
    const Int limit = static_cast<Int>(window);
    bool any_nan = false;
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        alignas(64) uint8_t positive[kChunk], near[kChunk];
        const Int* x = static_cast<const Int*>(from) + row * row_elements + first;
        const int64_t bytes = packed_bytes(count);
        if (count % 8) {
            std::memset(positive + bytes * 8 - 8, 0, 8);
            std::memset(near + bytes * 8 - 8, 0, 8);
        }
        if (truths_of_signs(x, positive, count, static_cast<Int>(infinity))) {
#pragma omp atomic write
            any_nan = true;
        }
        for (int64_t i = 0; i < count; ++i) near[i] = (x[i] & magnitude) <= limit;
        const int64_t byte = row * packed_bytes(row_elements) + first / 8;
        for (int64_t i = 0; i < bytes; ++i) bits[byte + i] = gather_byte(positive + 8 * i);
        for (int64_t i = 0; i < bytes; ++i) inside[byte + i] = gather_byte(near + 8 * i);
    });
    return any_nan;
}

bool sign_window(const void* x, uint8_t* bits, uint8_t* inside, int64_t rows, int64_t n, int itemsize,
                 int64_t infinity, int64_t window, int threads) {
    switch (itemsize) {
        case 2:
            return signs_and_window<int16_t>(x, bits, inside, rows, n, infinity, window, threads);
        case 4:
            return signs_and_window<int32_t>(x, bits, inside, rows, n, infinity, window, threads);
        default:
            return signs_and_window<int64_t>(x, bits, inside, rows, n, infinity, window, threads);
    }
}

template <class Word>
void keep_inside(const void* grad, const uint8_t* inside, void* out, int64_t rows, int64_t n, int threads) {
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        alignas(64) uint8_t truths[kChunk];
        const uint8_t* bytes = inside + row * packed_bytes(row_elements) + first / 8;
        for (int64_t i = 0; i < packed_bytes(count); ++i) spread_byte(truths + 8 * i, bytes[i]);
        const Word* from = static_cast<const Word*>(grad) + row * row_elements + first;
        Word* to = static_cast<Word*>(out) + row * row_elements + first;
        for (int64_t i = 0; i < count; ++i) to[i] = from[i] & static_cast<Word>(-Word{truths[i]});
    });
}

void mask(const void* grad, const uint8_t* inside, void* out, int64_t rows, int64_t n, int itemsize, int threads) {
    switch (itemsize) {
        case 2:
            return keep_inside<uint16_t>(grad, inside, out, rows, n, threads);
        case 4:
            return keep_inside<uint32_t>(grad, inside, out, rows, n, threads);
        default:
            return keep_inside<uint64_t>(grad, inside, out, rows, n, threads);
    }
}

}  // namespace
