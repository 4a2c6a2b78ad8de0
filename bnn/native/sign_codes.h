// Signs of a norm's result, or of what enters a binary layer, with the codes of the slope of their gradient: how many of the
// edges lie below a magnitude. The formulas are those of bnn/ops/batch_norm.py.
#pragma once

#include "channels.h"

namespace {

// `factor` and `offset` may be null. Returns whether there is a NaN.
template <class Float>
bool sign_codes_of(const Float* y, const float* factor, const float* offset, const float* edges, int edge_count,
                   uint8_t* bits, uint8_t* codes, int64_t plane_bytes, const Layout& layout, int threads) {
    const Buffer ones(1, layout.channels * 4);
    for (int64_t c = 0; c < layout.channels; ++c) ones.part<float>(0)[c] = 1;
    const Buffer zeros(1, layout.channels * 4);
    const OfPlace factors(layout, factor ? factor : ones.part<float>(0));
    const OfPlace offsets(layout, offset ? offset : zeros.part<float>(0));
    const float *scale = factors.data(), *shift = offsets.data();
    const bool is_affine = factor != nullptr, has_two_planes = edge_count > 1;
    const float first = edges[0], second = edges[has_two_planes ? 1 : 0], third = edges[has_two_planes ? 2 : 0];
    bool any_nan = false;
    parallel_for(layout.tasks, threads, [&](int64_t task, int) {
        Truths nan = none();
        for_wide(layout, task, [&](int64_t element, int64_t byte, int64_t place, int64_t count) {
            Wide x = load_wide(y + element, count);
            if (is_affine) x = x * load_wide(scale + place) + load_wide(shift + place);
            const Truths lanes = first_truths(count);
            const Wide size = magnitude(x);
            const auto beyond = [&](float edge) { return both(greater(size, all_wide(edge)), lanes); };
            nan = either(nan, both(is_nan(x), lanes));
            store_truths(bits + byte, both(opposite(greater(Wide{}, x)), lanes), count);
            if (!has_two_planes) {
                store_truths(codes + byte, beyond(first), count);
                return;
            }
            const Truths far = beyond(second);
            store_truths(codes + byte, either(both(beyond(first), opposite(far)), beyond(third)), count);
            store_truths(codes + plane_bytes + byte, far, count);
        });
        if (any(nan)) {
#pragma omp atomic write
            any_nan = true;
        }
    });
    return any_nan;
}

#ifdef __AVX2__
// The same of bfloat16 as they are, which are ordered as their bits: 32 at a time, of rows without a gap.
bool sign_codes_of_halves(const int16_t* y, const float* edges, int edge_count, uint8_t* bits, uint8_t* codes,
                          int64_t plane_bytes, int64_t count, int threads) {
    constexpr int64_t kSome = 32, kTask = 1 << 15;
    const bool has_two_planes = edge_count > 1;
    __m256i limits[3];
    for (int i = 0; i < 3; ++i) {  // a number of 16 bits is above an edge where it is above what of it 16 bits hold
        int32_t word;
        std::memcpy(&word, edges + (has_two_planes ? i : 0), sizeof word);
        limits[i] = _mm256_set1_epi16(static_cast<short>(word >> 16));
    }
    bool any_nan = false;
    parallel_for(divide_up(count, kTask), threads, [&](int64_t task, int) {
        const __m256i first = limits[0], second = limits[1], third = limits[2];
        const __m256i all = _mm256_set1_epi16(0x7FFF), infinity = _mm256_set1_epi16(0x7F80);
        __m256i nan = _mm256_setzero_si256();
        const auto visit = [&](const int16_t* from, int64_t i, int64_t some) __attribute__((always_inline)) {
            const __m256i x[2] = {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)),
                                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from) + 1)};
            __m256i size[2];
            for (int half = 0; half < 2; ++half) {
                size[half] = _mm256_and_si256(x[half], all);
                nan = _mm256_or_si256(nan, _mm256_cmpgt_epi16(size[half], infinity));
            }
            const auto store = [&](uint8_t* to, __m256i low, __m256i high) {  // a bit of each element
                const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8);
                const int32_t word = _mm256_movemask_epi8(bytes);
                std::memcpy(to + i / 8, &word, some / 8);
            };
            const auto beyond = [&](int half, __m256i limit) { return _mm256_cmpgt_epi16(size[half], limit); };
            // Not below 0, or 0 itself.
            const auto positive = [&](int half) { return _mm256_cmpgt_epi16(x[half], _mm256_set1_epi16(-1)); };
            const auto zero = [&](int half) { return _mm256_cmpeq_epi16(size[half], _mm256_setzero_si256()); };
            store(bits, _mm256_or_si256(positive(0), zero(0)), _mm256_or_si256(positive(1), zero(1)));
            if (!has_two_planes) {
                store(codes, beyond(0, first), beyond(1, first));
                return;
            }
            const auto odd = [&](int half) {
                return _mm256_or_si256(_mm256_andnot_si256(beyond(half, second), beyond(half, first)), beyond(half, third));
            };
            store(codes, odd(0), odd(1));
            store(codes + plane_bytes, beyond(0, second), beyond(1, second));
        };
        const int64_t end = minimum((task + 1) * kTask, count);
        int64_t i = task * kTask;
        for (; i + kSome <= end; i += kSome) visit(y + i, i, kSome);
        if (i < end) {
            int16_t last[kSome] = {};
            std::memcpy(last, y + i, (end - i) * sizeof *y);
            visit(last, i, end - i);
        }
        if (_mm256_movemask_epi8(nan)) {
#pragma omp atomic write
            any_nan = true;
        }
    });
    return any_nan;
}
#endif

bool sign_codes(const void* y, const float* factor, const float* offset, const float* edges, int edge_count,
                uint8_t* bits, uint8_t* codes, int64_t rows, int64_t pixels, int64_t channels, int dtype,
                int threads) {
    const Layout layout(rows, pixels, channels);
    const int64_t plane_bytes = rows * packed_bytes(pixels * channels);
#ifdef __AVX2__
    if (dtype == bnn::kBFloat16 && !factor && pixels * channels % 8 == 0) {
        return sign_codes_of_halves(static_cast<const int16_t*>(y), edges, edge_count, bits, codes, plane_bytes,
                                    rows * pixels * channels, threads);
    }
#endif
    bool any_nan = false;
    with_dtype(dtype, [&](auto of) {
        any_nan = sign_codes_of(static_cast<const decltype(of)*>(y), factor, offset, edges, edge_count, bits, codes,
                                plane_bytes, layout, threads);
    });
    return any_nan;
}

}  // namespace
