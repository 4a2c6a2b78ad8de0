"""A network as a program: its forward is traced, and each layer that is met becomes steps.

The steps round where evaluation with the package's kernels rounds: see `bnn.layers.block`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from bnn.codec import Model
from bnn.export.errors import ExportError
from bnn.export.folding import folded
from bnn.export.images import append_pad
from bnn.export.layers import LAYERS
from bnn.export.program import AddValue, Normalize, Program, Value
from bnn.export.values import Unsupported, Values

NO_SHAPE = "the model does not say of which shape its input is: give it, as in --input-shape 3,32,32"


def program_of(model: Model, input_shape: tuple[int, ...] | None = None) -> Program:
    """The steps of a model. It takes pixels where the model says how pictures become its input, else floats.

    Args:
        model: on the CPU, in evaluation mode.
        input_shape: (C, H, W) or (features,) of one example, where the model has no preprocessing.

    Raises:
        ExportError: layers cannot be exported; the message names all of them. Or the shape is missing or does not fit.
    """
    preprocessing = model.preprocessing
    shape = input_shape if preprocessing is None else preprocessing.image_shape
    if shape is None:
        raise ExportError(NO_SHAPE)
    if model.precision != "float32":
        warnings.warn(
            f"the model's real products are of {model.precision}, those of an export of float32: logits differ",
            stacklevel=3,
        )
    values = Values()
    channels, height, width = shape if len(shape) == 3 else (shape[0], 1, 1)
    source = values.new("float32" if preprocessing is None else "uint8", height, width, channels)
    x = source
    if preprocessing is not None:
        # The same factors as `Preprocessing.normalized` has.
        scale = torch.tensor([1 / (255 * value) for value in preprocessing.std])
        shift = torch.tensor([-m / s for m, s in zip(preprocessing.mean, preprocessing.std, strict=True)])
        x = values.new("float32", height, width, channels)
        values.steps.append(Normalize(source, x, scale, shift))
    output = _lowered(model.network, torch.zeros(1, *shape), x, values)
    program = Program(source, shape, tuple(values.steps), output, model.classes)
    try:
        return folded(program)
    except ArithmeticError as error:
        raise ExportError(f"the network cannot be exported: {error}") from None


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs a traced network and keeps what each of its nodes gives."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False  # an error's message stays its own
        self.results: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.results[n] = super().run_node(n)
        return self.results[n]


def _lowered(network: nn.Module, example: Tensor, x: Value, values: Values) -> Value:
    """Appends the steps of a network to `values.steps`; gives what holds the logits."""
    try:
        graph = _Tracer().trace(network)
        shapes = _Shapes(fx.GraphModule(network, graph))
        with torch.no_grad():
            shapes.run(example)
    except Exception as error:  # a forward can do anything
        raise ExportError(f"the network's forward cannot be followed: {' '.join(str(error).split())}") from None
    found: dict[fx.Node, Any] = {}
    unsupported: list[str] = []
    for node in graph.nodes:
        result = shapes.results[node]
        if node.op == "placeholder":
            found[node] = x
        elif node.op == "output":
            continue
        else:
            try:
                found[node] = _step(node, network, found, result, values)
            except Unsupported as reason:
                unsupported.append(f"{reason}")
                found[node] = _placeholder(result, values)
    if unsupported:
        raise ExportError(f"these layers cannot be exported: {'; '.join(unsupported)}")
    (last,) = graph.output_node().args
    output = found[last] if isinstance(last, fx.Node) else None
    if not isinstance(output, Value) or output.kind != "float32" or output.pixels != 1:
        raise ExportError("the network does not end in a row of float32 logits, which is what can be exported")
    return output


def _step(node: fx.Node, network: nn.Module, found: dict[fx.Node, Any], result: Any, values: Values) -> Any:
    def known(argument: Any) -> Any:
        return found[argument] if isinstance(argument, fx.Node) else argument

    args, kwargs = [known(a) for a in node.args], {name: known(a) for name, a in node.kwargs.items()}
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        cls = type(module).__name__
        if type(module) not in LAYERS:
            raise Unsupported(f"{node.target} ({cls})")
        try:
            return LAYERS[type(module)](module, values, result, *args, **kwargs)
        except Unsupported as reason:
            raise Unsupported(f"{node.target} ({cls}: {reason})") from None
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    if node.op not in ("call_function", "call_method") or called not in _FUNCTIONS:
        raise Unsupported(f"the operation {called}")
    return _FUNCTIONS[called](values, result, *args, **kwargs)


def _placeholder(result: Any, values: Values) -> Any:
    """A value in the place of one that cannot be made, so that what follows is looked at, too."""
    if isinstance(result, tuple):
        return tuple(_placeholder(part, values) for part in result)
    if not isinstance(result, Tensor) or result.dim() not in (2, 4):
        return values.new("float32", 1, 1, 1)
    return values.like(result)


def _item(values: Values, result: Any, x: Any, index: Any) -> Any:
    if not isinstance(x, tuple):
        raise Unsupported("the operation getitem")
    return x[index]


def _sum(values: Values, result: Tensor, x: Any, other: Any) -> Value:
    both = isinstance(x, Value) and isinstance(other, Value)
    if not both or x.size != other.size or "bits" in (x.kind, other.kind):
        raise Unsupported("a sum of other things than two images of floats")
    return values.mapped(x, [AddValue(other)], result)


def _pad(values: Values, result: Tensor, x: Value, pad: Any, mode: str = "constant", value: Any = 0) -> Value:
    if mode != "constant" or value not in (0, None) or len(pad) != 6 or any(pad[:4]) or min(pad) < 0:
        raise Unsupported("padding of other things than channels of zeros")
    return append_pad(values, result, x, pad[4])


def _flattened(values: Values, result: Tensor, x: Value, *_: Any, **__: Any) -> Value:
    if result.dim() != 2 or result.shape[1] != x.size:
        raise Unsupported("a change of shape other than flattening")
    return x


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getitem": _item,
    "add": _sum,
    "iadd": _sum,
    "pad": _pad,
    "flatten": _flattened,
}
