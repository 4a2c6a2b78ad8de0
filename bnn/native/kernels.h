// What each instruction set offers: one table of functions, made by compiling kernels.cpp once for each.
// Packed rows, shapes and the meaning of every operation are those of bnn/ops/reference.py.
#pragma once

#include <cstdint>

namespace bnn {

// A window that slides over images, as in a convolution or a pooling. Sizes in elements; [0] is height, [1] width.
struct Window {
    int64_t images, channels, size[2];
    int64_t kernel[2], stride[2], padding[2], dilation[2];
    int64_t out_size[2];
};

struct Kernels {
    // `infinity`: the bits of the dtype's +inf; an `itemsize` of 1 is bool. Returns whether x holds a NaN.
    bool (*pack)(const void* x, uint8_t* out, int64_t rows, int64_t n, int itemsize, int64_t infinity, int threads);
    // `plus` and `minus`: the bits of a set and of a clear bit's value, of `itemsize` bytes.
    void (*unpack)(const uint8_t* packed, void* out, int64_t rows, int64_t n, int itemsize, int64_t plus,
                   int64_t minus, int threads);
    void (*linear)(const uint8_t* x, const uint8_t* weight, float* out, int64_t rows, int64_t outputs,
                   int64_t features, int threads);
    void (*conv2d)(const uint8_t* x, const uint8_t* weight, float* out, const Window& window, int64_t outputs,
                   int64_t groups, int threads);
    void (*max_pool2d)(const uint8_t* x, uint8_t* out, const Window& window, int threads);
    // `grad` and `out` are channels last; their floats have `itemsize` bytes, where 2 is bfloat16.
    void (*max_pool2d_backward)(const void* grad, const uint8_t* x, void* out, const Window& window, int itemsize,
                                int threads);
};

namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace neon {
extern const Kernels kernels;
}
namespace generic {
extern const Kernels kernels;
}

}  // namespace bnn
