"""The calls of a network, as `torch.fx` sees them, and back to a `Graph`."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bnn.errors import RecipeError
from bnn.layers.graph import FUNCTIONS, INPUT, METHODS, Call, Graph

_NAMES = {function: name for name, function in FUNCTIONS.items()} | {
    operator.iadd: "operator.add",
    operator.isub: "operator.sub",
    operator.imul: "operator.mul",
}
# What writes to its operand, or depends on how that lies in memory: blocks return images with their channels last.
_METHODS = {f"{name}_": name for name in METHODS} | {"view": "reshape"}
# Functions that a module of torch takes the place of.
_ACTIVATIONS = {F.relu: nn.ReLU, torch.relu: nn.ReLU, F.relu6: nn.ReLU6, "relu": nn.ReLU, "relu_": nn.ReLU}
_DROPOUTS = {F.dropout: nn.Dropout, F.dropout2d: nn.Dropout2d}
_CONSTANTS = (bool, int, float, str, type(None))
_OWN = ("bnn.layers", "bnn.quantizers")


class NotTraceableError(Exception):
    """A network whose calls cannot be listed; the message says why."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m.__module__.startswith(_OWN) or super().is_leaf_module(m, module_qualified_name)


def without_memory(model: nn.Module) -> nn.Module:
    """A copy on the meta device, in evaluation mode."""
    tensors = [*model.parameters(), *model.buffers()]
    twins: dict[int, Any] = {id(tensor): copy_on_meta(tensor) for tensor in tensors}
    return copy.deepcopy(model, twins).eval()


def copy_on_meta(tensor: Tensor) -> Tensor:
    """A tensor like another one, without memory."""
    twin = torch.empty_like(tensor, device="meta")
    return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


def traced(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[fx.Graph, dict[str, nn.Module]]:
    """The calls of a network with the shape of each value (`node.meta["shape"]`, of 2 examples), and its parts by name.

    Args:
        model: of one input and one output.
        input_shape: of one example.

    Raises:
        NotTraceableError: its calls cannot be listed.
        RecipeError: it does not take examples of this shape.
    """
    twin = without_memory(model)
    try:
        graph = _Tracer().trace(twin)
    except Exception as error:  # whatever the network's own code raises on a symbol in place of a tensor
        raise NotTraceableError(_first_line(error)) from None
    parts = {str(node.target): model.get_submodule(str(node.target)) for node in graph.nodes if _calls_part(node)}
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        raise NotTraceableError("it takes more than one input")
    for node in list(graph.nodes):
        _normalize(graph, node, parts)
    for node in graph.nodes:
        if node.op == "get_attr":
            raise NotTraceableError(f"it uses a tensor of its own, {node.target}")
    try:
        with torch.no_grad():
            _Shapes(graph, {**parts, **dict(twin.named_modules())}).run(torch.empty(2, *input_shape, device="meta"))
    except Exception as error:
        raise RecipeError(f"the network fails on examples of {list(input_shape)}: {_first_line(error)}") from None
    return graph, parts


def to_graph(graph: fx.Graph, parts: Mapping[str, nn.Module]) -> Graph:
    """A network of the calls.

    Raises:
        NotTraceableError: a call is none that a `Graph` can have.
    """
    calls: list[Call] = []
    output = ""
    for node in graph.nodes:
        if node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise NotTraceableError("it gives more than one tensor")
            output = _value_name(node.args[0])
        elif node.op != "placeholder":
            arguments = tuple(_argument(argument, calls) for argument in node.args)
            options = tuple((name, _argument(value, calls)) for name, value in node.kwargs.items())
            calls.append(Call(_value_name(node), *_target(node), arguments, options))
    names = dict.fromkeys(call.target for call in calls if call.kind == "part")
    return Graph({name: parts[name] for name in names}, calls, output)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _calls_part(node: fx.Node) -> bool:
    return node.op == "call_module"


def _normalize(graph: fx.Graph, node: fx.Node, parts: dict[str, nn.Module]) -> None:
    """Calls a module where an activation or dropout is called as a function, since that can be told and replaced."""
    part: nn.Module | None = None
    if node.op not in ("call_function", "call_method"):
        return
    if node.target is getattr and node.args[1:] == ("shape",):
        node.target, node.args = FUNCTIONS["shape"], node.args[:1]
    elif node.target in _ACTIVATIONS:
        part = _ACTIVATIONS[node.target]()
    elif node.target in _DROPOUTS:
        rate = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0.5)
        part = _DROPOUTS[node.target](float(rate))  # type: ignore[arg-type]
    elif node.target in (F.max_pool2d, torch.max_pool2d):
        part = _pool(node)
    if part is not None:
        name = unused_name(node.name, parts)
        parts[name] = part
        with graph.inserting_before(node):
            replace(graph, node, graph.call_module(name, (node.args[0],)))


def _pool(node: fx.Node) -> nn.Module | None:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    options: dict[str, Any] = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
    options.pop("return_indices", None)
    return None if options.keys() - set(names) else nn.MaxPool2d(**options)


def unused_name(name: str, parts: Mapping[str, nn.Module]) -> str:
    """A name that no part has, nor one that holds parts."""
    taken = {level for part in parts for level in (part, part.split(".")[0])}
    while name in taken:
        name += "_"
    return name


def replace(graph: fx.Graph, node: fx.Node, by: fx.Node) -> None:
    """Lets all that took a value take another, which is then as large."""
    by.meta = dict(node.meta)
    node.replace_all_uses_with(by)
    graph.erase_node(node)


class _Shapes(fx.Interpreter):
    """Runs the calls and notes the shape of each value."""

    def __init__(self, graph: fx.Graph, parts: Mapping[str, nn.Module]) -> None:
        super().__init__(nn.Module(), graph=graph)
        self._parts = parts

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result

    def fetch_attr(self, target: str) -> Any:
        return self._parts[target]


def _value_name(node: fx.Node) -> str:
    return INPUT if node.op == "placeholder" else f"%{node.name}"


def _argument(value: Any, calls: list[Call]) -> Any:
    if isinstance(value, fx.Node):
        return _value_name(value)
    if isinstance(value, (list, tuple)):
        return tuple(_argument(item, calls) for item in value)
    if isinstance(value, slice):
        edges = tuple(_argument(edge, calls) for edge in (value.start, value.stop, value.step))
        calls.append(Call(f"%slice.{len(calls)}", "function", "slice", edges))
        return calls[-1].result
    if isinstance(value, _CONSTANTS) and not (isinstance(value, str) and value.startswith("%")):
        return value
    raise NotTraceableError(f"a call takes a {type(value).__name__}")


def _target(node: fx.Node) -> tuple[str, str]:
    """Kind and name of what is called."""
    target = node.target
    if node.op == "call_module":
        return "part", str(target)
    if node.op == "call_method" and _METHODS.get(str(target), target) in METHODS:
        return "method", str(_METHODS.get(str(target), target))
    if node.op == "call_function" and target in _NAMES:
        return "function", _NAMES[target]
    raise NotTraceableError(f"it calls {getattr(target, '__name__', target)}, which is none of the functions it may")
