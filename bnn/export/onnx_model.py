"""A program as an ONNX model of standard operators, opset 18, whose binary weights take one bit each.

ONNX has no type of one bit: weights lie packed in bytes, which the graph's first nodes unpack. Runtimes that fold
constants do so once. Bits are floats of ±1 there, in (N, C, H, W) order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

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

OPSET = 18
_BLUR = np.array([0.25, 0.5, 0.25], np.float32)
_BLUR_WINDOW = Window((3, 3), stride=(2, 2), padding=(1, 1))
_IR_VERSION = 8  # the first that has this opset


def onnx_model(program: Program, *, name: str = "network") -> onnx.ModelProto:
    """A program as a model whose input `image` is [N, ...], uint8 pixels or float32, and its output `logits`.

    Args:
        program: see `bnn.export.program`.
        name: of the graph.
    """
    return _Graph(program).model(name)


class _Graph:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.names: dict[Value, str] = {}
        self.bits: list[tuple[str, npt.NDArray[np.bool_]]] = []
        self._count = 0

    def model(self, name: str) -> onnx.ModelProto:
        program = self.program
        kind = TensorProto.UINT8 if program.input.kind == "uint8" else TensorProto.FLOAT
        source = helper.make_tensor_value_info("image", kind, ["N", *program.input_shape])
        sink = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", program.output.channels])
        x = "image"
        if len(program.input_shape) == 1:
            x = self._node("Unsqueeze", x, self._constant(np.array([2, 3])))
        self.names[program.input] = x
        for step in program.steps:
            self.names[step.out] = self._step(step)
        self.nodes.append(helper.make_node("Flatten", [self.names[program.output]], ["logits"], axis=1))
        nodes = [*(self._unpacked() if self.bits else []), *self.nodes]
        graph = helper.make_graph(nodes, name, [source], [sink], self.initializers)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="bnn-edge")
        if program.classes:
            helper.set_model_props(model, {"classes": json.dumps(program.classes)})
        onnx.checker.check_model(model, full_check=True)
        return model

    def _name(self) -> str:
        """The next of a, b, ..., z, aa, ab, ...: short, since each is written wherever it is read."""
        self._count += 1
        letters, left = "", self._count
        while left:
            left, letter = divmod(left - 1, 26)
            letters = chr(ord("a") + letter) + letters
        return letters

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = self._name()
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def _constant(self, values: npt.NDArray[Any]) -> str:
        """The name of an array; equal ones are there once."""
        content = (values.dtype.str, values.shape, values.tobytes())
        if content not in self.constants:
            self.constants[content] = self._name()
            self.initializers.append(numpy_helper.from_array(values, self.constants[content]))
        return self.constants[content]

    def _of_channels(self, values: Tensor) -> str:
        """A value of each channel, which broadcasts over images; one for all where they are the same."""
        same = bool((values == values[0]).all())
        return self._constant((values[:1] if same else values).numpy().reshape(1, -1, 1, 1))

    def _widened(self, values: Tensor) -> str:
        """A value of each channel as a double, which is written as a float."""
        return self._node("Cast", self._of_channels(values), to=TensorProto.DOUBLE)

    def _scalar(self, value: float) -> str:
        return self._constant(np.array(value, np.float32))

    def _step(self, step: Step) -> str:
        x = self.names[step.x]
        match step:
            case Product():
                return self._finished(self._product(step, x), step)
            case Map():
                return self._elementwise(x, step.operations)
            case Normalize():
                floats = self._node("Cast", x, to=TensorProto.FLOAT)
                return self._elementwise(floats, (Mul(step.scale), Add(step.shift)))
            case Signs():
                return self._sign(self._node("GreaterOrEqual", x, self._scalar(0.0)))
            case MaxPool():
                return self._node("MaxPool", x, **_told(_pooling(step.window)))
            case AveragePool():
                return self._average(step, x)
            case Blur():
                return self._blurred(step, x)
            case Pad():
                behind, bottom, right = (
                    after - before - size
                    for after, before, size in (
                        (step.out.channels, step.before, step.x.channels),
                        (step.out.height, step.top, step.x.height),
                        (step.out.width, step.left, step.x.width),
                    )
                )
                ends = [0, step.before, step.top, step.left, 0, behind, bottom, right]
                return self._node("Pad", x, self._constant(np.array(ends)), self._scalar(0.0))
            case HalfTurn():
                last, beyond = np.array([-1, -1]), np.array([np.iinfo(np.int64).min] * 2)
                names = [self._constant(values) for values in (last, beyond, np.array([2, 3]), last)]
                return self._node("Slice", x, *names)

    def _product(self, step: Product, x: str) -> str:
        """The sums, pooled."""
        window = step.window
        if step.needs_order:
            # A runtime's own order is another, and rounded to 16 bits a sum can be far off by its last bit.
            out = self._product_in_order(step, x)
        elif step.unpooled == (1, 1) and window.padding == (0, 0) and window.kernel == (step.x.height, step.x.width):
            by_rows = step.weight.permute(0, 3, 1, 2).flatten(1)
            flat = self._node("Flatten", x, axis=1)
            product = self._node("Gemm", flat, self._weight(by_rows), transB=1)
            out = self._node("Unsqueeze", product, self._constant(np.array([2, 3])))
        else:
            options = {"strides": window.stride, "pads": window.padding * 2, "dilations": window.dilation}
            out = self._node("Conv", x, self._weight(step.weight.permute(0, 3, 1, 2)), **_told(options))
        return out if step.pool is None else self._node("MaxPool", out, **_told(_pooling(step.pool)))

    def _product_in_order(self, step: Product, x: str) -> str:
        """Real sums in the order of the patch."""
        patch = self._node("Concat", *self._taps(step.unpooled, step.window, x), axis=1)
        terms = self._node("Transpose", patch, perm=(1, 0, 2, 3))
        terms = self._node("Unsqueeze", terms, self._constant(np.array([2])))
        factors = step.weight.flatten(1).t().reshape(-1, 1, len(step.weight), 1, 1)
        return self._ordered_sum(terms, factors.numpy(), fuses=step.fuses)

    def _blurred(self, step: Blur, x: str) -> str:
        factors = np.outer(_BLUR, _BLUR)
        if step.out.kind != "bfloat16":
            shape = self._constant(np.array([step.x.channels, 1, 1, 1]))
            weight = self._node("Expand", self._constant(factors.reshape(1, 1, 3, 3)), shape)
            return self._node("Conv", x, weight, strides=(2, 2), pads=(1, 1, 1, 1), group=step.x.channels)
        taps = self._taps((step.out.height, step.out.width), _BLUR_WINDOW, x)
        front = self._constant(np.array([0]))
        terms = self._node("Concat", *(self._node("Unsqueeze", tap, front) for tap in taps), axis=0)
        return self._rounded(self._ordered_sum(terms, factors.reshape(9, 1, 1, 1, 1), fuses=False), "bfloat16")

    def _taps(self, size: tuple[int, int], window: Window, x: str) -> list[str]:
        """What each tap of a kernel meets, [N, channels, height, width] of a result of this size."""
        if any(window.padding):
            ends = np.array([0, 0, *window.padding, 0, 0, *window.padding])
            x = self._node("Pad", x, self._constant(ends), self._scalar(0.0))
        reach = (np.array(size) - 1) * window.stride + 1
        rest = [self._constant(np.array(values)) for values in ((2, 3), window.stride)]
        firsts = [np.array(tap) * window.dilation for tap in np.ndindex(*window.kernel)]
        return [self._node("Slice", x, self._constant(at), self._constant(at + reach), *rest) for at in firsts]

    def _ordered_sum(self, terms: str, factors: npt.NDArray[np.float32], *, fuses: bool) -> str:
        """The sum of terms[k] factors[k] in the order of k, rounded to float32 at each.

        Args:
            terms: [terms, N, ...].
            factors: [terms, 1, ...], which broadcast to the sum.
            fuses: whether product and sum are rounded once. In double, where products are exact, sums are rounded so
                but for one in 2^29.
        """
        first = self._node("Gather", terms, self._constant(np.array(0)), axis=0)
        zeros = self._node("Mul", first, self._constant(np.zeros_like(factors[0])))
        inputs = [zeros, terms, self._constant(factors)]
        outer, self.nodes = self.nodes, []
        total, term, factor = arguments = [self._name() for _ in inputs]
        if fuses:
            wide = [self._node("Cast", argument, to=TensorProto.DOUBLE) for argument in arguments]
            added = self._node("Add", wide[0], self._node("Mul", *wide[1:]))
            raised = self._node("Cast", added, to=TensorProto.FLOAT)
        else:
            raised = self._node("Add", total, self._node("Mul", term, factor))
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in arguments]
        result = [helper.make_tensor_value_info(raised, TensorProto.FLOAT, None)]
        body, self.nodes = helper.make_graph(self.nodes, "sum", given, result), outer
        return self._node("Scan", *inputs, body=body, num_scan_inputs=2)

    def _weight(self, weight: Tensor) -> str:
        """A weight as floats, of bits by unpacking them."""
        if weight.dtype is not torch.bool:
            return self._constant(weight.contiguous().numpy())
        name = self._name()
        self.bits.append((name, weight.contiguous().numpy()))
        return name

    def _unpacked(self) -> list[onnx.NodeProto]:
        """The nodes that make every weight of bits, from one array."""
        begun, self.nodes = self.nodes, []
        sizes = [bits.size for _, bits in self.bits]
        packed = np.packbits(np.concatenate([bits.reshape(-1) for _, bits in self.bits]), bitorder="little")
        shifted = self._node(
            "BitShift",
            self._constant(packed.reshape(-1, 1)),
            self._constant(np.arange(8, dtype=np.uint8).reshape(1, 8)),
            direction="RIGHT",
        )
        bits = self._node("BitwiseAnd", shifted, self._constant(np.array(1, np.uint8)))
        # 0 and 1 to 255 and 1, which are -1 and +1 of int8.
        levels = self._node("Sub", self._node("Add", bits, bits), self._constant(np.array(1, np.uint8)))
        signs = self._node("Cast", self._node("Cast", levels, to=TensorProto.INT8), to=TensorProto.FLOAT)
        flat = self._node("Reshape", signs, self._constant(np.array([-1])))
        parts = [self._name() for _ in self.bits]
        rest = packed.size * 8 - sum(sizes)
        ends = self._constant(np.array([*sizes, *([rest] if rest else [])]))
        self.nodes.append(helper.make_node("Split", [flat, ends], [*parts, *([self._name()] if rest else [])]))
        for part, (name, values) in zip(parts, self.bits, strict=True):
            self.nodes.append(helper.make_node("Reshape", [part, self._constant(np.array(values.shape))], [name]))
        unpacking, self.nodes = self.nodes, begun
        return unpacking

    def _finished(self, y: str, step: Product) -> str:
        if not isinstance(step.tail, Thresholds):
            return self._elementwise(y, step.tail)
        least = step.tail.least
        if least.dtype is torch.int64 and int(least.abs().max()) < 1 << 15:
            least = least.short()
        floats = self._of_channels(least)
        if least.dtype is not torch.float32:
            floats = self._node("Cast", floats, to=TensorProto.FLOAT)
        bits = self._node("GreaterOrEqual", y, floats)
        if step.tail.inverted.any():
            bits = self._node("Xor", bits, self._of_channels(step.tail.inverted))
        return self._sign(bits)

    def _sign(self, bits: str) -> str:
        return self._node("Where", bits, self._scalar(1.0), self._scalar(-1.0))

    def _elementwise(self, y: str, operations: Iterable[Elementwise]) -> str:
        for operation in operations:
            match operation:
                case Mul(factor):
                    y = self._node("Mul", y, self._of_channels(factor))
                case Add(term):
                    y = self._node("Add", y, self._of_channels(term))
                case Div(divisor):
                    y = self._node("Div", y, self._of_channels(divisor))
                case MulAdd(factor, term):
                    # Rounded once, as the network is evaluated.
                    wide = self._node("Cast", y, to=TensorProto.DOUBLE)
                    wide = self._node("Mul", wide, self._widened(factor))
                    wide = self._node("Add", wide, self._widened(term))
                    y = self._node("Cast", wide, to=TensorProto.FLOAT)
                case Clamp(low, high):
                    bounds = [self._scalar(end) if math.isfinite(end) else "" for end in (low, high)]
                    y = self._node("Clip", y, *bounds)
                case PReLU(slope):
                    y = self._node("PRelu", y, self._constant(slope.numpy().reshape(-1, 1, 1)))
                case Rounded(dtype):
                    y = self._rounded(y, dtype)
                case AddValue(value):
                    y = self._node("Add", y, self.names[value])
        return y

    def _rounded(self, y: str, dtype: str) -> str:
        narrow = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.BFLOAT16
        return self._node("Cast", self._node("Cast", y, to=narrow), to=TensorProto.FLOAT)

    def _average(self, step: AveragePool, x: str) -> str:
        options = _pooling(step.window)
        # Windows that reach beyond the image have the mean of what lies in it.
        for end, (size, out) in enumerate(((step.x.height, step.out.height), (step.x.width, step.out.width))):
            reach = (out - 1) * step.window.stride[end] + step.window.kernel[end]
            options["pads"][2 + end] = max(0, reach - size)
        y = self._node("AveragePool", x, **_told(options))
        return self._rounded(y, "bfloat16") if step.out.kind == "bfloat16" else y


def _pooling(window: Window) -> dict[str, Any]:
    return {"kernel_shape": window.kernel, "strides": window.stride, "pads": [*window.padding, *window.padding]}


def _told(options: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a window without those that are the operator's defaults."""
    defaults = {"strides": 1, "dilations": 1, "pads": 0}
    return {name: sizes for name, sizes in options.items() if {*sizes} != {defaults.get(name)}}
