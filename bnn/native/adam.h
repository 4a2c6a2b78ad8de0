// A step of Adam by the gradient or its signs: float16 weights and moments are read, changed and written in one pass.
#pragma once

#include "bits.h"
#include "octet.h"
#include "random.h"

namespace {

inline Octet root_of(Octet v) {
#ifdef __AVX2__
    return (Octet)_mm256_sqrt_ps((__m256)v);
#else
    for (int lane = 0; lane < 8; ++lane) v[lane] = __builtin_sqrtf(v[lane]);
    return v;
#endif
}

// Floats, each rounded up in magnitude where the lowest 13 bits of its random word are
// large enough: as probable as it is far from the neighbour below. What is beyond float16's range, or not finite, becomes
// NaN, so that it is found.
inline void store_at_random(Float16* to, Octet v, Words random, int64_t count) {
    const Words word = (Words)v, sign = word >> 16 & 0x8000, size = word & 0x7FFFFFFF;
    const Mask tiny = if_negative((Mask)size - 0x38800000);
    // Either way a step of float16 is 2^13: of the float's own bits, or below 2^-14, of whole 2^-37.
    const Mask steps = __builtin_convertvector(select(tiny, (Octet)size) * 0x1p37f, Mask);
    const Words fine = (Words)choose(tiny, steps, (Mask)(size - 0x38000000));
    const Words rounded = sign | (fine + (random & 0x1FFF)) >> 13;
    const Mask lost = if_negative(0x477FE000 - (Mask)size);
    const HalfWords halves = narrowed((Words)choose(lost, Mask{} + 0x7E00, (Mask)rounded));
    std::memcpy(static_cast<void*>(to), &halves, count * sizeof(Float16));
}

// A weight that changes its sign goes at least `beyond` from 0. mean_part and square_part are 1 - beta1 and 1 - beta2; rate and eps hold the corrections of both moments.
struct AdamStep {
    float mean_part, beta2, square_part, rate, eps, beyond;
    uint32_t key;

    // Up to eight elements.
    void operator()(Float16* weights, Float16* means, Float16* roots, Octet gradient, uint32_t index,
                    int64_t count) const {
        const Octet one = Octet{} + 1.0f;
        Octet weight = load_octet(weights, count), mean = load_octet(means, count), root = load_octet(roots, count);
        mean = mean + (gradient - mean) * mean_part;
        root = root_of(root * root * beta2 + gradient * gradient * square_part);
        const Octet moved = weight - mean * rate / (root + eps), far = Octet{} + beyond;
        const Mask negative = greater(Octet{}, moved), changed = negative ^ greater(Octet{}, weight);
        weight = choose(changed & greater(far, magnitude(moved)), choose(negative, -far, far), moved);
        weight = choose(greater(magnitude(weight), one), choose(if_negative((Mask)weight), -one, one), weight);
        const Words place = (Words{0, 1, 2, 3, 4, 5, 6, 7} + index) * 2;
        const Words first = random_bits(key, place), second = random_bits(key, place + 1);
        store_at_random(weights, weight, first, count);
        store_at_random(means, mean, first >> 19, count);
        store_at_random(roots, root, second, count);
    }
};

// gradient_of(row, place, row_elements, count) are up to eight elements from a place in a row on.
template <class GradientOf>
void take_adam_step(const AdamStep& step, void* weight, void* mean, void* root, int64_t rows, int64_t n, int threads,
                    const GradientOf& gradient_of) {
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        const int64_t start = row * row_elements + first;
        Float16* weights = static_cast<Float16*>(weight) + start;
        Float16* means = static_cast<Float16*>(mean) + start;
        Float16* roots = static_cast<Float16*>(root) + start;
        const auto some = [&](int64_t i, int64_t elements) {
            step(weights + i, means + i, roots + i, gradient_of(row, first + i, row_elements, elements),
                 static_cast<uint32_t>(start + i), elements);
        };
        const int64_t whole = count / 8 * 8;
        for (int64_t i = 0; i < whole; i += 8) some(i, 8);
        if (whole < count) some(whole, count - whole);
    });
}

void adam_by_signs(void* weight, void* mean, void* root, const uint8_t* signs, int64_t rows, int64_t n,
                   float mean_part, float beta2, float square_part, float rate, float eps, float beyond, uint32_t key,
                   int threads) {
    const AdamStep step{mean_part, beta2, square_part, rate, eps, beyond, key};
    const Octet one = Octet{} + 1.0f;
    take_adam_step(step, weight, mean, root, rows, n, threads,
                   [&](int64_t row, int64_t place, int64_t row_elements, int64_t) {
                       return choose(mask_of(signs[row * packed_bytes(row_elements) + place / 8]), one, -one);
                   });
}

void adam_by_values(void* weight, void* mean, void* root, const float* gradient, int64_t rows, int64_t n,
                    float mean_part, float beta2, float square_part, float rate, float eps, float beyond, uint32_t key,
                    int threads) {
    const AdamStep step{mean_part, beta2, square_part, rate, eps, beyond, key};
    take_adam_step(step, weight, mean, root, rows, n, threads,
                   [&](int64_t row, int64_t place, int64_t row_elements, int64_t count) {
                       return load_octet(gradient + row * row_elements + place, count);
                   });
}

}  // namespace
