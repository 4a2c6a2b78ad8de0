"""The record of a run: the files of its directory, and the network and choices that its recipe tells."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bnn.codec import load
from bnn.cost import LayerCount, count_network
from bnn.cost.energy import Ledger
from bnn.cost.energy.step import require_counted
from bnn.cost.meters.card import quantization_card
from bnn.cost.meters.memory_profile import read_memory_profile
from bnn.cost.meters.summary import read_ledger
from bnn.data import Dataset
from bnn.errors import BnnError, RunError
from bnn.posttraining.diagnosis import Finding
from bnn.reports.findings import read_findings
from bnn.reports.memory import MemoryFigures, memory_figures
from bnn.training import Run, directory
from bnn.training.recipe import Recipe, build, find_recipe, load_recipe, values_from_json

_REFERENCE = "standard"
_THIS_RUN = "this run"

WEIGHT_STATES = (
    "never_flipped",
    "flip_rate",
    "reflip_rate",
    "sign_entropy",
    "sparsity",
    "quantization_error",
    "clipped_share",
    "tau",
)
"""Columns of the metrics that tell how the weights live."""
_METRICS_FIGURES = (
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "skipped",
    "wall_s",
    *WEIGHT_STATES,
)
_SUMMARY_FIGURES = (
    "epochs",
    "test_accuracy",
    "best_validation_accuracy",
    "best_validation_epoch",
    "weights",
    "bits_per_weight",
    "other_parameters",
    "peak_rss_mib",
    "peak_device_mib",
    "energy_j",
    "wall_s",
)


@dataclass(frozen=True)
class NetworkRecord:
    """The network and training of a run, as its recipe builds them."""

    layers: Sequence[LayerCount] = ()
    """Layers with parameters, counted for one example."""
    data: str | None = None
    card: Mapping[str, str] = field(default_factory=dict)
    """See `quantization_card`."""
    memory: MemoryFigures | None = None
    memory_note: str = ""
    """Why there is no memory."""
    uncounted: Sequence[str] = ()
    """Modules and operations whose arithmetic is not counted."""
    note: str = ""
    """Why there are no layers, or what to know about them."""


@dataclass(frozen=True)
class RunRecord:
    """A run, read from its files and its recipe."""

    label: str
    configuration: dict[str, Any]
    metrics: list[dict[str, Any]]
    """At least one line."""
    summary: dict[str, Any]
    """Empty as long as the run is not complete."""
    ledger: Ledger | None
    """Counts of its training; None as long as the run is not complete, or where nothing was counted."""
    network: NetworkRecord
    memory_profile: Sequence[tuple[float, float]] = ()
    """Resident MiB of the process over the seconds of its training, where it was profiled."""
    findings: Sequence[Finding] = ()
    """Of its newest diagnosis."""

    @property
    def epochs_done(self) -> int:
        """Epochs with metrics."""
        return int(self.metrics[-1]["epoch"]) + 1

    def states(self) -> list[str]:
        """The columns of `WEIGHT_STATES` that have a figure."""
        return [name for name in WEIGHT_STATES if any(record.get(name) is not None for record in self.metrics)]


def read_run(
    run: Path, label: str, *, strict: bool = False, recipe: Path | None = None, with_memory: bool = True
) -> RunRecord:
    """Reads a run's directory and executes its recipe, if that is one of the package.

    Args:
        run: the directory.
        label: what to call it.
        strict: whether to refuse a network of which not everything can be counted.
        recipe: the file of the recipe, where that is none of the package.
        with_memory: whether to predict and measure the memory of its step, which takes some seconds.

    Raises:
        RunError: it is not a run's directory, has no metrics yet or is damaged; or `strict`, and something is not
            known.
    """
    configuration = directory.read_json(run / directory.CONFIGURATION)
    metrics_path, summary_path = run / directory.METRICS, run / directory.SUMMARY
    metrics = directory.read_metrics(run) if metrics_path.exists() else []
    if not metrics:
        raise RunError(f"{metrics_path} has no line yet: report {run} when its first epoch is done")
    for record in metrics:
        _check_figures(metrics_path, record, _METRICS_FIGURES)
    summary = directory.read_json(summary_path) if summary_path.exists() else {}
    _check_figures(summary_path, summary, _SUMMARY_FIGURES)
    if summary.get("epochs") != metrics[-1]["epoch"] + 1:
        # The run went on after it had been summed up.
        summary = {}
    ledger = read_ledger(run) if summary else None
    memory_profile = read_memory_profile(run)
    network = _network(run, configuration, strict, recipe, with_memory=with_memory)
    return RunRecord(label, configuration, metrics, summary, ledger, network, memory_profile, read_findings(run))


def _check_figures(path: Path, record: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        value = record.get(name, 0)
        if value is not None and not (isinstance(value, (int, float)) and -1e300 < value < 1e300):
            raise RunError(f"{path} is damaged: {name} is {str(value)[:40]!r} and not a finite number")


def _network(
    run: Path, configuration: Mapping[str, Any], strict: bool, path: Path | None, *, with_memory: bool
) -> NetworkRecord:
    """Builds the network as the recipe does. What is missing costs the page its layers, and nothing else."""
    name, arguments = configuration.get("recipe"), configuration.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        return _of_model_file(run, "the run's configuration names no recipe")
    path = path or find_recipe(name)
    if path is None:
        copy = run / directory.RECIPE
        return _of_model_file(
            run, f"the run's recipe is none of the package, and is executed with --recipe {copy} alone"
        )
    try:
        recipe = load_recipe(path)
        described = configuration.get("data")
        # No pixel is needed, and the data may be elsewhere.
        data = Dataset.from_description(described) if recipe.load_data is not None and described else None
        made = build(recipe, values_from_json(recipe, arguments), data=data)
    except BnnError as error:
        return NetworkRecord(note=str(error))
    changed = recipe.sha256 != configuration.get("recipe_sha256")
    note = f"{path} has changed since the run began: these are the layers as it makes them now." if changed else ""
    network = _counted(made, note, strict)
    if not network.layers or not with_memory:
        return network
    return _with_memory(network, _compared(recipe, arguments, made))


def _of_model_file(run: Path, reason: str) -> NetworkRecord:
    """What the file of the run's model tells, where no recipe can."""
    try:
        model = load(run / directory.MODEL)
        assert model.preprocessing is not None
        count = count_network(model.network, model.preprocessing.image_shape)
    except Exception:  # also whatever the network raises
        return NetworkRecord(note=reason)
    return NetworkRecord(
        layers=[layer for layer in count.layers if layer.weights or layer.other_parameters],
        memory_note=reason,
        uncounted=count.uncounted,
        note=f"These are the layers in the file of the run's model: {reason}.",
    )


def _counted(run: Run, note: str, strict: bool) -> NetworkRecord:
    try:
        count = count_network(run.model, run.data.image_shape)
        card = quantization_card(run)
    except Exception:  # a user's module may raise anything
        if strict:
            raise RunError("nothing of the network can be counted: it cannot run on shapes alone") from None
        return NetworkRecord(data=run.data.source, note="the model cannot run on shapes alone")
    if strict:
        require_counted(count)
    return NetworkRecord(
        layers=[layer for layer in count.layers if layer.weights or layer.other_parameters],
        data=run.data.source,
        card=card,
        uncounted=count.uncounted,
        note=note,
    )


def _compared(recipe: Recipe, arguments: Mapping[str, Any], run: Run) -> dict[str, Run]:
    """The run and, where its recipe takes the presets, the same with the preset that others are compared with."""
    preset = arguments.get("preset")
    if preset == _REFERENCE:
        return {preset: run}
    if preset is None:
        return {_THIS_RUN: run}
    try:
        data = run.data if recipe.load_data is not None else None
        reference = build(recipe, values_from_json(recipe, {**arguments, "preset": _REFERENCE}), data=data)
    except BnnError:  # presets of something else
        return {_THIS_RUN: run}
    return {preset: run, _REFERENCE: reference}


def _with_memory(network: NetworkRecord, runs: Mapping[str, Run]) -> NetworkRecord:
    try:
        return replace(network, memory=memory_figures(runs))
    except Exception as error:  # a user's module may raise anything
        return replace(network, memory_note=(str(error).splitlines() or [type(error).__name__])[0])
