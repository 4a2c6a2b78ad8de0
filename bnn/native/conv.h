// Convolution as a product of patches: a few rows of output pixels at a time, gathered as bits into a small buffer.
#pragma once

#include "choice.h"
#include "octet.h"
#include "product.h"
#include "transpose.h"
#include "window.h"
#if defined(BNN_USE_AVX2)
#include "conv_by_nibbles.h"
#elif defined(BNN_HAS_LOOKUPS)
#include "conv_by_lookups.h"
#endif

namespace {

// A patch is one output pixel's taps in (kernel height, kernel width, channels) order, for one group of channels.
struct Convolution {
    Convolution(const Window& window, int64_t outputs, int64_t groups)
        : window(window),
          outputs(outputs),
          groups(groups),
          group_outputs(outputs / groups),
          group_panels(divide_up(group_outputs, kPanel)),
          taps(window.kernel[0] * window.kernel[1]),
          pixels(groups, window.channels / groups),
          words(divide_up(taps * pixels.segment_bytes, 8)),
          band_rows(minimum(window.out_size[0], divide_up(kBlockRows, window.out_size[1]))),
          band_columns(window.size[1] + 2 * window.padding[1]) {}

    int64_t elements() const { return taps * pixels.segment_bits; }
    int64_t band_bytes() const { return extent(window, 0, band_rows) * band_columns * pixels.bytes + kSlackBytes; }
    int64_t patches_bytes() const {
        return round_up(band_rows * window.out_size[1], kTileRows) * words * 8 + kSlackBytes;
    }

    Window window;
    int64_t outputs, groups, group_outputs, group_panels, taps;
    Pixels pixels;
    int64_t words, band_rows, band_columns;  // of a patch; of the output and of the padded input
};

// Fills the panels, and tap_sums[tap][output] with the sums of each tap's weights.
void prepare_weights(const Convolution& conv, const uint8_t* weight, Panels& panels, float* tap_sums, int threads) {
    const int64_t channels = conv.pixels.segment_bits, segment_bytes = conv.pixels.segment_bytes;
    const int64_t row_bytes = packed_bytes(conv.elements());
    const Buffer rows(threads, conv.words * 8);
    parallel_for(conv.groups * conv.group_panels, threads, [&](int64_t panel, int thread) {
        uint64_t* words = rows.part<uint64_t>(thread);
        uint8_t* bytes = rows.part<uint8_t>(thread);
        const int64_t group = panel / conv.group_panels, first = panel % conv.group_panels * kPanel;
        for (int64_t i = 0; i < minimum(kPanel, conv.group_outputs - first); ++i) {
            const int64_t output = group * conv.group_outputs + first + i;
            for (int64_t tap = 0; tap < conv.taps; ++tap) {
                uint8_t* segment = bytes + tap * segment_bytes;
                extract_bits(segment, weight + output * row_bytes, tap * channels, channels);
                const int64_t sum = 2 * count_bits(segment, segment_bytes) - channels;
                tap_sums[tap * conv.outputs + output] = static_cast<float>(sum);
            }
            for (int64_t word = 0; word < conv.words; ++word) panels.set(panel * kPanel + i, word, words[word]);
        }
    });
}

struct Slack {
    uint8_t bytes[kSlackBytes];
};

// Patches of a row of output pixels, of runs of at most a Piece: one is copied of each, and what follows the run is
// covered by the next one.
template <class Piece>
inline void gather_short_runs(const uint8_t* corner, int64_t column_step, int64_t row_step, int64_t runs,
                              int64_t run_bytes, int64_t width, int64_t patch_bytes, uint8_t* to) {
    for (int64_t column = 0; column < width; ++column, corner += column_step, to += patch_bytes) {
        const uint8_t* from = corner;
        uint8_t* at = to;
        for (int64_t run = 0; run < runs; ++run, from += row_step, at += run_bytes) std::memcpy(at, from, sizeof(Piece));
    }
}

// The patches of `rows` rows of output pixels, from a band of the padded image that begins at the first one's window.
inline void gather_patches(const Convolution& conv, const uint8_t* band, int64_t rows, int64_t group,
                           uint64_t* patches) {
    const Window& window = conv.window;
    const bool whole_rows = conv.groups == 1 && window.dilation[1] == 1;  // a kernel row's taps lie side by side
    const int64_t runs = whole_rows ? 1 : window.kernel[1];
    const int64_t run_bytes = whole_rows ? window.kernel[1] * conv.pixels.bytes : conv.pixels.segment_bytes;
    const int64_t tail_bits = conv.taps * conv.pixels.segment_bytes * 8 % 64;
    const uint64_t tail = (uint64_t{1} << tail_bits) - 1;
    uint64_t* const first = patches;
    // Copies, which no store can change, so that they stay in registers.
    const int64_t width = window.out_size[1], kernel_rows = window.kernel[0], words = conv.words;
    const int64_t pixel_bytes = conv.pixels.bytes, row_bytes = conv.band_columns * pixel_bytes;
    const int64_t column_step = window.stride[1] * pixel_bytes, run_step = window.dilation[1] * pixel_bytes;
    const int64_t kernel_row_step = window.dilation[0] * row_bytes;
    band += group * conv.pixels.segment_bytes;
    for (int64_t row = 0; row < rows; ++row, band += window.stride[0] * row_bytes) {
        const uint8_t* corner = band;
        if (runs == 1 && run_bytes <= kSlackBytes) {
            const auto gather = run_bytes <= 8    ? gather_short_runs<uint64_t>
                                : run_bytes <= 16 ? gather_short_runs<Sixteen>
                                                  : gather_short_runs<Slack>;
            gather(corner, column_step, kernel_row_step, kernel_rows, run_bytes, width, words * 8,
                   reinterpret_cast<uint8_t*>(patches));
            patches += width * words;
            continue;
        }
        for (int64_t column = 0; column < width; ++column, patches += words, corner += column_step) {
            uint8_t* to = reinterpret_cast<uint8_t*>(patches);
            for (int64_t i = 0; i < kernel_rows; ++i) {
                for (int64_t j = 0; j < runs; ++j, to += run_bytes) {
                    copy_with_slack(to, corner + i * kernel_row_step + j * run_step, run_bytes);
                }
            }
        }
    }
    // Not above, where the word would be read back before the bytes that it is made of are in the cache.
    for (uint64_t* last = first + words - 1; tail_bits && last < patches; last += words) *last &= tail;
}

// A padded tap was read as clear bits, which took the sum of its weights away: adds it back, so that it counts zero.
inline void restore_padding(const Convolution& conv, const float* tap_sums, float* out, int64_t first_row,
                            int64_t rows) {
    const Window& window = conv.window;
    const int64_t last_row = window.size[0] - extent(window, 0, 1), last_column = window.size[1] - extent(window, 1, 1);
    for (int64_t row = first_row; row < first_row + rows; ++row) {
        for (int64_t column = 0; column < window.out_size[1]; ++column, out += conv.outputs) {
            const int64_t top = row * window.stride[0] - window.padding[0];
            const int64_t left = column * window.stride[1] - window.padding[1];
            if (top >= 0 && top <= last_row && left >= 0 && left <= last_column) continue;
            const float* sums = tap_sums;
            for (int64_t i = 0; i < window.kernel[0]; ++i) {
                const bool row_inside = inside(top + i * window.dilation[0], window.size[0]);
                for (int64_t j = 0; j < window.kernel[1]; ++j, sums += conv.outputs) {
                    if (row_inside && inside(left + j * window.dilation[1], window.size[1])) continue;
                    for (int64_t o = 0; o < conv.outputs; ++o) out[o] += sums[o];
                }
            }
        }
    }
}

inline void store_row(float* to, const float* from, int64_t count) { std::memcpy(to, from, count * sizeof(float)); }

inline void store_row(Float16* to, const float* from, int64_t count) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) store_octet(to + i, load_octet(from + i));
    for (; i < count; i += 8) {
        const int64_t lanes = minimum(8, count - i);
        store_octet(to + i, load_octet(from + i, lanes), lanes);
    }
}

// A convolution that is ready to be applied: the prepared weights, and room for each thread to work in.
class Convolver {
   public:
    Convolver(const uint8_t* weight, const Window& window, int64_t outputs, int64_t groups, int threads)
        : conv_(window, outputs, groups),
          panels_(groups * conv_.group_panels * kPanel, conv_.words),
          tap_sums_(1, conv_.taps * outputs * sizeof(float)),
          bands_(threads, conv_.band_bytes()),
          patches_(threads, conv_.patches_bytes()),
          sums_(threads, conv_.band_rows * window.out_size[1] * outputs * sizeof(float)) {
        prepare_weights(conv_, weight, panels_, tap_sums_.part<float>(0), threads);
    }

    int64_t bands() const { return divide_up(conv_.window.out_size[0], conv_.band_rows); }  // of an image
    int64_t out_elements() const { return conv_.window.out_size[0] * conv_.window.out_size[1] * conv_.outputs; }

    // One band of the result's image, `out`, from the packed image `x`.
    template <class Float>
    void apply(const uint8_t* x, int64_t index, int thread, Float* out) const {
        const Window& window = conv_.window;
        const int64_t row = index * conv_.band_rows, width = window.out_size[1];
        const int64_t rows = minimum(conv_.band_rows, window.out_size[0] - row);
        uint8_t* band = bands_.part<uint8_t>(thread);
        uint64_t* words = patches_.part<uint64_t>(thread);
        float* to = sums_.part<float>(thread);
        load_image(band, x, window, conv_.pixels, row * window.stride[0] - window.padding[0], extent(window, 0, rows),
                   -window.padding[1], conv_.band_columns);
        for (int64_t group = 0; group < conv_.groups; ++group) {
            gather_patches(conv_, band, rows, group, words);
            multiply_rows(words, rows * width, panels_, group * conv_.group_panels, conv_.group_outputs,
                          conv_.elements(), to + group * conv_.group_outputs, conv_.outputs);
        }
        restore_padding(conv_, tap_sums_.part<float>(0), to, row, rows);
        store_row(out + row * width * conv_.outputs, to, rows * width * conv_.outputs);
    }

   private:
    Convolution conv_;
    Panels panels_;
    Buffer tap_sums_, bands_, patches_, sums_;
};

// Calls run(convolver) with the one that is faster here.
template <class Run>
void with_convolver(const uint8_t* weight, const Window& window, int64_t outputs, int64_t groups, int threads,
                    const Run& run) {
#if defined(BNN_USE_AVX2)
    if (NibbleConvolver::serves(window, groups)) return run(NibbleConvolver(weight, window, outputs, threads));
#elif defined(BNN_HAS_LOOKUPS)
    if (LookupConvolver::serves(window, groups)) return run(LookupConvolver(weight, window, outputs, threads));
#endif
    run(Convolver(weight, window, outputs, groups, threads));
}

template <class Float>
void convolve(const uint8_t* x, const uint8_t* weight, Float* out, const Window& window, int64_t outputs,
              int64_t groups, int threads) {
    with_convolver(weight, window, outputs, groups, threads, [&](const auto& convolver) {
        const int64_t bands = convolver.bands();
        parallel_for(window.images * bands, threads, [&](int64_t index, int thread) {
            const int64_t image = index / bands;
            convolver.apply(x + image * image_bytes(window), index % bands, thread,
                            out + image * convolver.out_elements());
        });
    });
}

void conv2d(const uint8_t* x, const uint8_t* weight, void* out, const Window& window, int64_t outputs, int64_t groups,
            int dtype, int threads) {
    dtype == bnn::kFloat16 ? convolve(x, weight, static_cast<Float16*>(out), window, outputs, groups, threads)
                           : convolve(x, weight, static_cast<float*>(out), window, outputs, groups, threads);
}

// The max-pooling, of `pool`, of a convolution's float16 result, an image of which exists at a time in each thread.
void conv2d_max_pool2d(const uint8_t* x, const uint8_t* weight, void* values, uint8_t* choices, const Window& window,
                       const Window& pool, int planes, int64_t outputs, int64_t groups, int threads) {
    const Pooling pooling(pool, planes, threads);
    with_convolver(weight, window, outputs, groups, threads, [&](const auto& convolver) {
        const Buffer images(threads, convolver.out_elements() * sizeof(Float16));
        parallel_for(window.images, threads, [&](int64_t image, int thread) {
            Float16* products = images.part<Float16>(thread);
            for (int64_t band = 0; band < convolver.bands(); ++band) {
                convolver.apply(x + image * image_bytes(window), band, thread, products);
            }
            for (int64_t run = 0; run < pooling.runs(); ++run) {
                pooling.apply(products, image, run, thread, static_cast<Float16*>(values), choices);
            }
        });
    });
}

}  // namespace
