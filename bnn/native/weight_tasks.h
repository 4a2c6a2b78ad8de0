// How the gradient of a weight is shared out: over its outputs and elements, or over pixels, where there are few of these.
#pragma once

#include "shifted_channels.h"

namespace {

// What of the gradient a task has: some outputs of a group, and some of its panels of channels, of each tap one.
struct WeightTask {
    int64_t group, output, outputs, first_panel, end_panel;
};

// Calls finish(first output, outputs, first element, elements, sums[element][output], excess[output]) for parts of the
// weight's gradient, which is sums - excess, of kColumns outputs and elements at most. A task goes through all pixels, a
// chunk at a time, so that its sums stay in its cache; or, where there are fewer tasks than threads, through a slice of the
// pixels.
//
// `Sums` holds the sums of tasks, each in a room of its own: clear(room), add(room, task, first pixel, pixels) of a chunk of
// kDepth pixels at most, merge(room, other) and read(room, task, first output, panel, sums, excess), which returns where the
// sums lie.
template <class Sums, class Finish>
void backward_weight_by(const int8_t* grad, const uint8_t* x, const Layer& layer, int threads, const Finish& finish) {
    const int64_t pixels = layer.window.images * layer.out_pixels, panels = layer.taps * layer.channel_panels;
    const int64_t task_outputs = minimum(layer.group_outputs, Sums::kMostOutputs);
    const int64_t output_blocks = divide_up(layer.group_outputs, task_outputs), blocks = layer.groups * output_blocks;
    const int64_t needed = divide_up(panels, Sums::most_panels(task_outputs));
    const bool is_narrow = blocks * needed < threads;
    const int64_t parts = is_narrow ? needed : minimum(panels, blocks % threads ? round_up(needed, threads) : needed);
    const int64_t chunks = divide_up(pixels, kDepth), slices = is_narrow ? maximum(minimum(threads, chunks), 1) : 1;
    const int64_t tasks = blocks * parts, rooms = is_narrow ? tasks * slices : threads;
    const Sums sums(grad, x, layer, static_cast<int>(rooms), divide_up(panels, parts), task_outputs, threads);

    const auto task_of = [&](int64_t index) {
        const int64_t part = index % parts, output = index / parts % output_blocks * task_outputs;
        return WeightTask{index / parts / output_blocks, output, minimum(task_outputs, layer.group_outputs - output),
                          part * panels / parts, (part + 1) * panels / parts};
    };
    const auto finish_task = [&](const WeightTask& task, int room) {
        for (int64_t column = 0; column < task.outputs; column += kColumns) {
            for (int64_t panel = task.first_panel; panel < task.end_panel; ++panel) {
                const int64_t channel_panel = panel / layer.taps, tap = panel % layer.taps;
                alignas(64) int32_t excess[kColumns], of_elements[kColumns * kColumns];
                const int32_t* of_panel = sums.read(room, task, column, panel, of_elements, excess);
                finish(task.group * layer.group_outputs + task.output + column,
                       minimum(kColumns, task.outputs - column),
                       tap * layer.group_channels + channel_panel * kColumns, layer.panel_channels(channel_panel),
                       of_panel, excess);
            }
        }
    };

    parallel_for(tasks * slices, threads, [&](int64_t index, int thread) {
        const int64_t slice = index % slices;
        const WeightTask task = task_of(index / slices);
        const int room = is_narrow ? static_cast<int>(index) : thread;
        sums.clear(room);
        const int64_t end = minimum((slice + 1) * chunks / slices * kDepth, pixels);
        for (int64_t first = slice * chunks / slices * kDepth; first < end; first += kDepth) {
            sums.add(room, task, first, minimum(kDepth, end - first));
        }
        if (!is_narrow) finish_task(task, room);
    });
    for (int64_t index = 0; is_narrow && index < tasks; ++index) {
        const int room = static_cast<int>(index * slices);
        for (int slice = 1; slice < slices; ++slice) sums.merge(room, room + slice);
        finish_task(task_of(index), room);
    }
}

}  // namespace
