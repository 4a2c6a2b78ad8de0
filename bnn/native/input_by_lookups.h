// The gradient of a convolution's input by lookups in registers (lookups.h): tables are made of each pixel of the output's
// gradient, and the bits of the weights choose from them.
#pragma once

#include "lookups.h"
#include "words.h"

namespace {

constexpr int64_t kPanelsBytes = 1 << 20;   // of indices at a time
constexpr int64_t kTablesBytes = 512 << 10;  // of a thread
constexpr int64_t kStorePixels = 128;       // whose sums are stored at a time

// The indices of the weights that lead back from (tap, output) to the channels of one panel, `steps` tables a tap.
inline void gather_indices(const Layer& layer, const Taps& taps, const uint8_t* weight, int64_t index, int64_t steps,
                           uint32_t* words, uint8_t* indices) {
    const int64_t group = index / layer.channel_panels, channel_panel = index % layer.channel_panels;
    const int64_t blocks = divide_up(taps.count() * steps, 2);
    gather_weights(layer, taps, weight, group, channel_panel, steps * kTableDepth, blocks, words, kColumns);
    for (int64_t block = 0; block < blocks; ++block) {
        for (int64_t half = 0; half < 2; ++half) {
            store_indices(words + block * kColumns + 16 * half, indices + 2 * block * kPanelStep + half * kIndexBytes,
                          kPanelStep);
        }
    }
}

// tables[pixel][steps] of the gradients of some of a group's pixels, and the sum of each pixel's magnitudes.
template <bool wide>
[[gnu::noinline]] void make_pixel_tables(const int8_t* pixel, int64_t pixel_step, int64_t pixels, int64_t outputs,
                                         int64_t pixel_bytes, uint8_t* tables, int32_t* magnitudes) {
    uint8_t last[2 * kTableStep<wide>];
    for (int64_t i = 0; i < pixels; ++i, pixel += pixel_step, tables += pixel_bytes) {
        uint8_t* to = tables;
        __m256i sums = _mm256_setzero_si256();
        int64_t output = 0;
        for (; output + 16 < outputs; output += 32, to += 2 * kTableStep<wide>) {
            const __mmask32 there = outputs - output >= 32 ? ~0u : (1u << (outputs - output)) - 1;
            const __m256i bytes = _mm256_maskz_loadu_epi8(there, pixel + output);
            sums = _mm256_add_epi64(sums, store_tables<wide>(bytes, to));
        }
        if (output < outputs) {
            const __m256i bytes = _mm256_maskz_loadu_epi8((1u << (outputs - output)) - 1, pixel + output);
            sums = _mm256_add_epi64(sums, store_tables<wide>(bytes, last));
            std::memcpy(to, last, kTableStep<wide>);
        }
        magnitudes[i] = added_up(sums);
    }
}

// Where the pixels of a block are led to: of_tiles[tile][tap][kTileTables], where the tables begin; and the far pixels, which
// lie side by side, in runs.
struct Leads {
    struct Run {
        int32_t near, far, pixels;  // from the block's first ones on
    };
    const uint8_t** of_tiles;
    Run* runs;
    int64_t count, pixels;  // of runs, and of the block
};

inline void find_leads(const Taps& taps, int64_t first, int64_t count, const uint8_t* tables, int64_t far,
                       int64_t pixel_bytes, const uint8_t* zeros, Leads& leads) {
    typedef uint64_t Addresses __attribute__((vector_size(kTileTables * sizeof(uint64_t))));
    const Addresses places = {0, 1, 2, 3, 4, 5, 6, 7};
    const int64_t tile_step = taps.count() * kTileTables;
    leads.count = 0;
    leads.pixels = count;
    for (int64_t tap = 0; tap < taps.count(); ++tap) {
        const uint8_t** of_tap = leads.of_tiles + tap * kTileTables;
        int64_t pixel = 0;
        const auto fill = [&](const uint8_t* from, int64_t step, int64_t end) {
            while (pixel < end) {
                const uint8_t** to = of_tap + pixel / kTileTables * tile_step + pixel % kTileTables;
                if (pixel % kTileTables == 0 && end - pixel >= kTileTables) {
                    const Addresses all = reinterpret_cast<uint64_t>(from) + places * static_cast<uint64_t>(step);
                    std::memcpy(to, &all, sizeof all);
                    pixel += kTileTables;
                    from += kTileTables * step;
                } else {
                    *to = from;
                    ++pixel;
                    from += step;
                }
            }
        };
        taps.for_stretches(tap, first, count, [&](int64_t offset, int64_t, int64_t pixels) {
            const bool there = offset != kNowhere;
            if (there) {
                leads.runs[leads.count++] = {static_cast<int32_t>(pixel), static_cast<int32_t>(offset - far),
                                             static_cast<int32_t>(pixels)};
            }
            fill(there ? tables + (offset - far) * pixel_bytes : zeros, there ? pixel_bytes : 0, pixel + pixels);
        });
        fill(zeros, 0, round_up(count, kTileTables));
    }
}

// What the sums of a block's pixels begin at: below 0, the magnitudes of the tables that they are led to.
inline void find_starts(const Leads& leads, const int32_t* magnitudes, int32_t* starts) {
    std::memset(starts, 0, leads.pixels * sizeof *starts);
    for (int64_t i = 0; i < leads.count; ++i) {
        const Leads::Run run = leads.runs[i];
        int32_t* to = starts + run.near;
        const int32_t* from = magnitudes + run.far;
        for (int64_t k = 0; k < run.pixels; ++k) to[k] -= from[k];
    }
}

// The blocks of near pixels that tasks own, and the far pixels that each is led to: whole images, or rows of one.
class PixelBlocks {
   public:
    PixelBlocks(const Taps& taps, const Layer& layer, int64_t pixel_bytes, int threads)
        : taps_(taps), layer_(layer), far_width_(layer.window.out_size[1]) {
        const int64_t fit = maximum(kTablesBytes / maximum(pixel_bytes, 1), 1);
        images_ = maximum(minimum(fit / layer.out_pixels, kMostPixels / maximum(taps.image_pixels(), 1)), 1);
        images_ = minimum(images_, maximum(divide_up(layer.window.images, threads), 1));
        rows_ = maximum(taps.rows(), 1);
        while (rows_ > 1 && most_far() > fit) rows_ = divide_up(rows_, 2);
        of_image_ = divide_up(taps.rows(), rows_);
    }

    int64_t count() const { return divide_up(layer_.window.images, images_) * of_image_; }
    bool are_alike() const { return of_image_ == 1; }  // but for the last one's size: whole images
    int64_t most_rows() const { return images_ * rows_; }
    int64_t most_pixels() const { return most_rows() * taps_.row_pixels(); }
    int64_t most_far() const {
        if (images_ > 1) return images_ * layer_.out_pixels;
        int64_t most = 0, begin, end;
        for (int64_t row = 0; row < taps_.rows(); row += rows_) {
            taps_.far_rows(row, minimum(rows_, taps_.rows() - row), begin, end);
            most = maximum(most, (end - begin) * far_width_);
        }
        return most;
    }

    struct Pixels {
        int64_t first, count, far, far_count;
    };
    Pixels operator[](int64_t index) const {
        const int64_t image = index / of_image_ * images_, images = minimum(images_, layer_.window.images - image);
        const int64_t row = index % of_image_ * rows_, rows = minimum(rows_, taps_.rows() - row);
        int64_t begin = 0, end = layer_.window.out_size[0];
        if (images_ == 1) taps_.far_rows(row, rows, begin, end);
        return {image * taps_.image_pixels() + row * taps_.row_pixels(), images * rows * taps_.row_pixels(),
                image * layer_.out_pixels + begin * far_width_,
                (images - 1) * layer_.out_pixels + (end - begin) * far_width_};
    }

   private:
    static constexpr int64_t kMostPixels = 1024;  // of several images

    const Taps& taps_;
    const Layer& layer_;
    int64_t far_width_, images_, rows_, of_image_;
};

// The gradient of the pixels that `taps` begin at.
template <bool wide, class Result>
void backward_input_by(const Taps& taps, const int8_t* grad, const uint8_t* weight, const Layer& layer,
                       const Result& result, int threads) {
    const int64_t steps = divide_up(layer.group_outputs, kTableDepth), pixel_bytes = steps * kTableStep<wide>;
    const int64_t blocks = divide_up(taps.count() * steps, 2), panel_bytes = 2 * blocks * kPanelStep;
    const int64_t panels = layer.groups * layer.channel_panels;
    const int64_t step = minimum(panels, maximum(1, kPanelsBytes / maximum(panel_bytes, 1)));
    const PixelBlocks pixel_blocks(taps, layer, pixel_bytes, threads);
    const int64_t most_tiles = divide_up(pixel_blocks.most_pixels(), kTileTables);
    const int64_t tile_step = taps.count() * kTileTables;

    constexpr auto kAny = Contents::kAny;
    const Buffer zeros(1, pixel_bytes), known(threads, sizeof(Leads)),
        panel_words(threads, blocks * kColumns * sizeof(uint32_t), kAny), prepared(step, panel_bytes, kAny),
        all_tables(threads, pixel_blocks.most_far() * pixel_bytes, kAny),
        all_magnitudes(threads, pixel_blocks.most_far() * sizeof(int32_t), kAny),
        all_starts(threads, pixel_blocks.most_pixels() * sizeof(int32_t), kAny),
        all_tiles(threads, most_tiles * tile_step * sizeof(uint8_t*), kAny),
        all_runs(threads, pixel_blocks.most_rows() * taps.count() * sizeof(Leads::Run), kAny);
    for (int64_t first_panel = 0; first_panel < panels; first_panel += step) {
        const int64_t end_panel = minimum(first_panel + step, panels);
        parallel_for(end_panel - first_panel, threads, [&](int64_t i, int thread) {
            gather_indices(layer, taps, weight, first_panel + i, steps, panel_words.part<uint32_t>(thread),
                           prepared.part<uint8_t>(i));
        });
        parallel_for(pixel_blocks.count(), threads, [&](int64_t index, int thread) {
            const auto pixels = pixel_blocks[index];
            uint8_t* tables = all_tables.part<uint8_t>(thread);
            int32_t *magnitudes = all_magnitudes.part<int32_t>(thread), *starts = all_starts.part<int32_t>(thread);
            Leads& leads = *known.part<Leads>(thread);  // of the block before, as which this one may be
            if (leads.pixels != pixels.count || !pixel_blocks.are_alike()) {
                leads.of_tiles = all_tiles.part<const uint8_t*>(thread);
                leads.runs = all_runs.part<Leads::Run>(thread);
                find_leads(taps, pixels.first, pixels.count, tables, pixels.far, pixel_bytes, zeros.part<uint8_t>(0),
                           leads);
            }
            alignas(64) int32_t sums[kStorePixels * kColumns];
            for (int64_t panel = first_panel, tables_of = -1; panel < end_panel; ++panel) {
                const int64_t group = panel / layer.channel_panels, channel_panel = panel % layer.channel_panels;
                if (group != tables_of) {
                    make_pixel_tables<wide>(grad + pixels.far * layer.outputs + group * layer.group_outputs,
                                            layer.outputs, pixels.far_count, layer.group_outputs, pixel_bytes, tables,
                                            magnitudes);
                    find_starts(leads, magnitudes, starts);
                }
                tables_of = group;
                const int64_t channels = layer.panel_channels(channel_panel);
                const auto add = channels > 16 ? add_lookups<wide, 2> : add_lookups<wide, 1>;
                for (int64_t done = 0; done < pixels.count; done += kStorePixels) {
                    const int64_t count = minimum(kStorePixels, pixels.count - done);
                    for (int64_t i = 0; i < count; ++i) {
                        const Vector start = _mm512_set1_epi32(starts[done + i]);
                        _mm512_store_si512(sums + i * kColumns, start);
                        if (channels > 16) _mm512_store_si512(sums + i * kColumns + 16, start);
                    }
                    for (int64_t i = 0; i < count; i += kTileTables) {
                        add(leads.of_tiles + (done + i) / kTileTables * tile_step, 0, taps.count(), steps,
                            prepared.part<uint8_t>(panel - first_panel), sums + i * kColumns);
                    }
                    result.store(taps, pixels.first + done, count,
                                 group * layer.group_channels + channel_panel * kColumns, channels, sums);
                }
            }
        });
    }
}

template <class Result>
void backward_input_of(const Taps& taps, const int8_t* grad, const uint8_t* weight, const Layer& layer,
                       const Result& result, int threads) {
    const auto backward = is_within(grad, layer, kOneTable, threads) ? backward_input_by<false, Result>
                                                                     : backward_input_by<true, Result>;
    backward(taps, grad, weight, layer, result, threads);
}

}  // namespace
