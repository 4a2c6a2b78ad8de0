"""`diagnose`: figures that explain a trained network, each with what to do about it and what it cannot say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from bnn.codec import Model
from bnn.models.mean_field import depth_budget
from bnn.posttraining.gradients import gradient_coherence, output_gradients
from bnn.posttraining.series import products_in_series
from bnn.posttraining.state import Seen, level_entropies, seen, unchanged_signs
from bnn.quantizers.gradients import LognormalFit, fit_lognormal
from bnn.quantizers.gradients.float_format import float_format

_COHERENCE_EXAMPLES = 64


@dataclass(frozen=True)
class Row:
    """A bar of a figure."""

    name: str
    value: float
    """At least 0."""
    text: str


@dataclass(frozen=True)
class Finding:
    """A figure of a network."""

    title: str
    rows: Sequence[Row]
    advice: str
    """A sentence on what to do."""
    limit: str
    """A sentence on what the figure cannot say."""


def diagnose(
    model: Model,
    x: Tensor,
    labels: Tensor,
    *,
    start: Mapping[str, Tensor] | None = None,
    never_flipped: Mapping[str, float] | None = None,
) -> list[Finding]:
    """The findings about a trained network; those that it has no figure for are left out.

    Args:
        model: in evaluation mode.
        x: some hundred examples, as the network takes them; coherence looks at the first 64.
        labels: int64 [n].
        start: the levels of its stores before it was trained, by layer; None where they are not known.
        never_flipped: of each layer the share of weights that have never changed their sign, where a run has counted
            it; it is then shown in place of what `start` tells.
    """
    network = model.network
    examples = seen(network, x, labels)
    findings = [
        _coherence(network, x[:_COHERENCE_EXAMPLES], labels[:_COHERENCE_EXAMPLES]),
        _alignment(model, examples),
        _lognormal(network, x, labels),
        _depth(network, x, examples),
        _flips(network, start, never_flipped),
        _accumulators(examples),
        _entropy(network),
    ]
    return [finding for finding in findings if finding is not None and finding.rows]


def _coherence(network: nn.Module, x: Tensor, labels: Tensor) -> Finding:
    found, m = gradient_coherence(network, x, labels), len(x)
    rows = [Row("all weights", found.total, f"{found.total:.2f}")]
    rows += [Row(name, value, f"{value:.2f}") for name, value in found.of_layers.items()]
    if found.total > m / 8:
        advice = (
            "The examples still pull the weights one way: more epochs, or a higher learning rate, have more to give."
        )
    elif found.total > 2:
        advice = (
            "The examples agree a little more than by chance: some further epochs may still have something to give."
        )
    else:
        advice = (
            "The gradients of different examples have little in common: what is left to learn is particular to each, so"
            " that more data or augmentation promise more than further epochs like the last."
        )
    limit = (
        f"m-coherence of {m} examples: 1 is what orthogonal gradients have, {m} what equal ones have. It is of the end"
        " of training, by straight-through gradients, and does not tell how well the network does on other data."
    )
    return Finding("Agreement of the examples' gradients", rows, advice, limit)


def _alignment(model: Model, examples: Seen) -> Finding | None:
    if not examples.alignment:
        return None
    rows = [Row(model.class_name(k), max(0.0, c), f"{c:.2f}") for k, c in enumerate(examples.alignment)]
    mean = statistics.fmean(examples.alignment)
    advice = (
        f"On average {mean:.2f}: the last layer is close to the class means, so that a new class can begin with the"
        " mean of its examples."
        if mean > 0.7
        else f"On average {mean:.2f}: the last layer looks for what tells classes apart rather than for their means; a"
        " new class needs training."
    )
    limit = (
        "The cosine between the weights of a logit and its class's mean input. It does not tell whether classes are"
        " confused: `bnn eval --confusion` does."
    )
    return Finding("Class means in the last layer", rows, advice, limit)


def _lognormal(network: nn.Module, x: Tensor, labels: Tensor) -> Finding:
    gradients = output_gradients(network, x, labels)
    fits = {name: fit for name, gradient in gradients.items() if (fit := fit_lognormal(gradient)) is not None}
    rows = [Row(name, fit.distance, _of_fit(fit)) for name, fit in fits.items()]
    close = [name for name, fit in fits.items() if fit.distance < 0.1]
    widest = max(fits.values(), key=lambda fit: fit.sigma, default=None)
    if widest is not None and len(close) > len(fits) / 2:
        exponent, mantissa = float_format(8, widest.octaves)
        advice = (
            f"{len(close)} of {len(fits)} layers have nearly lognormal gradients: with one scale a layer,"
            f" FP8 E{exponent}M{mantissa} holds them, and stochastic pruning (`LognormalPruning`) keeps their mean."
        )
    else:
        advice = (
            "Most layers have gradients that are not lognormal: do not set thresholds by that fit; integers with random"
            " rounding (`Int8Gradient`) need none."
        )
    zeros = max((fit.zeros for fit in fits.values()), default=0.0)
    limit = (
        "The bar is the distance of Kolmogorov and Smirnov, 0 for a perfect fit, of the gradient by each layer's"
        f" output. Zeros, up to {100 * zeros:.0f} % of a layer's, are left out. It is of the end of training: early"
        " gradients are larger and may be shaped otherwise."
    )
    return Finding("Lognormal gradients", rows, advice, limit)


def _of_fit(fit: LognormalFit) -> str:
    return f"{fit.distance:.3f}, ln|g| ± {fit.sigma:.1f}"


def _depth(network: nn.Module, x: Tensor, examples: Seen) -> Finding | None:
    levels = [n for n in examples.input_levels.values() if 1 < n <= 16]
    if not levels:
        return None
    budget, deep = depth_budget(min(levels)), products_in_series(network, tuple(x.shape[1:]))
    rows = [Row("products in series", deep, str(deep)), Row("budget", budget, str(budget))]
    advice = (
        "The depth is within the budget: signals pass without shortcuts."
        if deep <= budget
        else "Signals hardly pass so many layers: add shortcuts around products, or activations of more levels."
    )
    limit = (
        f"The budget is that of activations of {min(levels)} levels in wide random networks without norms (6 depth"
        " scales); norms and training can carry signals further. Products that a shortcut goes around do not count."
    )
    return Finding("Depth", rows, advice, limit)


def _flips(
    network: nn.Module, start: Mapping[str, Tensor] | None, counted: Mapping[str, float] | None
) -> Finding | None:
    found = dict(counted or unchanged_signs(network, start or {}))
    if not found:
        return None
    rows = [Row(name, share, f"{100 * share:.1f} %") for name, share in found.items()]
    mean = statistics.fmean(found.values())
    if mean > 0.9:
        advice = "Most signs are those that were drawn: the learning rate may be too low, or the hysteresis too wide."
    elif mean > 0.6:
        advice = "Training has chosen a part of the signs and left the others as drawn, as it commonly does."
    else:
        advice = "About as many signs changed as stayed: training has chosen them afresh."
    if counted:
        limit = (
            "Weights that never changed their sign in training, as the run has counted. It does not tell which matter."
        )
    else:
        limit = (
            "Weights whose sign is that of the start; one that changed and came back counts, too, so that no more than"
            " these have never flipped. A `WeightMeter` in the recipe counts them."
        )
    return Finding("Signs that are as they were drawn", rows, advice, limit)


def _accumulators(examples: Seen) -> Finding | None:
    if not examples.sums:
        return None
    rows = [
        Row(name, sums.exact_bits, f"{sums.exact_bits} ({sums.seen_bits} seen)") for name, sums in examples.sums.items()
    ]
    widest = max(sums.exact_bits for sums in examples.sums.values())
    most_seen = max(sums.seen_bits for sums in examples.sums.values())
    holds = next(bits for bits in (8, 16, 32, 64) if bits >= widest)
    advice = (
        f"Accumulators of {holds} bits hold every sum; {most_seen} bits have been enough for the results on these"
        " examples, if hardware can saturate."
    )
    limit = "Results alone were seen, of these examples: partial sums may be larger, and so may those of other inputs."
    return Finding("Width of accumulators", rows, advice, limit)


def _entropy(network: nn.Module) -> Finding | None:
    found = level_entropies(network)
    if not found:
        return None
    rows = [Row(name, one.bits, f"{one.bits:.3f} of {one.most:.3f}") for name, one in found.items()]
    low = [name for name, one in found.items() if one.bits < 0.95 * one.most]
    advice = (
        f"{len(low)} of {len(found)} layers have levels that are not equally frequent: `bnn compress` makes use of it."
        if low
        else "The levels are about equally frequent, so that a file gains nothing by their shares."
    )
    limit = (
        "Bits a weight by the shares of levels alone. Neighbours that agree make a file smaller still: `bnn inspect`."
    )
    return Finding("Entropy of the levels", rows, advice, limit)
