// Max-pooling of floats that remembers which of a window's taps won, in planes of bits, and its gradient.
#pragma once

#include "bits.h"
#include "kernels.h"
#include "octet.h"

namespace {

using bnn::Window;

constexpr int64_t kMaxTaps = 256;    // of a window: a choice fits a byte
constexpr int64_t kRunOutputs = 64;  // output pixels whose choices are packed together; a multiple of 8

// The taps of one output pixel that lie inside the image, in row order.
struct WindowTaps {
    WindowTaps(const Window& window, int64_t output) {
        const int64_t top = output / window.out_size[1] * window.stride[0] - window.padding[0];
        const int64_t left = output % window.out_size[1] * window.stride[1] - window.padding[1];
        for (int64_t i = 0; i < window.kernel[0]; ++i) {
            for (int64_t j = 0; j < window.kernel[1]; ++j) {
                const int64_t row = top + i, column = left + j;
                if (row < 0 || row >= window.size[0] || column < 0 || column >= window.size[1]) continue;
                number[count] = static_cast<int32_t>(i * window.kernel[1] + j);
                offset[count++] = (row * window.size[1] + column) * window.channels;
            }
        }
    }

    int count = 0;
    int32_t number[kMaxTaps];
    int64_t offset[kMaxTaps];  // of the tap's first channel in the image
};

// Eight choices, as bytes in memory: a buffer of them has room for kChoiceSlack more.
constexpr int64_t kChoiceSlack = sizeof(Bytes);

inline Mask load_choices(const uint8_t* from) {
    Bytes choices;
    std::memcpy(&choices, from, sizeof choices);
    return widened(choices) & 0xFF;
}

inline void store_choices(uint8_t* to, Mask numbers) {
    const Bytes choices = narrowed_to_bytes(numbers);
    std::memcpy(to, &choices, sizeof choices);
}

// A window's maximum and the number of its tap: the first of equal values, the last of NaNs, as in torch.
template <class Float>
void pool_window(const Float* image, const WindowTaps& taps, int64_t channels, Float* values, uint8_t* choices) {
    for (int64_t c = 0; c < channels; c += 8) {
        const int64_t count = minimum(8, channels - c);
        Octet best = load_octet(image + taps.offset[0] + c, count);
        Mask choice = Mask{} + taps.number[0];
        for (int tap = 1; tap < taps.count; ++tap) {
            const Octet value = load_octet(image + taps.offset[tap] + c, count);
            const Mask wins = greater(value, best) | is_nan(value);
            best = choose(wins, value, best);
            choice = choose(wins, Mask{} + taps.number[tap], choice);
        }
        store_octet(values + c, best, count);
        store_choices(choices + c, choice);
    }
}

// Adds a window's gradient to the taps that won it.
template <class Float>
void unpool_window(Float* image, const WindowTaps& taps, int64_t channels, const Float* grad, const uint8_t* choices) {
    for (int64_t c = 0; c < channels; c += 8) {
        const int64_t count = minimum(8, channels - c);
        const Octet value = load_octet(grad + c, count);
        const Mask choice = load_choices(choices + c);
        for (int tap = 0; tap < taps.count; ++tap) {
            Float* to = image + taps.offset[tap] + c;
            store_octet(to, load_octet(to, count) + select(choice == taps.number[tap], value), count);
        }
    }
}

// Of windows that do not overlap: each value is written once.
inline void unpool_window(int8_t* __restrict image, const WindowTaps& taps, int64_t channels,
                          const int8_t* __restrict grad, const uint8_t* __restrict choices) {
    for (int tap = 0; tap < taps.count; ++tap) {
        int8_t* __restrict to = image + taps.offset[tap];
        const uint8_t number = static_cast<uint8_t>(taps.number[tap]);
        for (int64_t c = 0; c < channels; ++c) {
            to[c] = static_cast<int8_t>(grad[c] & -static_cast<int8_t>(choices[c] == number));
        }
    }
}

// Where the choices of one image lie: plane after plane of all images, each a packed row in (H', W', C) order.
struct Planes {
    Planes(const Window& window, int count)
        : count(count),
          outputs(window.out_size[0] * window.out_size[1]),
          channels(window.channels),
          row_bytes(packed_bytes(outputs * channels)),
          plane_bytes(window.images * row_bytes) {}

    int64_t count, outputs, channels, row_bytes, plane_bytes;
};

// A pooling that is ready to be applied, with room for each thread's choices.
class Pooling {
   public:
    Pooling(const Window& window, int planes, int threads)
        : window_(window), planes_(window, planes), chosen_(threads, kRunOutputs * window.channels + kChoiceSlack) {}

    int64_t runs() const { return divide_up(planes_.outputs, kRunOutputs); }  // of an image

    // One run of the values and choices of an image, whose number is `index`.
    template <class Float>
    void apply(const Float* image, int64_t index, int64_t run, int thread, Float* values, uint8_t* choices) const {
        const int64_t channels = window_.channels, first = run * kRunOutputs;
        const int64_t outputs = minimum(kRunOutputs, planes_.outputs - first), bytes = packed_bytes(outputs * channels);
        uint8_t* chosen = chosen_.part<uint8_t>(thread);
        for (int64_t i = 0; i < outputs; ++i) {
            pool_window(image, WindowTaps(window_, first + i), channels,
                        values + (index * planes_.outputs + first + i) * channels, chosen + i * channels);
        }
        std::memset(chosen + outputs * channels, 0, kChoiceSlack);  // the bits past the end are clear
        for (int64_t plane = 0; plane < planes_.count; ++plane) {
            uint8_t* to = choices + plane * planes_.plane_bytes + index * planes_.row_bytes + first * channels / 8;
            for (int64_t i = 0; i < bytes; ++i) {
                const uint64_t truths = load_word(chosen + 8 * i) >> plane & 0x0101010101010101;
                to[i] = gather_byte(reinterpret_cast<const uint8_t*>(&truths));
            }
        }
    }

   private:
    Window window_;
    Planes planes_;
    Buffer chosen_;
};

template <class Float>
void pool_floats(const Float* x, Float* values, uint8_t* choices, const Window& window, int planes, int threads) {
    const Pooling pooling(window, planes, threads);
    const int64_t runs = pooling.runs(), image_elements = window.size[0] * window.size[1] * window.channels;
    parallel_for(window.images * runs, threads, [&](int64_t index, int thread) {
        pooling.apply(x + index / runs * image_elements, index / runs, index % runs, thread, values, choices);
    });
}

template <class Float>
void unpool_floats(const void* grad, const uint8_t* choices, void* out, const Window& window, int plane_count,
                   int threads) {
    const Planes planes(window, plane_count);
    const int64_t channels = window.channels, image_elements = window.size[0] * window.size[1] * channels;
    const Buffer buffer(threads, kRunOutputs * channels + kChoiceSlack);
    parallel_for(window.images, threads, [&](int64_t image, int thread) {
        uint8_t* chosen = buffer.part<uint8_t>(thread);
        Float* to = static_cast<Float*>(out) + image * image_elements;
        std::memset(static_cast<void*>(to), 0, image_elements * sizeof(Float));
        for (int64_t first = 0; first < planes.outputs; first += kRunOutputs) {
            const int64_t outputs = minimum(kRunOutputs, planes.outputs - first);
            const uint8_t* from = choices + image * planes.row_bytes + first * channels / 8;
            for (int64_t i = 0; i < packed_bytes(outputs * channels); ++i) {
                uint64_t word = 0;
                for (int64_t plane = 0; plane < planes.count; ++plane) {
                    uint64_t truths;
                    spread_byte(reinterpret_cast<uint8_t*>(&truths), from[plane * planes.plane_bytes + i]);
                    word |= truths << plane;
                }
                std::memcpy(chosen + 8 * i, &word, 8);
            }
            for (int64_t i = 0; i < outputs; ++i) {
                unpool_window(to, WindowTaps(window, first + i), channels,
                              static_cast<const Float*>(grad) + (image * planes.outputs + first + i) * channels,
                              chosen + i * channels);
            }
        }
    });
}

void max_pool2d_choices(const void* x, void* values, uint8_t* choices, const Window& window, int planes, int dtype,
                        int threads) {
    with_dtype(dtype, [&](auto of) {
        using Float = decltype(of);
        pool_floats(static_cast<const Float*>(x), static_cast<Float*>(values), choices, window, planes, threads);
    });
}

void max_pool2d_scatter(const void* grad, const uint8_t* choices, void* out, const Window& window, int planes,
                        int dtype, int threads) {
    with_dtype(dtype, [&](auto of) {
        unpool_floats<decltype(of)>(grad, choices, out, window, planes, threads);
    });
}

}  // namespace
