// A step of 8-bit accumulators by the signs of their gradient, rounded at random so that small steps count on average.
#pragma once

#include "bits.h"
#include "random.h"

namespace {

void step_by_signs(int8_t* codes, const uint8_t* signs, int64_t rows, int64_t n, int32_t whole, float part, uint32_t key,
                   int threads) {
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        int8_t* __restrict out = codes + row * row_elements + first;
        const uint8_t* __restrict bits = signs + row * packed_bytes(row_elements) + first / 8;
        const uint32_t index = static_cast<uint32_t>(row * row_elements + first);
        int8_t direction[kChunk];  // a gradient above 0 moves the accumulator down
        for (int64_t byte = 0; byte < packed_bytes(count); ++byte)
            for (int bit = 0; bit < 8; ++bit) direction[8 * byte + bit] = static_cast<int8_t>(1 - 2 * (bits[byte] >> bit & 1));
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t random = random_bits(key, index + static_cast<uint32_t>(i));
            const float uniform = static_cast<float>(static_cast<int32_t>(random >> 8)) * 0x1p-24f;
            const int32_t moved = out[i] + direction[i] * (whole + (uniform < part));
            out[i] = static_cast<int8_t>(moved > 127 ? 127 : moved < -128 ? -128 : moved);
        }
    });
}

}  // namespace
