// Steps of 8-bit accumulators by their gradient or its signs, rounded at random so that small steps count on average.
#pragma once

#include "bits.h"
#include "octet.h"
#include "random.h"
#include "vector.h"

#ifdef BNN_HAS_NEON
#include "neon_step.h"
#elif defined(__AVX512BW__)
#include "avx512_step.h"
#endif

namespace {

// As many codes at a time as a register has shorts: GCC takes comparisons of wider vectors apart, lane by lane.
#ifdef __AVX512BW__
typedef uint32_t StepBits;
#elif defined(__AVX2__)
typedef uint16_t StepBits;
#else
typedef uint8_t StepBits;
#endif
constexpr int kStepLanes = 8 * sizeof(StepBits);

typedef int8_t StepCodes __attribute__((vector_size(kStepLanes)));
typedef int16_t StepShorts __attribute__((vector_size(2 * kStepLanes)));
typedef uint16_t StepRandoms __attribute__((vector_size(2 * kStepLanes)));
typedef uint32_t StepWords __attribute__((vector_size(2 * kStepLanes)));

inline StepShorts shorts_of(StepCodes codes) {
#ifdef __aarch64__
    return (StepShorts)vmovl_s8((int8x8_t)codes);
#elif defined(__AVX512BW__)
    return (StepShorts)_mm512_cvtepi8_epi16((__m256i)codes);
#elif defined(__AVX2__)
    return (StepShorts)_mm256_cvtepi8_epi16((__m128i)codes);
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

// All bits of the lanes whose bits are set.
inline StepShorts lanes_of(StepBits bits) {
#ifdef __AVX512BW__
    return (StepShorts)_mm512_movm_epi16(bits);
#else
    const auto bit = by_lane<StepShorts>(kStepLanes, [](int lane) { return static_cast<int16_t>(1 << lane); });
    return ((StepShorts{} + static_cast<int16_t>(bits)) & bit) != 0;
#endif
}

// Where codes that would go to `moved` end: at least `beyond` from 0 where their sign changes, and within 8 bits.
inline StepCodes settled(StepShorts codes, StepShorts moved, int32_t beyond) {
#ifdef BNN_HAS_NEON
    return (StepCodes)settled((int16x8_t)codes, (int16x8_t)moved, static_cast<int16_t>(beyond));
#elif defined(__AVX512BW__)
    return (StepCodes)settled((__m512i)codes, (__m512i)moved, static_cast<int16_t>(beyond));
#else
    const StepShorts negative = moved < 0, near = (negative ? -moved : moved) < static_cast<int16_t>(beyond);
    const StepShorts away = near & ((codes ^ moved) < 0);
    moved = (away & (((StepShorts{} + static_cast<int16_t>(beyond)) ^ negative) - negative)) | (~away & moved);
    const StepShorts above = moved > 127, below = moved < -128;
    moved = (above & 127) | (below & -128) | (~(above | below) & moved);
#ifdef __AVX2__
    const __m256i halves = _mm256_packs_epi16((__m256i)moved, (__m256i)moved);
    return (StepCodes)_mm256_castsi256_si128(_mm256_permute4x64_epi64(halves, 0x08));
#else
    return __builtin_convertvector(moved, StepCodes);
#endif
#endif
}

inline int8_t settled(int32_t code, int32_t moved, int32_t beyond) {
    if ((moved < 0) != (code < 0)) {
        moved = moved < 0 ? (moved < -beyond ? moved : -beyond) : (moved > beyond ? moved : beyond);
    }
    return static_cast<int8_t>(moved > 127 ? 127 : moved < -128 ? -128 : moved);
}

// The random half words of the elements from an even `index` on.
inline StepRandoms step_randoms(uint32_t key, uint32_t index) {
#ifdef BNN_HAS_NEON
    return (StepRandoms)eight_randoms(key, index);
#elif defined(__AVX512BW__)
    return (StepRandoms)thirty_two_randoms(key, index);
#else
    const auto place = by_lane<StepWords>(kStepLanes / 2, [](int lane) { return static_cast<uint32_t>(lane); });
    return (StepRandoms)random_bits(key, place + index / 2);
#endif
}

// Calls of(codes) with kStepLanes codes, of which `count` are those at `codes`.
template <class Of>
inline void for_some_codes(int8_t* codes, int64_t count, const Of& of) {
    if (!count) return;
    int8_t some[kStepLanes] = {};
    std::memcpy(some, codes, count);
    of(some);
    std::memcpy(codes, some, count);
}

inline int32_t step_random(uint32_t key, uint32_t index) { return random_bits(key, index / 2) >> index % 2 * 16 & 0xFFFF; }

// Element i moves by one more than `whole` where its random half word is below `limit`: the lower half of the word of
// i / 2 for an even i, the upper one for an odd i. A code that changes its sign goes at least `beyond` from 0.
struct Step {
    int32_t whole, limit, beyond;
    uint32_t key;

    int8_t of_one(int8_t code, bool set, uint32_t index) const {
        const int32_t move = whole + (step_random(key, index) < limit);
        return settled(code, code + (set ? -move : move), beyond);  // a gradient above 0 moves the accumulator down
    }

    // kStepLanes codes, of which the first has an even index.
    void of_lanes(int8_t* codes, const uint8_t* signs, uint32_t index) const {
        const StepRandoms random = step_randoms(key, index), last = StepRandoms{} + static_cast<uint16_t>(limit - 1);
        const StepShorts more = limit ? (StepShorts)(random <= last) : StepShorts{};
        StepBits word;
        std::memcpy(&word, signs, sizeof word);
        const StepShorts set = lanes_of(word), move = static_cast<int16_t>(whole) - more;
        StepCodes code;
        std::memcpy(&code, codes, sizeof code);
        const StepShorts wide = shorts_of(code);
        code = settled(wide, wide + ((move ^ set) - set), beyond);
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
        if (index % 2) {
            for (int64_t i = 0; i < count; ++i) {
                out[i] = step.of_one(out[i], bits[i / 8] >> i % 8 & 1, index + static_cast<uint32_t>(i));
            }
            return;
        }
        int64_t i = 0;
        for (; i + kStepLanes <= count; i += kStepLanes) {
            step.of_lanes(out + i, bits + i / 8, index + static_cast<uint32_t>(i));
        }
        uint8_t rest[sizeof(StepBits)] = {};
        std::memcpy(rest, bits + i / 8, packed_bytes(count - i));
        for_some_codes(out + i, count - i, [&](int8_t* some) {
            step.of_lanes(some, rest, index + static_cast<uint32_t>(i));
        });
    });
}

constexpr int kSquareBits = 15;         // of the whole numbers that are squared
constexpr int kLeastExponent = -100;    // of a row's largest magnitude
constexpr uint16_t kInfinity = 0x7F80;  // of bfloat16

inline double power_of_two(int exponent) {
    const int64_t bits = static_cast<int64_t>(exponent + 1023) << 52;
    double power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}

#if !defined(BNN_HAS_NEON) && !defined(__AVX512BW__)
// The sum of the squares of a row's numbers, below 2^15 `units` each, which are rounded to whole ones.
inline double sum_of_squares(const BFloat16* row, int64_t n, float units) {
    alignas(64) double sums[8] = {};
    for (int64_t i = 0; i < n; i += 8) {
        add_square(sums, floor_of(magnitude(load_octet(row + i, minimum(8, n - i))) * units + 0.5f));
    }
    double sum = 0;
    for (const double of_lane : sums) sum += of_lane;
    return sum;
}
#endif

// The mean square of a row, whose numbers are rounded to whole ones below 2^15 units, so that their squares add up
// exactly in any order.
inline double mean_square(const BFloat16* row, int64_t n) {
    uint16_t largest = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t size = row[i].bits & 0x7FFF;
        largest = size > largest ? size : largest;
    }
    if (largest >= kInfinity) return __builtin_nan("");
    const int exponent = static_cast<int>(maximum((largest >> 7) - 126, kLeastExponent));
    const float units = static_cast<float>(power_of_two(kSquareBits - exponent));
    return sum_of_squares(row, n, units) * power_of_two(2 * (exponent - kSquareBits)) / static_cast<double>(n);
}

void row_squares(const void* gradient, double* squares, int64_t rows, int64_t n, int threads) {
    const int64_t rows_each = maximum(1, kChunk / maximum(n, 1));
    parallel_for(divide_up(rows, rows_each), threads, [&](int64_t task, int) {
        for (int64_t row = task * rows_each; row < minimum((task + 1) * rows_each, rows); ++row) {
            squares[row] = n ? mean_square(static_cast<const BFloat16*>(gradient) + row * n, n) : 0;
        }
    });
}

// Element i moves by floor(move + (u + 1/2) 2^-16), where u is its random half word.
struct ValueStep {
    float rate, bound;
    int32_t beyond;
    uint32_t key;

    // As int16.
    HalfWords moves(Octet gradient, HalfWords random) const {
        const Octet move = clamped(gradient * rate, all_lanes(bound));
        const Octet shift = (floats_of((Mask)widened(random)) + 0.5f) * 0x1p-16f;
        return narrowed((Words)wholes_of(floor_of(move + shift)));
    }

    // kStepLanes codes, of which the first has an even index.
    void of_lanes(int8_t* codes, const BFloat16* gradient, uint32_t index) const {
        const StepRandoms random = step_randoms(key, index);
#ifdef BNN_HAS_NEON
        const uint16x8_t halves = vld1q_u16(reinterpret_cast<const uint16_t*>(gradient));
        const StepShorts move = (StepShorts)eight_moves(halves, (uint16x8_t)random, rate, bound);
#elif defined(__AVX512BW__)
        const auto move = (StepShorts)thirty_two_moves(_mm512_loadu_si512(gradient), (__m512i)random, rate, bound);
#elif defined(__AVX2__)  // a register put together in memory is slow to read back
        const HalfWords low = __builtin_shufflevector(random, random, 0, 1, 2, 3, 4, 5, 6, 7);
        const HalfWords high = __builtin_shufflevector(random, random, 8, 9, 10, 11, 12, 13, 14, 15);
        const StepShorts move = (StepShorts)__builtin_shufflevector(
            moves(load_octet(gradient), low), moves(load_octet(gradient + 8), high),  //
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
        const StepShorts move = (StepShorts)moves(load_octet(gradient), random);
#endif
        StepCodes code;
        std::memcpy(&code, codes, sizeof code);
        const StepShorts wide = shorts_of(code);
        code = settled(wide, wide - move, beyond);
        std::memcpy(codes, &code, sizeof code);
    }

    int8_t of_one(int8_t code, BFloat16 gradient, uint32_t index) const {
        const HalfWords random = {static_cast<uint16_t>(step_random(key, index))};
        return settled(code, code - static_cast<int16_t>(moves(all_lanes(gradient.value()), random)[0]), beyond);
    }
};

void step_by_values(int8_t* codes, const void* gradient, const float* rates, int64_t rows, int64_t n, float bound,
                    int32_t beyond, uint32_t key, int threads) {
    const int64_t rows_each = maximum(1, kChunk / maximum(n, 1));
    parallel_for(divide_up(rows, rows_each), threads, [&](int64_t task, int) {
        for (int64_t row = task * rows_each; row < minimum((task + 1) * rows_each, rows); ++row) {
            const ValueStep step{rates[row], bound, beyond, key};
            int8_t* out = codes + row * n;
            const BFloat16* of_row = static_cast<const BFloat16*>(gradient) + row * n;
            const uint32_t first = static_cast<uint32_t>(row * n);
            int64_t i = 0;
            if (first % 2 && n) {
                out[0] = step.of_one(out[0], of_row[0], first);
                i = 1;
            }
            for (; i + kStepLanes <= n; i += kStepLanes) {
                step.of_lanes(out + i, of_row + i, first + static_cast<uint32_t>(i));
            }
            BFloat16 rest[kStepLanes] = {};
            std::memcpy(rest, of_row + i, (n - i) * sizeof *rest);
            for_some_codes(out + i, n - i, [&](int8_t* some) {
                step.of_lanes(some, rest, first + static_cast<uint32_t>(i));
            });
        }
    });
}

}  // namespace
