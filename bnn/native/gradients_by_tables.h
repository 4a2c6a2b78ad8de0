// Gradients of products by tables of the gradient's sums: see tables.h. Its bytes are the rows of the tables, the bits of
// weights or inputs choose from them.
#pragma once

#include "gradient.h"
#include "byte_tables.h"
#include "octet.h"
#include "shifted_channels.h"

namespace {

constexpr int64_t kMostPanels = 40;       // of a task, whose sums stay in its cache
constexpr int64_t kTaskOutputs = 4 * kTableColumns;  // at most, for which words of the input are gathered once
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

// Whether all of a layer's gradient is within ±kSmallByte.
inline bool is_small(const int8_t* grad, const Layer& layer, int threads) {
    constexpr int64_t kChunk = 1 << 16;
    const int64_t n = layer.window.images * layer.out_pixels * layer.outputs;
    bool small = true;
    parallel_for(divide_up(n, kChunk), threads, [&](int64_t index, int) {
        const int8_t* from = grad + index * kChunk;
        const int64_t count = minimum(kChunk, n - index * kChunk);
        uint8_t beyond = 0;
        for (int64_t i = 0; i < count; ++i) {
            beyond |= static_cast<uint8_t>(from[i] + kSmallByte) > 2 * kSmallByte;
        }
        if (beyond) {
#pragma omp atomic write
            small = false;
        }
    });
    return small;
}

// words[block * words_step + channel] of `channels` rows of a word of each block.
inline void store_columns(const Blocks (&rows)[kColumns], int64_t channels, int64_t blocks, uint32_t* words,
                          int64_t words_step) {
    const int32_t* from = reinterpret_cast<const int32_t*>(rows);
    for (int64_t c = 0; c < channels; c += 8) {
        for (int64_t block = 0; block < blocks; block += 8) {
            Mask some[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) some[i] = load_mask(from + (c + i) * kBlocks + block);
            transpose_words(some);
            for (int64_t i = 0; i < minimum(8, blocks - block); ++i) {
                uint32_t* to = words + (block + i) * words_step + c;
                if (channels - c >= 8) {
                    std::memcpy(to, some + i, sizeof(Mask));
                } else {
                    std::memcpy(to, some + i, (channels - c) * sizeof(uint32_t));
                }
            }
        }
    }
}

// Bits of the weights that lead back from (tap, output), a row, to the channels of one panel, as words of rows:
// words[block][channel].
inline void gather_weights(const Layer& layer, const Taps& taps, const uint8_t* weight, int64_t group,
                           int64_t channel_panel, int64_t row_blocks, uint32_t* words, int64_t words_step) {
    const int64_t row_bytes = packed_bytes(layer.row_elements()), channels = layer.panel_channels(channel_panel);
    const int64_t depth = taps.count() * layer.group_outputs;
    for (int64_t block = 0; block < row_blocks; block += kBlocks) {
        Blocks blocks[kTableRows] = {};
        uint32_t* bits = reinterpret_cast<uint32_t*>(blocks);  // lane b of row i: row 32 b + i
        for (int64_t i = 0; i < minimum(kBlocks * kTableRows, depth - block * kTableRows); ++i) {
            const int64_t row = block * kTableRows + i, output = row % layer.group_outputs;
            const int64_t first_bit =
                taps.of_kernel(row / layer.group_outputs) * layer.group_channels + channel_panel * kColumns;
            bits[i % kTableRows * kBlocks + i / kTableRows] =
                load_bits(weight + (group * layer.group_outputs + output) * row_bytes, first_bit, channels);
        }
        transpose_bits(blocks);
        store_columns(blocks, channels, minimum(kBlocks, row_blocks - block), words + block * words_step, words_step);
    }
}

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
                                   const int8_t* from = grad + offset + group * layer.group_outputs + output;
                                   copy_strided(pixel, kTableRows, from, distance, pixels, bytes);
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
        const int8_t* from = offset == kNowhere ? nullptr : grad + offset + group * layer.group_outputs;
        for (int64_t i = 0; i < run; ++i) pixels[i] = from ? from + i * distance : nullptr;
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
            gather_weights(layer, taps, weight, (first_part + index / part_panels) / group_parts, panel, row_blocks,
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
    const auto backward = is_small(grad, layer, threads) ? backward_input_by<ChosenByteSums, Result>
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

// Calls finish(first output, outputs, first element, elements, sums[element][output], excess[output]) for parts of the
// weight's gradient, which is sums - excess, of kColumns outputs and elements at most. A task owns some outputs and some
// panels of a group's elements and goes through all pixels, a chunk at a time, so that its sums stay in its cache; or, where
// there are fewer such tasks than threads, through a slice of the pixels. A pixel that a tap does not lead to counts as if
// its bit were clear: the sum of what there is, less the sum of all, is twice the excess.
template <template <int> class Chosen, class Finish>
void backward_weight_by(const int8_t* grad, const uint8_t* x, const Layer& layer, int threads, const Finish& finish) {
    const Window& window = layer.window;
    const Taps taps(window, window.channels, image_bytes(window) * 8);
    const int64_t pixels = window.images * layer.out_pixels, panels = layer.taps * layer.channel_panels;
    const int64_t task_outputs = round_up(minimum(layer.group_outputs, kTaskOutputs), kTableColumns);
    const int64_t output_blocks = divide_up(layer.group_outputs, task_outputs), blocks = layer.groups * output_blocks;
    const int64_t needed = divide_up(panels, kMostPanels * kTableColumns / task_outputs);
    const bool is_narrow = blocks * needed < threads;
    const int64_t parts = is_narrow ? needed : minimum(panels, blocks % threads ? round_up(needed, threads) : needed);
    const int64_t chunks = divide_up(pixels, kDepth), slices = is_narrow ? maximum(minimum(threads, chunks), 1) : 1;
    const int64_t tasks = blocks * parts, rooms = is_narrow ? tasks * slices : threads;
    const int64_t part_panels = divide_up(panels, parts);
    const int64_t most_rows = part_panels * minimum(kColumns, layer.group_channels) + layer.taps + 1;
    const bool shifts = parts == 1 && ShiftedChannels::serve(layer);
    const ShiftedChannels channels_of(layer);
    const Buffer word_parts(rooms, kBlocks * most_rows * sizeof(uint32_t)),
        channel_parts(rooms, shifts ? ShiftedChannels::bytes(layer) : 0);
    const TableScratch scratch(static_cast<int>(rooms), most_rows, task_outputs);

    // What of the gradient a task has.
    struct Task {
        int64_t group, output, outputs, first_panel, end_panel, first_tap, elements, count;
    };
    const auto elements_before = [&](int64_t panel) {
        return panel / layer.channel_panels * layer.group_channels + panel % layer.channel_panels * kColumns;
    };
    const auto task_of = [&](int64_t index) {
        Task task{};
        const int64_t part = index % parts;
        task.group = index / parts / output_blocks;
        task.output = index / parts % output_blocks * task_outputs;
        task.outputs = minimum(task_outputs, layer.group_outputs - task.output);
        task.first_panel = part * panels / parts;
        task.end_panel = (part + 1) * panels / parts;
        task.first_tap = task.first_panel / layer.channel_panels;
        task.elements = elements_before(task.end_panel) - elements_before(task.first_panel);
        task.count = task.elements + divide_up(task.end_panel, layer.channel_panels) - task.first_tap + 1;
        return task;
    };

    const auto add_up = [&](const Task& task, int64_t first_pixel, int64_t end_pixel, int room) {
        uint32_t* words = word_parts.part<uint32_t>(room);
        uint8_t* channels = channel_parts.part<uint8_t>(room);
        std::memset(scratch.sums.part<int32_t>(room), 0, scratch.parts * scratch.part_step() * sizeof(int32_t));
        for (int64_t first = first_pixel; first < end_pixel; first += kDepth) {
            const int64_t some = minimum(kDepth, end_pixel - first), some_blocks = divide_up(some, kTableRows);
            if (shifts) channels_of.load(x, first, task.group, channels);
            for (int64_t panel = task.first_panel; panel < task.end_panel; ++panel) {
                const int64_t tap = panel / layer.channel_panels, channel_panel = panel % layer.channel_panels;
                Blocks channel_words[kColumns], present;
                if (shifts) {
                    present = present_bits(taps, tap, first, some);
                    channels_of.read(channels, channel_panel, tap, present, channel_words);
                } else {
                    uint64_t present_words[kChunkWords];
                    gather_channels(x, taps, tap, first, some,
                                    task.group * layer.group_channels + channel_panel * kColumns,
                                    layer.panel_channels(channel_panel), channel_words, present_words);
                    static_assert(sizeof present_words == sizeof present);
                    std::memcpy(&present, present_words, sizeof present);
                    for (Blocks& words_of_channel : channel_words) words_of_channel &= present;
                }
                store_columns(channel_words, layer.panel_channels(channel_panel), some_blocks,
                              words + elements_before(panel) - elements_before(task.first_panel), task.count);
                for (int64_t block = 0; block < some_blocks; ++block) {
                    words[block * task.count + task.elements + tap - task.first_tap] = present[block];
                    words[block * task.count + task.count - 1] = ~uint32_t{0};
                }
            }
            for (int64_t column = 0; column < task.outputs;) {
                const int64_t columns = table_columns(task.outputs - column);
                const int64_t there = minimum(columns, task.outputs - column);
                const auto add = columns == 64   ? add_chunk<Chosen, 64>
                                 : columns == 32 ? add_chunk<Chosen, 32>
                                                 : add_chunk<Chosen, 16>;
                add(grad + first * layer.outputs + task.group * layer.group_outputs + task.output + column,
                    layer.outputs, some, there, column, words, task.count, scratch, room);
                column += there;
            }
        }
    };

    const auto finish_task = [&](const Task& task, const int32_t* sums) {
        for (int64_t column = 0; column < task.outputs; column += kColumns) {
            const int32_t* of_outputs = sums + column / kColumns * scratch.part_step();
            const int32_t* all = of_outputs + (task.count - 1) * kColumns;
            for (int64_t panel = task.first_panel; panel < task.end_panel; ++panel) {
                const int64_t tap = panel / layer.channel_panels, channel_panel = panel % layer.channel_panels;
                const int32_t* there = of_outputs + (task.elements + tap - task.first_tap) * kColumns;
                alignas(64) int32_t excess[kColumns];
                for (int64_t i = 0; i < kColumns; ++i) excess[i] = (there[i] - all[i]) / 2;
                const int64_t row = elements_before(panel) - elements_before(task.first_panel);
                finish(task.group * layer.group_outputs + task.output + column,
                       minimum(kColumns, task.outputs - column),
                       tap * layer.group_channels + channel_panel * kColumns, layer.panel_channels(channel_panel),
                       of_outputs + row * kColumns, excess);
            }
        }
    };

    parallel_for(tasks * slices, threads, [&](int64_t index, int thread) {
        const int64_t slice = index % slices;
        const Task task = task_of(index / slices);
        const int room = is_narrow ? static_cast<int>(index) : thread;
        add_up(task, slice * chunks / slices * kDepth, minimum((slice + 1) * chunks / slices * kDepth, pixels), room);
        if (!is_narrow) finish_task(task, scratch.sums.part<int32_t>(room));
    });
    for (int64_t index = 0; is_narrow && index < tasks; ++index) {
        int32_t* sums = scratch.sums.part<int32_t>(index * slices);
        for (int64_t slice = 1; slice < slices; ++slice) {
            const int32_t* more = scratch.sums.part<int32_t>(index * slices + slice);
            for (int64_t i = 0; i < scratch.parts * scratch.part_step(); ++i) sums[i] += more[i];
        }
        finish_task(task_of(index), sums);
    }
}

template <class Finish>
void backward_weight(const int8_t* grad, const uint8_t* x, const Layer& layer, int threads, const Finish& finish) {
    const auto backward = is_small(grad, layer, threads) ? backward_weight_by<ChosenByteSums, Finish>
                                                         : backward_weight_by<ChosenSums, Finish>;
    backward(grad, x, layer, threads, finish);
}

}  // namespace
