"""The report: one HTML page about a run, or one that compares several, that needs nothing besides itself."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from bnn.cost.energy import PRICE_TABLES
from bnn.errors import RunError
from bnn.reports import sections
from bnn.reports.beside_float import comparisons
from bnn.reports.figures import SERIES, learning_curves
from bnn.reports.groups import MEASURES, Group, grouped, spread, spread_text, values
from bnn.reports.run_record import RunRecord, read_run
from bnn.reports.side_by_side import compared, difference
from bnn.reports.texts import ABSENT, duration, energy, number, percent
from bnn.training import directory

MOST_RUNS = 64
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
        runs: directories of 1 to `MOST_RUNS` runs, of at most `SERIES` kinds, which differ in more than their seed;
            those that are not complete are shown as far as they are.
        page: the file to write; an earlier one is replaced.
        strict: whether to refuse networks of which not everything can be counted.
        recipe: the file of a recipe, which is executed for runs whose recipe is none of the package.

    Raises:
        RunError: a directory is not a run's, has no metrics yet or is damaged; there are too many; the page cannot be
            written; or `strict`, and something is not known.
    """
    if len(runs) > MOST_RUNS:
        raise RunError(f"a page compares at most {MOST_RUNS} runs, got {len(runs)}: write several pages")
    if page.is_dir():
        raise RunError(f"{page} is a folder: name a file, as in `bnn report {runs[0]} -o {page / 'report.html'}`")
    with_memory = len(runs) == 1
    records = [
        read_run(run, label, strict=strict, recipe=recipe, with_memory=with_memory)
        for run, label in zip(runs, _labels(runs), strict=True)
    ]
    # A name that is no valid text, as a file system may have it, becomes question marks.
    directory.replace_file(page, _render(records).encode("utf-8", errors="replace").decode("utf-8"))


def template_named(name: str) -> Template:
    """A template of this folder; what is put into it is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


@dataclass(frozen=True)
class _Headline:
    name: str
    value: str
    note: str


def _labels(runs: Sequence[Path]) -> list[str]:
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _render(runs: Sequence[RunRecord]) -> str:
    template = template_named("page.html.jinja")
    groups = grouped(runs)
    if len(groups) > SERIES:
        raise RunError(f"a page compares at most {SERIES} kinds of runs, got {len(groups)}: write several pages")
    firsts = [runs[group.members[0]] for group in groups]
    colors = _colors(runs, groups)
    single = len(runs) == 1
    return template.render(
        runs=runs,
        groups=groups,
        identity=_identities(runs),
        headlines=[[headline] for headline in _headlines(runs[0])] if single else _side_by_side(runs, groups),
        beside=list(comparisons(runs[0].summary)) if single else [],
        data=[str(run.summary.get("dataset", run.network.data or ABSENT)) for run in firsts],
        caveats=list(_caveats(runs)),
        curves=_curves(runs, colors),
        states=_state_curves(runs, colors),
        choices=sections.choices(firsts),
        parts=sections.run_sections(runs[0]) if single else compared(runs, groups),
        records=[list(_records(run)) for run in runs],
    )


def _colors(runs: Sequence[RunRecord], groups: Sequence[Group]) -> list[int]:
    """The number of each run's colour, which is that of its group."""
    numbers = {member: number for number, group in enumerate(groups, start=1) for member in group.members}
    return [numbers[position] for position in range(len(runs))]


def _identities(runs: Sequence[RunRecord]) -> list[str]:
    """Lines that say what the runs are: those that they share."""
    lines = [_identity(run) for run in runs]
    return [line for line in lines[0] if all(line in others for others in lines)]


def _identity(run: RunRecord) -> list[str]:
    """Recipe and network, data, when and where."""
    configuration = run.configuration
    arguments, versions = (configuration.get(name) for name in ("arguments", "versions"))
    chosen = arguments if isinstance(arguments, dict) else {}
    recipe = Path(str(configuration["recipe"])).stem if configuration.get("recipe") else ""
    names = [f"{name} {chosen[name]}" for name in ("model", "preset") if chosen.get(name)]
    weights = run.summary.get("weights")
    counted = [f"{weights:,} weights"] if isinstance(weights, int) else []
    began = [f"began {configuration['began']}"] if configuration.get("began") else []
    of_versions = versions if isinstance(versions, dict) else {}
    lines = [
        [*([f"Recipe {recipe}"] if recipe else []), *names, *counted, *began],
        [f"Data: {run.summary.get('dataset', run.network.data or ABSENT)}"],
        [str(configuration["machine"])] if configuration.get("machine") else [],
        [f"{name} {value}" for name, value in of_versions.items()],
    ]
    return [", ".join(line) for line in lines if line]


def _side_by_side(runs: Sequence[RunRecord], groups: Sequence[Group]) -> list[list[_Headline]]:
    """For each measure that any run has, its value in every group."""
    of_single = [{headline.name: headline for headline in _headlines(runs[group.members[0]])} for group in groups]
    rows = []
    for key, measure in MEASURES.items():
        spreads = [spread(values(runs, group, measure)) for group in groups]
        row = []
        for group, found, single in zip(groups, spreads, of_single, strict=True):
            if len(group.members) == 1 and measure.name in single:
                row.append(single[measure.name])
            else:
                row.append(_Headline(measure.name, spread_text(found, measure), ""))
            if (
                key == "test_accuracy"
                and group is not groups[0]
                and (paired := difference(runs, group, groups[0], measure))
            ):
                row[-1] = replace(row[-1], note=paired)
        if any(headline.value != ABSENT for headline in row):
            rows.append(row)
    return rows


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


def _curves(runs: Sequence[RunRecord], colors: Sequence[int]) -> dict[str, str]:
    metrics = [run.metrics for run in runs]
    return {
        title: learning_curves(metrics, columns, label=label, factor=factor, colors=colors)
        for title, (columns, label, factor) in _CURVES.items()
    }


def _state_curves(runs: Sequence[RunRecord], colors: Sequence[int]) -> dict[str, str]:
    """Curves of the weight figures that any of the runs has."""
    metrics, found = [run.metrics for run in runs], {name for run in runs for name in run.states()}
    return {
        title: learning_curves(metrics, (name,), label=label, factor=factor, from_zero=name != "tau", colors=colors)
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
