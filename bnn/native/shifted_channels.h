// The bits of a convolution's input, a channel a row, where a tap leads from any pixel to the one at a constant distance on
// the line of all images' pixels: they are transposed once, and each tap reads them at its distance. What lies outside of
// the image is another pixel's bit then, of which `present_bits` tells.
#pragma once

#include "gradient.h"

namespace {

constexpr int64_t kStreamWords = 2 * kBlocks;

// Bits of the `count` pixels from `first` on that a tap leads to: whether there are.
inline Blocks present_bits(const Taps& taps, int64_t tap, int64_t first, int64_t count) {
    uint64_t present[kChunkWords] = {};
    int64_t pixel = 0;
    taps.for_stretches(tap, first, count, [&](int64_t offset, int64_t, int64_t pixels) {
        const int64_t end = pixel + pixels;
        while (offset != kNowhere && pixel < end) {
            const int64_t run = minimum(end - pixel, kWordBits - pixel % kWordBits);
            present[pixel / kWordBits] |= ~uint64_t{0} >> (kWordBits - run) << pixel % kWordBits;
            pixel += run;
        }
        pixel = end;
    });
    Blocks bits;
    static_assert(sizeof present == sizeof bits);
    std::memcpy(&bits, present, sizeof bits);
    return bits;
}

// Those of all taps, a chunk of pixels each, of the chunks that differ: where the pixels of an image begin in a chunk repeats.
class PresentBits {
   public:
    PresentBits(const Taps& taps, const Layer& layer, int threads)
        : taps_(layer.taps), chunks_(different_chunks(layer)), bits_(chunks_, layer.taps * sizeof(Blocks)) {
        const int64_t pixels = layer.window.images * layer.out_pixels;
        parallel_for(chunks_, threads, [&](int64_t chunk, int) {
            for (int64_t tap = 0; tap < layer.taps; ++tap) {
                const int64_t first = chunk * kDepth;
                bits_.part<Blocks>(chunk)[tap] = present_bits(taps, tap, first, minimum(kDepth, pixels - first));
            }
        });
    }

    // Of the pixels from `first` on, a multiple of kDepth.
    const Blocks& operator()(int64_t first, int64_t tap) const {
        return bits_.part<Blocks>(first / kDepth % chunks_)[tap];
    }

   private:
    static int64_t different_chunks(const Layer& layer) {
        int64_t common = layer.out_pixels, rest = kDepth;  // Euclid's algorithm
        while (rest) {
            const int64_t next = common % rest;
            common = rest;
            rest = next;
        }
        const int64_t chunks = divide_up(layer.window.images * layer.out_pixels, kDepth);
        return maximum(minimum(layer.out_pixels / maximum(common, 1), chunks), 1);
    }

    int64_t taps_, chunks_;
    Buffer bits_;
};

class ShiftedChannels {
   public:
    explicit ShiftedChannels(const Layer& layer)
        : layer_(layer), pixels_(layer.window.images * layer.out_pixels), before_(words_before(layer)) {}

    static bool serve(const Layer& layer) {
        const Window& window = layer.window;
        return layer.taps > 1 && window.channels % 8 == 0 && window.stride[0] == 1 && window.stride[1] == 1 &&
               window.size[0] == window.out_size[0] && window.size[1] == window.out_size[1] &&
               2 * words_before(layer) + 1 <= kStreamWords - kBlocks;
    }

    static int64_t bytes() { return sizeof(Streams); }  // of a panel

    // Those of a chunk of pixels from `first` on, and of some before and behind, of a panel of channels of a group.
    void load(const uint8_t* x, int64_t first, int64_t group, int64_t panel, uint8_t* to) const {
        const int64_t first_bit = group * layer_.group_channels + panel * kColumns;
        auto& streams = *reinterpret_cast<Streams*>(to);
        for (int64_t part = 0; part < kStreamWords; part += kBlocks) {
            const int64_t pixel = first + (part - before_) * kColumns;
            transpose(x, pixel, first_bit, layer_.panel_channels(panel), streams, part);
        }
    }

    // A chunk's words of each channel of a panel, of the pixels that a tap of the kernel leads to.
    void read(const uint8_t* from, int64_t panel, int64_t tap, Blocks present, Blocks (&words)[kColumns]) const {
        const auto& streams = *reinterpret_cast<const Streams*>(from);
        const int64_t bit = before_ * kColumns + distance(layer_, tap), word = bit / kColumns;
        const int shift = static_cast<int>(bit % kColumns);
        for (int64_t c = 0; c < layer_.panel_channels(panel); ++c) {
            Blocks low, high;
            std::memcpy(&low, streams[c] + word, sizeof low);
            std::memcpy(&high, streams[c] + word + 1, sizeof high);
            words[c] = ((low >> shift) | (high << 1 << (31 - shift))) & present;
        }
    }

    // From a pixel of the output to the one of the input that a tap leads to.
    static int64_t distance(const Layer& layer, int64_t tap) {
        const Window& window = layer.window;
        const int64_t rows = tap / window.kernel[1] * window.dilation[0] - window.padding[0];
        return rows * window.size[1] + tap % window.kernel[1] * window.dilation[1] - window.padding[1];
    }

    static int64_t reach(const Layer& layer) {
        return maximum(-distance(layer, 0), distance(layer, layer.taps - 1));
    }

   private:
    typedef uint32_t Streams[kColumns][kStreamWords];

    static int64_t words_before(const Layer& layer) {
        return divide_up(reach(layer), kColumns);
    }

    void transpose(const uint8_t* x, int64_t first, int64_t first_bit, int64_t channels, Streams& streams,
                   int64_t part) const {
        Blocks blocks[kColumns] = {};  // at first, lane b of row i: the channels of pixel 32 b + i
        uint32_t* words = reinterpret_cast<uint32_t*>(blocks);
        for (int64_t i = maximum(-first, 0); i < minimum(kDepth, pixels_ - first); ++i) {
            words[i % kColumns * kBlocks + i / kColumns] =
                load_bits(x, (first + i) * layer_.window.channels + first_bit, channels);
        }
        transpose_bits(blocks);
        for (int64_t c = 0; c < channels; ++c) std::memcpy(streams[c] + part, blocks + c, sizeof blocks[c]);
    }

    const Layer& layer_;
    int64_t pixels_, before_;
};

}  // namespace
