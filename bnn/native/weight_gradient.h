// The gradient of a convolution's weight: of each element the sum over the output's pixels of their gradient times the sign
// of the input that the element's tap leads to; or the packed signs of these sums.
#pragma once

#include "vector.h"
#if defined(BNN_HAS_LOOKUPS)
#include "weight_by_lookups.h"
#elif defined(BNN_HAS_DOT_PRODUCTS)
#include "gradients_by_tiles.h"
#else
#include "gradients_by_tables.h"
#endif
#include "random.h"
#include "wide.h"

namespace {

// of_outputs[output][element] = sums[element][output] - excess[output] of some outputs and elements; the others hold anything.
inline void sums_of_outputs(const int32_t* sums, const int32_t* excess, [[maybe_unused]] int64_t rows, int64_t count,
                            int32_t (&of_outputs)[kColumns][kColumns]) {
#ifdef BNN_HAS_NEON
    for (int64_t k = 0; k < count; k += 4) {
        for (int64_t i = 0; i < kColumns; i += 4) {
            subtract_four_by_four(sums + k * kColumns + i, kColumns, excess + i, &of_outputs[i][k], kColumns);
        }
    }
#else
    for (int64_t output = 0; output < rows; output += 8) {
        const Mask less = load_mask(excess + output);
        for (int64_t k = 0; k < count; k += 8) {
            Mask block[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) block[i] = load_mask(sums + (k + i) * kColumns + output) - less;
            transpose_words(block);
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                const Mask row = block[i];
                std::memcpy(of_outputs[output + i] + k, &row, sizeof row);
            }
        }
    }
#endif
}

// Stores parts of the weight's gradient, each output's by a factor of its own, or all by one.
template <class Float>
struct WeightGradient {
    Float* out;
    const Layer& layer;
    const float* factors;
    bool is_one = false;  // of the factors

    void operator()(int64_t row, int64_t rows, int64_t first, int64_t count, const int32_t* sums,
                    const int32_t* excess) const {
        alignas(64) int32_t of_outputs[kColumns][kColumns];
        sums_of_outputs(sums, excess, rows, count, of_outputs);
        for (int64_t i = 0; i < rows; ++i) {
            const float factor = factors[is_one ? 0 : row + i];
            Float* to = out + (row + i) * layer.row_elements() + first;
#ifdef BNN_HAS_NEON
            for (int64_t k = 0; k < count; k += 8) {
                store_octet(to + k, floats_of(load_mask(of_outputs[i] + k)) * factor, minimum(8, count - k));
            }
#else
            const Wide same_factor = all_wide(factor);
            for (int64_t k = 0; k < count; k += kWide) {
                store_wide(to + k, load_sums(of_outputs[i] + k) * same_factor, minimum(kWide, count - k));
            }
#endif
        }
    }
};

void conv2d_backward_weight(const int8_t* grad, float scale, const uint8_t* x, void* out, const Window& window,
                            int64_t outputs, int64_t groups, int itemsize, int threads) {
    const Layer layer(window, outputs, groups);
    if (itemsize == 2) {
        const WeightGradient<BFloat16> finish{static_cast<BFloat16*>(out), layer, &scale, true};
        backward_weight(grad, x, layer, threads, finish);
    } else {
        const WeightGradient<float> finish{static_cast<float*>(out), layer, &scale, true};
        backward_weight(grad, x, layer, threads, finish);
    }
}

// Which of a part's sums are above the excess, and which equal it: a word of elements for each output.
struct SignWords {
    SignWords(const int32_t* sums, const int32_t* excess) {
        for (int64_t k = 0; k < kColumns; ++k, sums += kColumns) {
#if defined(BNN_USE_AMX) || defined(BNN_USE_AVX512)
            for (int64_t i = 0; i < kColumns; i += 16) {
                const Vector v = _mm512_loadu_si512(sums + i), least = _mm512_loadu_si512(excess + i);
                words[k][0] |= static_cast<uint32_t>(_mm512_cmpgt_epi32_mask(v, least)) << i;
                words[k][1] |= static_cast<uint32_t>(_mm512_cmpeq_epi32_mask(v, least)) << i;
            }
#else
            for (int64_t i = 0; i < kColumns; i += 8) {
                const Mask v = load_mask(sums + i) - load_mask(excess + i);
                words[k][0] |= static_cast<uint32_t>(byte_of(if_negative(-v))) << i;
                words[k][1] |= static_cast<uint32_t>(byte_of(if_negative(~(v | -v)))) << i;
            }
#endif
        }
        transpose_bits(words);
    }

    uint32_t positive(int64_t output) const { return words[output][0]; }
    uint32_t zero(int64_t output) const { return words[output][1]; }

    TwoWords words[kColumns] = {};
};

// Packed signs into `out`, which is clear; the sign of 0 is random, by the element's index from that of the row
// `first_row` on.
void conv2d_backward_weight_sign(const int8_t* grad, const uint8_t* x, uint8_t* out, const Window& window,
                                 int64_t outputs, int64_t groups, uint32_t key, int64_t first_row, int threads) {
    const Layer layer(window, outputs, groups);
    const bool shared_bytes = layer.group_channels % 8 && layer.taps > 1;  // by the end of a tap and the next
    const auto finish = [&](int64_t row, int64_t rows, int64_t first, int64_t count, const int32_t* sums,
                            const int32_t* excess) {
        const SignWords words(sums, excess);
        for (int64_t i = 0; i < rows; ++i) {
            const int64_t index = (first_row + row + i) * layer.row_elements() + first;
            uint64_t bits = words.positive(i);
            for (uint32_t rest = words.zero(i); rest; rest &= rest - 1) {
                const int k = __builtin_ctz(rest);
                bits |= static_cast<uint64_t>(random_bits(key, static_cast<uint32_t>(index + k)) >> 31) << k;
            }
            bits &= (uint64_t{1} << count) - 1;
            uint8_t* to = out + (row + i) * packed_bytes(layer.row_elements()) + first / 8;
            if (count == kColumns && !shared_bytes) {
                std::memcpy(to, &bits, kColumns / 8);
                continue;
            }
            if (!shared_bytes) {
                std::memcpy(to, &bits, packed_bytes(count));
                continue;
            }
            bits <<= first % 8;
            for (int64_t byte = 0; byte < packed_bytes(first % 8 + count); ++byte) {
                const uint8_t value = static_cast<uint8_t>(bits >> 8 * byte);
#pragma omp atomic
                to[byte] |= value;
            }
        }
    };
    backward_weight(grad, x, layer, threads, finish);
}

}  // namespace
