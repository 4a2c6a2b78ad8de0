// Means over windows that lie side by side, of images whose channels lie last, and their gradient.
#pragma once

#include "octet.h"

namespace {

// `rows` of windows of all images, one below the other, and `columns` windows in each.
struct Tiling {
    int64_t rows, columns, channels, height, width;

    int64_t image_columns() const { return columns * width; }
    float values() const { return static_cast<float>(height * width); }
};

template <class Float>
void average(const Float* x, Float* out, const Tiling& tiling, int threads) {
    const int64_t channels = tiling.channels, pitch = tiling.image_columns() * channels;
    const Octet values = all_lanes(tiling.values());
    parallel_for(tiling.rows, threads, [&](int64_t row, int) {
        for (int64_t column = 0; column < tiling.columns; ++column) {
            const Float* from = x + row * tiling.height * pitch + column * tiling.width * channels;
            Float* to = out + (row * tiling.columns + column) * channels;
            for (int64_t c = 0; c < channels; c += 8) {
                const int64_t count = minimum(8, channels - c);
                Octet sum = {};
                for (int64_t i = 0; i < tiling.height; ++i) {
                    for (int64_t j = 0; j < tiling.width; ++j) sum += load_octet(from + i * pitch + j * channels + c, count);
                }
                store_octet(to + c, sum / values, count);
            }
        }
    });
}

// Adds to `base`, if that is not null.
template <class Float>
void spread(const Float* grad, const Float* base, Float* out, const Tiling& tiling, int threads) {
    const int64_t channels = tiling.channels, pitch = tiling.image_columns() * channels;
    const Octet values = all_lanes(tiling.values());
    parallel_for(tiling.rows, threads, [&](int64_t row, int) {
        for (int64_t column = 0; column < tiling.columns; ++column) {
            const Float* from = grad + (row * tiling.columns + column) * channels;
            const int64_t first = row * tiling.height * pitch + column * tiling.width * channels;
            for (int64_t c = 0; c < channels; c += 8) {
                const int64_t count = minimum(8, channels - c);
                Float rounded[8];
                store_octet(rounded, load_octet(from + c, count) / values);
                const Octet part = load_octet(rounded);
                for (int64_t i = 0; i < tiling.height; ++i) {
                    for (int64_t j = 0; j < tiling.width; ++j) {
                        const int64_t at = first + i * pitch + j * channels + c;
                        store_octet(out + at, base ? load_octet(base + at, count) + part : part, count);
                    }
                }
            }
        }
    });
}

void window_means(const void* x, void* out, int64_t rows, int64_t columns, int64_t channels, int64_t height,
                  int64_t width, int dtype, int threads) {
    with_dtype(dtype, [&](auto type) {
        using Float = decltype(type);
        average(static_cast<const Float*>(x), static_cast<Float*>(out), {rows, columns, channels, height, width}, threads);
    });
}

void window_means_backward(const void* grad, const void* base, void* out, int64_t rows, int64_t columns,
                           int64_t channels, int64_t height, int64_t width, int dtype, int threads) {
    with_dtype(dtype, [&](auto type) {
        using Float = decltype(type);
        spread(static_cast<const Float*>(grad), static_cast<const Float*>(base), static_cast<Float*>(out),
               {rows, columns, channels, height, width}, threads);
    });
}

}  // namespace
