"""The memory model of Wang et al., *Enabling Binary Neural Network Training on the Edge*, arXiv 2102.04270.

It reproduces the figures that the paper and its authors' repository give, with what they leave out: the real image
and the kept logits count as bits, the straight-through window of the activations counts nothing, products share their
memory with the gradients of the inputs, and a mask is as wide as a float in `standard` where two bits a window would
do. It says what the paper says, not what this package takes.
"""

from dataclasses import dataclass

from bnn.cost.memory.table import MemoryTable, NetworkShape, Variable


@dataclass(frozen=True)
class Widths:
    """Bits of an element of each variable."""

    activations: int
    input_gradients: int
    product_gradients: int
    weights: int
    weight_gradients: int
    state: int
    pool_choices: int
    norms: int


PAPER_PRESETS = {
    "standard": Widths(
        activations=32,
        input_gradients=32,
        product_gradients=32,
        weights=32,
        weight_gradients=32,
        state=32,
        pool_choices=32,
        norms=32,
    ),
    "edge": Widths(
        activations=1,
        input_gradients=16,
        product_gradients=16,
        weights=16,
        weight_gradients=1,
        state=16,
        pool_choices=1,
        norms=16,
    ),
}
"""The paper's baseline and its proposal, under the names of `bnn.presets`."""


@dataclass(frozen=True)
class PaperOptimizer:
    """The state that an optimizer keeps of each weight."""

    moments: int
    latent_weights: bool


# Bop has no latent weights, and the paper charges nothing for the binary ones.
PAPER_OPTIMIZERS = {
    "adam": PaperOptimizer(moments=2, latent_weights=True),
    "sgd": PaperOptimizer(moments=1, latent_weights=True),
    "bop": PaperOptimizer(moments=1, latent_weights=False),
}
"""By name; `sgd` has momentum."""


@dataclass(frozen=True)
class MaskQuirk:
    """How the published figures of one network count the masks of max-pooling."""

    counts_layer_inputs: bool = False
    """One element for each input of the layer before the pooling, instead of each input of the pooling."""
    free_if_packed: bool = False
    """Masks of one bit count nothing."""


# Inferred: only so do the sums equal the printed totals and ratios. BinaryNet's need no quirk.
MASK_QUIRKS = {
    "cnv": MaskQuirk(counts_layer_inputs=True, free_if_packed=True),
    "resnete18": MaskQuirk(free_if_packed=True),
    "birealnet18": MaskQuirk(free_if_packed=True),
}
"""By the network's name in `bnn.models`."""

_FLOAT_BITS = 32


def paper_table(
    network: NetworkShape,
    widths: Widths,
    optimizer: PaperOptimizer,
    *,
    batch_size: int,
    quirk: MaskQuirk = MaskQuirk(),
) -> MemoryTable:
    """The variables of a training step, as the paper counts them.

    Args:
        network: such as `network_shape` gives.
        widths: one of `PAPER_PRESETS`, or others.
        optimizer: one of `PAPER_OPTIMIZERS`.
        batch_size: examples.
        quirk: of the network's published figures; by default the masks are as the text defines them.
    """
    first, *inner = network.layers
    kept = first.input_elements + sum(layer.input_elements for layer in inner if layer.binary) + network.outputs
    # The paper's residual network has real layers inside, whose inputs no sign comes before.
    real = sum(layer.input_elements for layer in inner if not layer.binary)
    inputs = [layer.input_elements for layer in network.layers] + [pool.input_elements for pool in network.pools]
    masks = sum(
        pool.layer_input_elements if quirk.counts_layer_inputs else pool.input_elements for pool in network.pools
    )
    mask_bits = 0 if quirk.free_if_packed and widths.pool_choices == 1 else widths.pool_choices
    latent = network.weights if optimizer.latent_weights else 0
    variables = (
        Variable("layer inputs, logits", "to backward", batch_size * kept, widths.activations),
        Variable("inputs of real layers", "to backward", batch_size * real, _FLOAT_BITS),
        Variable("pool choices", "to backward", batch_size * masks, mask_bits),
        Variable("input gradient or product", "one layer", batch_size * max(inputs), widths.input_gradients),
        Variable("product gradient", "one layer", batch_size * max(inputs), widths.product_gradients),
        Variable("latent weights", "always", latent, widths.weights),
        Variable("weight gradients", "to update", network.weights, widths.weight_gradients),
        Variable("optimizer state", "always", optimizer.moments * network.weights, widths.state),
        Variable("norm offsets", "always", network.norm_channels, widths.norms),
    )
    return MemoryTable(tuple(variable for variable in variables if variable.elements))
