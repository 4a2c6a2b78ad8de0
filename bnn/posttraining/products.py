"""The products of a network with their weights as floats, whichever layer they are of, and layers of few levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.codec import Model
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLayer, BinaryLinear
from bnn.models.conversion.layers import is_product, obstacle
from bnn.ops.geometry import Window
from bnn.posttraining.calibration import Moments
from bnn.posttraining.grids import Grid
from bnn.weights import FrozenStore

_MOST_LEVELS = 256
# Places of images that moments are of, in all and of each batch at least.
_ROWS, _LEAST_ROWS = 1 << 15, 1 << 10
EXAMPLES_AT_ONCE = 250
"""That go through a network together."""


def dense(x: Tensor) -> Tensor:
    """The tensor with its values in memory."""
    return x.dense() if isinstance(x, BitTensor) else x


def products_of_network(network: nn.Module) -> dict[str, nn.Module]:
    """The linear layers and convolutions by name, each once: binary ones, and torch's that can have few levels."""
    found = {name: module for name, module in network.named_modules() if _is_known(module)}
    inside = tuple(f"{name}." for name in found)
    return {name: module for name, module in found.items() if not name.startswith(inside)}


def _is_known(module: nn.Module) -> bool:
    if isinstance(module, BinaryLayer):
        return True
    if not is_product(module) or obstacle(module) is not None:
        return False
    is_lopsided = isinstance(module, nn.Conv2d) and module.padding == "same" and module.kernel_size[0] % 2 == 0
    return not is_lopsided


def weight_of(module: nn.Module) -> Tensor:
    """The weight as it multiplies, scales included, float32 [out, ...], without gradient."""
    with torch.no_grad():
        if not isinstance(module, BinaryLayer):
            return module.weight.detach().float()  # type: ignore[operator]
        weight, scale = dense(module.store.read()).float(), module.scale()
        return weight if scale is None else weight * scale.view(-1, *[1] * (weight.dim() - 1))


def levels_of(module: nn.Module) -> int:
    """How many levels a weight has before its scale; 0 where it is real."""
    if not isinstance(module, BinaryLayer):
        return 0
    if module.store.is_binary:
        return 2
    number = torch.unique(module.store.read().detach()).numel()
    return number if number <= _MOST_LEVELS else 0


def window_of(module: nn.Module) -> Window | None:
    """The window of a convolution; None of a linear layer."""
    if isinstance(module, BinaryConv2d):
        return module.window
    if not isinstance(module, nn.Conv2d):
        return None
    padding = module.padding
    if isinstance(padding, str):
        reach = module.dilation[0] * (module.kernel_size[0] - 1)
        padding = (0, 0) if padding == "valid" else (reach // 2, reach // 2)
    return Window.of(stride=module.stride, padding=padding, dilation=module.dilation, groups=module.groups)


def operand(module: nn.Module, x: Tensor) -> Tensor:
    """What a layer multiplies with its weight, as floats."""
    return dense(module.quantized(x) if isinstance(module, BinaryLayer) else x).float()


def with_levels(module: nn.Module, grid: Grid, levels: Tensor, scale: Tensor, bias: Tensor | None) -> BinaryLayer:
    """A layer like another one whose weight is levels times a scale.

    Args:
        module: the layer, which is not changed.
        grid: that the levels are of.
        levels: whole numbers in float32, of the weight's shape.
        scale: of each output channel, float32 [out].
        bias: of each output channel, [out]; None where `module` has none.
    """
    if levels.dim() == 4:
        levels = levels.contiguous(memory_format=torch.channels_last)
    kept = BitTensor.from_dense(levels) if grid.levels == 2 else levels

    def store(shape: Sequence[int]) -> FrozenStore:
        return FrozenStore(kept, levels=grid.levels, scale=scale)

    quantizer = module.input_quantizer if isinstance(module, BinaryLayer) else None
    window = window_of(module)
    if window is None:
        outputs, inputs = levels.shape
        made: BinaryLayer = BinaryLinear(inputs, outputs, store=store, input_quantizer=quantizer, bias=bias is not None)
    else:
        (stride, _), (padding, _), (dilation, _), groups = window.for_torch
        made = BinaryConv2d(
            levels.shape[1] * groups,
            levels.shape[0],
            levels.shape[2],
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            store=store,
            input_quantizer=quantizer,
            bias=bias is not None,
        )
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made.train(module.training)


@contextmanager
def part_by_part(network: nn.Module) -> Iterator[None]:
    """Within it blocks call their parts one after the other, so that these can be watched."""
    fused = [module for module in network.modules() if isinstance(module, BinaryBlock) and module.recompute]
    for block in fused:
        block.recompute = False
    try:
        yield
    finally:
        for block in fused:
            block.recompute = True


@contextmanager
def watched(network: nn.Module, names: Sequence[str], see: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Within it `see(name, module, input)` is called whenever one of these parts is."""
    with part_by_part(network):
        hooks = [
            network.get_submodule(name).register_forward_pre_hook(
                lambda module, inputs, name=name: see(name, module, inputs[0])
            )
            for name in names
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def moments_of(network: nn.Module, names: Sequence[str], x: Tensor) -> dict[str, Moments]:
    """The moments of what layers multiply with their weights; those that no example comes to have none.

    Args:
        network: in evaluation mode.
        names: of its products.
        x: examples, as the network takes them.
    """
    found: dict[str, Moments] = {}

    def see(name: str, module: nn.Module, inputs: Tensor) -> None:
        if name not in found:
            found[name] = Moments(weight_of(module).shape, window_of(module))
        most_rows = max(_LEAST_ROWS, EXAMPLES_AT_ONCE * _ROWS // len(x))
        found[name].add(operand(module, inputs), most_rows=most_rows)

    with torch.no_grad(), watched(network, names, see):
        for part in torch.split(x, EXAMPLES_AT_ONCE):
            network(part)
    return found


def with_network(model: Model, network: nn.Module) -> Model:
    """A model with another network, which takes and gives the same."""
    return Model(
        network,
        preprocessing=model.preprocessing,
        classes=model.classes,
        precision=model.precision,
        about=model.about,
    )


def logits_of(network: nn.Module, x: Tensor) -> Tensor:
    """Logits, float32 [n, classes], without gradient."""
    with torch.no_grad():
        return torch.cat([network(part).float() for part in torch.split(x, EXAMPLES_AT_ONCE)])


def divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """Mean over the examples of the Kullback-Leibler divergence of what two networks say, in nats, at least 0.

    Args:
        reference: logits of the network that is to be followed, [n, classes].
        logits: of the other one.
    """
    return F.kl_div(logits.log_softmax(1), reference.log_softmax(1), log_target=True, reduction="batchmean")
