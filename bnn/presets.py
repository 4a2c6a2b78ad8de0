"""Presets: named ways to train the same network in more or less memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn

import bnn.optim
from bnn.errors import RecipeError, near_match
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLayer
from bnn.layers.precision import widen_inputs
from bnn.models import initialize
from bnn.ops.cpu.products import sums_floats
from bnn.quantizers.gradients import (
    BFloat16Gradient,
    GradientQuantizer,
    Int8Gradient,
    IntegerGradient,
    SignGradient,
)
from bnn.training import TrainingStep
from bnn.training.allocator import give_back_freed_memory, hold_little_memory, memory_is_limited
from bnn.weights import (
    AccumulatorStore,
    LatentStore,
    StoreFactory,
    WeightStore,
    default_store,
    is_accumulator,
    named_stores,
)

Preset = Literal["standard", "edge", "edge-min", "edge-fast", "edge-signs"]

# The most elements at a time of a layer's product, those of 43 images in BinaryNet's first layer, and of all products,
# of which bits are kept. A batch of a smaller network is not cut, for the sake of its statistics. Of a real convolution
# of the images backward holds only the gradient: two bytes an element, where another layer takes five.
_SLICE_ELEMENTS = 43 * 128 * 32 * 32
_SLICE_TOTAL = 40_000_000
_PART_OF_IMAGES = 2 / 5
# However a batch is cut, slices of 3 leave none of 1, which has no batch statistics.
_SMALLEST_SLICE = 3
_NORM_RATE = 1e-2
_NARROW_FROM = 4096  # elements of a parameter whose state is worth rounding
# Of Adam with moments of float16: its smallest number above 0, so that a gradient below it makes no large step.
_SMALLEST_FLOAT16 = 2.0**-24
_HYSTERESIS = 20.0  # in learning rates
_HYSTERESIS_IN_BOUNDS = 10.0  # of accumulators that a method keeps near 0, which 20 would freeze
# Of accumulators. The least root keeps a row without gradients from a division by 0 and does nothing to others.
_BY_VALUES = {"betas": (0.0, 0.999), "row_squares": True, "limit_steps": 4.0, "eps": 1e-20}
_BY_SIGNS = {"betas": (0.0, 0.0)}
# 8-bit accumulators begin four times as wide as float16 ones, so that the 256 codes cover a quarter of the range.
_GAIN = 4.0
# Of the gradient of a convolution's product: with AVX2 kernels add up integers within ±15 in less time than others,
# with AVX-512 those within ±63. CNV ends as well by 5 bits. ResNet-8, whose input's gradients are sums over few
# outputs, does worse by 5, and as well by 7; a perceptron does worse by 5 (benchmarks/records/accuracy.md).
_WIDE_BITS = 5
_WIDE_OUTPUTS = 128
_NARROW_BITS = 7

Build = Callable[[], nn.Module]
"""Makes a network of `bnn.layers` and torch's own; a class of yours, or `lambda: network` of one that is ready.

What is in a `BinaryBlock` is kept in bits where the preset keeps bits.
"""


def prepare(
    preset: str,
    build: Build,
    *,
    input_shape: tuple[int, ...],
    learning_rate: float | None = None,
    seed: int = 0,
    keep_weights: bool = False,
) -> TrainingStep:
    """Makes a network and all that its training needs.

    Args:
        preset: `standard`, `edge` or `edge-min`: see the functions of these names; or `edge-fast` or `edge-signs`,
            which are `edge_min` by ternary gradients and by sign gradients.
        build: makes the network. Layers that it gives no store make the preset's own; a latent weight that is read as
            its sign is replaced.
        input_shape: of one example.
        learning_rate: of the weights; by default the preset's own.
        seed: of the weights, which are all drawn anew, and of every random rounding.
        keep_weights: whether the weights of `build()` stay as they are, in place of being drawn anew. Stores that the
            preset replaces hand them on (`WeightStore.assign`).

    Raises:
        RecipeError: there is no such preset, the rate is not finite or below 0, or a weight is programmed level by
            level.
    """
    if learning_rate is not None and not 0 <= learning_rate < math.inf:
        raise RecipeError(f"the learning rate is finite and at least 0, got {learning_rate}")
    presets: dict[str, Callable[..., TrainingStep]] = {
        "standard": standard,
        "edge": edge,
        "edge-min": edge_min,
        "edge-fast": partial(edge_min, ternary_gradients=True),
        "edge-signs": partial(edge_min, sign_gradients=True),
    }
    if preset not in presets:
        near = near_match(preset, presets)
        raise RecipeError(f"there is no preset {preset!r}{near}; there are: {', '.join(presets)}")
    options = {} if learning_rate is None else {"learning_rate": learning_rate}
    step = presets[preset](build, input_shape, seed=seed, keep_weights=keep_weights, **options)
    for name, store in named_stores(step.model):
        if not store.has_latent_weight and any(parameter.requires_grad for parameter in store.parameters()):
            raise RecipeError(
                f"the weight of {name} is programmed level by level ({type(store).__name__}), which no preset does:"
                " step it by bnn.optim.DST, as the recipes gxnor and mtj do"
            )
    return step


def standard(
    build: Build,
    input_shape: tuple[int, ...],
    *,
    learning_rate: float = 1e-2,
    seed: int = 0,
    keep_weights: bool = False,
) -> TrainingStep:
    """Float32 throughout: latent weights, batch norm, gradients and Adam. Only binary activations are kept as bits.

    Where the system limits the process's memory, freed tensors go back to it at once, which takes time.

    Source: Courbariaux et al. 2016, arXiv 1602.02830.
    """
    if memory_is_limited():
        give_back_freed_memory()
    model = build()
    if not keep_weights:
        initialize(model, generator=torch.Generator().manual_seed(seed))
    for store in model.modules():
        if isinstance(store, LatentStore):
            store.limit = 1.0
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return TrainingStep(model=model, optimizer=torch.optim.Adam(trained, lr=learning_rate))


def edge(
    build: Build,
    input_shape: tuple[int, ...],
    *,
    learning_rate: float = 3e-3,
    seed: int = 0,
    keep_weights: bool = False,
    sign_gradients: bool = False,
) -> TrainingStep:
    """Blocks that keep bits, 16-bit latent weights and Adam state, and weight gradients that exist a layer at a time.

    After Wang et al., arXiv 2102.04270, with the gradient of an ordinary batch norm, which blocks form from bits.
    Norms, scales and real weights have their own learning rate, and the small ones of them float32 state. Each slice of
    a batch steps the weights of a layer inside backward, as soon as their gradient is known, as `edge_min` does; by
    itself a batch is one slice. The gradients of products are integers, of 5 bits behind convolutions of 128 outputs
    and more, of 7 behind others and of 8 in fully connected layers, rounded at random so that they are right on
    average.

    Args:
        build: as of `prepare`, like the other arguments.
        input_shape: of one example.
        learning_rate: of the weights.
        seed: of weights and roundings.
        keep_weights: whether the weights of `build()` stay.
        sign_gradients: whether only the signs of weight gradients are kept, packed, and stepped by after backward, as
            in the paper; those of several slices add up. The paper's factor 1 / sqrt(N) is left out, to which Adam is
            invariant. The gradients of all products then have 8 bits.
    """
    rounding = torch.Generator().manual_seed(seed)
    gradient = _packed_signs(rounding) if sign_gradients else None
    store = partial(AccumulatorStore, dtype=torch.float16, gradient_quantizer=gradient)
    of_product = partial(_of_product, rounding, sign_gradients=sign_gradients)
    model = _binary_network(build, store, of_product, seed, keep_weights)
    accumulators, others = _parameters(model)
    groups = [{"params": others, "lr": _NORM_RATE}]
    if accumulators:
        groups.insert(0, {"params": accumulators, "eps": _SMALLEST_FLOAT16})
    optimizer = bnn.optim.Adam(groups, lr=learning_rate, state_dtype=torch.float16, narrow_from=_NARROW_FROM, seed=seed)
    if not sign_gradients:
        bnn.optim.step_in_backward(optimizer, parameters=accumulators)
    return TrainingStep(model=model, optimizer=optimizer, generators={"rounding": rounding})


def edge_min(
    build: Build,
    input_shape: tuple[int, ...],
    *,
    learning_rate: float = 2e-2,
    seed: int = 0,
    keep_weights: bool = False,
    sign_gradients: bool = False,
    ternary_gradients: bool = False,
) -> TrainingStep:
    """One int8 accumulator a weight, and a float32 a row; blocks that keep bits; slices that step in backward.

    A step moves each accumulator against its gradient, as Adam without a mean would, whose mean square is one of the
    weight's row (`bnn.optim.Adam`, `row_squares`): by the learning rate times the gradient over the root of its mean
    square, four learning rates at most. One that changes its sign is set at least 20 learning rates beyond 0, so that
    gradient noise does not flip the weight to and fro; 10 where ReCU keeps weights in bounds. The few other
    parameters, those of norms, scales and real layers, are stepped by Adam at their own rate, once a batch. The
    gradients of products are integers, as under `edge`. Each slice
    of a batch steps the accumulators of every layer as soon as their gradient is known, so that the gradients of the
    whole network never exist together. A gradient that is not finite ends the step where it appears; the layers whose
    gradients came before it have been stepped already.

    Args:
        build: as of `prepare`, like the other arguments.
        input_shape: of one example.
        learning_rate: of the weights.
        seed: of weights and roundings.
        keep_weights: whether the weights of `build()` stay.
        sign_gradients: whether only the signs of weight gradients are formed, packed, and accumulators move by the
            learning rate against them: no gradient of more than a bit a weight exists, there is no optimizer state, and
            several processes exchange one bit a weight. It costs accuracy.
        ternary_gradients: whether the weight gradients of binary convolutions are formed of output gradients of -1, 0
            and 1, drawn at random, by counts of bits (`bnn.quantizers.gradients.Int8Gradient`). Noisier, and
            faster where AVX-512 counts bits.

    Raises:
        ValueError: gradients are to be signs and ternary.
    """
    if sign_gradients and ternary_gradients:
        raise ValueError("weight gradients are either signs or formed of ternary ones")
    rounding = torch.Generator().manual_seed(seed)
    gradient = _packed_signs(rounding) if sign_gradients else BFloat16Gradient()
    store = partial(AccumulatorStore, gain=_GAIN, gradient_quantizer=gradient)
    of_product = partial(_of_product, rounding, sign_gradients=sign_gradients, ternary_gradients=ternary_gradients)
    model = _binary_network(build, store, of_product, seed, keep_weights)
    accumulators, others = _parameters(model)
    in_bounds = [store.trained for _, store in named_stores(model) if store.quantizer and store.quantizer.projects]
    bounded = {id(parameter) for parameter in in_bounds}
    law = _BY_SIGNS if sign_gradients else _BY_VALUES
    groups = [
        {"params": parameters, "lr": learning_rate, "hysteresis_steps": steps, **law}
        for parameters, steps in (
            ([parameter for parameter in accumulators if id(parameter) not in bounded], _HYSTERESIS),
            ([parameter for parameter in accumulators if id(parameter) in bounded], _HYSTERESIS_IN_BOUNDS),
        )
        if parameters
    ]
    optimizer = bnn.optim.Adam([*groups, {"params": others}], lr=_NORM_RATE, seed=seed)
    bnn.optim.step_in_backward(optimizer, parameters=accumulators)
    return TrainingStep(
        model=model,
        optimizer=optimizer,
        slice_size=_slice_size(model, input_shape),
        generators={"rounding": rounding},
    )


def _packed_signs(rounding: torch.Generator) -> GradientQuantizer:
    return SignGradient(packed=True, scale="none", generator=rounding)


def _of_product(
    rounding: torch.Generator, layer: BinaryLayer, *, sign_gradients: bool, ternary_gradients: bool = False
) -> GradientQuantizer:
    """The quantizer of the gradient of a layer's product."""
    if not isinstance(layer, BinaryConv2d) or sign_gradients:  # signs want the finer sums
        return Int8Gradient(generator=rounding)
    is_wide = layer.store.shape[0] // layer.groups >= _WIDE_OUTPUTS
    bits = _WIDE_BITS if is_wide else _NARROW_BITS
    return IntegerGradient(bits, generator=rounding, ternary_weights=ternary_gradients)


def _binary_network(
    build: Build,
    accumulators: Callable[..., AccumulatorStore],
    of_product: Callable[[BinaryLayer], GradientQuantizer],
    seed: int,
    keep_weights: bool,
) -> nn.Module:
    """A network of accumulators with integer gradients of products, whose blocks recompute these."""

    def replacement(store: WeightStore) -> StoreFactory | None:
        latent = store.quantizer
        if latent is None or is_accumulator(store.trained):
            return None
        if latent.serves_accumulators:
            return partial(accumulators, quantizer=latent)
        # Of a sign with a scale, which the norm takes away.
        return accumulators if latent.is_sign else None

    hold_little_memory()
    with default_store(accumulators, replacement=None if keep_weights else replacement):
        model = build()
    for module in model.modules():
        if isinstance(module, BinaryLayer):
            if (factory := replacement(module.store)) is not None:
                old, module.store = module.store, factory(module.store.shape)
                if keep_weights:
                    module.store.assign(old.trained_value())
            module.grad_quantizer = of_product(module)
        if isinstance(module, BinaryBlock):
            module.recompute = True
    if not keep_weights:
        initialize(model, generator=torch.Generator().manual_seed(seed))
    widen_inputs(model)
    _name_what_keeps_more(model)
    return model


def _name_what_keeps_more(model: nn.Module) -> None:
    """Warns once of the layers that keep more than bits, with the reason."""
    reasons, in_blocks = [], set()
    for name, module in model.named_modules():
        if isinstance(module, BinaryBlock):
            in_blocks.add(module.product)
            if module.obstacle is not None:
                reasons.append(f"{name} keeps floats: {module.obstacle}")
        elif isinstance(module, BinaryLayer) and module not in in_blocks:
            reasons.append(f"{name} is outside of a BinaryBlock, and what follows it keeps floats")
    if reasons:
        warnings.warn("; ".join(reasons), stacklevel=5)


def _parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The accumulators, and all others that are trained."""
    parameters = list(model.parameters())
    return (
        [parameter for parameter in parameters if is_accumulator(parameter)],
        [parameter for parameter in parameters if parameter.requires_grad],
    )


def _forms_rows_alone(block: BinaryBlock) -> bool:
    """Whether a block has a real convolution whose product is formed again row by row."""
    conv, window = block.product, block.window
    if not isinstance(conv, nn.Conv2d) or window is None or block.pool is not None or block.rectifies:
        return False
    return sums_floats(conv.weight.shape, window)


def _slice_size(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Examples whose products are `_SLICE_ELEMENTS` in the layer that has most of them, or `_SLICE_TOTAL` together; at
    least `_SMALLEST_SLICE`."""
    sizes: list[int] = []

    def measure(block: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(block, BinaryBlock)
        sizes.append(block.product_shape(inputs[0]).numel())

    blocks = [module for module in model.modules() if isinstance(module, BinaryBlock)]
    hooks = [block.register_forward_pre_hook(measure) for block in blocks]
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, *input_shape))
    model.train()
    for hook in hooks:
        hook.remove()
    largest, total = max(sizes, default=1), max(sum(sizes), 1)
    if blocks and _forms_rows_alone(blocks[0]):
        largest = max(math.ceil(_PART_OF_IMAGES * sizes[0]), *sizes[1:], 1)
    return max(_SMALLEST_SLICE, min(_SLICE_ELEMENTS // largest, _SLICE_TOTAL // total))
