"""The report: one HTML page about a run, or one that compares several, that needs nothing besides itself."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from bnn.accounting import HOROWITZ_45NM, LayerCount, count_layers
from bnn.errors import BnnError, RunError
from bnn.reports.figures import SERIES, layer_bars, learning_curves
from bnn.reports.summary import engineering
from bnn.training import directory
from bnn.training.recipe import build, load_recipe, values_from_json

_NONE = "—"
_METRICS_FIGURES = (
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "skipped",
    "wall_s",
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
_PRICE_TABLES = {table.name: table for table in (HOROWITZ_45NM,)}


def write_page(runs: Sequence[Path], page: Path) -> None:
    """Writes the report, whole or not at all.

    The recipe of each run is executed for the layers of its network: only name directories that you trust.

    Args:
        runs: directories of 1 to `SERIES` runs; those that are not complete are shown as far as they are.
        page: the file to write; an earlier one is replaced.

    Raises:
        RunError: a directory is not a run's, has no metrics yet or is damaged; there are too many; or the page
            cannot be written.
    """
    if len(runs) > SERIES:
        raise RunError(f"a page compares at most {SERIES} runs, got {len(runs)}: write several pages")
    if page.is_dir():
        raise RunError(f"{page} is a folder: name a file, as in `bnn report {runs[0]} -o {page / 'report.html'}`")
    html = _render([_read(run, label) for run, label in zip(runs, _labels(runs), strict=True)])
    # A name that is no valid text, as a file system may have it, becomes question marks.
    directory.replace_file(page, html.encode("utf-8", errors="replace").decode("utf-8"))


# --- what is known of a run -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Network:
    """What a run's recipe tells besides its directory."""

    layers: Sequence[LayerCount] = ()
    """Those with parameters, as one example sees them."""
    data: str = _NONE
    note: str = ""
    """Why there are no layers, or what to know about them."""


@dataclass(frozen=True)
class _Run:
    label: str
    configuration: dict[str, Any]
    metrics: list[dict[str, Any]]
    """At least one line."""
    summary: dict[str, Any]
    """Empty as long as the run is not complete."""
    network: _Network

    @property
    def epochs_done(self) -> int:
        return int(self.metrics[-1]["epoch"]) + 1


@dataclass(frozen=True)
class _Headline:
    name: str
    value: str
    note: str


def _labels(runs: Sequence[Path]) -> list[str]:
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _read(run: Path, label: str) -> _Run:
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
    return _Run(label, configuration, metrics, summary, _network(configuration))


def _check_figures(path: Path, record: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        value = record.get(name, 0)
        if value is not None and not (isinstance(value, (int, float)) and -1e300 < value < 1e300):
            raise RunError(f"{path} is damaged: {name} is {str(value)[:40]!r} and not a finite number")


def _network(configuration: Mapping[str, Any]) -> _Network:
    """Builds the network as the recipe does. What is missing costs the page its layers, and nothing else."""
    try:
        path, arguments = Path(configuration["recipe"]), configuration["arguments"]
    except (KeyError, TypeError):
        return _Network(note="the run's configuration names no recipe")
    if not path.is_file():
        return _Network(note=f"the recipe {path} of this run is gone")
    try:
        recipe = load_recipe(path)
        run = build(recipe, values_from_json(recipe, arguments))
    except BnnError as error:
        return _Network(note=str(error))
    try:
        layers = count_layers(run.model, run.data.image_shape)
    except Exception:  # a user's module may raise anything
        return _Network(data=run.data.source, note="the model cannot run on shapes alone")
    changed = recipe.sha256 != configuration.get("recipe_sha256")
    return _Network(
        layers=[layer for layer in layers if layer.weights or layer.other_parameters],
        data=run.data.source,
        note=f"{path} has changed since the run began: these are the layers as it makes them now." if changed else "",
    )


# --- what the page says ---------------------------------------------------------------------------------------------


def _render(runs: Sequence[_Run]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))
    metrics = [run.metrics for run in runs]
    return template.render(
        runs=runs,
        headlines=list(zip(*map(_headlines, runs), strict=True)),
        data=[str(run.summary.get("dataset", run.network.data)) for run in runs],
        caveats=list(_caveats(runs)),
        curves={
            "Loss": learning_curves(metrics, quantity="loss"),
            "Accuracy": learning_curves(metrics, quantity="accuracy"),
        },
        bars=[_bars(run.network.layers) for run in runs],
        records=[list(_records(run)) for run in runs],
    )


def _headlines(run: _Run) -> list[_Headline]:
    """The same for every run, in the same order."""
    last, summary = run.metrics[-1], run.summary
    final = "final epoch" if summary else f"epoch {run.epochs_done}"

    validation_note = final
    if summary.get("best_validation_accuracy") is not None:
        best, epoch = _percent(summary["best_validation_accuracy"]), summary.get("best_validation_epoch", _NONE)
        validation_note += f"; best {best} at epoch {epoch}"
    storage_note = (
        f"{_figure(summary.get('weights'), ',')} weights; {_figure(summary.get('other_parameters'), ',')} parameters"
        " of norms, scales and biases are not in it"
    )
    memory_note = "resident in the whole process"
    if summary.get("peak_device_mib") is not None:
        memory_note += f"; {summary['peak_device_mib']:,.0f} MiB of tensors on the device"
    time_note = f"steps: {_figure(last.get('step'), ',')}; epochs: {run.epochs_done:,}"
    if last.get("skipped"):
        time_note += f"; skipped for a loss or gradient that was not finite: {last['skipped']:,}"

    later = "not measured" if summary else "known when the run is complete"
    uncounted = "not counted: the model cannot run on shapes alone" if "energy_j" in summary else later
    headlines = [
        ("Test accuracy, measured", _percent(summary.get("test_accuracy")), final, later),
        (
            "Validation accuracy, measured",
            _percent(last.get("validation_accuracy")),
            validation_note,
            "no split for it",
        ),
        ("Bits a weight, counted", _figure(summary.get("bits_per_weight"), ".3g"), storage_note, later),
        ("Peak memory, measured", _figure(summary.get("peak_rss_mib"), ",.0f", " MiB"), memory_note, later),
        (
            "Energy of training, estimated",
            _energy(summary.get("energy_j")),
            f"prices: {summary.get('price_table', _NONE)}",
            uncounted,
        ),
        ("Time, measured", _time({**last, **summary}.get("wall_s")), time_note, later),
    ]
    return [_Headline(name, value, absent if value == _NONE else note) for name, value, note, absent in headlines]


def _caveats(runs: Sequence[_Run]) -> Iterator[str]:
    """What to know about each price table that the runs were priced with."""
    for name in dict.fromkeys(str(run.summary["price_table"]) for run in runs if "price_table" in run.summary):
        table = _PRICE_TABLES.get(name)
        yield f"{name} ({table.source}): {table.caveat}." if table else f"{name}: a table of the run's own."


def _bars(layers: Sequence[LayerCount]) -> dict[str, str]:
    weighted = [layer for layer in layers if layer.weights]
    if not weighted:
        return {}
    return {"Storage": layer_bars(weighted, quantity="storage"), "Work": layer_bars(weighted, quantity="work")}


def _records(run: _Run) -> Iterator[tuple[str, dict[str, str]]]:
    """The run's files as they are, each part with a title."""
    nested = {name: value for name, value in run.configuration.items() if isinstance(value, dict)}
    flat = {name: value for name, value in run.configuration.items() if name not in nested}
    titled = {"Summary": run.summary, "Last epoch (the first is 0)": run.metrics[-1], "Configuration": flat}
    for title, record in {**titled, **{name.capitalize(): value for name, value in nested.items()}}.items():
        if record:
            yield title, {name: _text(value) for name, value in record.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _figure(value: float | None, form: str, unit: str = "") -> str:
    return _NONE if value is None else f"{value:{form}}{unit}"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.2f} %"


def _energy(energy_J: float | None) -> str:
    return _NONE if energy_J is None else f"{engineering(energy_J)}J"


def _time(wall_s: float | None) -> str:
    if wall_s is None:
        return _NONE
    return f"{wall_s:.1f} s" if wall_s < 120 else f"{timedelta(seconds=round(wall_s))} h"
