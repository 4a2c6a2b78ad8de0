"""A chain as C99 that learns: one header and one source, without malloc, whose memory is static."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import Template

from torch import Tensor

from bnn.data.preprocessing import Preprocessing
from bnn.export.c_source import Source
from bnn.export.c_text import float_text, kernels_of, read_template, string_text, wrapped
from bnn.export.chain import Chain, ChainStep, Flattening, Pooling, TrainedBlock
from bnn.export.memory import WORD_BITS

_KERNELS = ("kernels.c", "training_random.c", "training_forward.c", "training_backward.c")
_BYTES = {"int8_t": 1, "uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "int32_t": 4, "int": 4, "float": 4, "double": 8}
_NORM_BYTES = 11 * 4
# Of the generator of random numbers, the step, the decays and the pointer to the examples, with what aligns them.
_STATE_BYTES = 624 * 4 + 4 + 8 + 2 * 8 + 4
_MOST_HALF_TERMS = 2048  # whose sums float16 holds exactly


def c_training(
    chain: Chain,
    *,
    preprocessing: Preprocessing | None,
    classes: Sequence[str],
    batch_size: int,
    name: str = "network",
) -> Source:
    """A chain as C99 that learns.

    Args:
        chain: what is trained.
        preprocessing: how pixels become its input; None where it takes floats.
        classes: their names, or none.
        batch_size: the most examples of a step, at least 2.
        name: of the files, and what the public names begin with.
    """
    return _Writer(chain, preprocessing, classes, batch_size, name).written()


class _Writer:
    def __init__(
        self, chain: Chain, preprocessing: Preprocessing | None, classes: Sequence[str], batch_size: int, name: str
    ) -> None:
        self.chain, self.preprocessing, self.classes = chain, preprocessing, classes
        self.batch_size, self.name = batch_size, name
        self.ram_bytes, self.constant_bytes = _STATE_BYTES, 0

    def written(self) -> Source:
        tables = "\n".join(self._tables())
        code = tables + self._public()
        kernels = kernels_of(code, names=_KERNELS)
        shared = self._shared_arrays(kernels + code)
        source = "\n".join((*self._head(), *shared, *self._input_value(), "", kernels, code))
        return Source(self._header(), source, self.ram_bytes, self.constant_bytes)

    def _array(self, kind: str, name: str, size: int) -> str:
        """An array that is written; its bytes count."""
        self.ram_bytes += -(-size * _BYTES[kind] // 4) * 4
        return f"static {kind} {name}[{size}];"

    def _head(self) -> list[str]:
        chain, pixels = self.chain, self.chain.input_size[0] * self.chain.input_size[1]
        headers = ("math", "stddef", "string")
        numbers = {
            "LEARNING_RATE": chain.learning_rate,
            "HYSTERESIS_STEPS": chain.hysteresis_steps,
            "LIMIT_STEPS": chain.limit_steps,
            "ROW_DECAY": chain.row_decay,
            "ROW_EPS": chain.row_eps,
            "NORM_RATE": chain.norm_rate,
            "ADAM_BETA1": chain.betas[0],
            "ADAM_BETA2": chain.betas[1],
            "ADAM_EPS": chain.eps,
        }
        return [
            f'#include "{self.name}.h"',
            "",
            *(f"#include <{header}.h>" for header in headers),
            "",
            "/* An int has to hold 32 bits. */",
            "typedef char int_is_wide[sizeof(int) >= 4 ? 1 : -1];",
            "",
            f"#define INPUT_PIXELS {pixels}",
            f"#define CLASSES {self._blocks[-1].outputs}",
            *(f"#define {word} {float(value).hex()}" for word, value in numbers.items()),
            "",
        ]

    @property
    def _blocks(self) -> list[TrainedBlock]:
        return self.chain.blocks

    def _shared_arrays(self, code: str) -> list[str]:
        """What is kept between steps, and the arrays of all blocks that the code uses."""
        blocks, batch = self._blocks, self.batch_size
        outputs = max(block.outputs for block in blocks)
        binary = [block for block in blocks if not block.takes_examples]
        even, odd = self._largest()
        sizes = {
            ("float", "products"): outputs,
            ("float", "inputs"): max(block.codes[0].numel() for block in blocks if block.takes_examples),
            ("double", "totals"): 2 * outputs,
            ("float", "terms"): 3 * outputs,
            ("int8_t", "integers"): batch * max(_pixels(block.unpooled) * block.outputs for block in blocks),
            ("uint8_t", "choices"): outputs,
            ("uint16_t", "of_row"): max(block.codes[0].numel() for block in blocks),
            ("int32_t", "sums"): max((block.channels for block in binary), default=1),
            ("uint32_t", "packed"): max((_packed_words(block) for block in binary), default=1),
            ("uint16_t", "gradients_0"): batch * even,
            ("uint16_t", "gradients_1"): batch * odd,
            ("float", "head"): batch * blocks[-1].outputs,
        }
        arrays = [
            self._array(kind, name, size) for (kind, name), size in sizes.items() if re.search(rf"\b{name}\b", code)
        ]
        return [
            "static uint64_t step_number;",
            f"static const uint64_t seed = {self.chain.seed}u;",
            "static double mean_decay_power, square_decay_power;",
            *arrays,
        ]

    def _largest(self) -> list[int]:
        """Elements, an example, of the two arrays that gradients go to in turn."""
        sizes = [0, 0]
        for turn, step in enumerate(reversed(self.chain.steps[1:])):
            sizes[turn % 2] = max(sizes[turn % 2], _pixels(step.size) * step.channels)
        return sizes

    def _input_value(self) -> list[str]:
        """The function that reads an example, as `Preprocessing.normalized` makes it."""
        channels, constants, value = self.chain.input_channels, [], "x"
        if self.preprocessing is not None:
            scale = [1 / (255 * value) for value in self.preprocessing.std]
            shift = [-m / s for m, s in zip(self.preprocessing.mean, self.preprocessing.std, strict=True)]
            for name, values in (("scale", scale), ("shift", shift)):
                texts = ", ".join(float_text(float(x)) for x in Tensor(values).tolist())
                constants.append(f"static const float input_{name}[{channels}] = {{{texts}}};")
                self.constant_bytes += 4 * channels
            value = "scaled + input_shift[channel]"
        return [
            *constants,
            f"static const {self.name}_element *examples;",
            "",
            "/* A value of an example, as the network takes it. */",
            "static float input_value(int example, int pixel, int channel) {",
            f"    const float x = (float)examples[((ptrdiff_t)example * INPUT_PIXELS + pixel) * {channels} + channel];",
            *(["    const float scaled = x * input_scale[channel];"] if self.preprocessing is not None else []),
            f"    return {value};",
            "}",
        ]

    def _tables(self) -> list[str]:
        """The blocks and poolings, with the arrays of each."""
        lines, x = [], "0"
        for number, step in enumerate(self.chain.steps):
            bits = step is not self.chain.steps[-1]
            words = self.batch_size * step.pixels * -(-step.outputs // WORD_BITS)
            if bits:
                lines.append(self._array("uint32_t", f"bits_{number}", words))
            if isinstance(step, TrainedBlock):
                lines += [self._array("uint32_t", f"outside_{number}", words)] if bits else []
                lines += [*self._learned(number, step), self._block(number, step, x)]
            else:
                lines.append(_window(number, step, x))
            self.constant_bytes += 4 * 32
            x = f"bits_{number}"
        blocks = [f"&block_{number}" for number, step in enumerate(self.chain.steps) if isinstance(step, TrainedBlock)]
        return [*lines, f"static const struct block *const blocks[] = {{{', '.join(blocks)}}};"]

    def _learned(self, number: int, block: TrainedBlock) -> list[str]:
        """The arrays of accumulators and norms, which begin with values."""
        codes = block.codes.flatten().tolist()
        norm = block.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        columns = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        rows = zip(*(column.detach().float().tolist() for column in columns), strict=True)
        norms = [f"{{{', '.join(map(float_text, row))}, 0, 0, 0, 0, 0, 0, 0}}" for row in rows]
        self.ram_bytes += -(-len(codes) // 4) * 4 + _NORM_BYTES * len(norms)
        return [
            f"static int8_t codes_{number}[{len(codes)}] = {{\n{wrapped([str(code) for code in codes])}\n}};",
            self._array("float", f"squares_{number}", len(norms)),
            f"static struct norm norms_{number}[{len(norms)}] = {{\n{wrapped(norms)}\n}};",
        ]

    def _block(self, number: int, block: TrainedBlock, x: str) -> str:
        stride, padding, dilation, _ = block.window.for_torch
        pairs = (block.size, block.kernel, stride, padding, dilation, block.unpooled, block.pool, block.pool_stride)
        is_rounded = block.is_image and (block.takes_examples or block.codes[0].numel() > _MOST_HALF_TERMS)
        has_sign = block.edge is not None
        if block.takes_examples:
            functions = ("multiply_patch", "patch_gradient") if block.is_image else ("multiply_row", "row_gradient")
        else:
            functions = ("multiply_bits", "0")
        values = (
            *(_pair(pair) for pair in (*pairs, block.out)),
            f"{block.channels}, {block.outputs}",
            f"{int(is_rounded)}, {block.largest}, {int(block.is_ternary)}, {block.number}",
            f"{float(block.norm.eps).hex()}, {float(block.norm.momentum or 0).hex()}, {float(block.edge or 0).hex()}f",
            f"codes_{number}, squares_{number}, norms_{number}, {x}",
            f"bits_{number}, outside_{number}" if has_sign else "0, 0",
            ", ".join(functions),
        )
        return f"static const struct block block_{number} = {{\n    {', '.join(values)}\n}};"

    def _public(self) -> str:
        steps = self.chain.steps
        forward, backward = [], []
        incoming = "0"
        for number, step in reversed(list(enumerate(steps))):
            outgoing = f"gradients_{(len(steps) - 1 - number) % 2}" if number else "0"
            match step:
                case TrainedBlock():
                    call = f"backward_block(&block_{number}, {incoming}, {outgoing}, count, rate)"
                    backward.append(f"if (!{call}) return 0;")
                    forward.append(f"forward_block(&block_{number}, count, is_training);")
                case Pooling():
                    backward.append(f"unpool_gradient(&window_{number}, {incoming}, {outgoing}, count);")
                    forward.append(f"pool_signs(&window_{number}, count);")
                case Flattening():
                    backward.append(f"unflatten_gradient(&window_{number}, {incoming}, {outgoing}, count);")
                    forward.append(f"flatten_signs(&window_{number}, count);")
            incoming = outgoing
        classes = self._blocks[-1].outputs
        names = [string_text(name) for name in self.classes] or [f'"{number}"' for number in range(classes)]
        return Template(read_template("training_public.c")).substitute(
            name=self.name,
            NAME=self.name.upper(),
            class_names=wrapped(names),
            forward=_indented(reversed(forward)),
            backward=_indented(backward),
        )

    def _header(self) -> str:
        chain, takes = self.chain, self.preprocessing
        return Template(read_template("training_header.h")).substitute(
            name=self.name,
            NAME=self.name.upper(),
            height=chain.input_size[0],
            width=chain.input_size[1],
            channels=chain.input_channels,
            classes=self._blocks[-1].outputs,
            batch=self.batch_size,
            element="float" if takes is None else "uint8_t",
            what="floats, as the network takes them" if takes is None else "pixels, 0 to 255",
        )


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _packed_words(block: TrainedBlock) -> int:
    """Of the signs of a block's weights."""
    return block.outputs * _pixels(block.kernel) * -(-block.channels // WORD_BITS)


def _pair(pair: Sequence[int]) -> str:
    return f"{{{pair[0]}, {pair[1]}}}"


def _window(number: int, step: ChainStep, x: str) -> str:
    pool, stride, out = (step.pool, step.stride, step.out) if isinstance(step, Pooling) else ((1, 1), (1, 1), (1, 1))
    pairs = ", ".join(_pair(pair) for pair in (step.size, pool, stride, out))
    return f"static const struct window window_{number} = {{\n    {pairs}, {step.channels}, {x}, bits_{number}\n}};"


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
