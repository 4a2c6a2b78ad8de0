// Pulses on pairs of simulated junctions: whether each switches, by tables over the odds of a probability.
#pragma once

#include "bits.h"
#include "octet.h"

namespace {

constexpr float kLowestOdds = 0x1p-32f, kHighestOdds = 0x1p24f;
constexpr int32_t kPointShift = 16, kFirstPoint = (127 - 32) << 7, kPoints = ((24 + 32) << 7) + 1;
constexpr int32_t kFraction = (1 << kPointShift) - 1;

// The odds p / (1 - p) as the bits of a float: 128 points for each doubling are its exponent and seven bits more.
inline Mask odds_bits(Octet p) {
    const Octet odds = p / (1 - p), lowest = all_lanes(kLowestOdds), highest = all_lanes(kHighestOdds);
    return (Mask)choose(greater(lowest, odds), lowest, choose(greater(odds, highest), highest, odds));
}

inline Mask nearest_points(Octet p) { return ((odds_bits(p) + (1 << (kPointShift - 1))) >> kPointShift) - kFirstPoint; }

// The entries of a table at eight places.
template <class Entry>
inline void look_up(const Entry* table, Mask places, Entry (&entries)[8]) {
    int32_t of_lane[8];
    std::memcpy(of_lane, &places, sizeof of_lane);
    for (int lane = 0; lane < 8; ++lane) entries[lane] = table[of_lane[lane]];
}

// Of tables of kPoints each, the one that begins at `table` in each lane.
inline Octet interpolated(const float* values, Mask table, Octet p) {
    const Mask bits = odds_bits(p), point = (bits >> kPointShift) - kFirstPoint;
    const Mask next = point + 1, last = Mask{} + (kPoints - 1);
    float low[8], high[8];
    look_up(values, table + point, low);
    look_up(values, table + choose(if_negative(last - next), last, next), high);
    const Octet from = load_octet(low);
    return (load_octet(high) - from) * (floats_of(bits & kFraction) * 0x1p-16f) + from;
}

// Numbers in (0, 1) of 31 random bits each; the last float below 1 is the highest.
inline Octet uniform_of(Mask random) {
    const Octet number = (floats_of(random & 0x7FFFFFFF) + 0.5f) * 0x1p-31f, last = all_lanes(1 - 0x1p-24f);
    return choose(greater(last, number), number, last);
}

// The random numbers of eight pairs of junctions, by junction.
inline void split_pairs(const int32_t* random, Mask (&of_junction)[2]) {
    const Mask low = load_mask(random), high = load_mask(random + 8);
#ifdef __AVX2__
    const auto gather = [](Mask v) { return _mm256_permutevar8x32_epi32((__m256i)v, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)); };
    of_junction[0] = (Mask)_mm256_permute2x128_si256(gather(low), gather(high), 0x20);
    of_junction[1] = (Mask)_mm256_permute2x128_si256(gather(low), gather(high), 0x31);
#else
    for (int j = 0; j < 2; ++j) {
        for (int lane = 0; lane < 4; ++lane) {
            of_junction[j][lane] = low[2 * lane + j];
            of_junction[j][4 + lane] = high[2 * lane + j];
        }
    }
#endif
}

struct PulseCounts {
    int64_t pulses = 0, switches = 0, units = 0;
};

struct PairPulse {
    const float* switching;       // [2 sources][kPoints], or null where a pulse does what is requested, up to `most`
    const int32_t* final_units;   // [2 sources][2 states after][kPoints] over the requested probability
    const int32_t* excess_units;  // [2 sources][kPoints] over the random number, or null
    float most, gate;
    bool read_first;

    // The probability that is requested of junction j, of pairs whose junctions are `antiparallel`; `size` is up to 2.
    Octet requested(Octet size, int j, const Mask (&antiparallel)[2], const Mask (&source)[2]) const {
        const Octet one = all_lanes(1);
        Octet p;
        if (read_first) {
            const Mask later = antiparallel[j] & ~(antiparallel[1 - j] ^ source[1 - j]);
            p = select(~(antiparallel[j] ^ source[j]), within_one(size - select(later, one)));
        } else {
            const Octet whole = floor_of(size), part = size - whole, certain = within_one(whole - static_cast<float>(j));
            p = choose(greater(part, certain), part, certain);
        }
        return select(~greater(all_lanes(gate), p), p);
    }

    static Octet within_one(Octet v) {
        const Octet one = all_lanes(1);
        return select(greater(v, Octet{}), choose(greater(v, one), one, v));
    }

    // Eight cells, whose bits are a byte of each plane.
    void of_eight(uint8_t* const (&bytes)[2], Octet step, const int32_t* random, PulseCounts& counts) const {
        const Octet size = magnitude(step), two = all_lanes(2);
        const Mask moves = greater(size, Octet{}), up = greater(step, Octet{}), source[2] = {up, ~up};
        const Mask before[2] = {mask_of(*bytes[0]), mask_of(*bytes[1])};
        Mask numbers[2];
        split_pairs(random, numbers);
        for (int j = 0; j < 2; ++j) {
            const Octet p = select(moves, requested(choose(greater(size, two), two, size), j, before, source));
            const Mask pulses = greater(p, Octet{});
            const uint8_t pulsed = byte_of(pulses);
            if (!pulsed) continue;
            const Mask table = source[j] & kPoints;
            const Octet uniform = uniform_of(numbers[j]), bound = all_lanes(most);
            const Octet likely = switching ? interpolated(switching, table, p) : choose(greater(bound, p), p, bound);
            const Mask switched = greater(likely, uniform) & ~(before[j] ^ source[j]) & pulses;
            const Mask after = before[j] ^ switched;
            int32_t units[8];
            look_up(final_units, 2 * table + (after & kPoints) + nearest_points(p), units);
            for (int lane = 0; lane < 8; ++lane) counts.units += pulsed >> lane & 1 ? units[lane] : 0;
            counts.pulses += __builtin_popcount(pulsed);
            const uint8_t changed = byte_of(switched);
            if (!changed) continue;
            counts.switches += __builtin_popcount(changed);
            *bytes[j] = static_cast<uint8_t>(*bytes[j] ^ changed);
            if (!excess_units) continue;
            look_up(excess_units, table + nearest_points(uniform), units);
            for (int lane = 0; lane < 8; ++lane) counts.units += changed >> lane & 1 ? units[lane] : 0;
        }
    }
};

// planes [2][rows][packed n] of antiparallel junctions take a pulse each for `steps` [rows][n], of which the numbers
// `random` [rows][n][2] decide; `counts` are the pulses, the switches and the energy in units, added up.
void pulse_pairs(uint8_t* first_plane, uint8_t* second_plane, const float* steps, const int32_t* random, int64_t rows,
                 int64_t n, const float* switching, const int32_t* final_units, const int32_t* excess_units, float most,
                 float gate, int read_first, int64_t* counts, int threads) {
    const PairPulse pulse{switching, final_units, excess_units, most, gate, read_first != 0};
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        PulseCounts of_chunk;
        const int64_t start = row * row_elements + first, byte = row * packed_bytes(row_elements) + first / 8;
        for (int64_t i = 0; i < count; i += 8) {
            uint8_t* const bytes[2] = {first_plane + byte + i / 8, second_plane + byte + i / 8};
            const int32_t* numbers = random + 2 * (start + i);
            const int64_t cells = minimum(8, count - i);
            int32_t some[16] = {};
            if (cells < 8) {
                std::memcpy(some, numbers, 2 * cells * sizeof(int32_t));
                numbers = some;
            }
            pulse.of_eight(bytes, load_octet(steps + start + i, cells), numbers, of_chunk);
        }
#pragma omp atomic
        counts[0] += of_chunk.pulses;
#pragma omp atomic
        counts[1] += of_chunk.switches;
#pragma omp atomic
        counts[2] += of_chunk.units;
    });
}

}  // namespace
