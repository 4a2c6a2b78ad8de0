// What each instruction set offers: one table of functions, made by compiling kernels.cpp once for each.
// Packed rows, shapes and the meaning of every operation are those of bnn/ops.
#pragma once

#include <cstdint>

namespace bnn {

// A window that slides over images, as in a convolution or a pooling. Sizes in elements; [0] is height, [1] width.
struct Window {
    int64_t images, channels, size[2];
    int64_t kernel[2], stride[2], padding[2], dilation[2];
    int64_t out_size[2];
};

// The dtype of a tensor, where an operation takes several.
enum Dtype : int { kFloat32, kBFloat16, kFloat16, kInt8 };

// What a gradient is multiplied by and added to: of each element the slope of its code, a bit from each of `planes`
// (up to two) packed planes, if any; and `base`, of the gradient's dtype, if not null.
struct Slopes {
    int planes;
    const uint8_t* codes;
    float values[4];
    const void* base;
    const uint8_t* outside;  // bits of the elements of `base` that count 0; may be null
};

struct Kernels {
    // `infinity`: the bits of the dtype's +inf; an `itemsize` of 1 is bool, of -1 int8. Returns whether x holds a NaN.
    bool (*pack)(const void* x, uint8_t* out, int64_t rows, int64_t n, int itemsize, int64_t infinity, int threads);
    // `plus` and `minus`: the bits of a set and of a clear bit's value, of `itemsize` bytes.
    void (*unpack)(const uint8_t* packed, void* out, int64_t rows, int64_t n, int itemsize, int64_t plus,
                   int64_t minus, int threads);
    void (*linear)(const uint8_t* x, const uint8_t* weight, float* out, int64_t rows, int64_t outputs,
                   int64_t features, int threads);
    // `out`: of float or float16.
    void (*conv2d)(const uint8_t* x, const uint8_t* weight, void* out, const Window& window, int64_t outputs,
                   int64_t groups, int dtype, int threads);
    // Real images in channels-last order; `out`: of float or float16, in this order, too.
    void (*real_conv2d)(const float* x, const uint8_t* weight, void* out, const Window& window, int64_t outputs,
                        int dtype, int threads);
    // out[outputs][kernel height, kernel width, channels]: the gradient over the scale of `grad`.
    void (*real_conv2d_backward_weight)(const int8_t* grad, const float* x, float* out, const Window& window,
                                        int64_t outputs, int threads);
    // The two for a real weight, of (kernel height, kernel width, channels) order, and a real gradient; `x` of float or
    // bfloat16.
    void (*float_conv2d)(const void* x, const float* weight, void* out, const Window& window, int64_t outputs,
                         int x_dtype, int dtype, int threads);
    void (*float_conv2d_backward_weight)(const float* grad, const float* x, float* out, const Window& window,
                                         int64_t outputs, int threads);
    // All gradients where a batch norm follows whose result has `grad`, by the product that is formed again: `of_x`, of x's
    // dtype, where it is not null; of the weight, as above; of_parameters[3][outputs] of the norm, as of norm_gradient_terms.
    // `outputs` is a multiple of 8.
    void (*normed_conv2d_backward)(const void* grad, const uint8_t* codes, const float* slopes, int planes,
                                   const void* x, const float* weight, const float* moments, const float* scale,
                                   const float* gamma, double eps, void* of_x, float* of_weight, float* of_parameters,
                                   const Window& window, int64_t outputs, int grad_dtype, int x_dtype, int threads);
    void (*max_pool2d)(const uint8_t* x, uint8_t* out, const Window& window, int threads);
    // `grad` and `out` are channels last; their floats have `itemsize` bytes, where 2 is bfloat16.
    void (*max_pool2d_backward)(const void* grad, const uint8_t* x, void* out, const Window& window, int itemsize,
                                int threads);
    // The bits of the largest magnitude of floats, which have `itemsize` bytes, where 2 is bfloat16, in what follows.
    int64_t (*largest_magnitude)(const void* x, int64_t n, int itemsize, int threads);
    // Rounds x * inverse to within ±largest, at random by the bits of `key`.
    void (*quantize_integers)(const void* x, int8_t* out, int64_t n, int itemsize, float inverse, int32_t largest,
                              uint32_t key, int threads);
    // `grad`, the gradient of the output over `scale`, and `out` are channels last.
    void (*conv2d_backward_input)(const int8_t* grad, float scale, const uint8_t* weight, void* out,
                                  const Window& window, int64_t outputs, int64_t groups, int itemsize,
                                  const Slopes& slopes, int threads);
    void (*conv2d_backward_weight)(const int8_t* grad, float scale, const uint8_t* x, void* out,
                                   const Window& window, int64_t outputs, int64_t groups, int itemsize, int threads);
    // The same of the gradient drawn to be -1, 0 or 1 by the bits of `key`; see ternary.h.
    void (*conv2d_backward_weight_ternary)(const int8_t* grad, float scale, const uint8_t* x, void* out,
                                           const Window& window, int64_t outputs, int64_t groups, int itemsize,
                                           uint32_t key, int threads);
    // The packed signs, into `out`, which is clear; those of zeros are random bits of `key`, from row `first_row` on.
    void (*conv2d_backward_weight_sign)(const int8_t* grad, const uint8_t* x, uint8_t* out, const Window& window,
                                        int64_t outputs, int64_t groups, uint32_t key, int64_t first_row,
                                        int threads);
    // Of [rows][pixels][channels]; floats of any dtype.
    void (*norm_sign)(const void* y, const float* bias, float eps, uint8_t* bits, uint8_t* inside, float* mean,
                      float* deviation, int64_t rows, int64_t pixels, int64_t channels, int dtype, int threads);
    void (*norm_sign_backward)(const void* grad, const uint8_t* bits, const uint8_t* inside, const float* denominator,
                               const float* levels, void* grad_y, float* grad_bias, int64_t rows, int64_t pixels,
                               int64_t channels, int dtype, int threads);
    // Channels last, of any dtype; the windows of int8 do not overlap.
    void (*max_pool2d_choices)(const void* x, void* values, uint8_t* choices, const Window& window, int planes,
                               int dtype, int threads);
    void (*max_pool2d_scatter)(const void* grad, const uint8_t* choices, void* out, const Window& window, int planes,
                               int dtype, int threads);
    // Means of windows of [height][width] elements, `rows` of them in all images and `columns` in each row; any dtype but int8.
    void (*window_means)(const void* x, void* out, int64_t rows, int64_t columns, int64_t channels, int64_t height,
                         int64_t width, int dtype, int threads);
    // `base`, to which it is added, may be null.
    void (*window_means_backward)(const void* grad, const void* base, void* out, int64_t rows, int64_t columns,
                                  int64_t channels, int64_t height, int64_t width, int dtype, int threads);
    // A convolution and its pooling `pool` in one, of the float16 result of the convolution.
    void (*conv2d_max_pool2d)(const uint8_t* x, const uint8_t* weight, void* values, uint8_t* choices,
                              const Window& window, const Window& pool, int planes, int64_t outputs, int64_t groups,
                              int threads);
    // `infinity` and `window`: the bits of these values in x's dtype. Returns whether x holds a NaN.
    bool (*sign_window)(const void* x, uint8_t* bits, uint8_t* inside, int64_t rows, int64_t n, int itemsize,
                        int64_t infinity, int64_t window, int threads);
    void (*mask)(const void* grad, const uint8_t* inside, void* out, int64_t rows, int64_t n, int itemsize,
                 int threads);
    // `codes` [rows][n] move by `whole`, or in `limit` of 65,536 cases by one more, against the packed `signs`; where
    // their sign changes, at least `beyond` from 0.
    void (*step_by_signs)(int8_t* codes, const uint8_t* signs, int64_t rows, int64_t n, int32_t whole, int32_t limit,
                          int32_t beyond, uint32_t key, int threads);
    // The mean square of each row of bfloat16 `gradient` [rows][n]; NaN where one is not finite.
    void (*row_squares)(const void* gradient, double* squares, int64_t rows, int64_t n, int threads);
    // `codes` [rows][n] move against bfloat16 `gradient` times the rate of their row, at most by `bound`; see step.h.
    void (*step_by_values)(int8_t* codes, const void* gradient, const float* rates, int64_t rows, int64_t n,
                           float bound, int32_t beyond, uint32_t key, int threads);
    // Float16 `weight`, `mean` and `root` [rows][n] take a step of Adam by the packed `signs`; see adam.h.
    void (*adam_by_signs)(void* weight, void* mean, void* root, const uint8_t* signs, int64_t rows, int64_t n,
                          float mean_part, float beta2, float square_part, float rate, float eps, float beyond,
                          uint32_t key, int threads);
    // The same by a `gradient` [rows][n].
    void (*adam_by_values)(void* weight, void* mean, void* root, const float* gradient, int64_t rows, int64_t n,
                           float mean_part, float beta2, float square_part, float rate, float eps, float beyond,
                           uint32_t key, int threads);
    // The passes of a batch norm, of [rows][pixels][channels]; see bnn/ops/batch_norm.py. What enters the norm has `dtype`, float,
    // float16 or bfloat16; other floats are float or bfloat16. Codes are [planes][rows] of packed bits.
    // moments[2][channels] and affine[2][channels] of a batch; the running statistics take it in. `scale`, `gamma` and
    // `beta` may be null.
    void (*batch_statistics)(const void* y, const float* scale, const float* gamma, const float* beta, double eps,
                             float* running_mean, float* running_variance, double momentum, float* moments,
                             float* affine, int64_t rows, int64_t pixels, int64_t channels, int dtype, int threads);
    // sums[rows][2][channels], which is clear, of y and of its squares.
    void (*row_moments)(const void* y, double* sums, int64_t rows, int64_t pixels, int64_t channels, int dtype,
                        int threads);
    // `shortcut` may be null.
    void (*norm_clamp)(const void* y, const float* factor, const float* offset, const void* shortcut, void* out,
                       uint8_t* codes, float low, float high, int64_t rows, int64_t pixels, int64_t channels,
                       int dtype, int shortcut_dtype, int out_dtype, int threads);
    // `factor` and `offset` may be null; `y` of any dtype. Returns whether a value is a NaN.
    bool (*sign_codes)(const void* y, const float* factor, const float* offset, const float* edges, int edge_count,
                       uint8_t* bits, uint8_t* codes, int64_t rows, int64_t pixels, int64_t channels, int dtype,
                       int threads);
    // terms[3][channels], a bound of the gradient, of_parameters[3][channels]; `scale` and `gamma` may be null.
    void (*norm_gradient_terms)(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* y,
                                const float* moments, const float* scale, const float* gamma, double eps,
                                float* terms, float* bound, float* of_parameters, int64_t rows, int64_t pixels,
                                int64_t channels, int grad_dtype, int dtype, int threads);
    // sums[rows][2][channels] of the gradient g that passes and of g (y - mean), and sizes[rows][2][channels], the largest
    // magnitudes of g and y - mean; both are clear.
    void (*row_norm_gradients)(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* y,
                               const float* mean, double* sums, float* sizes, int64_t rows, int64_t pixels,
                               int64_t channels, int grad_dtype, int dtype, int threads);
    // `terms`: [3][channels], the factors of the gradient and of the product, and the constants.
    void (*norm_gradient)(const void* grad, const uint8_t* codes, const float* slopes, int planes, const void* y,
                          const float* terms, void* out, int64_t rows, int64_t pixels, int64_t channels,
                          int grad_dtype, int dtype, int out_dtype, int threads);
    // Returns whether `bound` is finite; only then `out` and `scale` are written. Random bits are those of the elements from
    // row `first_row` on.
    bool (*norm_gradient_integers)(const void* grad, const uint8_t* codes, const float* slopes, int planes,
                                   const void* y, const float* terms, float bound, int8_t* out, float* scale,
                                   int64_t rows, int64_t pixels, int64_t channels, int grad_dtype, int dtype,
                                   int32_t largest, uint32_t key, int64_t first_row, int threads);
    void (*pass_slopes)(const void* grad, const uint8_t* codes, const float* slopes, int planes, void* out,
                        int64_t rows, int64_t pixels, int64_t channels, int dtype, int threads);
    // Two planes [rows][packed n] of states take the pulses for `steps` [rows][n]; see pulse.h and hwsim/pulses.py.
    void (*pulse_pairs)(uint8_t* first_plane, uint8_t* second_plane, const float* steps, const int32_t* random,
                        int64_t rows, int64_t n, const float* switching, const int32_t* final_units,
                        const int32_t* excess_units, float most, float gate, int read_first, int64_t* counts,
                        int threads);
};

namespace amx {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace neon {
extern const Kernels kernels;
}
namespace neon_dot {
extern const Kernels kernels;
}
namespace generic {
extern const Kernels kernels;
}

}  // namespace bnn
