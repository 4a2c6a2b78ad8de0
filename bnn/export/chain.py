"""A network that C can train: a chain of blocks of binary weights, under the presets `edge-min` and `edge-fast`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bnn.export.errors import ExportError
from bnn.layers import BinaryBlock
from bnn.layers.base import BinaryLayer
from bnn.ops.geometry import Window
from bnn.optim import LowBitOptimizer
from bnn.weights import is_accumulator

Pair = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class TrainedBlock:
    """A product with pooling, norm and, but for the last block, a sign."""

    size: Pair
    channels: int
    codes: Tensor
    """The accumulators, int8 [outputs, kernel height, kernel width, channels]."""
    window: Window
    unpooled: Pair
    pool: Pair
    pool_stride: Pair
    out: Pair
    norm: nn.BatchNorm1d | nn.BatchNorm2d
    edge: float | None
    """Beyond which the sign has no gradient; None of the last block."""
    is_image: bool
    """Whether it is a convolution, whose products are of float16."""
    takes_examples: bool
    largest: int
    """Integer of its products' gradient."""
    is_ternary: bool
    """Whether the gradient of its weight is formed of a ternary one."""
    number: int
    """Of the accumulators among the parameters of the optimizer."""

    @property
    def outputs(self) -> int:
        """Channels of the product."""
        return len(self.codes)

    @property
    def kernel(self) -> Pair:
        """Height and width of the kernel."""
        return self.codes.shape[1], self.codes.shape[2]

    @property
    def pixels(self) -> int:
        """Of the result."""
        return math.prod(self.out)


@dataclass(frozen=True)
class Pooling:
    """Maxima of bits, in windows that lie apart."""

    size: Pair
    channels: int
    pool: Pair
    stride: Pair
    out: Pair

    @property
    def outputs(self) -> int:
        """Channels of the result."""
        return self.channels

    @property
    def pixels(self) -> int:
        """Of the result."""
        return math.prod(self.out)


@dataclass(frozen=True)
class Flattening:
    """Bits of images, (height, width, channels), in torch's order: (channels, height, width)."""

    size: Pair
    channels: int
    pixels = 1
    """Of the result."""

    @property
    def outputs(self) -> int:
        """Features of the result."""
        return self.channels * math.prod(self.size)


ChainStep = TrainedBlock | Pooling | Flattening


@dataclass(frozen=True)
class Chain:
    """The steps of a network, and the options of its optimizer."""

    input_size: Pair
    input_channels: int
    steps: tuple[ChainStep, ...]
    learning_rate: float
    hysteresis_steps: float
    limit_steps: float
    row_decay: float
    """Of the mean squares of rows of gradients."""
    row_eps: float
    norm_rate: float
    betas: tuple[float, float]
    eps: float
    seed: int

    @property
    def blocks(self) -> list[TrainedBlock]:
        """Those with weights."""
        return [step for step in self.steps if isinstance(step, TrainedBlock)]

    @property
    def weights(self) -> int:
        """Accumulators."""
        return sum(block.codes.numel() for block in self.blocks)


def chain_of(network: nn.Module, optimizer: LowBitOptimizer, input_shape: tuple[int, ...]) -> Chain:
    """The chain that a network is.

    Args:
        network: of the preset `edge-min` or `edge-fast`.
        optimizer: the preset's.
        input_shape: (C, H, W) or (features,) of one example.

    Raises:
        ExportError: layers cannot be trained in C; the message names all of them. Or there is no chain.
    """
    reader = _Reader(optimizer, input_shape)
    layers = list(_layers(network))
    for place, (name, layer) in enumerate(layers):
        reader.read(name, layer, is_last=place + 1 == len(layers))
    if reader.obstacles:
        raise ExportError(f"these layers cannot be trained in C: {'; '.join(reader.obstacles)}")
    steps = tuple(reader.steps)
    if not steps or not isinstance(steps[-1], TrainedBlock) or steps[-1].pixels != 1:
        raise ExportError("what is trained in C ends in a block that gives a row of logits, and this network does not")
    *of_weights, of_norms = optimizer.param_groups
    laws = [{name: value for name, value in group.items() if name != "params"} for group in of_weights]
    law = laws[0]
    if not law.get("row_squares") or any(other != law for other in laws):
        raise ExportError("what is trained in C is stepped as by edge-min or edge-fast, and this network is not")
    return Chain(
        reader.input_size,
        reader.input_channels,
        steps,
        law["lr"],
        law["hysteresis_steps"],
        law["limit_steps"],
        law["betas"][1],
        law["eps"],
        of_norms["lr"],
        of_norms["betas"],
        of_norms["eps"],
        law["seed"],
    )


def _layers(network: nn.Module, name: str = "") -> Any:
    """The parts of nested sequences, in their order, by name."""
    if type(network) is not nn.Sequential:
        yield name or type(network).__name__, network
        return
    for part_name, part in network.named_children():
        yield from _layers(part, f"{name}.{part_name}" if name else part_name)


class _Obstacle(Exception):
    """Why a layer cannot be trained in C."""


class _Reader:
    def __init__(self, optimizer: LowBitOptimizer, input_shape: tuple[int, ...]) -> None:
        channels, *size = input_shape
        self.input_size: Pair = (size[0], size[1]) if size else (1, 1)
        self.input_channels = channels
        self.steps: list[ChainStep] = []
        self.obstacles: list[str] = []
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
        self._size, self._channels, self._is_flat = self.input_size, channels, not size

    def read(self, name: str, layer: nn.Module, *, is_last: bool) -> None:
        """Appends the step of a layer, or what stands against it."""
        try:
            match layer:
                case BinaryBlock():
                    step: ChainStep | None = self._block(layer, is_last=is_last)
                case nn.Flatten():
                    step = self._flattening()
                case bnn_pool if hasattr(bnn_pool, "is_disjoint"):
                    step = self._pooling(bnn_pool)
                case nn.Identity():
                    step = None
                case _:
                    raise _Obstacle(f"there is no {type(layer).__name__} in a chain of blocks")
        except _Obstacle as obstacle:
            self.obstacles.append(f"{name} ({obstacle})")
            return
        if step is not None:
            self.steps.append(step)

    def _flattening(self) -> Flattening | None:
        step = Flattening(self._size, self._channels) if self.steps and math.prod(self._size) > 1 else None
        self._channels, self._size, self._is_flat = self._channels * math.prod(self._size), (1, 1), True
        return step

    def _pooling(self, layer: Any) -> Pooling:
        if not self.steps:
            raise _Obstacle("it pools the examples")
        pool, stride, out = self._windows(layer, self._size)
        step = Pooling(self._size, self._channels, pool, stride, out)
        self._size = out
        return step

    def _windows(self, layer: Any, size: Pair) -> tuple[Pair, Pair, Pair]:
        if not layer.is_disjoint or layer.padding:
            raise _Obstacle("its windows overlap or are padded")
        window = layer.window
        return window.kernel, window.stride, window.outputs(size)

    def _block(self, block: BinaryBlock, *, is_last: bool) -> TrainedBlock:
        product = block.product
        if block.obstacle is not None or not isinstance(product, BinaryLayer):
            raise _Obstacle(block.obstacle or "its weight is real")
        weight, window = product.store.trained, product.window or Window.of()
        if not is_accumulator(weight) or weight.dtype is not torch.int8:
            raise _Obstacle("its weight is no accumulator of 8 bits")
        quantizer = product.store.quantizer
        if quantizer is not None and (quantizer.centers or quantizer.projects):
            raise _Obstacle(f"its weight goes through {type(quantizer).__name__}")
        if product.learned_scale is not None or window.groups != 1 or block.rectifies:
            raise _Obstacle("it has a learned scale, groups or a rectifier")
        if not self.steps and product.input_quantizer is not None:
            raise _Obstacle("the first block takes the examples as they are")
        edges = None if block.output_steps is None else block.output_steps.edges
        if is_last and block.activation is not None:
            raise _Obstacle("the last block has no activation")
        if not is_last and (edges is None or len(edges) != 1):
            raise _Obstacle(f"its activation is not Sign, but {type(block.activation).__name__}")
        is_image = product.window is not None
        if is_image == self._is_flat:
            raise _Obstacle("convolutions take images, and linear layers what is flattened")
        kernels = weight.detach().movedim(1, -1) if is_image else weight.detach()[:, None, None]
        step = self._placed(block, kernels.contiguous(), window, edges, is_image, self._numbers[id(weight)])
        self._size, self._channels = step.out, step.outputs
        return step

    def _placed(
        self,
        block: BinaryBlock,
        codes: Tensor,
        window: Window,
        edges: Sequence[float] | None,
        is_image: bool,
        number: int,
    ) -> TrainedBlock:
        if codes.shape[-1] != self._channels:
            raise _Obstacle(f"it takes {codes.shape[-1]} channels, and there are {self._channels}")
        unpooled = window.outputs(self._size, codes.shape[1:3])
        pool, stride, out = ((1, 1), (1, 1), unpooled)
        if block.pool is not None:
            pool, stride, out = self._windows(block.pool, unpooled)
        norm: Any = block.norm
        of_product: Any = block.product.grad_quantizer
        if norm.weight is None:
            raise _Obstacle("its norm learns nothing")
        if of_product.bifurcates:
            raise _Obstacle("the gradient of its product has two widths")
        return TrainedBlock(
            self._size,
            self._channels,
            codes,
            window,
            unpooled,
            pool,
            stride,
            out,
            norm,
            None if edges is None else edges[0],
            is_image,
            not self.steps,
            of_product.largest,
            bool(is_image and self.steps and of_product.ternary_weights),
            number,
        )
