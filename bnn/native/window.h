// Packed images, channels last, as convolution and pooling see them.
//
// Images whose pixels (or whose groups of channels) are not whole bytes are first moved to byte-aligned pixels, a few
// image rows at a time, in a small buffer of each thread. The same buffer holds the padding, as clear bits.
#pragma once

#include "kernels.h"
#include "bits.h"

namespace {

using bnn::Window;

// Where the pixels of a byte-aligned image lie: `groups` segments a pixel, of `segment_bits` bits each.
struct Pixels {
    Pixels(int64_t groups, int64_t segment_bits)
        : groups(groups),
          segment_bits(segment_bits),
          segment_bytes(packed_bytes(segment_bits)),
          bytes(groups * segment_bytes),
          aligned(segment_bits % 8 == 0) {}

    int64_t groups, segment_bits, segment_bytes, bytes;
    bool aligned;
};

// Rows [first_row, first_row + rows) of an image, of `columns` columns from first_column on; clear outside of it.
inline void load_image(uint8_t* to, const uint8_t* image, const Window& window, const Pixels& pixels,
                       int64_t first_row, int64_t rows, int64_t first_column, int64_t columns) {
    const int64_t height = window.size[0], width = window.size[1];
    const int64_t begin = maximum(0, first_column), end = minimum(width, first_column + columns);
    for (int64_t i = 0; i < rows; ++i, to += columns * pixels.bytes) {
        const int64_t row = first_row + i;
        std::memset(to, 0, columns * pixels.bytes);
        if (row < 0 || row >= height || begin >= end) continue;
        uint8_t* pixel = to + (begin - first_column) * pixels.bytes;
        if (pixels.aligned) {
            std::memcpy(pixel, image + (row * width + begin) * pixels.bytes, (end - begin) * pixels.bytes);
            continue;
        }
        for (int64_t segment = 0; segment < (end - begin) * pixels.groups; ++segment) {
            const int64_t first_bit = ((row * width + begin) * pixels.groups + segment) * pixels.segment_bits;
            extract_bits(pixel + segment * pixels.segment_bytes, image, first_bit, pixels.segment_bits);
        }
    }
}

inline int64_t image_bytes(const Window& window) {
    return packed_bytes(window.channels * window.size[0] * window.size[1]);
}

// Extent of `outputs` neighbouring windows along a dimension.
inline int64_t extent(const Window& window, int dim, int64_t outputs) {
    return (outputs - 1) * window.stride[dim] + window.dilation[dim] * (window.kernel[dim] - 1) + 1;
}

inline bool inside(int64_t index, int64_t size) { return 0 <= index && index < size; }

}  // namespace
