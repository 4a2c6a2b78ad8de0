// Gradients of products by tables of the gradient's sums: see tables.h. Its bytes are the rows of the tables, the bits of
// weights or inputs choose from them.
#pragma once

#include "byte_tables.h"
#include "weight_tasks.h"
#include "words.h"

namespace {

constexpr int64_t kMostPanels = 40;       // of a task, whose sums stay in its cache
constexpr int64_t kWordsBytes = 1 << 20;  // of the weights' bits in columns

// How many of `count` columns are formed at a time: few more than there are.
inline int64_t table_columns(int64_t count) { return count > 48 ? 64 : count > 16 ? 32 : 16; }

// What a thread works in, for up to `rows` sums of `columns` columns.
struct TableScratch {
    TableScratch(int threads, int64_t rows, int64_t columns)
        : rows(rows),
          parts(divide_up(columns, kPartColumns)),
          tables(threads, kQuads * 16 * kTableColumns * sizeof(int16_t)),
          shorts(threads, rows * kTableColumns * sizeof(int16_t)),
          sums(threads, parts * part_step() * sizeof(int32_t)) {}

    // From the sums of 32 columns to those of the next; some are read beyond the last row.
    int64_t part_step() const { return (rows + kColumns) * kPartColumns; }

    template <class Chosen>
    Chosen begin(int thread, int64_t count, int64_t first_column) const {
        int32_t* of_columns = sums.part<int32_t>(thread) + first_column / kPartColumns * part_step();
        return {tables.part<int16_t>(thread), shorts.part<int16_t>(thread), count,
                of_columns + first_column % kPartColumns, part_step()};
    }

    int64_t rows, parts;  // the sums of kPartColumns lie together
    Buffer tables, shorts, sums;
};

// The gradients that reach each of `count` input pixels, of the (tap, output) rows from `row` on: to[pixel][kTableRows].
inline void gather_gradients(const Layer& layer, const Taps& taps, const int8_t* grad, int64_t group, int64_t row,
                             int64_t rows, int64_t first, int64_t count, int8_t* to) {
    for (int64_t at = 0; at < rows;) {
        const int64_t output = (row + at) % layer.group_outputs;
        const int64_t bytes = minimum(rows - at, layer.group_outputs - output);
        int8_t* pixel = to + at;
        taps.for_stretches((row + at) / layer.group_outputs, first, count,
                           [&](int64_t offset, int64_t distance, int64_t pixels) {
                               if (offset == kNowhere) {
                                   for (int64_t i = 0; i < pixels; ++i) std::memset(pixel + i * kTableRows, 0, bytes);
                               } else {
                                   const int8_t* from =
                                       grad + offset * layer.outputs + group * layer.group_outputs + output;
                                   copy_strided(pixel, kTableRows, from, distance * layer.outputs, pixels, bytes);
                               }
                               pixel += pixels * kTableRows;
                           });
        at += bytes;
    }
}

// Where the gradients begin that reach each of `count` input pixels by a tap; null where there are none.
inline void find_gradients(const Layer& layer, const Taps& taps, const int8_t* grad, int64_t group, int64_t tap,
                           int64_t first, int64_t count, const int8_t** pixels) {
    taps.for_stretches(tap, first, count, [&](int64_t offset, int64_t distance, int64_t run) {
        const int8_t* from = offset == kNowhere ? nullptr : grad + offset * layer.outputs + group * layer.group_outputs;
        for (int64_t i = 0; i < run; ++i) pixels[i] = from ? from + i * distance * layer.outputs : nullptr;
        pixels += run;
    });
}

// of_pixels[pixel][kColumns] of sums[channel][step]; up to 7 more of each are read and written.
inline void transpose_sums(const int32_t* sums, int64_t step, int64_t channels, int64_t pixels, int32_t* of_pixels) {
    for (int64_t pixel = 0; pixel < pixels; pixel += 8) {
        for (int64_t c = 0; c < channels; c += 8) {
            Mask block[8];
#pragma GCC unroll 4
            for (int i = 0; i < 8; ++i) block[i] = load_mask(sums + (c + i) * step + pixel);
            transpose_words(block);
#pragma GCC unroll 4
            for (int i = 0; i < 8; ++i) store_any(of_pixels + (pixel + i) * kColumns + c, block[i]);
        }
    }
}

// The gradient of some pixels' channels in one task.
template <template <int> class Chosen, int columns, class Result>
void backward_input_block(const Taps& taps, const int8_t* grad, const Layer& layer, const Result& result, int64_t group,
                          int64_t first_panel, int64_t end_panel, int64_t first, int64_t count, const uint32_t* words,
                          const TableScratch& scratch, int thread) {
    const int64_t depth = taps.count() * layer.group_outputs, first_channel = first_panel * kColumns;
    const int64_t channels = minimum(end_panel * kColumns, layer.group_channels) - first_channel;
    int32_t* sums = scratch.sums.part<int32_t>(thread);
    for (int64_t part = 0; part < columns; part += kPartColumns) {
        std::memset(sums + part / kPartColumns * scratch.part_step(), 0, channels * kPartColumns * sizeof(int32_t));
    }
    Chosen<columns> chosen = scratch.begin<Chosen<columns>>(thread, channels, 0);
    alignas(64) int8_t pixels[(columns + 1) * kTableRows] = {}, rows[kTableRows * columns];
    const int8_t *zeros = pixels + columns * kTableRows, *of_tap[columns] = {}, *from[columns];
    for (int64_t i = 0; i < columns; ++i) from[i] = pixels + i * kTableRows;
    const bool is_of_tap = layer.group_outputs % kTableRows == 0;  // each block of rows
    for (int64_t row = 0; row < depth; row += kTableRows, words += channels) {
        const int64_t some = minimum(kTableRows, depth - row), output = row % layer.group_outputs;
        if (is_of_tap) {
            if (output == 0) find_gradients(layer, taps, grad, group, row / layer.group_outputs, first, count, of_tap);
            for (int64_t i = 0; i < columns; ++i) from[i] = of_tap[i] ? of_tap[i] + output : zeros;
        } else {
            if (some < kTableRows) std::memset(pixels, 0, columns * kTableRows);
            gather_gradients(layer, taps, grad, group, row, some, first, count, pixels);
        }
        transpose_bytes<columns>(from, rows);
        chosen.add(rows, columns, divide_up(some, 4), words);
    }
    chosen.flush();
    alignas(64) int32_t of_pixels[columns * kColumns];
    for (int64_t panel = first_panel; panel < end_panel; ++panel) {
        const int32_t* of_panel = sums + (panel - first_panel) * kColumns * kPartColumns;
        const int64_t panel_channels = layer.panel_channels(panel);
        for (int64_t part = 0; part < count; part += kPartColumns) {
            transpose_sums(of_panel + part / kPartColumns * scratch.part_step(), kPartColumns, panel_channels,
                           minimum(kPartColumns, count - part), of_pixels + part * kColumns);
        }
        result.store(taps, first, count, group * layer.group_channels + panel * kColumns, panel_channels, of_pixels);
    }
}

// The gradient of the pixels that `taps` begin at.
template <template <int> class Chosen, class Result>
void backward_input_by(const Taps& taps, const int8_t* grad, const uint8_t* weight, const Layer& layer,
                       const Result& result, int threads) {
    const int64_t pixels = taps.pixels(), pixel_blocks = divide_up(pixels, kTableColumns);
    const int64_t row_blocks = divide_up(taps.count() * layer.group_outputs, kTableRows);
    const int64_t most = maximum(1, minimum(kMostPanels, kWordsBytes / maximum(row_blocks * kTableRows * 4, 1)));
    const int64_t enough = pixel_blocks < threads ? threads : 1;
    const int64_t group_parts = minimum(layer.channel_panels, maximum(divide_up(layer.channel_panels, most), enough));
    const int64_t part_panels = divide_up(layer.channel_panels, group_parts);
    const int64_t parts = layer.groups * group_parts;
    const int64_t part_words = row_blocks * minimum(part_panels * kColumns, layer.group_channels);
    const int64_t step = minimum(parts, maximum(1, kWordsBytes / maximum(part_words * 4, 1)));
    const Buffer prepared(step, part_words * sizeof(uint32_t));
    const TableScratch scratch(threads, minimum(part_panels * kColumns, layer.group_channels), kTableColumns);
    for (int64_t first_part = 0; first_part < parts; first_part += step) {
        const int64_t some_parts = minimum(step, parts - first_part);
        const auto panels_of = [&](int64_t part, int64_t& first, int64_t& end) {
            first = minimum(part % group_parts * part_panels, layer.channel_panels);
            end = minimum(first + part_panels, layer.channel_panels);
        };
        parallel_for(some_parts * part_panels, threads, [&](int64_t index, int) {
            int64_t first_panel, end_panel;
            panels_of(first_part + index / part_panels, first_panel, end_panel);
            const int64_t panel = first_panel + index % part_panels;
            if (panel >= end_panel) return;
            const int64_t channels = minimum(end_panel * kColumns, layer.group_channels) - first_panel * kColumns;
            gather_weights(layer, taps, weight, (first_part + index / part_panels) / group_parts, panel,
                           layer.group_outputs, row_blocks,
                           prepared.part<uint32_t>(index / part_panels) + index % part_panels * kColumns, channels);
        });
        parallel_for(pixel_blocks * some_parts, threads, [&](int64_t index, int thread) {
            const int64_t part = first_part + index % some_parts, block_end =
                minimum((index / some_parts + 1) * kTableColumns, pixels);
            const uint32_t* words = prepared.part<uint32_t>(index % some_parts);
            int64_t first_panel, end_panel;
            panels_of(part, first_panel, end_panel);
            for (int64_t first = index / some_parts * kTableColumns; first < block_end && first_panel < end_panel;) {
                const int64_t columns = table_columns(block_end - first), count = minimum(columns, block_end - first);
                const auto backward = columns == 64   ? backward_input_block<Chosen, 64, Result>
                                      : columns == 32 ? backward_input_block<Chosen, 32, Result>
                                                      : backward_input_block<Chosen, 16, Result>;
                backward(taps, grad, layer, result, part / group_parts, first_panel, end_panel, first, count, words,
                         scratch, thread);
                first += count;
            }
        });
    }
}

template <class Result>
void backward_input_of(const Taps& taps, const int8_t* grad, const uint8_t* weight, const Layer& layer,
                       const Result& result, int threads) {
    const auto backward = is_within(grad, layer, kSmallByte, threads) ? backward_input_by<ChosenByteSums, Result>
                                                         : backward_input_by<ChosenSums, Result>;
    backward(taps, grad, weight, layer, result, threads);
}

// Adds to the sums of `count` words, of the outputs from `first_column` of a task on, those of a chunk of pixels.
template <template <int> class Chosen, int columns>
void add_chunk(const int8_t* grad, int64_t pixel_step, int64_t pixels, int64_t outputs, int64_t first_column,
               const uint32_t* words, int64_t count, const TableScratch& scratch, int thread) {
    Chosen<columns> chosen = scratch.begin<Chosen<columns>>(thread, count, first_column);
    alignas(64) int8_t rows[kTableRows * columns] = {};
    for (int64_t first = 0; first < pixels; first += kTableRows, words += count) {
        const int64_t some = minimum(kTableRows, pixels - first);
        const int8_t* from = grad + first * pixel_step;
        if (some == kTableRows && outputs == columns) {
            chosen.add(from, pixel_step, kQuads, words);
            continue;
        }
        copy_strided(rows, columns, from, pixel_step, some, outputs);
        if (some < kTableRows) std::memset(rows + some * columns, 0, (kTableRows - some) * columns);
        chosen.add(rows, columns, divide_up(some, 4), words);
    }
    chosen.flush();
}

// The sums of tasks of weight_tasks.h: those of kPartColumns outputs lie together. A pixel that a tap does not lead to counts
// as if its bit were clear: the sum of what there is, less the sum of all, is twice the excess. These two are rows behind those
// of the elements.
template <template <int> class Chosen>
class TableSums {
   public:
    static constexpr int64_t kMostOutputs = 4 * kTableColumns;  // for which words of the input are gathered once
    static int64_t most_panels(int64_t outputs) {
        return kMostPanels * kTableColumns / round_up(outputs, kTableColumns);
    }

    TableSums(const int8_t* grad, const uint8_t* x, const Layer& layer, int rooms, int64_t panels, int64_t outputs,
              int threads)
        : grad_(grad),
          x_(x),
          layer_(layer),
          taps_(layer.window, layer.window.channels, image_bytes(layer.window) * 8),
          present_(taps_, layer, threads),
          shifted_(layer),
          shifts_(ShiftedChannels::serve(layer)),
          most_rows_(panels * minimum(kColumns, layer.group_channels) + layer.taps + 1),
          words_(rooms, kBlocks * most_rows_ * sizeof(uint32_t)),
          channels_(rooms, shifts_ ? ShiftedChannels::bytes() : 0),
          scratch_(rooms, most_rows_, round_up(outputs, kTableColumns)) {}

    void clear(int room) const { std::memset(sums(room), 0, count() * sizeof(int32_t)); }

    void add(int room, const WeightTask& task, int64_t first, int64_t pixels) const {
        uint32_t* words = words_.part<uint32_t>(room);
        uint8_t* channels = channels_.part<uint8_t>(room);
        const int64_t blocks = divide_up(pixels, kWordRows), elements = elements_of(task), rows = elements + layer_.taps + 1;
        for (int64_t panel = task.first_panel; panel < task.end_panel; ++panel) {
            const int64_t channel_panel = panel / layer_.taps, tap = panel % layer_.taps;
            const Blocks present = present_(first, tap);
            Blocks channel_words[kColumns];
            if (shifts_) {
                if (tap == 0 || panel == task.first_panel) shifted_.load(x_, first, task.group, channel_panel, channels);
                shifted_.read(channels, channel_panel, tap, present, channel_words);
            } else {
                uint64_t present_words[kChunkWords];
                gather_channels(x_, taps_, tap, first, pixels,
                                task.group * layer_.group_channels + channel_panel * kColumns,
                                layer_.panel_channels(channel_panel), channel_words, present_words);
                for (Blocks& words_of_channel : channel_words) words_of_channel &= present;
            }
            store_columns(channel_words, layer_.panel_channels(channel_panel), blocks, words + row_of(task, panel), rows);
        }
        for (int64_t block = 0; block < blocks; ++block) {
            uint32_t* of_taps = words + block * rows + elements;
            for (int64_t tap = 0; tap < layer_.taps; ++tap) of_taps[tap] = present_(first, tap)[block];
            of_taps[layer_.taps] = ~uint32_t{0};
        }
        const int8_t* grad = grad_ + first * layer_.outputs + task.group * layer_.group_outputs + task.output;
        for (int64_t column = 0; column < task.outputs;) {
            const int64_t columns = table_columns(task.outputs - column);
            const int64_t there = minimum(columns, task.outputs - column);
            const auto add = columns == 64   ? add_chunk<Chosen, 64>
                             : columns == 32 ? add_chunk<Chosen, 32>
                                             : add_chunk<Chosen, 16>;
            add(grad + column, layer_.outputs, pixels, there, column, words, rows, scratch_, room);
            column += there;
        }
    }

    const int32_t* read(int room, const WeightTask& task, int64_t column, int64_t panel, int32_t*, int32_t* excess) const {
        const int32_t* of_outputs = sums(room) + column / kColumns * scratch_.part_step();
        const int32_t* of_taps = of_outputs + elements_of(task) * kColumns;
        const int32_t *there = of_taps + panel % layer_.taps * kColumns, *all = of_taps + layer_.taps * kColumns;
        for (int64_t i = 0; i < kColumns; ++i) excess[i] = (there[i] - all[i]) / 2;
        return of_outputs + row_of(task, panel) * kColumns;
    }

    void merge(int room, int other) const {
        int32_t* to = sums(room);
        const int32_t* more = sums(other);
        for (int64_t i = 0; i < count(); ++i) to[i] += more[i];
    }

   private:
    int64_t elements_before(int64_t panel) const {
        const int64_t channel_panel = panel / layer_.taps;
        if (channel_panel == layer_.channel_panels) return layer_.row_elements();
        return channel_panel * kColumns * layer_.taps + panel % layer_.taps * layer_.panel_channels(channel_panel);
    }
    int64_t row_of(const WeightTask& task, int64_t panel) const {
        return elements_before(panel) - elements_before(task.first_panel);
    }
    int64_t elements_of(const WeightTask& task) const { return row_of(task, task.end_panel); }

    int32_t* sums(int room) const { return scratch_.sums.part<int32_t>(room); }
    int64_t count() const { return scratch_.parts * scratch_.part_step(); }

    const int8_t* grad_;
    const uint8_t* x_;
    const Layer& layer_;
    Taps taps_;
    PresentBits present_;
    ShiftedChannels shifted_;
    bool shifts_;
    int64_t most_rows_;
    Buffer words_, channels_;
    TableScratch scratch_;
};

template <class Finish>
void backward_weight(const int8_t* grad, const uint8_t* x, const Layer& layer, int threads, const Finish& finish) {
    const auto backward = is_within(grad, layer, kSmallByte, threads) ? backward_weight_by<TableSums<ChosenByteSums>, Finish>
                                                                      : backward_weight_by<TableSums<ChosenSums>, Finish>;
    backward(grad, x, layer, threads, finish);
}

}  // namespace
