// What a block of bits does each way, in one call: the kernels of bind_products.cpp and bind_norms.cpp behind each other.
#include "bindings.h"

namespace bnn {

namespace {

// A product of bits, and the pooling behind it where there are `choices`: that of matrices as float, of images [images,
// channels] of one pixel; that of images as float16.
struct Product {
    const uint8_t *x, *weight;
    void* y;
    Window window, pool;
    int64_t outputs, groups;
    bool is_linear;
    uint8_t* choices;
    int planes;

    int64_t pixels() const {
        const int64_t* size = choices ? pool.out_size : window.out_size;
        return size[0] * size[1];
    }
    int dtype() const { return is_linear ? kFloat32 : kFloat16; }
    void form(const Kernels& of, int threads) const {
        if (is_linear) {
            of.linear(x, weight, static_cast<float*>(y), window.images, outputs, window.channels, threads);
        } else if (choices) {
            of.conv2d_max_pool2d(x, weight, y, choices, window, pool, planes, outputs, groups, threads);
        } else {
            of.conv2d(x, weight, y, window, outputs, groups, kFloat16, threads);
        }
    }
};

}  // namespace

void bind_blocks(nb::module_& module) {
    const Unlocked unlocked;

    // `x` is real unless it has no dtype (-1): then `bits` are given. `out` is real, and may be `y`, unless there are edges:
    // then it is bits. Returns whether a value is a NaN.
    module.def(
        "block",
        [](const std::string& isa, int threads, uintptr_t x, int x_dtype, const std::vector<float>& input_edges,
           uintptr_t bits, uintptr_t input_codes, uintptr_t weight, uintptr_t y, Shape shape, Pair kernel, Pair stride,
           Pair padding, Pair dilation, Pair out_size, int64_t outputs, int64_t groups, bool is_linear,
           uintptr_t choices, int planes, Shape pool_shape, Pair pool_kernel, Pair pool_stride, Pair pool_padding,
           Pair pool_dilation, Pair pool_size, uintptr_t scale, uintptr_t gamma, uintptr_t beta, double eps,
           uintptr_t running_mean, uintptr_t running_variance, double momentum, uintptr_t batches, uintptr_t moments,
           uintptr_t affine,
           uintptr_t shortcut, int shortcut_dtype, float low, float high, const std::vector<float>& output_edges,
           uintptr_t out, uintptr_t codes) {
            const Kernels& of = kernels(isa);
            if (x_dtype >= 0 &&
                of.sign_codes(pointer<const void>(x), nullptr, nullptr, input_edges.data(),
                              static_cast<int>(input_edges.size()), pointer<uint8_t>(bits),
                              pointer<uint8_t>(input_codes), shape[0], shape[2] * shape[3], shape[1], x_dtype,
                              threads)) {
                return true;
            }
            const Product product{
                pointer<const uint8_t>(bits), pointer<const uint8_t>(weight), pointer<void>(y),
                make_window(shape, kernel, stride, padding, dilation, out_size),
                make_window(pool_shape, pool_kernel, pool_stride, pool_padding, pool_dilation, pool_size),
                outputs, groups, is_linear, pointer<uint8_t>(choices), planes};
            const int dtype = product.dtype();
            product.form(of, threads);
            of.batch_statistics(pointer<const void>(y), pointer<const float>(scale), pointer<const float>(gamma),
                                pointer<const float>(beta), eps, pointer<float>(running_mean),
                                pointer<float>(running_variance), momentum, pointer<float>(moments),
                                pointer<float>(affine), shape[0], product.pixels(), outputs, dtype, threads);
            ++*pointer<int64_t>(batches);
            const float *factor = pointer<const float>(affine), *offset = factor + outputs;
            if (output_edges.size()) {
                return of.sign_codes(pointer<const void>(y), factor, offset, output_edges.data(),
                                     static_cast<int>(output_edges.size()), pointer<uint8_t>(out),
                                     pointer<uint8_t>(codes), shape[0], product.pixels(), outputs, dtype, threads);
            }
            const int out_dtype = is_linear ? kFloat32 : kBFloat16;
            of.norm_clamp(pointer<const void>(y), factor, offset, pointer<const void>(shortcut), pointer<void>(out),
                          pointer<uint8_t>(codes), low, high, shape[0], product.pixels(), outputs, dtype,
                          shortcut ? shortcut_dtype : out_dtype, out_dtype, threads);
            return false;
        },
        unlocked);

    // The gradients of input and weight. The product is `y` if it `is_kept`, and else formed there. Where it is pooled, its
    // gradient is `of_pooled`, and `q` before the pooling. `of_x` may lie where `y` and `of_pooled` do, and `of_weight` is formed
    // of gradients that are drawn to be -1, 0 or 1 where `is_ternary`. Returns whether the bound of the product's gradient
    // is finite; only then they are written.
    module.def(
        "block_backward",
        [](const std::string& isa, int threads, uintptr_t grad, int grad_dtype, uintptr_t codes,
           const std::vector<float>& slopes, uintptr_t bits, uintptr_t weight, uintptr_t y, Shape shape, Pair kernel,
           Pair stride, Pair padding, Pair dilation, Pair out_size, int64_t outputs, int64_t groups, bool is_linear,
           uintptr_t choices, int planes, Shape pool_shape, Pair pool_kernel, Pair pool_stride, Pair pool_padding,
           Pair pool_dilation, Pair pool_size, bool is_kept, uintptr_t moments, uintptr_t scale, uintptr_t gamma, double eps, uintptr_t terms, uintptr_t of_parameters,
           uintptr_t of_pooled, uintptr_t q, int32_t largest, uint32_t key, uintptr_t of_x, int x_itemsize, uintptr_t input_codes,
           const std::vector<float>& input_slopes, uintptr_t base, uintptr_t outside, uintptr_t of_weight,
           int weight_itemsize, bool is_ternary, uint32_t ternary_key) {
            const Kernels& of = kernels(isa);
            const Product product{
                pointer<const uint8_t>(bits), pointer<const uint8_t>(weight), pointer<void>(y),
                make_window(shape, kernel, stride, padding, dilation, out_size),
                make_window(pool_shape, pool_kernel, pool_stride, pool_padding, pool_dilation, pool_size),
                outputs, groups, is_linear, pointer<uint8_t>(choices), planes};
            float bound, q_scale;
            if (!is_kept) product.form(of, threads);
            of.norm_gradient_terms(pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(),
                                   planes_of(slopes), product.y, pointer<const float>(moments),
                                   pointer<const float>(scale), pointer<const float>(gamma), eps,
                                   pointer<float>(terms), &bound, pointer<float>(of_parameters), shape[0],
                                   product.pixels(), outputs, grad_dtype, product.dtype(), threads);
            if (!of.norm_gradient_integers(pointer<const void>(grad), pointer<const uint8_t>(codes), slopes.data(),
                                           planes_of(slopes), product.y, pointer<const float>(terms), bound,
                                           pointer<int8_t>(choices ? of_pooled : q), &q_scale, shape[0],
                                           product.pixels(), outputs, grad_dtype, product.dtype(), largest, key, 0,
                                           threads)) {
                return false;
            }
            if (choices) {
                of.max_pool2d_scatter(pointer<const void>(of_pooled), product.choices, pointer<void>(q), product.pool,
                                      planes, kInt8, threads);
            }
            if (is_ternary) {
                of.conv2d_backward_weight_ternary(pointer<const int8_t>(q), q_scale, product.x,
                                                  pointer<void>(of_weight), product.window, outputs, groups,
                                                  weight_itemsize, ternary_key, threads);
            } else {
                of.conv2d_backward_weight(pointer<const int8_t>(q), q_scale, product.x, pointer<void>(of_weight),
                                          product.window, outputs, groups, weight_itemsize, threads);
            }
            of.conv2d_backward_input(pointer<const int8_t>(q), q_scale, product.weight, pointer<void>(of_x),
                                     product.window, outputs, groups, x_itemsize,
                                     make_slopes(input_codes, input_slopes, base, outside), threads);
            return true;
        },
        unlocked);
}

}  // namespace bnn
