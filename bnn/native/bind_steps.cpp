// Rounding to integers, steps of optimizers, and pulses on simulated junctions.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "bindings.h"

namespace bnn {

void bind_steps(nb::module_& module) {
    const Unlocked unlocked;

    module.def(
        "largest_magnitude",
        [](const std::string& isa, int threads, uintptr_t x, int64_t n, int itemsize) {
            return kernels(isa).largest_magnitude(pointer<const void>(x), n, itemsize, threads);
        },
        unlocked);
    module.def(
        "quantize_integers",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t out, int64_t n, int itemsize, float inverse,
           int32_t largest, uint32_t key) {
            kernels(isa).quantize_integers(pointer<const void>(x), pointer<int8_t>(out), n, itemsize, inverse, largest,
                                           key, threads);
        },
        unlocked);
    module.def(
        "step_by_signs",
        [](const std::string& isa, int threads, uintptr_t codes, uintptr_t signs, int64_t rows, int64_t n,
           int32_t whole, int32_t limit, int32_t beyond, uint32_t key) {
            kernels(isa).step_by_signs(pointer<int8_t>(codes), pointer<const uint8_t>(signs), rows, n, whole, limit,
                                       beyond, key, threads);
        },
        unlocked);
    module.def(
        "adam_by_rows",
        [](const std::string& isa, int threads, uintptr_t codes, uintptr_t squares, uintptr_t gradient, int64_t rows,
           int64_t n, double step, double decay, double correction, double eps, float bound, int32_t beyond,
           uint32_t key) {
            auto* const kept = pointer<float>(squares);
            std::vector<double> means(rows);
            kernels(isa).row_squares(pointer<const void>(gradient), means.data(), rows, n, threads);
            const auto is_finite = [](double mean) { return std::abs(mean) <= std::numeric_limits<float>::max(); };
            if (!std::all_of(means.begin(), means.end(), is_finite) || !std::all_of(kept, kept + rows, is_finite)) {
                return false;
            }
            std::vector<float> rates(rows);
            for (int64_t row = 0; row < rows; ++row) {
                kept[row] = static_cast<float>(kept[row] * decay + means[row] * (1 - decay));
                rates[row] = static_cast<float>(step / (std::sqrt(kept[row] / correction) + eps));
            }
            kernels(isa).step_by_values(pointer<int8_t>(codes), pointer<const void>(gradient), rates.data(), rows, n,
                                        bound, beyond, key, threads);
            return true;
        },
        unlocked);
    module.def(
        "adam_by_signs",
        [](const std::string& isa, int threads, uintptr_t weight, uintptr_t mean, uintptr_t root, uintptr_t signs,
           int64_t rows, int64_t n, float mean_part, float beta2, float square_part, float rate, float eps,
           float beyond, uint32_t key) {
            kernels(isa).adam_by_signs(pointer<void>(weight), pointer<void>(mean), pointer<void>(root),
                                       pointer<const uint8_t>(signs), rows, n, mean_part, beta2, square_part, rate, eps,
                                       beyond, key, threads);
        },
        unlocked);
    module.def(
        "adam_by_values",
        [](const std::string& isa, int threads, uintptr_t weight, uintptr_t mean, uintptr_t root, uintptr_t gradient,
           int64_t rows, int64_t n, float mean_part, float beta2, float square_part, float rate, float eps,
           float beyond, uint32_t key) {
            kernels(isa).adam_by_values(pointer<void>(weight), pointer<void>(mean), pointer<void>(root),
                                        pointer<const float>(gradient), rows, n, mean_part, beta2, square_part, rate,
                                        eps, beyond, key, threads);
        },
        unlocked);
    module.def(
        "pulse_pairs",
        [](const std::string& isa, int threads, uintptr_t first_plane, uintptr_t second_plane, uintptr_t steps,
           uintptr_t random, int64_t rows, int64_t n, uintptr_t switching, uintptr_t final_units,
           uintptr_t excess_units, float most, float gate, bool read_first, uintptr_t counts) {
            kernels(isa).pulse_pairs(pointer<uint8_t>(first_plane), pointer<uint8_t>(second_plane),
                                     pointer<const float>(steps), pointer<const int32_t>(random), rows, n,
                                     pointer<const float>(switching), pointer<const int32_t>(final_units),
                                     pointer<const int32_t>(excess_units), most, gate, read_first,
                                     pointer<int64_t>(counts), threads);
        },
        unlocked);
}

}  // namespace bnn
