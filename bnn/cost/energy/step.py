"""Counts the events of one training step from shapes alone."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from bnn.cost.count import NetworkCount, count_network
from bnn.cost.energy.ledger import Ledger
from bnn.cost.layer_count import LayerCount
from bnn.errors import RunError
from bnn.weights import WeightStore

_FLOAT_BITS = 32


def count_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    input_shape: tuple[int, ...],
    *,
    batch_size: int,
    slices: int = 1,
    updates: Mapping[Tensor, int] = MappingProxyType({}),
    strict: bool = False,
) -> Ledger:
    """Counts one training step of a batch: products and memory traffic, forward, backward and update.

    Every layer reads its input and weight and writes its output once. Backward reads the output's gradient, the weight
    and what forward kept, and writes the gradients; a block that keeps bits forms its product again, which is written
    and read. The update reads and writes each parameter and state and reads
    each gradient. Widths are those that the arithmetic sees: a gradient that is quantized is as wide as its quantizer
    makes it. Arithmetic of norms, activations and the optimizer is not counted; their traffic is.

    Args:
        model: any module whose layers can run on meta tensors.
        optimizer: its state, as wide as it is stored, is what an update moves. Call after its first step.
        input_shape: of one example, such as (C, H, W).
        batch_size: examples.
        slices: parts that the batch goes through the network in; each reads the weights.
        updates: steps of a parameter for a batch, where they are one for each slice; of all others it is 1.
        strict: whether to refuse a network with modules or operations that are not known, instead of leaving out what
            they compute.

    Raises:
        RunError: `strict`, and something is not known.
    """
    network = count_network(model, input_shape, batch_size=batch_size)
    if strict:
        require_counted(network)
    ledger = Ledger()
    for layer in (*network.layers, *network.operations):
        if not layer.is_view:
            weights = [p for p in model.get_submodule(layer.name).parameters() if p.dim() > 1] if layer.weights else []
            _count_layer(ledger, layer, slices, max((updates.get(weight, 1) for weight in weights), default=1))
    gradient_bits, weight_bits = _gradient_bits(model), _weight_bits(model)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = [value for value in optimizer.state.get(parameter, {}).values() if isinstance(value, Tensor)]
            times = updates.get(parameter, 1)
            count = times * parameter.numel()
            ledger.moves("read", "optimizer", "update", gradient_bits.get(id(parameter), _FLOAT_BITS), count)
            for tensor in (parameter, *state):
                for op in ("read", "write"):
                    bits = weight_bits.get(id(tensor), 8 * tensor.element_size())
                    ledger.moves(op, "optimizer", "update", bits, times * tensor.numel())
    return ledger


def require_counted(network: NetworkCount) -> None:
    """Refuses a network of which not everything is known.

    Raises:
        RunError: it has modules or operations that are not known.
    """
    if network.uncounted:
        raise RunError(
            f"the counts would leave out what {', '.join(network.uncounted)} compute: build them of layers that"
            " bnn.cost.count knows, or count without strict"
        )


def _count_layer(ledger: Ledger, layer: LayerCount, slices: int, updates: int) -> None:
    def moves(op: str, phase: str, bits: int, elements: int) -> None:
        if bits:
            ledger.moves(op, layer.name, phase, bits, elements)  # type: ignore[arg-type]

    def macs(phase: str, bits: int, other_bits: int, terms: int) -> None:
        ledger.multiply_accumulates(
            layer.name,
            phase,  # type: ignore[arg-type]
            (bits, other_bits),
            layer.multiply_accumulates,
            terms=terms,
        )

    moves("read", "forward", layer.input_bits, layer.input_elements)
    moves("write", "forward", layer.output_bits, layer.output_elements)
    moves("read", "backward", layer.gradient_bits, layer.output_elements)
    moves("read", "backward", layer.saved_bits, layer.saved_elements)
    if layer.needs_input_gradient:
        moves("write", "backward", layer.input_gradient_bits, layer.input_elements)
    if layer.weights:
        moves("read", "forward", layer.weight_bits, slices * layer.weights)
        moves("read", "backward", layer.weight_bits, slices * layer.weights)
        moves("write", "backward", layer.weight_gradient_bits, slices * layer.weights)
        # Gradients of slices that are not stepped at once add up.
        moves("read", "backward", layer.weight_gradient_bits, (slices - updates) * layer.weights)
        macs("forward", layer.input_bits, layer.weight_bits, layer.fan_in)
        # The gradient of a weight sums over the examples and positions of a slice.
        uses = layer.multiply_accumulates // layer.weights
        macs("backward", layer.input_bits, layer.gradient_bits_for_weight, -(-uses // slices))
        if layer.needs_input_gradient:
            macs("backward", layer.weight_bits, layer.gradient_bits, layer.fan_out)
    if layer.recomputed_bits is not None:
        moves("read", "backward", layer.input_bits, layer.input_elements)
        for op in ("write", "read"):
            moves(op, "backward", layer.recomputed_bits, layer.output_elements)
        if layer.weights:
            moves("read", "backward", layer.weight_bits, slices * layer.weights)
            macs("backward", layer.input_bits, layer.weight_bits, layer.fan_in)


def _gradient_bits(model: nn.Module) -> dict[int, int]:
    """Width of the gradient that the optimizer reads, by the identity of the parameter."""
    bits = {id(p): 8 * p.element_size() for p in model.parameters() if p.requires_grad}
    for store in model.modules():
        if isinstance(store, WeightStore) and store.gradient_quantizer is not None:
            bits |= {id(parameter): store.gradient_quantizer.storage_bits for parameter in store.parameters()}
    return bits


def _weight_bits(model: nn.Module) -> dict[int, int]:
    """Width of weights that live in a store alone, of which the parameter takes no memory, by its identity."""
    stores = [module for module in model.modules() if isinstance(module, WeightStore)]
    return {
        id(parameter): store.storage_bits
        for store in stores
        if not store.has_latent_weight
        for parameter in store.parameters()
    }
