// Floats of 16 bits, as they lie in memory.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

// bfloat16: the upper half of a float's bits. To be added as torch does: in float32, then rounded to even.
struct BFloat16 {
    uint16_t bits;

    float value() const {
        const uint32_t word = static_cast<uint32_t>(bits) << 16;
        float result;
        std::memcpy(&result, &word, sizeof result);
        return result;
    }
    BFloat16& operator+=(BFloat16 other) {
        const float sum = value() + other.value();
        uint32_t word;
        std::memcpy(&word, &sum, sizeof word);
        bits = static_cast<uint16_t>(sum == sum ? (word + 0x7FFF + (word >> 16 & 1)) >> 16 : 0x7FC0);
        return *this;
    }
};

// float16 of IEEE 754. It holds every whole number up to 2048, and every even one up to 4096.
struct Float16 {
    uint16_t bits;
};

}  // namespace
