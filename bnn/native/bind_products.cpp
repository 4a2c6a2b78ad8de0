// Packed rows, their products and these products' gradients, and pooling.
#include "bindings.h"

namespace bnn {

void bind_products(nb::module_& module) {
    const Unlocked unlocked;

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
           Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int x_dtype, int dtype) {
            kernels(isa).float_conv2d(pointer<const void>(x), pointer<const float>(weight), pointer<void>(out),
                                      make_window(shape, kernel, stride, padding, dilation, out_size), outputs,
                                      x_dtype, dtype, threads);
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
        "normed_conv2d_backward",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t codes, const std::vector<float>& slopes,
           uintptr_t x, uintptr_t weight, uintptr_t moments, uintptr_t scale, uintptr_t gamma, double eps,
           uintptr_t of_x, uintptr_t of_weight, uintptr_t of_parameters, Shape shape, Pair kernel, Pair stride,
           Pair padding, Pair dilation, Pair out_size, int64_t outputs, int grad_dtype, int x_dtype) {
            kernels(isa).normed_conv2d_backward(
                pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(), planes_of(slopes),
                pointer<const void>(x), pointer<const float>(weight), pointer<const float>(moments),
                pointer<const float>(scale), pointer<const float>(gamma), eps, pointer<void>(of_x),
                pointer<float>(of_weight), pointer<float>(of_parameters),
                make_window(shape, kernel, stride, padding, dilation, out_size), outputs, grad_dtype, x_dtype, threads);
        },
        unlocked);
    module.def(
        "conv2d_backward_input",
        [](const std::string& isa, int threads, uintptr_t grad, float scale, uintptr_t weight, uintptr_t out,
           Shape shape, Pair kernel, Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs,
           int64_t groups, int itemsize, uintptr_t codes, const std::vector<float>& slopes, uintptr_t base,
           uintptr_t outside) {
            kernels(isa).conv2d_backward_input(pointer<const int8_t>(grad), scale, pointer<const uint8_t>(weight),
                                               pointer<void>(out),
                                               make_window(shape, kernel, stride, padding, dilation, out_size),
                                               outputs, groups, itemsize, make_slopes(codes, slopes, base, outside),
                                               threads);
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
           Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int64_t groups, uint32_t key,
           int64_t first_row) {
            kernels(isa).conv2d_backward_weight_sign(pointer<const int8_t>(grad), pointer<const uint8_t>(x),
                                                     pointer<uint8_t>(out),
                                                     make_window(shape, kernel, stride, padding, dilation, out_size),
                                                     outputs, groups, key, first_row, threads);
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
        "window_means",
        [](const std::string& isa, int threads, uintptr_t x, uintptr_t out, int64_t rows, int64_t columns,
           int64_t channels, int64_t height, int64_t width, int dtype) {
            kernels(isa).window_means(pointer<const void>(x), pointer<void>(out), rows, columns, channels, height,
                                      width, dtype, threads);
        },
        unlocked);
    module.def(
        "window_means_backward",
        [](const std::string& isa, int threads, uintptr_t grad, uintptr_t base, uintptr_t out, int64_t rows,
           int64_t columns, int64_t channels, int64_t height, int64_t width, int dtype) {
            kernels(isa).window_means_backward(pointer<const void>(grad), pointer<const void>(base), pointer<void>(out),
                                               rows, columns, channels, height, width, dtype, threads);
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
}

}  // namespace bnn
