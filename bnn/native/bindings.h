// What the files of bindings share. Pointers are plain integers; bnn/ops/cpu owns and checks the memory behind them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace bnn {

namespace nb = nanobind;

using Unlocked = nb::call_guard<nb::gil_scoped_release>;
using Pair = std::array<int64_t, 2>;
using Shape = std::array<int64_t, 4>;

// The kernels of an instruction set that was built and that this CPU has.
const Kernels& kernels(const std::string& isa);

void bind_products(nb::module_& module);
void bind_norms(nb::module_& module);
void bind_steps(nb::module_& module);
void bind_blocks(nb::module_& module);
void bind_memory(nb::module_& module);

template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// Planes of bits that make codes of so many slopes.
inline int planes_of(const std::vector<float>& slopes) { return slopes.size() == 4 ? 2 : slopes.size() == 2 ? 1 : 0; }

inline Slopes make_slopes(uintptr_t codes, const std::vector<float>& slopes, uintptr_t base, uintptr_t outside) {
    const int planes = planes_of(slopes);
    Slopes of{planes, pointer<const uint8_t>(codes), {}, pointer<const void>(base), pointer<const uint8_t>(outside)};
    std::copy_n(slopes.begin(), planes ? slopes.size() : 0, of.values);
    return of;
}

inline Window make_window(Shape shape, Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size) {
    Window window{shape[0], shape[1], {shape[2], shape[3]}, {}, {}, {}, {}, {}};
    for (int i = 0; i < 2; ++i) {
        window.kernel[i] = kernel[i];
        window.stride[i] = stride[i];
        window.padding[i] = padding[i];
        window.dilation[i] = dilation[i];
        window.out_size[i] = out_size[i];
    }
    return window;
}

}  // namespace bnn
