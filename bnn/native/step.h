// A step of 8-bit accumulators by the signs of their gradient, rounded at random so that small steps count on average.
#pragma once

#include "bits.h"
#include "octet.h"
#include "random.h"

namespace {

// As many codes at a time as a register has shorts: GCC takes comparisons of wider vectors apart, lane by lane.
#ifdef __AVX2__
typedef uint16_t StepBits;
#else
typedef uint8_t StepBits;
#endif
constexpr int kStepLanes = 8 * sizeof(StepBits);

typedef int8_t StepCodes __attribute__((vector_size(kStepLanes)));
typedef int16_t StepShorts __attribute__((vector_size(2 * kStepLanes)));
typedef uint16_t StepRandoms __attribute__((vector_size(2 * kStepLanes)));
typedef uint32_t StepWords __attribute__((vector_size(2 * kStepLanes)));

inline StepShorts widened(StepCodes codes) {
#ifdef __aarch64__
    return (StepShorts)vmovl_s8((int8x8_t)codes);
#else
    return __builtin_convertvector(codes, StepShorts);
#endif
}

template <class Vector, class Of>
inline Vector by_lane(int lanes, const Of& of) {
    Vector v{};
    for (int lane = 0; lane < lanes; ++lane) v[lane] = of(lane);
    return v;
}

// Element i moves by one more than `whole` where its random half word is below `limit`: the lower half of the word of
// i / 2 for an even i, the upper one for an odd i. A code that changes its sign goes at least `beyond` from 0.
struct Step {
    int32_t whole, limit, beyond;
    uint32_t key;

    int8_t of_one(int8_t code, bool set, uint32_t index) const {
        const int32_t random = random_bits(key, index / 2) >> index % 2 * 16 & 0xFFFF;
        const int32_t move = whole + (random < limit);
        int32_t moved = code + (set ? -move : move);  // a gradient above 0 moves the accumulator down
        if ((moved < 0) != (code < 0)) {
            moved = moved < 0 ? (moved < -beyond ? moved : -beyond) : (moved > beyond ? moved : beyond);
        }
        return static_cast<int8_t>(moved > 127 ? 127 : moved < -128 ? -128 : moved);
    }

    // kStepLanes codes, of which the first has an even index.
    void of_lanes(int8_t* codes, const uint8_t* signs, uint32_t index) const {
        const auto place = by_lane<StepWords>(kStepLanes / 2, [](int lane) { return static_cast<uint32_t>(lane); });
        const auto bit = by_lane<StepShorts>(kStepLanes, [](int lane) { return static_cast<int16_t>(1 << lane); });
        const StepWords random = random_bits(key, place + index / 2);
        const StepRandoms last = StepRandoms{} + static_cast<uint16_t>(limit - 1);
        const StepShorts more = limit ? (StepShorts)((StepRandoms)random <= last) : StepShorts{};
        StepBits word;
        std::memcpy(&word, signs, sizeof word);
        const StepShorts set = ((StepShorts{} + static_cast<int16_t>(word)) & bit) != 0;
        const StepShorts move = static_cast<int16_t>(whole) - more;
        StepCodes code;
        std::memcpy(&code, codes, sizeof code);
        const StepShorts wide = widened(code);
        StepShorts moved = wide + ((move ^ set) - set);
        const StepShorts negative = moved < 0, near = (negative ? -moved : moved) < static_cast<int16_t>(beyond);
        const StepShorts away = near & ((wide ^ moved) < 0);
        moved = (away & (((StepShorts{} + static_cast<int16_t>(beyond)) ^ negative) - negative)) | (~away & moved);
        const StepShorts above = moved > 127, below = moved < -128;
        moved = (above & 127) | (below & -128) | (~(above | below) & moved);
        code = __builtin_convertvector(moved, StepCodes);
        std::memcpy(codes, &code, sizeof code);
    }
};

void step_by_signs(int8_t* codes, const uint8_t* signs, int64_t rows, int64_t n, int32_t whole, int32_t limit,
                   int32_t beyond, uint32_t key, int threads) {
    const Step step{whole, limit, beyond, key};
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        int8_t* out = codes + row * row_elements + first;
        const uint8_t* bits = signs + row * packed_bytes(row_elements) + first / 8;
        const uint32_t index = static_cast<uint32_t>(row * row_elements + first);
        int64_t i = 0;
        if (index % 2 == 0) {
            for (; i + kStepLanes <= count; i += kStepLanes) {
                step.of_lanes(out + i, bits + i / 8, index + static_cast<uint32_t>(i));
            }
        }
        for (; i < count; ++i) {
            out[i] = step.of_one(out[i], bits[i / 8] >> i % 8 & 1, index + static_cast<uint32_t>(i));
        }
    });
}

}  // namespace
