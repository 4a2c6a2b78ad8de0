// The extension module bnn._native: the kernels by the name of their instruction set. Pointers are plain integers;
// bnn/ops/cpu owns and checks the memory behind them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"

#if defined(BNN_BUILD_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(BNN_BUILD_NEON_DOT) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace nb = nanobind;

namespace {

#ifdef BNN_BUILD_AMX
// Asks the kernel, once for the process, to save the tiles' state on a switch of threads.
bool tiles_are_permitted() {
#ifdef __linux__
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}
#endif

#ifdef BNN_BUILD_NEON_DOT
// Whether this CPU has sdot, as Cortex-A55 and A76 do and A53 and A72 do not.
bool has_dot_products() {
#ifdef __linux__
    constexpr unsigned long kDotProducts = 1 << 20;  // HWCAP_ASIMDDP
    return getauxval(AT_HWCAP) & kDotProducts;
#else
    return false;
#endif
}
#endif

using Pair = std::array<int64_t, 2>;
using Shape = std::array<int64_t, 4>;

// The sets that were built and that this CPU has, best first.
std::vector<std::pair<std::string, const bnn::Kernels*>> available() {
    std::vector<std::pair<std::string, const bnn::Kernels*>> found;
#ifdef BNN_BUILD_AVX512
    if (__builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
#ifdef BNN_BUILD_AMX
        if (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") && tiles_are_permitted()) {
            found.emplace_back("amx", &bnn::amx::kernels);
        }
#endif
        found.emplace_back("avx512", &bnn::avx512::kernels);
    }
#endif
#ifdef BNN_BUILD_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) found.emplace_back("avx2", &bnn::avx2::kernels);
#endif
#ifdef BNN_BUILD_NEON_DOT
    if (has_dot_products()) found.emplace_back("neon-dot", &bnn::neon_dot::kernels);
#endif
#ifdef BNN_BUILD_NEON
    found.emplace_back("neon", &bnn::neon::kernels);
#endif
    found.emplace_back("generic", &bnn::generic::kernels);
    return found;
}

const bnn::Kernels& kernels(const std::string& isa) {
    static const auto found = available();
    for (const auto& [name, table] : found) {
        if (name == isa) return *table;
    }
    throw std::invalid_argument("this CPU or this build has no kernels for " + isa);
}

template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// Planes of bits that make codes of so many slopes.
int planes_of(const std::vector<float>& slopes) { return slopes.size() == 4 ? 2 : slopes.size() == 2 ? 1 : 0; }

bnn::Window make_window(Shape shape, Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size) {
    bnn::Window window{shape[0], shape[1], {shape[2], shape[3]}, {}, {}, {}, {}, {}};
    for (int i = 0; i < 2; ++i) {
        window.kernel[i] = kernel[i];
        window.stride[i] = stride[i];
        window.padding[i] = padding[i];
        window.dilation[i] = dilation[i];
        window.out_size[i] = out_size[i];
    }
    return window;
}

}  // namespace

NB_MODULE(_native, module) {
    const auto unlocked = nb::call_guard<nb::gil_scoped_release>();

    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const auto& entry : available()) names.push_back(entry.first);
        return names;
    });
    module.def(
        "pack",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t out, int64_t rows, int64_t n, int itemsize,
           int64_t infinity) {
            return kernels(isa).pack(pointer<const void>(x), pointer<uint8_t>(out), rows, n, itemsize, infinity,
                                     threads);
        },
        unlocked);
    module.def(
        "unpack",
        [](const std::string& isa, int threads, uintptr_t packed, uintptr_t out, int64_t rows, int64_t n,
           int itemsize, int64_t plus, int64_t minus) {
            kernels(isa).unpack(pointer<const uint8_t>(packed), pointer<void>(out), rows, n, itemsize, plus, minus,
                                threads);
        },
        unlocked);
    module.def(
        "linear",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t weight, uintptr_t out, int64_t rows,
           int64_t outputs, int64_t features) {
            kernels(isa).linear(pointer<const uint8_t>(x), pointer<const uint8_t>(weight), pointer<float>(out), rows,
                                outputs, features, threads);
        },
        unlocked);
    module.def(
        "conv2d",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t weight, uintptr_t out, Shape shape,
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int64_t groups,
           int dtype) {
            kernels(isa).conv2d(pointer<const uint8_t>(x), pointer<const uint8_t>(weight), pointer<void>(out),
                                make_window(shape, kernel, stride, padding, dilation, out_size), outputs, groups,
                                dtype, threads);
        },
        unlocked);
    module.def(
        "real_conv2d",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t weight, uintptr_t out, Shape shape,
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int dtype) {
            kernels(isa).real_conv2d(pointer<const float>(x), pointer<const uint8_t>(weight), pointer<void>(out),
                                     make_window(shape, kernel, stride, padding, dilation, out_size), outputs, dtype,
                                     threads);
        },
        unlocked);
    module.def(
        "real_conv2d_backward_weight",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t x, uintptr_t out, Shape shape, Pair kernel,
           Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs) {
            kernels(isa).real_conv2d_backward_weight(
                pointer<const int8_t>(grad), pointer<const float>(x), pointer<float>(out),
                make_window(shape, kernel, stride, padding, dilation, out_size), outputs, threads);
        },
        unlocked);
    module.def(
        "float_conv2d",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t weight, uintptr_t out, Shape shape,
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int dtype) {
            kernels(isa).float_conv2d(pointer<const float>(x), pointer<const float>(weight), pointer<void>(out),
                                      make_window(shape, kernel, stride, padding, dilation, out_size), outputs, dtype,
                                      threads);
        },
        unlocked);
    module.def(
        "float_conv2d_backward_weight",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t x, uintptr_t out, Shape shape, Pair kernel,
           Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs) {
            kernels(isa).float_conv2d_backward_weight(
                pointer<const float>(grad), pointer<const float>(x), pointer<float>(out),
                make_window(shape, kernel, stride, padding, dilation, out_size), outputs, threads);
        },
        unlocked);
    module.def(
        "max_pool2d",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t out, Shape shape, Pair kernel, Pair stride,
           Pair padding, Pair dilation, Pair out_size) {
            kernels(isa).max_pool2d(pointer<const uint8_t>(x), pointer<uint8_t>(out),
                                    make_window(shape, kernel, stride, padding, dilation, out_size), threads);
        },
        unlocked);
    module.def(
        "max_pool2d_backward",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t x, uintptr_t out, Shape shape, Pair kernel,
           Pair stride, Pair padding, Pair dilation, Pair out_size, int itemsize) {
            kernels(isa).max_pool2d_backward(pointer<const void>(grad), pointer<const uint8_t>(x),
                                             pointer<void>(out),
                                             make_window(shape, kernel, stride, padding, dilation, out_size),
                                             itemsize, threads);
        },
        unlocked);
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
        [](const std::string& isa, int threads, uintptr_t codes, uintptr_t signs, int64_t rows, int64_t n, int32_t whole,
           int32_t limit, int32_t beyond, uint32_t key) {
            kernels(isa).step_by_signs(pointer<int8_t>(codes), pointer<const uint8_t>(signs), rows, n, whole, limit,
                                       beyond, key, threads);
        },
        unlocked);
    module.def(
        "row_squares",
        [](const std::string& isa, int threads, uintptr_t gradient, uintptr_t squares, int64_t rows, int64_t n) {
            kernels(isa).row_squares(pointer<const void>(gradient), pointer<double>(squares), rows, n, threads);
        },
        unlocked);
    module.def(
        "step_by_values",
        [](const std::string& isa, int threads, uintptr_t codes, uintptr_t gradient, uintptr_t rates, int64_t rows,
           int64_t n, float bound, int32_t beyond, uint32_t key) {
            kernels(isa).step_by_values(pointer<int8_t>(codes), pointer<const void>(gradient),
                                        pointer<const float>(rates), rows, n, bound, beyond, key, threads);
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
        "conv2d_backward_input",
        [](const std::string& isa, int threads, uintptr_t grad, float scale, uintptr_t weight, uintptr_t out,
           Shape shape, Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs,
           int64_t groups, int itemsize, uintptr_t codes, const std::vector<float>& slopes, uintptr_t base,
           uintptr_t outside) {
            const int planes = planes_of(slopes);
            bnn::Slopes of_codes{planes, pointer<const uint8_t>(codes), {}, pointer<const void>(base),
                                 pointer<const uint8_t>(outside)};
            std::copy_n(slopes.begin(), planes ? slopes.size() : 0, of_codes.values);
            kernels(isa).conv2d_backward_input(pointer<const int8_t>(grad), scale, pointer<const uint8_t>(weight),
                                               pointer<void>(out),
                                               make_window(shape, kernel, stride, padding, dilation, out_size),
                                               outputs, groups, itemsize, of_codes, threads);
        },
        unlocked);
    module.def(
        "conv2d_backward_weight",
        [](const std::string& isa, int threads, uintptr_t grad, float scale, uintptr_t x, uintptr_t out, Shape shape,
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int64_t groups,
           int itemsize) {
            kernels(isa).conv2d_backward_weight(pointer<const int8_t>(grad), scale, pointer<const uint8_t>(x),
                                                pointer<void>(out),
                                                make_window(shape, kernel, stride, padding, dilation, out_size),
                                                outputs, groups, itemsize, threads);
        },
        unlocked);
    module.def(
        "conv2d_backward_weight_ternary",
        [](const std::string& isa, int threads, uintptr_t grad, float scale, uintptr_t x, uintptr_t out, Shape shape,
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int64_t groups,
           int itemsize, uint32_t key) {
            kernels(isa).conv2d_backward_weight_ternary(
                pointer<const int8_t>(grad), scale, pointer<const uint8_t>(x), pointer<void>(out),
                make_window(shape, kernel, stride, padding, dilation, out_size), outputs, groups, itemsize, key,
                threads);
        },
        unlocked);
    module.def(
        "conv2d_backward_weight_sign",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t x, uintptr_t out, Shape shape, Pair kernel,
           Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int64_t groups, uint32_t key) {
            kernels(isa).conv2d_backward_weight_sign(pointer<const int8_t>(grad), pointer<const uint8_t>(x),
                                                     pointer<uint8_t>(out),
                                                     make_window(shape, kernel, stride, padding, dilation, out_size),
                                                     outputs, groups, key, threads);
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
        "max_pool2d_choices",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t values, uintptr_t choices, Shape shape,
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int planes, int dtype) {
            kernels(isa).max_pool2d_choices(pointer<const void>(x), pointer<void>(values), pointer<uint8_t>(choices),
                                            make_window(shape, kernel, stride, padding, dilation, out_size), planes,
                                            dtype, threads);
        },
        unlocked);
    module.def(
        "max_pool2d_scatter",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t choices, uintptr_t out, Shape shape,
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int planes, int dtype) {
            kernels(isa).max_pool2d_scatter(pointer<const void>(grad), pointer<const uint8_t>(choices),
                                            pointer<void>(out),
                                            make_window(shape, kernel, stride, padding, dilation, out_size), planes,
                                            dtype, threads);
        },
        unlocked);
    module.def(
        "conv2d_max_pool2d",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t weight, uintptr_t values, uintptr_t choices,
           Shape shape, Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, Shape pool_shape,
           Pair pool_kernel, Pair pool_stride, Pair pool_padding, Pair pool_dilation, Pair pool_size, int64_t groups,
           int planes) {
            const auto pool =
                make_window(pool_shape, pool_kernel, pool_stride, pool_padding, pool_dilation, pool_size);
            kernels(isa).conv2d_max_pool2d(pointer<const uint8_t>(x), pointer<const uint8_t>(weight),
                                           pointer<void>(values), pointer<uint8_t>(choices),
                                           make_window(shape, kernel, stride, padding, dilation, out_size), pool,
                                           planes, pool.channels, groups, threads);
        },
        unlocked);
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
        "norm_gradient",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t codes, const std::vector<float>& slopes,
           uintptr_t y, uintptr_t terms, uintptr_t out, int64_t rows, int64_t pixels, int64_t channels,
           int grad_dtype, int dtype) {
            kernels(isa).norm_gradient(pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(),
                                       planes_of(slopes), pointer<const void>(y), pointer<const float>(terms),
                                       pointer<float>(out), rows, pixels, channels, grad_dtype, dtype, threads);
        },
        unlocked);
    module.def(
        "norm_gradient_integers",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t codes, const std::vector<float>& slopes,
           uintptr_t y, uintptr_t terms, float bound, uintptr_t out, uintptr_t scale, int64_t rows, int64_t pixels,
           int64_t channels, int grad_dtype, int dtype, int32_t largest, uint32_t key) {
            return kernels(isa).norm_gradient_integers(
                pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(), planes_of(slopes),
                pointer<const void>(y), pointer<const float>(terms), bound, pointer<int8_t>(out),
                pointer<float>(scale), rows, pixels, channels, grad_dtype, dtype, largest, key, threads);
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
