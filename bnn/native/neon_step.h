// The steps of step.h for registers of 128 bits: the same bits in fewer instructions.
#pragma once

#include "floats.h"
#include "random.h"

#include <arm_neon.h>

namespace {

// Four of eight numbers of bfloat16, as floats.
inline float32x4_t lower_floats(uint16x8_t halves) {
    return vreinterpretq_f32_u16(vzip1q_u16(vdupq_n_u16(0), halves));
}
inline float32x4_t upper_floats(uint16x8_t halves) {
    return vreinterpretq_f32_u16(vzip2q_u16(vdupq_n_u16(0), halves));
}

// (u + 1/2) 2^-16 of four of eight random half words u: read as 2^16 u + 2^15 of 2^32 parts.
inline float32x4_t lower_shifts(uint16x8_t random) {
    return vcvtq_n_f32_u32(vreinterpretq_u32_u16(vzip1q_u16(vdupq_n_u16(0x8000), random)), 32);
}
inline float32x4_t upper_shifts(uint16x8_t random) {
    return vcvtq_n_f32_u32(vreinterpretq_u32_u16(vzip2q_u16(vdupq_n_u16(0x8000), random)), 32);
}

// The random half words of eight elements from an even `index` on.
inline uint16x8_t eight_randoms(uint32_t key, uint32_t index) {
    const uint32x4_t places = {0, kIndexFactor, 2 * kIndexFactor, 3 * kIndexFactor};
    return vreinterpretq_u16_u32(mix(veorq_u32(places + index / 2 * kIndexFactor, vdupq_n_u32(key))));
}

inline float32x4_t clamped(float32x4_t v, float32x4_t limit) { return vmaxq_f32(vminq_f32(v, limit), -limit); }

// See ValueStep::moves.
inline int16x8_t eight_moves(uint16x8_t gradient, uint16x8_t random, float rate, float bound) {
    const float32x4_t limit = vdupq_n_f32(bound);
    const float32x4_t low = clamped(vmulq_n_f32(lower_floats(gradient), rate), limit);
    const float32x4_t high = clamped(vmulq_n_f32(upper_floats(gradient), rate), limit);
    const int32x4_t moves[2] = {vcvtmq_s32_f32(low + lower_shifts(random)), vcvtmq_s32_f32(high + upper_shifts(random))};
    return vuzp1q_s16(vreinterpretq_s16_s32(moves[0]), vreinterpretq_s16_s32(moves[1]));
}

// See settled in step.h.
inline int8x8_t settled(int16x8_t codes, int16x8_t moved, int16_t beyond) {
    const int16x8_t limit = vdupq_n_s16(beyond);
    const int16x8_t away = vbslq_s16(vcltzq_s16(moved), vminq_s16(moved, -limit), vmaxq_s16(moved, limit));
    return vqmovn_s16(vbslq_s16(vcltzq_s16(codes ^ moved), away, moved));
}

// The sum of the squares of a row's numbers, below 2^15 `units` each, which are rounded to whole ones.
inline double sum_of_squares(const BFloat16* row, int64_t n, float units) {
    uint64x2_t low = {}, high = {};
    const auto add = [&](uint16x8_t halves) {
        const int32x4_t lower = vcvtaq_s32_f32(vmulq_n_f32(lower_floats(halves), units));
        const int32x4_t upper = vcvtaq_s32_f32(vmulq_n_f32(upper_floats(halves), units));
        low = vpadalq_u32(low, vreinterpretq_u32_s32(lower * lower));
        high = vpadalq_u32(high, vreinterpretq_u32_s32(upper * upper));
    };
    const uint16_t* bits = reinterpret_cast<const uint16_t*>(row);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) add(vld1q_u16(bits + i));
    if (i < n) {
        uint16_t rest[8] = {};
        std::memcpy(rest, bits + i, (n - i) * sizeof *bits);
        add(vld1q_u16(rest));
    }
    return static_cast<double>(vaddvq_u64(vaddq_u64(low, high)));
}

}  // namespace
