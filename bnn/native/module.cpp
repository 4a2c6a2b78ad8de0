// The extension module bnn._native: the kernels by the name of their instruction set. Pointers are plain integers;
// bnn/ops/cpu.py owns and checks the memory behind them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;

namespace {

using Pair = std::array<int64_t, 2>;
using Shape = std::array<int64_t, 4>;

// The sets that were built and that this CPU has, best first.
std::vector<std::pair<std::string, const bnn::Kernels*>> available() {
    std::vector<std::pair<std::string, const bnn::Kernels*>> found;
#ifdef BNN_BUILD_AVX512
    if (__builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        found.emplace_back("avx512", &bnn::avx512::kernels);
    }
#endif
#ifdef BNN_BUILD_AVX2
    if (__builtin_cpu_supports("avx2")) found.emplace_back("avx2", &bnn::avx2::kernels);
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
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int64_t groups) {
            kernels(isa).conv2d(pointer<const uint8_t>(x), pointer<const uint8_t>(weight), pointer<float>(out),
                                make_window(shape, kernel, stride, padding, dilation, out_size), outputs, groups,
                                threads);
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
}
