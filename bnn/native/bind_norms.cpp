// Norms, batch norms, and signs with the windows of their gradients.
#include "bindings.h"

namespace bnn {

void bind_norms(nb::module_& module) {
    const Unlocked unlocked;

    module.def(
        "sign_window",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t bits, uintptr_t inside, int64_t rows,
           int64_t n, int itemsize, int64_t infinity, int64_t window) {
            return kernels(isa).sign_window(pointer<const void>(x), pointer<uint8_t>(bits), pointer<uint8_t>(inside),
                                            rows, n, itemsize, infinity, window, threads);
        },
        unlocked);
    module.def(
        "mask",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t inside, uintptr_t out, int64_t rows,
           int64_t n, int itemsize) {
            kernels(isa).mask(pointer<const void>(grad), pointer<const uint8_t>(inside), pointer<void>(out), rows, n,
                              itemsize, threads);
        },
        unlocked);
    module.def(
        "norm_sign",
        [](const std::string& isa, int threads, uintptr_t y, uintptr_t bias, float eps, uintptr_t bits,
           uintptr_t inside, uintptr_t mean, uintptr_t deviation, int64_t rows, int64_t pixels,
           int64_t channels, int dtype) {
            kernels(isa).norm_sign(pointer<const void>(y), pointer<const float>(bias), eps, pointer<uint8_t>(bits),
                                   pointer<uint8_t>(inside), pointer<float>(mean), pointer<float>(deviation),
                                   rows, pixels, channels, dtype, threads);
        },
        unlocked);
    module.def(
        "norm_sign_backward",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t bits, uintptr_t inside, uintptr_t denominator,
           uintptr_t levels, uintptr_t grad_y, uintptr_t grad_bias, int64_t rows, int64_t pixels, int64_t channels,
           int dtype) {
            kernels(isa).norm_sign_backward(pointer<const void>(grad), pointer<const uint8_t>(bits),
                                            pointer<const uint8_t>(inside), pointer<const float>(denominator),
                                            pointer<const float>(levels), pointer<void>(grad_y),
                                            pointer<float>(grad_bias), rows, pixels, channels, dtype, threads);
        },
        unlocked);
    module.def(
        "batch_statistics",
        [](const std::string& isa, int threads, uintptr_t y, uintptr_t scale, uintptr_t gamma, uintptr_t beta,
           double eps, uintptr_t running_mean, uintptr_t running_variance, double momentum, uintptr_t moments,
           uintptr_t affine, int64_t rows, int64_t pixels, int64_t channels, int dtype) {
            kernels(isa).batch_statistics(pointer<const void>(y), pointer<const float>(scale),
                                          pointer<const float>(gamma), pointer<const float>(beta), eps,
                                          pointer<float>(running_mean), pointer<float>(running_variance), momentum,
                                          pointer<float>(moments), pointer<float>(affine), rows, pixels, channels,
                                          dtype, threads);
        },
        unlocked);
    module.def(
        "norm_clamp",
        [](const std::string& isa, int threads, uintptr_t y, uintptr_t factor, uintptr_t offset, uintptr_t shortcut,
           uintptr_t out, uintptr_t codes, float low, float high, int64_t rows, int64_t pixels, int64_t channels, int
           dtype, int shortcut_dtype, int out_dtype) {
            kernels(isa).norm_clamp(pointer<const void>(y), pointer<const float>(factor), pointer<const
                float>(offset), pointer<const void>(shortcut), pointer<void>(out), pointer<uint8_t>(codes), low,
                high, rows, pixels, channels, dtype, shortcut_dtype, out_dtype, threads);
        },
        unlocked);
    module.def(
        "sign_codes",
        [](const std::string& isa, int threads, uintptr_t y, uintptr_t factor, uintptr_t offset,
           const std::vector<float>& edges, uintptr_t bits, uintptr_t codes, int64_t rows, int64_t pixels,
           int64_t channels, int dtype) {
            return kernels(isa).sign_codes(pointer<const void>(y), pointer<const float>(factor),
                                           pointer<const float>(offset), edges.data(), static_cast<int>(edges.size()),
                                           pointer<uint8_t>(bits), pointer<uint8_t>(codes), rows, pixels, channels,
                                           dtype, threads);
        },
        unlocked);
    module.def(
        "norm_gradient_terms",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t codes, const std::vector<float>& slopes,
           uintptr_t y, uintptr_t moments, uintptr_t scale, uintptr_t gamma, double eps, uintptr_t terms,
           uintptr_t bound, uintptr_t of_parameters, int64_t rows, int64_t pixels, int64_t channels, int grad_dtype,
           int dtype) {
            kernels(isa).norm_gradient_terms(pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(),
                                             planes_of(slopes), pointer<const void>(y), pointer<const float>(moments),
                                             pointer<const float>(scale), pointer<const float>(gamma), eps,
                                             pointer<float>(terms), pointer<float>(bound),
                                             pointer<float>(of_parameters), rows, pixels, channels, grad_dtype, dtype,
                                             threads);
        },
        unlocked);
    module.def(
        "row_moments",
        [](const std::string& isa, int threads, uintptr_t y, uintptr_t sums, int64_t rows, int64_t pixels,
           int64_t channels, int dtype) {
            kernels(isa).row_moments(pointer<const void>(y), pointer<double>(sums), rows, pixels, channels, dtype,
                                     threads);
        },
        unlocked);
    module.def(
        "row_norm_gradients",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t codes, const std::vector<float>& slopes,
           uintptr_t y, uintptr_t mean, uintptr_t sums, uintptr_t sizes, int64_t rows, int64_t pixels,
           int64_t channels, int grad_dtype, int dtype) {
            kernels(isa).row_norm_gradients(pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(),
                                            planes_of(slopes), pointer<const void>(y), pointer<const float>(mean),
                                            pointer<double>(sums), pointer<float>(sizes), rows, pixels, channels,
                                            grad_dtype, dtype, threads);
        },
        unlocked);
    module.def(
        "norm_gradient",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t codes, const std::vector<float>& slopes,
           uintptr_t y, uintptr_t terms, uintptr_t out, int64_t rows, int64_t pixels, int64_t channels,
           int grad_dtype, int dtype, int out_dtype) {
            kernels(isa).norm_gradient(pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(),
                                       planes_of(slopes), pointer<const void>(y), pointer<const float>(terms),
                                       pointer<void>(out), rows, pixels, channels, grad_dtype, dtype, out_dtype,
                                       threads);
        },
        unlocked);
    module.def(
        "norm_gradient_integers",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t codes, const std::vector<float>& slopes,
           uintptr_t y, uintptr_t terms, float bound, uintptr_t out, uintptr_t scale, int64_t rows, int64_t pixels,
           int64_t channels, int grad_dtype, int dtype, int32_t largest, uint32_t key, int64_t first_row) {
            return kernels(isa).norm_gradient_integers(
                pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(), planes_of(slopes),
                pointer<const void>(y), pointer<const float>(terms), bound, pointer<int8_t>(out),
                pointer<float>(scale), rows, pixels, channels, grad_dtype, dtype, largest, key, first_row, threads);
        },
        unlocked);
    module.def(
        "pass_slopes",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t codes, const std::vector<float>& slopes,
           uintptr_t out, int64_t rows, int64_t pixels, int64_t channels, int dtype) {
            kernels(isa).pass_slopes(pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(),
                                     planes_of(slopes), pointer<void>(out), rows, pixels, channels, dtype, threads);
        },
        unlocked);
}

}  // namespace bnn
