"""`binarize`: turns the convolutions and linear layers of any network into binary ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import nn

from bnn.errors import RecipeError, near_match
from bnn.layers import BinaryLayer
from bnn.layers.graph import Graph
from bnn.models.conversion.blocks import has_norm_of_its_own, make_blocks, projections
from bnn.models.conversion.chains import (
    Network,
    add_norms,
    order_poolings,
    remove_dropouts,
    replace_activations,
)
from bnn.models.conversion.layers import OTHER_PRODUCTS, PRODUCTS, Product, binary, is_depthwise, obstacle, own_copy
from bnn.models.conversion.report import Report
from bnn.models.conversion.tracing import NotTraceableError, to_graph, traced, without_memory
from bnn.quantizers import ApproxSign, Quantizer
from bnn.weights import StoreFactory

_HOLDERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Binarized(NamedTuple):
    """What `binarize` makes."""

    network: nn.Module
    report: Report
    """What became of each layer."""


class _Options(NamedTuple):
    input_quantizer: Quantizer
    store: StoreFactory | None
    keep: Sequence[str]
    first: bool
    last: bool
    shortcuts: bool
    depthwise: bool


def binarize(
    model: nn.Module,
    *,
    input_shape: tuple[int, ...],
    input_quantizer: Quantizer = ApproxSign(),  # noqa: B008  (a pattern, copied)
    store: StoreFactory | None = None,
    keep: Iterable[str] = (),
    binary_first: bool = False,
    binary_last: bool = False,
    binary_shortcuts: bool = False,
    binary_depthwise: bool = False,
) -> Binarized:
    """A network like `model` whose convolutions and linear layers are binary; `model` itself is not changed.

    Calls are listed by `torch.fx`, and the result is a `bnn.layers.Graph` of blocks, which presets keep in bits: a
    convolution with what follows it, up to the activation behind the sum with a shortcut. Its layers have the names
    that they have in `model`. Between binary layers things are as in Courbariaux et al. 2016 (arXiv 1602.02830):
    product, max-pooling, batch norm, `Hardtanh` in place of ReLU, sign. Where there is no norm, one is put in;
    what a norm takes away, such as a bias, is left out; dropouts in front of signs are removed. Convolutions that are
    nothing but a shortcut stay real, as in Bi-Real Net (arXiv 1808.00278).

    Where the calls cannot be listed, layers are replaced one by one, and what lies between them is kept in floats.

    The binary weights begin as the signs of the model's, and latent weights as these themselves; but a preset draws all
    weights anew unless `prepare` is told to keep them. Of a model on the meta device all are drawn anew, and floats of
    its size never exist.

    Args:
        model: any module with one input; it is taken as it is in evaluation.
        input_shape: of one example, such as (3, 224, 224).
        input_quantizer: pattern that is copied; of the binary layers' inputs.
        store: makes the binary weights' stores; None: `bnn.weights.default_store`'s, which a preset sets.
        keep: names of layers that stay real, or of modules around them, or patterns such as `*.fc1`.
        binary_first: whether the first layer becomes binary, too.
        binary_last: whether the last layer does.
        binary_shortcuts: whether convolutions that are nothing but a shortcut do.
        binary_depthwise: whether convolutions of one channel a group do. Their few signs tell little apart: ReActNet
            (arXiv 2003.03488) has ordinary convolutions in their place.

    Raises:
        RecipeError: the model does not take examples of this shape, there is no layer to keep of such a name, or no
            layer becomes binary.
    """
    options = _Options(
        input_quantizer, store, tuple(keep), binary_first, binary_last, binary_shortcuts, binary_depthwise
    )
    report = Report()
    try:
        graph, parts = traced(model, input_shape)
        network = Network(graph, parts, {}, report)
        to_graph(graph, parts)  # refuses what a graph cannot call, before anything is changed
        made: nn.Module = _rewritten(network, model, options)
    except NotTraceableError as reason:
        if any(tensor.is_meta for tensor in model.parameters()):
            raise RecipeError(
                f"its calls cannot be listed ({reason}), and to be taken layer by layer it has to be made with memory"
            ) from None
        report.note("the network", "is taken layer by layer, and keeps floats between them", str(reason))
        made = _layer_by_layer(model, input_shape, options, report)
    if not report.named("binary"):
        why = "; ".join(f"{change.name}: {', '.join(change.notes)}" for change in report if change.kind == "real")
        raise RecipeError(f"no layer becomes binary ({why or 'it has no convolution and no linear layer'})")
    return Binarized(made.train(), report)


def _rewritten(network: Network, model: nn.Module, options: _Options) -> Graph:
    used = [str(node.target) for node in network.nodes(lambda part: isinstance(part, (*PRODUCTS, *OTHER_PRODUCTS)))]
    shortcuts = [] if options.shortcuts else projections(network)
    network.real = _real_layers(network.parts, list(dict.fromkeys(used)), shortcuts, options)
    for name in dict.fromkeys(used):
        reason = network.real.get(name)
        network.report.note(name, "binary" if reason is None else "real", *([reason] if reason else []))
    _note_hidden(network)
    remove_dropouts(network)
    add_norms(network)
    order_poolings(network)
    replace_activations(network)
    _own_parts(network, options)
    make_blocks(network)
    for name, text in network.texts.items():
        network.report.note(name, "changed", text)
    for node in network.nodes(lambda part: isinstance(part, BinaryLayer)):
        network.report.note(str(node.target), "binary", "outside of a block, so that what follows it keeps floats")
    return to_graph(network.graph, network.parts)


def _own_parts(network: Network, options: _Options) -> None:
    """Puts binary layers in the place of those that are to be binary, and copies in the place of all others."""
    made: dict[str, nn.Module] = {}
    for node in network.nodes(lambda part: True):
        name = str(node.target)
        if name in made:
            continue
        module = network.parts[name]
        if not network.is_binary(node):
            made[name] = own_copy(module, name)
            continue
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        normed = has_norm_of_its_own(network, node)
        # Of more than two dimensions the channels of a linear layer are not where a batch norm looks for them.
        scaled = not normed and isinstance(module, nn.Linear) and len(node.meta["shape"]) > 2
        if normed and module.bias is not None:
            network.report.note(name, "binary", "without its bias, which the norm takes away")
        if scaled:
            network.report.note(name, "binary", "with a learned scale, since no norm follows")
        made[name] = _binary(module, options, bias=module.bias is not None and not normed, learned_scale=scaled)
    network.parts.update(made)


def _binary(module: Product, options: _Options, *, bias: bool, learned_scale: bool) -> BinaryLayer:
    return binary(
        module,
        input_quantizer=options.input_quantizer,
        store=options.store,
        bias=bias,
        learned_scale=learned_scale,
    )


def _real_layers(
    modules: dict[str, nn.Module], used: list[str], shortcuts: Sequence[str], options: _Options
) -> dict[str, str]:
    """Which layers stay real, and why.

    Args:
        modules: by name.
        used: the layers with weights, in the order of their use.
        shortcuts: those that are nothing but a shortcut and are to stay real.
        options: of `binarize`.
    """
    for pattern in options.keep:
        if not any(_is_meant(name, pattern) for name in used):
            near = near_match(pattern, used)
            raise RecipeError(f"there is no layer {pattern!r} to keep{near}; there are: {', '.join(used)}")
    real = {}
    for place, name in enumerate(used):
        if (reason := obstacle(modules[name])) is not None:
            real[name] = reason
        elif any(_is_meant(name, pattern) for pattern in options.keep):
            real[name] = "kept"
        elif place == 0 and not options.first:
            real[name] = "the first layer"
        elif place == len(used) - 1 and not options.last:
            real[name] = "the last layer"
        elif name in shortcuts:
            real[name] = "a shortcut"
        elif is_depthwise(modules[name]) and not options.depthwise:
            real[name] = "depthwise"
    return real


def _is_meant(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)


def _note_hidden(network: Network) -> None:
    """Names the layers within parts that are called as a whole, such as those of an attention."""
    for name, part in network.parts.items():
        for inner, module in part.named_modules():
            if inner and isinstance(module, PRODUCTS):
                reason = f"inside of a {type(part).__name__}, which uses its weight by itself"
                network.report.note(f"{name}.{inner}", "real", reason)


def _layer_by_layer(model: nn.Module, input_shape: tuple[int, ...], options: _Options, report: Report) -> nn.Module:
    made = own_copy(model, "the network")
    modules = dict(made.named_modules())
    used = _in_order_of_use(model, input_shape)
    real = _real_layers(modules, used, (), options)
    originals = dict(model.named_modules())
    for name in used:
        module = originals[name]
        parent = modules[name.rpartition(".")[0]]
        by_itself = type(parent).__module__.startswith("torch.nn") and not isinstance(parent, _HOLDERS)
        if name not in real and by_itself:
            real[name] = f"inside of a {type(parent).__name__}, which uses its weight by itself"
        if name in real:
            report.note(name, "real", real[name])
            continue
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        layer = _binary(module, options, bias=module.bias is not None, learned_scale=True)
        setattr(parent, name.rpartition(".")[2], layer)
        report.note(name, "binary", "with a learned scale")
    for name, module in list(made.named_modules()):
        if type(module) in (nn.ReLU, nn.ReLU6):
            setattr(made.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], nn.Hardtanh())
            kind = type(module).__name__
            report.note(name, "changed", f"Hardtanh in place of the {kind}")
    return made


def _in_order_of_use(model: nn.Module, input_shape: tuple[int, ...]) -> list[str]:
    """Names of the layers with weights: in the order of their use where that can be seen, else of their definition."""
    twin = without_memory(model)
    layers = {module: name for name, module in twin.named_modules() if isinstance(module, (*PRODUCTS, *OTHER_PRODUCTS))}
    used: dict[str, None] = {}
    hooks = [module.register_forward_pre_hook(lambda module, _: used.setdefault(layers[module])) for module in layers]
    try:
        with torch.no_grad():
            twin(torch.empty(2, *input_shape, device="meta"))
    except Exception:  # a network that cannot run on shapes alone may raise whatever it likes
        return list(layers.values())
    finally:
        for hook in hooks:
            hook.remove()
    return list(used)
