"""`shrink`: a trained network with fewer channels, in layers that are really smaller."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.errors import RunError
from bnn.layers import BinaryLayer, Graph
from bnn.models.conversion.tracing import NotTraceableError
from bnn.posttraining.channels import Channels, channels_of, without
from bnn.posttraining.importance import importance_across, taylor_importance
from bnn.posttraining.products import dense
from bnn.posttraining.series import graph_of
from bnn.posttraining.tuning import reestimate_norms
from bnn.presets import prepare
from bnn.quantizers import Quantizer, Sign, Ternary
from bnn.training import Run, warmup_cosine
from bnn.weights import LatentStore, WeightStore, named_stores

ROUNDS = 4


@dataclass(frozen=True)
class Shrunk:
    """A network with fewer channels."""

    network: Graph
    """In evaluation mode; its binary weights are latent ones."""
    channels: Mapping[str, tuple[int, int]]
    """Of each product the channels that it had, and has."""


def shrink(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    keep: float,
    across: bool = False,
    latents: Mapping[str, Tensor] | None = None,
    rounds: int = ROUNDS,
) -> Shrunk:
    """Removes the channels of each layer that matter least, in rounds, and estimates the norms anew after each.

    Channels that a shortcut joins go together, and padding gets narrower with them. The network is then to be tuned.

    Args:
        network: trained, in evaluation mode; it is not changed.
        x: some hundred examples, as the network takes them.
        labels: int64 [n].
        keep: share of the removable channels to keep in each layer, at least one, above 0 and below 1.
        across: whether the share is of the whole network's channels, of which the least important go wherever they are.
        latents: what is trained in place of binary weights, by the names that a model file gives these.
        rounds: at least 1.

    Raises:
        RunError: the calls of the network cannot be listed, none of its channels can be removed, or weights have
            levels that cannot be tuned.
    """
    try:
        graph = graph_of(with_latent_weights(network, latents or {}), tuple(x.shape[1:])).eval()
    except NotTraceableError as reason:
        raise RunError(f"the network's channels cannot be followed: {reason}") from None
    found = channels_of(graph, tuple(x.shape[1:]))
    before = {name: len(labels_) for name, labels_ in found.outputs.items() if name in found.inputs}
    if not found.removable():
        raise RunError("no channel of the network can be removed: each goes through a call that mixes or fixes it")
    at_first = len(found.removable())
    for number in range(1, rounds + 1):
        share = keep ** (number / rounds)
        if across:
            removed = _least_across(found, importance_across(graph, found, x, labels), round(share * at_first))
        else:
            removed = _least(found, taylor_importance(graph, found, x, labels), before, share)
        graph = without(graph, found, removed, copy.deepcopy)
        reestimate_norms(graph, x)
        found = channels_of(graph, tuple(x.shape[1:]))
    after = {name: len(found.outputs[name]) for name in before}
    return Shrunk(graph, {name: (number, after[name]) for name, number in before.items()})


def tuning_run(shrunk: Shrunk, run: Run, *, preset: str, epochs: int, learning_rate: float | None = None) -> Run:
    """A run that tunes a smaller network on the data of another run, with its batches and augmentation.

    Args:
        shrunk: the network; it becomes that of the run.
        run: the run whose network was shrunk.
        preset: see `bnn.presets`.
        epochs: at least 1; the learning rate follows a cosine to 0.
        learning_rate: at the start; None takes the preset's own.

    Raises:
        RecipeError: there is no such preset, or a value is out of its range.
    """
    step = prepare(
        preset,
        lambda: shrunk.network.train(),
        input_shape=run.data.image_shape,
        learning_rate=learning_rate,
        seed=run.seed,
        keep_weights=True,
    )
    return Run(
        **vars(step),
        data=run.data,
        epochs=epochs,
        batch_size=run.batch_size,
        seed=run.seed,
        validation=run.validation,
        augment=run.augment,
        schedule=warmup_cosine(epochs),
    )


def require_latent(network: nn.Module, name: str) -> None:
    """Refuses a network whose weights are trained without latent ones, such as those on junctions.

    Args:
        network: as its recipe makes it.
        name: of the run.

    Raises:
        RunError: it has such weights.
    """
    for layer, store in named_stores(network):
        if not store.has_latent_weight:
            raise RunError(
                f"{name} trains {layer} without latent weights ({type(store).__name__}), by which smaller networks are"
                " tuned: shrink a run of another recipe"
            )


def _least(found: Channels, importance: Mapping[int, float], before: Mapping[str, int], share: float) -> set[int]:
    """The labels of the least importance, so that each layer, or layers that go together, has a share of its channels.

    Args:
        found: channels of the network as it is.
        importance: of its removable labels.
        before: of each product the channels that it had at first.
        share: of them, to keep.
    """
    removed: set[int] = set()
    for names, labels in found.together().items():
        now = min(len(found.outputs[name]) for name in names)
        of_all = len(labels) * min(before[name] for name in names) / now  # that these were at first
        number = len(labels) - max(1, round(share * of_all))
        removed.update(sorted(labels, key=importance.__getitem__)[: max(0, number)])
    return removed


def _least_across(found: Channels, importance: Mapping[int, float], kept: int) -> set[int]:
    """The labels of the least importance, so that so many are kept, and of what goes together at least one."""
    left = {label: labels for labels in found.together().values() for label in labels}
    removed: set[int] = set()
    for label in sorted(left, key=importance.__getitem__):
        if len(left) - len(removed) > kept and len(set(left[label]) - removed) > 1:
            removed.add(label)
    return removed


def with_latent_weights(network: nn.Module, latents: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a network whose binary and ternary weights are latent ones that read the same levels.

    Args:
        network: any.
        latents: what to begin with, by the names that a model file gives weights; what reads other levels is not taken.

    Raises:
        RunError: a weight has other levels.
    """
    copied = copy.deepcopy(network)
    for name, layer in copied.named_modules():
        if isinstance(layer, BinaryLayer):
            given = latents.get(f"{name}.store.weight" if name else "store.weight")
            layer.store, scale = _latent(layer.store, given, name), layer.store.scale()
            if scale is not None:
                learned = scale if layer.learned_scale is None else scale * layer.learned_scale
                layer.learned_scale = nn.Parameter(learned.detach().clone())
    return copied


def _latent(store: WeightStore, given: Tensor | None, name: str) -> LatentStore:
    levels = store.read().detach()
    quantizer: Quantizer = Sign() if isinstance(levels, BitTensor) else Ternary()
    made, wanted = LatentStore(store.shape, quantizer=quantizer), dense(levels).float()
    for values in (given, wanted):
        if values is not None and values.shape == wanted.shape:
            made.assign(values)
            if torch.equal(dense(made.read()).float(), wanted):
                return made
    raise RunError(f"the weight of {name} is neither binary nor ternary, and cannot be tuned")
