"""A program as C99: one header and one source, without malloc, whose memory is static."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bnn.export.c_text import float_text, kernels_of, string_text, words_of, wrapped
from bnn.export.memory import WORD_BITS, array_sizes, placed
from bnn.export.program import (
    Add,
    AddValue,
    AveragePool,
    Blur,
    Clamp,
    Div,
    Elementwise,
    HalfTurn,
    Map,
    MaxPool,
    Mul,
    MulAdd,
    Normalize,
    Pad,
    PReLU,
    Product,
    Program,
    Rounded,
    Signs,
    Step,
    Thresholds,
    Value,
    Window,
)

_ARRAYS = {"bits": ("words", "uint32_t", 4), "float32": ("reals", "float", 4), "bfloat16": ("halves", "uint16_t", 2)}
_ONE = Window((1, 1))
_BLUR = Window((3, 3), (2, 2), (1, 1))


@dataclass(frozen=True)
class Source:
    """What `c_source` gives."""

    header: str
    source: str
    ram_bytes: int
    """Of the arrays that are written; the stack comes to it."""
    constant_bytes: int
    """Of the arrays that are only read; the code comes to it."""


def c_source(program: Program, *, name: str = "network") -> Source:
    """A program as C99.

    Args:
        program: its values are laid out as in the arrays of the source.
        name: of the files, and what the public names begin with; a C identifier in lower case.
    """
    return _Writer(program, name).written()


class _Writer:
    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name
        self.places = placed(program)
        self.constants: list[str] = []
        self.constant_bytes = 0
        self.code: list[str] = []
        self.calls: list[str] = []
        self.threshold_type = "int16_t" if _are_short(program.steps) else "int32_t"

    def written(self) -> Source:
        for number, step in enumerate(self.program.steps):
            self._step(number, step)
        arrays, ram_bytes = self._arrays()
        code = "\n".join((*self.code, self._public()))
        body = "\n".join((*arrays, *self.constants))
        kernels = kernels_of(code)
        types = [f"typedef {self.threshold_type} threshold;"] if "threshold *" in kernels else []
        types += ["typedef float (*real_reader)(int);", "typedef void (*real_writer)(int, float);"] * (
            "real_reader" in kernels
        )
        includes = [f'#include "{self.name}.h"', "", "#include <stddef.h>"]
        includes += [f"#include <{header}.h>" for header, words in _HEADERS.items() if re.search(words, kernels + code)]
        includes += ["", "/* An int has to hold 32 bits. */", "typedef char int_is_wide[sizeof(int) >= 4 ? 1 : -1];"]
        source = "\n".join((*includes, "", *types, body, kernels, code, ""))
        return Source(self._header(), source, ram_bytes, self.constant_bytes)

    def _arrays(self) -> tuple[list[str], int]:
        lines, total = [f"static const {self._input_type} *input;"], 4
        for kind, size in sorted(array_sizes(self.program).items()):
            array, of, width = _ARRAYS[kind]
            lines.append(f"static {of} {array}[{size}];")
            total += size * width
        products = [step for step in self.program.steps if isinstance(step, Product)]
        for array, of, is_whole in (("whole_sums", "int32_t", True), ("real_sums", "float", False)):
            widths = [len(step.weight) for step in products if step.is_binary == is_whole]
            if widths:
                lines.append(f"static {of} {array}[{max(widths)}];")
                total += 4 * max(widths)
        return lines, total

    @property
    def _input_type(self) -> str:
        return "uint8_t" if self.program.input.kind == "uint8" else "float"

    def _place(self, value: Value) -> str:
        """Where a value begins."""
        if value == self.program.input:
            return "input"
        return f"{_ARRAYS[value.kind][0]} + {self.places[value]}"

    def _element(self, value: Value, index: str) -> str:
        """An element of a value of floats, as a float."""
        if value == self.program.input:
            return f"input[{index}]"
        element = f"{_ARRAYS[value.kind][0]}[{self.places[value]} + {index}]"
        return f"from_bfloat16({element})" if value.kind == "bfloat16" else element

    def _stored(self, value: Value, index: str, y: str) -> str:
        """A float becomes an element of a value."""
        array = _ARRAYS[value.kind][0]
        return f"{array}[{self.places[value]} + {index}] = {f'to_bfloat16({y})' if value.kind == 'bfloat16' else y};"

    def _constant(self, name: str, values: Tensor) -> str:
        """Defines an array that is only read; gives its name."""
        kind = {torch.float32: "float", torch.int32: "uint32_t", torch.int64: self.threshold_type}[values.dtype]
        width = 2 if kind == "int16_t" else 4
        flat = values.flatten().tolist()
        self.constant_bytes += width * len(flat)
        if kind == "float":
            texts = [float_text(x) for x in flat]
        elif kind == "uint32_t":
            texts = [f"0x{x & 0xFFFFFFFF:08x}u" for x in flat]
        else:
            texts = [str(x) for x in flat]
        self.constants.append(f"static const {kind} {name}[{len(flat)}] = {{\n{wrapped(texts)}\n}};")
        return name

    def _step(self, number: int, step: Step) -> None:
        match step:
            case Product():
                self._product(number, step)
            case Map():
                self._loop(number, step.x, step.out, self._elementwise(number, step.operations, step.x.channels))
            case Normalize():
                scale, shift = Mul(step.scale), Add(step.shift)
                self._loop(number, step.x, step.out, self._elementwise(number, (scale, shift), step.x.channels))
            case Signs():
                self._signs(number, step)
            case MaxPool() | AveragePool() | Blur():
                self._pool(number, step)
            case Pad():
                self._pad(number, step)
            case HalfTurn():
                from_place = f"{step.x.size} - {step.x.channels} - pixel * {step.x.channels} + c"
                self._gathered(number, step, [f"const float y = {self._element(step.x, f'({from_place})')};"])

    def _product(self, number: int, step: Product) -> None:
        weight = self._constant(f"weight_{number}", _weight(step))
        if step.is_binary:
            kernel = "sum_bits"
        elif step.weight.dtype is torch.bool:
            kernel = "sum_reals_of_bits"
        else:
            kernel = "sum_fused" if step.fuses else "sum_row" if step.x.pixels == 1 else "sum_reals"
        sums = "whole_sums" if step.is_binary else "real_sums"
        out, channels = step.out, len(step.weight)
        if isinstance(step.tail, Thresholds):
            least = self._constant(f"least_{number}", step.tail.least)
            inverted = "0"
            if step.tail.inverted.any():
                inverted = self._constant(f"inverted_{number}", words_of(step.tail.inverted[None])[0])
            take = "take_whole_signs" if step.is_binary else "take_real_signs"
            words = -(-channels // WORD_BITS)
            finish = [f"    {take}({least}, {inverted}, {channels}, {self._place(out)} + pixel * {words});"]
        else:
            finish = [
                "    int c;",
                f"    for (c = 0; c < {channels}; ++c) {{",
                f"        const int i = pixel * {channels} + c;",
                f"        float y = {'(float)' if step.is_binary else ''}{sums}[c];",
                *self._elementwise(number, step.tail, channels),
                f"        {self._stored(out, 'i', 'y')}",
                "    }",
            ]
        self.code += [f"static void finish_{number}(int pixel) {{", *finish, "}", ""]
        # Bits of a linear layer behind a single pixel are as good a convolution as any.
        self._layer(number, step.x, step.window, step.pool or _ONE, step.unpooled, out, channels, weight, kernel)
        self.calls.append(f"run_layer(&layer_{number}, {self._place(step.x)});")

    def _layer(
        self,
        number: int,
        x: Value,
        window: Window,
        pool: Window,
        unpooled: tuple[int, int],
        out: Value,
        outputs: int,
        weight: str = "0",
        kernel: str = "0",
    ) -> None:
        pairs = ((x.height, x.width), window.kernel, window.stride, window.padding, window.dilation)
        pairs += (unpooled, pool.kernel, pool.stride, pool.padding, (out.height, out.width))  # type: ignore[assignment]
        fields = ", ".join(f"{{{a}, {b}}}" for a, b in pairs)
        finish = f"finish_{number}" if kernel != "0" else "0"
        values = f"{fields}, {x.channels}, {outputs}, {weight}, {kernel}, {finish}"
        self.code += [f"static const struct layer layer_{number} = {{", f"    {values}", "};", ""]
        self.constant_bytes += 4 * 2 * len(pairs) + 4 * 5

    def _loop(self, number: int, x: Value, out: Value, statements: Sequence[str]) -> None:
        """A function that makes each element of `out` of that of `x`."""
        self.code += [
            f"static void step_{number}(void) {{",
            "    int pixel, c, i = 0;",
            f"    for (pixel = 0; pixel < {x.pixels}; ++pixel) {{",
            f"        for (c = 0; c < {x.channels}; ++c, ++i) {{",
            f"            float y = {self._element(x, 'i')};",
            *(f"    {line}" for line in statements),
            f"            {self._stored(out, 'i', 'y')}",
            "        }",
            "    }",
            "}",
            "",
        ]
        self.calls.append(f"step_{number}();")

    def _elementwise(self, number: int, operations: Iterable[Elementwise], channels: int) -> list[str]:
        """Statements about `y`, the element `i`, of channel `c`. Each is one rounding."""
        lines: list[str] = []
        for place, operation in enumerate(operations):

            def array(values: Tensor, called: str, place: int = place) -> str:
                return f"{self._constant(f'{called}_{number}_{place}', values.expand(channels))}[c]"

            match operation:
                case Mul(factor):
                    lines.append(f"y *= {array(factor, 'factor')};")
                case Add(term):
                    lines.append(f"y += {array(term, 'term')};")
                case Div(divisor):
                    lines.append(f"y /= {array(divisor, 'divisor')};")
                case MulAdd(factor, term):
                    lines.append(f"y = fmaf(y, {array(factor, 'factor')}, {array(term, 'term')});")
                case Clamp(low, high):
                    lines += [f"if (y < {float_text(low)}) y = {float_text(low)};"] * math.isfinite(low)
                    lines += [f"if (y > {float_text(high)}) y = {float_text(high)};"] * math.isfinite(high)
                case PReLU(slope):
                    lines.append(f"if (y < 0) y *= {array(slope, 'slope')};")
                case Rounded(dtype):
                    rounded = "to_float16(y)" if dtype == "float16" else "from_bfloat16(to_bfloat16(y))"
                    lines.append(f"y = {rounded};")
                case AddValue(value):
                    lines.append(f"y += {self._element(value, 'i')};")
        return [f"        {line}" for line in lines]

    def _signs(self, number: int, step: Signs) -> None:
        words = -(-step.x.channels // WORD_BITS)
        self.code += [
            f"static void step_{number}(void) {{",
            "    int pixel, c, i = 0;",
            f"    for (pixel = 0; pixel < {step.x.pixels}; ++pixel) {{",
            f"        uint32_t *out = {self._place(step.out)} + pixel * {words};",
            f"        for (c = 0; c < {words}; ++c) out[c] = 0;",
            f"        for (c = 0; c < {step.x.channels}; ++c, ++i) "
            f"out[c / 32] |= (uint32_t)({self._element(step.x, 'i')} >= 0) << c % 32;",
            "    }",
            "}",
            "",
        ]
        self.calls.append(f"step_{number}();")

    def _pool(self, number: int, step: MaxPool | AveragePool | Blur) -> None:
        x, out = step.x, step.out
        window = _BLUR if isinstance(step, Blur) else step.window
        self._layer(number, x, _ONE, window, (x.height, x.width), out, x.channels)
        if x.kind == "bits":
            self.calls.append(f"pool_bits(&layer_{number}, {self._place(x)}, {self._place(out)});")
            return
        self.code += [
            f"static float read_{number}(int i) {{ return {self._element(x, 'i')}; }}",
            f"static void write_{number}(int i, float y) {{ {self._stored(out, 'i', 'y')} }}",
            "",
        ]
        kernel = "blur_reals" if isinstance(step, Blur) else "pool_reals"
        is_mean = "" if isinstance(step, Blur) else f", {int(isinstance(step, AveragePool))}"
        self.calls.append(f"{kernel}(&layer_{number}, read_{number}, write_{number}{is_mean});")

    def _pad(self, number: int, step: Pad) -> None:
        x, width = step.x, step.out.width
        place = f"(row * {x.width} + column) * {x.channels} + from"
        inside = (
            f"from >= 0 && from < {x.channels} && row >= 0 && row < {x.height} && column >= 0 && column < {x.width}"
        )
        lines = [
            f"const int from = c - {step.before}, row = pixel / {width} - {step.top};",
            f"const int column = pixel % {width} - {step.left};",
            f"const float y = {inside} ? {self._element(x, place)} : 0;",
        ]
        self._gathered(number, step, lines)

    def _gathered(self, number: int, step: Pad | HalfTurn, lines: Sequence[str]) -> None:
        """A function that makes each element of a value, `y`, of any element of another."""
        self.code += [
            f"static void step_{number}(void) {{",
            "    int pixel, c, i = 0;",
            f"    for (pixel = 0; pixel < {step.out.pixels}; ++pixel) {{",
            f"        for (c = 0; c < {step.out.channels}; ++c, ++i) {{",
            *(f"            {line}" for line in lines),
            f"            {self._stored(step.out, 'i', 'y')}",
            "        }",
            "    }",
            "}",
            "",
        ]
        self.calls.append(f"step_{number}();")

    def _public(self) -> str:
        classes, output = self.program.output.channels, self.program.output
        names = [string_text(name) for name in self.program.classes] or [f'"{number}"' for number in range(classes)]
        upper = self.name.upper()
        return "\n".join(
            (
                f"const char *const {self.name}_class_names[{upper}_CLASSES] = {{\n{wrapped(names)}\n}};",
                "",
                f"void {self.name}_run(const {self.name}_element *example, float *logits) {{",
                "    int i;",
                "    input = example;",
                *(f"    {call}" for call in self.calls),
                f"    for (i = 0; i < {upper}_CLASSES; ++i) logits[i] = {self._element(output, 'i')};",
                "}",
                "",
                f"int {self.name}_best(const float *logits) {{",
                "    int i, best = 0;",
                f"    for (i = 1; i < {upper}_CLASSES; ++i) {{",
                "        if (logits[i] > logits[best]) best = i;",
                "    }",
                "    return best;",
                "}",
            )
        )

    def _header(self) -> str:
        upper, x = self.name.upper(), self.program.input
        what = "pixels, 0 to 255" if x.kind == "uint8" else "floats, as the network takes them"
        return f"""#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_HEIGHT {x.height}
#define {upper}_WIDTH {x.width}
#define {upper}_CHANNELS {x.channels}
#define {upper}_CLASSES {self.program.output.channels}

typedef {self._input_type} {self.name}_element;

extern const char *const {self.name}_class_names[{upper}_CLASSES];

/* The logits of one example: {what}, in the order of height, width, channels.
   Its memory is static: one call at a time. Compile it without contraction of products and sums:
   -std=c99 or -ffp-contract=off. */
void {self.name}_run(const {self.name}_element *example, float *logits);

/* The class of the largest logit. */
int {self.name}_best(const float *logits);

#endif
"""


_HEADERS = {"math": r"\b(fmaf|INFINITY)\b", "string": r"\bmemcpy\b"}


def _are_short(steps: Iterable[Step]) -> bool:
    tails = [step.tail for step in steps if isinstance(step, Product) and step.is_binary]
    return all(int(tail.least.abs().max()) < 1 << 15 for tail in tails if isinstance(tail, Thresholds))


def _weight(step: Product) -> Tensor:
    """A weight as it lies in memory: words of each tap for sums of bits, of each output for others, or floats."""
    if step.weight.dtype is not torch.bool:
        return step.weight
    return words_of(step.weight if step.is_binary else step.weight.flatten(1))
