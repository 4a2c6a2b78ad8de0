"""`quantize`: a trained network in a file of a given size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bnn.codec import Model, described
from bnn.codec.coding import Entry, encode_values
from bnn.codec.container import to_bytes
from bnn.codec.model import entries_of
from bnn.errors import RunError
from bnn.posttraining.allocation import Choice, allocate
from bnn.posttraining.candidates import Candidates, candidates, outside_stores, round_to
from bnn.posttraining.products import divergence, logits_of, with_network
from bnn.posttraining.tuning import reestimate_norms, tune_biases
from bnn.training.directory import replace_file

STEPS = 200
_FEWEST = 8
_MOST_ROUNDS = 20


@dataclass(frozen=True)
class Part:
    """A part of the network that has a width of its own: the weight of a layer, or all else that a module has."""

    name: str
    values: int
    width: str
    """A number of bits, `ternary`, or `as it is`."""
    size_bytes: int
    """In the file, its place in the table aside."""
    loss: float
    """Divergence of the network where nothing but this part has the width, in nats."""


@dataclass(frozen=True)
class Quantized:
    """A network whose file fits."""

    model: Model
    parts: Sequence[Part]
    entries: Sequence[Entry]
    """Of the file."""
    content: bytes
    """The file."""
    divergence: float
    """Of what the network says from what it said before, mean over the examples that measure, in nats."""

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return len(self.content)

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all.

        Raises:
            RunError: it cannot be written.
        """
        replace_file(path, self.content)


def quantize(
    model: Model, x: Tensor, *, fit_bytes: int, steps: int = STEPS, calibrate: bool = True, seed: int = 0
) -> Quantized:
    """Gives each part of a network the width by which its file fits and the network says most nearly what it said.

    Weights of linear layers and convolutions get 1, 2, 3, 4, 8 or 16 bits or three levels, no more than they have;
    norms, biases and scales 16 bits or the 32 that they have. Levels are AdaQuant's, clips ACIQ's, widths those of an
    integer program over measured losses; then norms are estimated anew and biases tuned, where that helps. Source:
    Hubara et al. 2020, arXiv 2006.10518.

    Args:
        model: a trained network, in evaluation mode; it is not changed.
        x: some hundred examples, at least 8, normalised as the network takes them; they need no labels. Three quarters
            calibrate, the others measure the losses.
        fit_bytes: what the file may take.
        steps: of tuning biases, at least 0.
        calibrate: whether to do either; without, weights are rounded to the nearest levels of the best widths.
        seed: of the examples of each of them.

    Raises:
        RunError: even the least widths do not fit, and the message says what they take; there are too few examples; or
            scipy is missing.
    """
    return Measured(model, x, calibrate=calibrate, seed=seed).fit(fit_bytes, steps=steps)


class Measured:
    """A network whose parts have been measured at each width, which can then be fitted into several sizes.

    Args:
        model: as of `quantize`, like the other arguments.
        x: examples.
        calibrate: whether to calibrate levels, and to tune what is fitted.
        seed: of the examples that tune.

    Raises:
        RunError: there are too few examples.
    """

    def __init__(self, model: Model, x: Tensor, *, calibrate: bool = True, seed: int = 0) -> None:
        if len(x) < _FEWEST:
            raise RunError(f"calibration takes at least {_FEWEST} examples, not {len(x)}: some hundred are good")
        self._x, self._held = x[: 3 * len(x) // 4], x[3 * len(x) // 4 :]
        self._calibrate, self._seed = calibrate, seed
        self._assembly = _Assembly(model, candidates(model.network, self._x, self._held, calibrate=calibrate))
        self._said, self._of_held = logits_of(model.network, self._x), logits_of(model.network, self._held)

    def fit(self, fit_bytes: int, *, steps: int = STEPS) -> Quantized:
        """The network in a file of at most so many bytes.

        Args:
            fit_bytes: as of `quantize`.
            steps: of tuning biases.

        Raises:
            RunError: it does not fit, or scipy is missing.
        """
        found = self._with_divergence(_fitting(self._assembly, fit_bytes))
        if not self._calibrate:
            return found
        generator = torch.Generator().manual_seed(self._seed)
        for change in (
            lambda network: reestimate_norms(network, self._x),
            lambda network: tune_biases(network, self._x, self._said, steps=steps, generator=generator),
        ):
            tried = self._with_divergence(_changed(found, change))
            if tried.size_bytes <= fit_bytes and tried.divergence < found.divergence:
                found = tried
        return found

    def _with_divergence(self, found: Quantized) -> Quantized:
        apart = float(divergence(self._of_held, logits_of(found.model.network, self._held)))
        return replace(found, divergence=max(0.0, apart))


class _Assembly:
    """Networks and files of the widths that are chosen."""

    def __init__(self, model: Model, parts: Sequence[Candidates]) -> None:
        self._model = model
        self.parts = parts
        in_parts = {entry.name for part in parts for option in part.options for entry in option.entries}
        self._rest = [entry for entry in entries_of(model.network) if entry.name not in in_parts]

    @property
    def choices(self) -> list[list[Choice]]:
        """Of each part."""
        return [[Choice(option.size_bytes, option.loss) for option in part.options] for part in self.parts]

    def assembled(self, places: Sequence[int]) -> Quantized:
        """The network with the options at these places, and its file."""
        chosen = [part.options[place] for part, place in zip(self.parts, places, strict=True)]
        network = copy.deepcopy(self._model.network)
        for option in chosen:
            option.install(network)
        parts = [
            Part(part.name, part.values, option.width, option.size_bytes, option.loss)
            for part, option in zip(self.parts, chosen, strict=True)
        ]
        entries = [*self._rest, *(entry for option in chosen for entry in option.entries)]
        return _with_file(Quantized(with_network(self._model, network), parts, entries, b"", 0.0))


def _fitting(assembly: _Assembly, fit_bytes: int) -> Quantized:
    """The best widths whose file fits."""
    choices = assembly.choices
    least = [min(range(len(of_part)), key=[c.size_bytes for c in of_part].__getitem__) for of_part in choices]
    smallest = assembly.assembled(least)
    if smallest.size_bytes > fit_bytes:
        raise RunError(
            f"the network does not fit into {fit_bytes:,} bytes: with the least widths its file takes"
            f" {smallest.size_bytes:,}; take --fit {smallest.size_bytes}B or more, or a smaller network"
        )
    payloads = sum(of_part[place].size_bytes for of_part, place in zip(choices, least, strict=True))
    cap = fit_bytes - (smallest.size_bytes - payloads)
    for _ in range(_MOST_ROUNDS):
        places = allocate(choices, cap)
        if places is None:
            break
        tried = assembly.assembled(places)
        if tried.size_bytes <= fit_bytes:
            return tried
        cap -= tried.size_bytes - fit_bytes  # the table of the file depends on the widths, too
    return smallest


def _changed(found: Quantized, change: Callable[[nn.Module], None]) -> Quantized:
    network = copy.deepcopy(found.model.network)
    change(network)
    return _with_file(replace(found, model=with_network(found.model, network)))


def _with_file(found: Quantized) -> Quantized:
    """With the file of the network's values; what the entries keep in 16 bits, the network has in as many, too."""
    network = found.model.network
    dtypes = {entry.name: entry.dtype for entry in found.entries if not entry.levels}
    round_to(network, dtypes)
    state = outside_stores(network)
    entries = [
        encode_values(entry.name, state[entry.name].to(entry.dtype)) if entry.name in state else entry
        for entry in found.entries
    ]
    model = found.model
    about = described(
        network,
        preprocessing=model.preprocessing,
        classes=model.classes,
        precision=model.precision,
        about={**model.about, "widths": {part.name: part.width for part in found.parts}},
    )
    return replace(found, entries=entries, content=to_bytes(entries, about))
