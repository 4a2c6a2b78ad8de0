// Max-pooling of packed images and its gradient. The maximum of ±1 is an OR of bits.
#pragma once

#include "floats.h"
#include "window.h"

namespace {

void max_pool2d(const uint8_t* x, uint8_t* out, const Window& window, int threads) {
    const Pixels pixels(1, window.channels);
    const int64_t height = window.size[0] + 2 * window.padding[0], width = window.size[1] + 2 * window.padding[1];
    const int64_t out_pixels = window.out_size[0] * window.out_size[1];
    const int64_t out_bytes = packed_bytes(out_pixels * window.channels);
    const Buffer images(threads, height * width * pixels.bytes + kSlackBytes);
    const Buffer maxima(threads, pixels.bytes + kSlackBytes);
    parallel_for(window.images, threads, [&](int64_t index, int thread) {
        uint8_t* image = images.part<uint8_t>(thread);
        uint64_t* maximum_bits = maxima.part<uint64_t>(thread);
        uint8_t* to = out + index * out_bytes;
        load_image(image, x + index * image_bytes(window), window, pixels, -window.padding[0], height,
                   -window.padding[1], width);
        if (!pixels.aligned) std::memset(to, 0, out_bytes);
        for (int64_t i = 0; i < out_pixels; ++i) {
            const int64_t top = i / window.out_size[1] * window.stride[0];
            const int64_t left = i % window.out_size[1] * window.stride[1];
            const int64_t words = divide_up(pixels.bytes, 8);
            std::memset(maximum_bits, 0, words * 8);
            for (int64_t row = 0; row < window.kernel[0]; ++row) {
                for (int64_t column = 0; column < window.kernel[1]; ++column) {
                    const int64_t y = top + row * window.dilation[0], x = left + column * window.dilation[1];
                    const uint8_t* tap = image + (y * width + x) * pixels.bytes;
                    for (int64_t word = 0; word < words; ++word) maximum_bits[word] |= load_word(tap + 8 * word);
                }
            }
            const uint8_t* bytes = maxima.part<uint8_t>(thread);
            if (pixels.aligned) {
                std::memcpy(to + i * pixels.bytes, bytes, pixels.bytes);
            } else {
                insert_bits(to, i * window.channels, bytes, window.channels);
            }
        }
    });
}

// One tap's part of a window's gradient: it takes the channels that are set in it and in no earlier tap.
template <class Float>
[[gnu::noinline]] void add_where_first(Float* __restrict out, const Float* __restrict grad,
                                       const uint8_t* __restrict set, uint8_t* __restrict unclaimed, int64_t channels) {
    for (int64_t c = 0; c < channels; ++c) {
        const Float value = grad[c];
        out[c] += set[c] & unclaimed[c] ? value : Float{};  // adding a zero avoids a branch
        unclaimed[c] &= !set[c];
    }
}

// A window's bits as bytes of 0 or 1, [taps][channels rounded up to 8]. Without any set tap, a channel's first is set.
inline void spread_window(uint8_t* set, uint8_t* never, const uint8_t* image, const int64_t* taps, int64_t tap_count,
                          int64_t pixel_bytes) {
    const int64_t row_bytes = 8 * pixel_bytes;
    std::memset(never, 1, row_bytes);
    for (int64_t tap = 0; tap < tap_count; ++tap) {
        uint8_t* truths = set + tap * row_bytes;
        for (int64_t i = 0; i < pixel_bytes; ++i) spread_byte(truths + 8 * i, image[taps[tap] * pixel_bytes + i]);
        for (int64_t c = 0; c < row_bytes; ++c) never[c] &= !truths[c];
    }
    if (tap_count) {
        for (int64_t c = 0; c < row_bytes; ++c) set[c] |= never[c];
    }
}

template <class Float>
void scatter_gradient(const void* grad, const uint8_t* x, void* out, const Window& window, int threads) {
    const Pixels pixels(1, window.channels);
    const int64_t channels = window.channels, row_bytes = 8 * pixels.bytes;
    const int64_t height = window.size[0], width = window.size[1], max_taps = window.kernel[0] * window.kernel[1];
    const int64_t out_pixels = window.out_size[0] * window.out_size[1];
    const Buffer images(threads, height * width * pixels.bytes), tap_lists(threads, max_taps * 8);
    const Buffer truths(threads, max_taps * row_bytes), flags(threads, row_bytes);
    parallel_for(window.images, threads, [&](int64_t index, int thread) {
        uint8_t *image = images.part<uint8_t>(thread), *set = truths.part<uint8_t>(thread);
        uint8_t* unclaimed = flags.part<uint8_t>(thread);
        int64_t* taps = tap_lists.part<int64_t>(thread);
        Float* to = static_cast<Float*>(out) + index * height * width * channels;
        const Float* from = static_cast<const Float*>(grad) + index * out_pixels * channels;
        load_image(image, x + index * image_bytes(window), window, pixels, 0, height, 0, width);
        std::memset(static_cast<void*>(to), 0, height * width * channels * sizeof(Float));
        for (int64_t i = 0; i < out_pixels; ++i, from += channels) {
            const int64_t top = i / window.out_size[1] * window.stride[0] - window.padding[0];
            const int64_t left = i % window.out_size[1] * window.stride[1] - window.padding[1];
            int64_t count = 0;
            for (int64_t row = 0; row < window.kernel[0]; ++row) {
                for (int64_t column = 0; column < window.kernel[1]; ++column) {
                    const int64_t y = top + row * window.dilation[0], x = left + column * window.dilation[1];
                    if (inside(y, height) && inside(x, width)) taps[count++] = y * width + x;
                }
            }
            spread_window(set, unclaimed, image, taps, count, pixels.bytes);
            for (int64_t c = 0; c < row_bytes; ++c) unclaimed[c] = 1;
            for (int64_t tap = 0; tap < count; ++tap) {
                add_where_first(to + taps[tap] * channels, from, set + tap * row_bytes, unclaimed, channels);
            }
        }
    });
}

void max_pool2d_backward(const void* grad, const uint8_t* x, void* out, const Window& window, int itemsize,
                         int threads) {
    switch (itemsize) {
        case 2:
            return scatter_gradient<BFloat16>(grad, x, out, window, threads);
        case 4:
            return scatter_gradient<float>(grad, x, out, window, threads);
        default:
            return scatter_gradient<double>(grad, x, out, window, threads);
    }
}

}  // namespace
