"""The quantization card: the choices that make one figure of a quantized network comparable with another.

The fields follow Garg et al. 2021 (*Confounding Tradeoffs for Neural Network Quantization*, arXiv 2102.06366), with
those of training beside them. All of them are read off the run; none is typed by hand.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from bnn.cost.count import count_network
from bnn.cost.energy.ledger import INTEGER_BITS, LEVEL_BITS, accumulator_bits
from bnn.cost.layer_count import LayerCount
from bnn.data import hold_out
from bnn.layers import BinaryBlock, BinaryLayer
from bnn.optim.base import LowBitOptimizer
from bnn.quantizers import Quantizer
from bnn.quantizers.gradients import GradientQuantizer
from bnn.training import Loss, Run
from bnn.weights import WeightStore

_FLOAT_BITS = 32


def quantization_card(run: Run) -> dict[str, str]:
    """The choices of a run, by their names.

    Args:
        run: whose model can run on meta tensors.
    """
    layers = [layer for layer in count_network(run.model, run.data.image_shape).layers if layer.weights]
    binary = [module for module in run.model.modules() if isinstance(module, BinaryLayer)]
    blocks = [module for module in run.model.modules() if isinstance(module, BinaryBlock)]
    return {
        **_layer_choices(layers),
        "weight levels": _listed(_weight_levels(layer.store) for layer in binary),
        "scale of weights": _listed(map(_scale, binary)),
        "input levels": _listed(_input_levels(layer.input_quantizer) for layer in binary),
        "blocks": _listed(map(_block, blocks)),
        **_product_choices(layers),
        "latent weights": _listed(_latent(layer.store) for layer in binary),
        "gradient of a weight": _listed(_gradient(layer.store.gradient_quantizer) for layer in binary),
        "gradient of a product": _listed(_gradient(layer.grad_quantizer) for layer in binary),
        "optimizer": _optimizer(run.optimizer),
        "norms": _listed(_norm(module) for module in run.model.modules() if "Norm" in type(module).__name__),
        **_training_choices(run),
    }


def loss_name(loss: Loss) -> str:
    """The name of a function, or of the class of a callable."""
    return str(getattr(loss, "__name__", type(loss).__name__))


def _layer_choices(layers: Sequence[LayerCount]) -> dict[str, str]:
    texts = [f"{layer.kind}, weights of {_b(layer.weight_bits)}, input of {_b(layer.input_bits)}" for layer in layers]
    return {
        "first layer": texts[0] if texts else "none",
        "inner layers": f"{len(texts[1:-1])}: {_listed(texts[1:-1])}" if texts[1:-1] else "none",
        "last layer": texts[-1] if texts else "none",
    }


def _product_choices(layers: Sequence[LayerCount]) -> dict[str, str]:
    products = sum(layer.multiply_accumulates for layer in layers)
    levels = [layer for layer in layers if max(layer.input_bits, layer.weight_bits) <= LEVEL_BITS]
    on_levels = sum(layer.multiply_accumulates for layer in levels)
    sums = [
        accumulator_bits((layer.input_bits, layer.weight_bits), layer.fan_in)
        for layer in layers
        if max(layer.input_bits, layer.weight_bits) <= INTEGER_BITS
    ]
    real = sum(layer.weights for layer in layers if layer.weight_bits > INTEGER_BITS)
    return {
        "quantized": f"weights and inputs of {100 * on_levels / max(1, products):.1f} % of the forward pass's products",
        "real weights": f"{100 * real / max(1, sum(layer.weights for layer in layers)):.1f} % of all",
        "accumulator": f"{_b(max(sums))} hold every such sum exactly" if sums else "of floats",
    }


def _training_choices(run: Run) -> dict[str, str]:
    train, validation = hold_out(run.data.train, fraction=run.validation, seed=run.seed)
    sliced = run.slice_size is not None and run.slice_size < run.batch_size
    return {
        "precision": f"products of {run.precision}"
        + ("; memory and energy are predicted for float32" if run.precision != "float32" else ""),
        "batch": f"{run.batch_size}"
        + (f", at most {run.slice_size} at a time, of which norms take statistics" if sliced else ""),
        "loss": loss_name(run.loss),
        "augmentation": _listed(type(augmentation).__name__ for augmentation in run.augment),
        "data": run.data.source,
        "split": f"{len(train):,} training, {len(validation):,} validation, {len(run.data.test):,} test examples",
        "labels": "those of the data set",
        "selection": f"the final epoch, number {run.epochs}; nothing is selected on the test split",
        "seed": f"{run.seed}, of order, augmentation and validation split",
    }


def _block(block: BinaryBlock) -> str:
    if not block.is_fused:
        return "layer by layer"
    steps = [f"{len(of.slopes)} slopes" for of in (block.input_steps, block.output_steps) if of is not None]
    gradient = f", gradient of the sign in {' and '.join(steps)}" if steps else ""
    return "product formed again in backward, bfloat16 between convolutions" + gradient


def _weight_levels(store: WeightStore) -> str:
    return f"{_levels(store.levels)} ({type(store.quantizer or store).__name__})"


def _input_levels(quantizer: Quantizer | None) -> str:
    return "as they come" if quantizer is None else f"{_levels(quantizer.levels)} ({type(quantizer).__name__})"


def _levels(levels: Sequence[float]) -> str:
    if not levels:
        return "real"
    named = (
        ", ".join(f"{level:+g}" if level else "0" for level in levels) if len(levels) <= 5 else f"{len(levels)} levels"
    )
    symmetric = all(low == -high for low, high in zip(levels, reversed(levels), strict=True))
    return f"{named}, {'symmetric' if symmetric else 'not symmetric'}"


def _scale(layer: BinaryLayer) -> str:
    kinds = ["analytic"] * layer.store.scales + ["learned"] * (layer.learned_scale is not None)
    return " and ".join(kinds) + ", per output channel" if kinds else "none"


def _latent(store: WeightStore) -> str:
    return f"{type(store).__name__}, {_b(store.training_bits)}" if store.has_latent_weight else "none"


def _gradient(quantizer: GradientQuantizer | None) -> str:
    return _b(_FLOAT_BITS) if quantizer is None else f"{_b(quantizer.storage_bits)} ({type(quantizer).__name__})"


def _optimizer(optimizer: torch.optim.Optimizer) -> str:
    name = type(optimizer).__name__
    if not isinstance(optimizer, LowBitOptimizer):
        return f"{name}, state as wide as the parameters"
    moments = _listed(f"{len(optimizer.moments(group))} moments" for group in optimizer.param_groups)
    return f"{name}, state of {_b(8 * optimizer.state_dtype.itemsize)}, {moments}"


def _norm(module: nn.Module) -> str:
    parameters = list(module.parameters())
    return f"{type(module).__name__}, {_b(8 * parameters[0].element_size()) if parameters else 'without parameters'}"


def _b(bits: int) -> str:
    return "1 bit" if bits == 1 else f"{bits} bits"


def _listed(texts: Iterable[str]) -> str:
    """Different ones with how often they occur; the number is left out where all are the same."""
    counts = Counter(texts)
    if len(counts) <= 1:
        return next(iter(counts), "none")
    return "; ".join(f"{count} x {text}" for text, count in counts.items())
