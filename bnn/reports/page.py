"""The report: one HTML page about a run, or one that compares several, that needs nothing besides itself."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from bnn.cost.energy import PRICE_TABLES
from bnn.errors import RunError
from bnn.reports import sections
from bnn.reports.figures import SERIES, learning_curves
from bnn.reports.run_record import RunRecord, read_run
from bnn.reports.texts import ABSENT, duration, energy, number, percent
from bnn.training import directory

_CURVES = {
    "Loss": (("train_loss", "validation_loss"), "loss", 1),
    "Accuracy": (("train_accuracy", "validation_accuracy"), "accuracy, %", 100),
}
_STATE_CURVES = {
    "never_flipped": ("Weights that never flipped", "share, %", 100),
    "flip_rate": ("Weights that flip in a step", "share, %", 100),
    "reflip_rate": ("Weights that flip again in a step", "share, %", 100),
    "sign_entropy": ("Entropy of the signs", "bits a weight", 1),
    "sparsity": ("Weights that are 0", "share, %", 100),
    "quantization_error": ("Quantization error", "part of |w|²", 1),
    "clipped_share": ("Weights beyond the clamp", "share, %", 100),
    "tau": ("ReCU's tau", "tau", 1),
}
_PRICES = {table.name: table for table in PRICE_TABLES}


def write_page(runs: Sequence[Path], page: Path, *, strict: bool = False, recipe: Path | None = None) -> None:
    """Writes the report, whole or not at all.

    Of what lies in the directories nothing is executed; recipes of the package are, for the layers of the network.

    Args:
        runs: directories of 1 to `SERIES` runs; those that are not complete are shown as far as they are.
        page: the file to write; an earlier one is replaced.
        strict: whether to refuse networks of which not everything can be counted.
        recipe: the file of a recipe, which is executed for runs whose recipe is none of the package.

    Raises:
        RunError: a directory is not a run's, has no metrics yet or is damaged; there are too many; the page cannot be
            written; or `strict`, and something is not known.
    """
    if len(runs) > SERIES:
        raise RunError(f"a page compares at most {SERIES} runs, got {len(runs)}: write several pages")
    if page.is_dir():
        raise RunError(f"{page} is a folder: name a file, as in `bnn report {runs[0]} -o {page / 'report.html'}`")
    records = [
        read_run(run, label, strict=strict, recipe=recipe) for run, label in zip(runs, _labels(runs), strict=True)
    ]
    # A name that is no valid text, as a file system may have it, becomes question marks.
    directory.replace_file(page, _render(records).encode("utf-8", errors="replace").decode("utf-8"))


@dataclass(frozen=True)
class _Headline:
    name: str
    value: str
    note: str


def _labels(runs: Sequence[Path]) -> list[str]:
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _render(runs: Sequence[RunRecord]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        runs=runs,
        headlines=list(zip(*map(_headlines, runs), strict=True)),
        data=[str(run.summary.get("dataset", run.network.data or ABSENT)) for run in runs],
        caveats=list(_caveats(runs)),
        curves=_curves(runs),
        states=_state_curves(runs),
        choices=sections.choices(runs),
        parts=[sections.run_sections(run) for run in runs],
        records=[list(_records(run)) for run in runs],
    )


def _headlines(run: RunRecord) -> list[_Headline]:
    """The same for every run, in the same order."""
    last, summary = run.metrics[-1], run.summary
    final = "final epoch" if summary else f"epoch {run.epochs_done}"

    validation_note = final
    if summary.get("best_validation_accuracy") is not None:
        best, epoch = percent(summary["best_validation_accuracy"]), summary.get("best_validation_epoch", ABSENT)
        validation_note += f"; best {best} at epoch {epoch}"
    storage_note = (
        f"{number(summary.get('weights'), ',')} weights; {number(summary.get('other_parameters'), ',')} parameters"
        " of norms, scales and biases are not in it"
    )
    memory_note = "resident in the whole process"
    if summary.get("peak_device_mib") is not None:
        memory_note += f"; {summary['peak_device_mib']:,.0f} MiB of tensors on the device"
    time_note = f"steps: {number(last.get('step'), ',')}; epochs: {run.epochs_done:,}"
    if last.get("skipped"):
        time_note += f"; skipped for a loss or gradient that was not finite: {last['skipped']:,}"
    priced = str(summary.get("price_table", ABSENT))
    energy_note = "; ".join([f"prices: {priced}", *sections.other_energies(run, priced)])

    later = "not measured" if summary else "known when the run is complete"
    uncounted = "not counted: the model cannot run on shapes alone" if "energy_j" in summary else later
    headlines = [
        ("Test accuracy, measured", percent(summary.get("test_accuracy")), final, later),
        ("Validation accuracy, measured", percent(last.get("validation_accuracy")), validation_note, "no split for it"),
        ("Bits a weight, counted", number(summary.get("bits_per_weight"), ".3g"), storage_note, later),
        ("Peak memory, measured", number(summary.get("peak_rss_mib"), ",.0f", " MiB"), memory_note, later),
        ("Energy of training, estimated", energy(summary.get("energy_j")), energy_note, uncounted),
        ("Time, measured", duration({**last, **summary}.get("wall_s")), time_note, later),
    ]
    return [_Headline(name, value, absent if value == ABSENT else note) for name, value, note, absent in headlines]


def _caveats(runs: Sequence[RunRecord]) -> Iterator[str]:
    """The source and caveat of each price table that the runs were priced with."""
    named = [str(run.summary["price_table"]) for run in runs if "price_table" in run.summary]
    counted = list(_PRICES) if any(run.ledger for run in runs) else []
    for name in dict.fromkeys([*named, *counted]):
        table = _PRICES.get(name)
        yield f"{name} ({table.source}): {table.caveat}." if table else f"{name}: a table of the run's own."


def _curves(runs: Sequence[RunRecord]) -> dict[str, str]:
    metrics = [run.metrics for run in runs]
    return {
        title: learning_curves(metrics, columns, label=label, factor=factor)
        for title, (columns, label, factor) in _CURVES.items()
    }


def _state_curves(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Curves of the weight figures that any of the runs has."""
    metrics, found = [run.metrics for run in runs], {name for run in runs for name in run.states()}
    return {
        title: learning_curves(metrics, (name,), label=label, factor=factor, from_zero=name != "tau")
        for name, (title, label, factor) in _STATE_CURVES.items()
        if name in found
    }


def _records(run: RunRecord) -> Iterator[tuple[str, dict[str, str]]]:
    """The run's files as they are, each part with a title. Tables that have a place of their own are left out."""
    nested = {name: value for name, value in run.configuration.items() if isinstance(value, dict)}
    flat = {name: value for name, value in run.configuration.items() if name not in nested}
    summary = {name: value for name, value in run.summary.items() if not isinstance(value, (dict, list))}
    titled = {"Summary": summary, "Last epoch (the first is 0)": run.metrics[-1], "Configuration": flat}
    for title, record in {**titled, **{name.capitalize(): value for name, value in nested.items()}}.items():
        if record:
            yield title, {name: _text(value) for name, value in record.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
