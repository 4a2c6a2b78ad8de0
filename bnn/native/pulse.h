// Pulses on pairs of simulated junctions: whether each switches, by tables over the odds of a probability.
#pragma once

#include <cmath>
#include <cstring>

#include "bits.h"

namespace {

constexpr float kLowestOdds = 0x1p-32f, kHighestOdds = 0x1p24f;
constexpr int32_t kPointShift = 16, kFirstPoint = (127 - 32) << 7, kPoints = ((24 + 32) << 7) + 1;
constexpr int32_t kFraction = (1 << kPointShift) - 1;

// The odds p / (1 - p) as the bits of a float: 128 points for each doubling are its exponent and seven bits more.
int32_t odds_bits(float p) {
    const float odds = p / (1 - p), kept = odds < kLowestOdds ? kLowestOdds : odds > kHighestOdds ? kHighestOdds : odds;
    int32_t bits;
    std::memcpy(&bits, &kept, sizeof bits);
    return bits;
}

int32_t nearest_point(float p) { return ((odds_bits(p) + (1 << (kPointShift - 1))) >> kPointShift) - kFirstPoint; }

float interpolated(const float* table, float p) {
    const int32_t bits = odds_bits(p), point = (bits >> kPointShift) - kFirstPoint;
    const float low = table[point], high = table[point + 1 < kPoints ? point + 1 : kPoints - 1];
    return (high - low) * (static_cast<float>(bits & kFraction) * 0x1p-16f) + low;
}

// A number in (0, 1) of 31 random bits; the last float below 1 is the highest.
float uniform_of(int32_t random) {
    const float number = (static_cast<float>(random & 0x7FFFFFFF) + 0.5f) * 0x1p-31f;
    return number < 1 - 0x1p-24f ? number : 1 - 0x1p-24f;
}

struct PairPulse {
    const float* switching;        // [2 sources][kPoints], or null where a pulse does what is requested, up to `most`
    const int32_t* final_units;    // [2 sources][2 states after][kPoints] over the requested probability
    const int32_t* excess_units;   // [2 sources][kPoints] over the random number, or null
    float most, gate;
    bool read_first;

    // The probability that is requested of junction j, of pairs whose junctions are `antiparallel`.
    float requested(float size, int j, const bool* antiparallel, const bool* source) const {
        float p;
        if (read_first) {
            if (antiparallel[j] != source[j]) return 0;
            const bool later = antiparallel[j] && antiparallel[1 - j] == source[1 - j];
            const float rest = size - static_cast<float>(later);
            p = rest < 0 ? 0 : rest > 1 ? 1 : rest;
        } else {
            const float whole = std::trunc(size), part = size - whole, rest = whole - static_cast<float>(j);
            const float certain = rest < 0 ? 0 : rest > 1 ? 1 : rest;
            p = part > certain ? part : certain;
        }
        return p >= gate ? p : 0;
    }
};

// planes [2][rows][packed n] of antiparallel junctions take a pulse each for `steps` [rows][n], of which the numbers
// `random` [rows][n][2] decide; `counts` are the pulses, the switches and the energy in units, added up.
void pulse_pairs(uint8_t* first_plane, uint8_t* second_plane, const float* steps, const int32_t* random, int64_t rows,
                 int64_t n, const float* switching, const int32_t* final_units, const int32_t* excess_units, float most,
                 float gate, int read_first, int64_t* counts, int threads) {
    const PairPulse pulse{switching, final_units, excess_units, most, gate, read_first != 0};
    uint8_t* const planes[2] = {first_plane, second_plane};
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        int64_t pulses = 0, switches = 0, units = 0;
        const int64_t start = row * row_elements + first, byte = row * packed_bytes(row_elements) + first / 8;
        for (int64_t i = 0; i < count; ++i) {
            const float step = steps[start + i], size = std::fabs(step);
            if (!(size > 0)) continue;
            const int bit = static_cast<int>(i % 8);
            uint8_t* const bytes[2] = {planes[0] + byte + i / 8, planes[1] + byte + i / 8};
            const bool up = step > 0, source[2] = {up, !up};
            const bool before[2] = {(*bytes[0] >> bit & 1) != 0, (*bytes[1] >> bit & 1) != 0};
            for (int j = 0; j < 2; ++j) {
                const float p = pulse.requested(size, j, before, source);
                if (!(p > 0)) continue;
                ++pulses;
                const float uniform = uniform_of(random[2 * (start + i) + j]);
                const float likely =
                    switching ? interpolated(switching + source[j] * kPoints, p) : (p < most ? p : most);
                const bool switched = uniform < likely && before[j] == source[j];
                const bool after = before[j] != switched;
                units += final_units[(2 * source[j] + after) * kPoints + nearest_point(p)];
                if (switched) {
                    ++switches;
                    *bytes[j] = static_cast<uint8_t>(*bytes[j] ^ 1 << bit);
                    if (excess_units) units += excess_units[source[j] * kPoints + nearest_point(uniform)];
                }
            }
        }
#pragma omp atomic
        counts[0] += pulses;
#pragma omp atomic
        counts[1] += switches;
#pragma omp atomic
        counts[2] += units;
    });
}

}  // namespace
