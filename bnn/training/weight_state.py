"""What callbacks ask of a store, of any kind: the trained value behind its weight and the signs of what it reads."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bnn.accumulator_store import AccumulatorStore
from bnn.bits import BitTensor, in_memory_order
from bnn.discrete_store import ProgrammableStore
from bnn.fixed_point import FixedPoint, decode
from bnn.quantizers import Sign
from bnn.stores import LatentStore, WeightStore


def named_stores(model: nn.Module) -> Iterator[tuple[str, WeightStore]]:
    """The stores of a model, each with the name of its layer."""
    for name, module in model.named_modules():
        if isinstance(module, WeightStore):
            yield name.rpartition(".")[0] or name, module


def trained_parameter(store: WeightStore) -> nn.Parameter:
    """The parameter that the optimizer steps in place of the weight."""
    return next(store.parameters())


def trained_value(store: WeightStore) -> Tensor:
    """What stands behind the weight, floating and without gradient: a latent weight, an accumulator's value, or levels.

    It may be the parameter itself: do not change it.
    """
    if isinstance(store, ProgrammableStore):
        levels = store.levels()
        return levels.dense() if isinstance(levels, BitTensor) else levels
    parameter = trained_parameter(store).detach()
    return decode(parameter) if isinstance(trained_parameter(store), FixedPoint) else parameter


def sign_planes(store: WeightStore) -> tuple[Tensor, ...]:
    """A copy of the weight's signs as bits: which are above 0 and, unless all weights are -1 or +1, which are below.

    Returns:
        uint8 [rows, bytes] each, as in `BitTensor.packed`; the bits that fill up a row are 0.
    """
    if (weight := _signed_as_it_lies(store)) is not None:
        # By the operation itself, since meters ask after every step: a BitTensor takes longer than the bits.
        return (torch.ops.bnn.pack(in_memory_order(weight.detach())[1]),)
    with torch.no_grad():
        levels = store.read()
    if isinstance(levels, BitTensor):
        return (levels.packed.clone(),)
    return BitTensor.from_dense(levels > 0).packed, BitTensor.from_dense(levels < 0).packed


def _signed_as_it_lies(store: WeightStore) -> Tensor | None:
    """The parameter, if the weight is just its sign, so that this can be packed without a read."""
    if isinstance(store, AccumulatorStore) and type(store).read is AccumulatorStore.read:
        return store.weight
    if isinstance(store, LatentStore) and type(store).read is LatentStore.read:
        return store.weight if type(store.quantizer).forward is Sign.forward else None
    return None


def count_ones(packed: Tensor) -> Tensor:
    """The number of bits that are set in a uint8 tensor, as a scalar of int64."""
    return ones_of_bytes(packed).sum(dtype=torch.int64)


def ones_of_bytes(packed: Tensor) -> Tensor:
    """The number of bits that are set in each element of a uint8 tensor, uint8 in its shape."""
    # Sums of neighbouring bits, then of pairs, then of halves.
    x = packed - ((packed >> 1) & 0x55)
    x = (x & 0x33) + ((x >> 2) & 0x33)
    return (x + (x >> 4)) & 0x0F
