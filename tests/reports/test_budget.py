import io

from rich.console import Console

from bnn.cost.memory.budget import Candidate
from bnn.cost.memory.predicted import StepMemory
from bnn.cost.memory.table import MemoryTable, Variable
from bnn.reports.budget import print_budget, print_candidates, print_measured

MIB = 2**20
WORDS = {"title": "a title of its own", "caption": "and a caption that is a good deal longer than the table"}


def table(bits: int, mask_bits: int) -> MemoryTable:
    return MemoryTable((Variable("weights", "always", 2 * MIB, bits), Variable("masks", "to backward", MIB, mask_bits)))


def lines(show, *arguments, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show(console, *arguments, **WORDS)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines() if line.strip(" ─")]


def test_budget_of_two_presets():
    assert lines(print_budget, {"standard": table(32, 32), "edge": table(8, 0)}) == [
        "a title of its own",
        "variable lifetime bits standard bits edge ratio",
        "weights always 32 8.00 8 2.00 4.00",
        "masks to backward 32 4.00 0 0.00 -",
        "total 12.00 2.00 6.00",
        "and a caption that is a good deal longer than the table",
    ]


def test_budget_of_one_preset_has_no_ratio():
    assert lines(print_budget, {"standard": table(4, 8)})[1:-1] == [
        "variable lifetime bits standard",
        "weights always 4 1.00",
        "masks to backward 8 1.00",
        "total 2.00",
    ]


def test_candidates_in_their_order():
    candidates = [Candidate("standard", "sgd", 100, 1.5 * MIB), Candidate("edge", "bop", 7, 2048 * MIB)]
    assert lines(print_candidates, candidates)[1:-1] == [
        "preset optimizer batch MiB",
        "standard sgd 100 1.50",
        "edge bop 7 2,048.00",
    ]


def test_candidates_with_slices():
    candidates = [Candidate("edge", "adam", 100, 1.5 * MIB, 100), Candidate("edge-min", "adam", 100, MIB, 25)]
    assert lines(print_candidates, candidates)[1:-1] == [
        "preset optimizer batch slice MiB",
        "edge adam 100 100 1.50",
        "edge-min adam 100 25 1.00",
    ]


def test_variables_that_one_preset_lacks_and_those_of_several_widths():
    def variable(name: str, mib: int, bits: int) -> Variable:
        return Variable(name, "to backward", mib * MIB * 8 // bits, bits)

    standard = MemoryTable((variable("activations", 8, 32), variable("activations", 2, 1)))
    edge = MemoryTable(
        (variable("activations", 5, 1), variable("masks", 1, 1), Variable("masks", "to backward", 9, 64))
    )
    others = {"saved": [8 * MIB, 4 * MIB]}
    console = Console(file=io.StringIO(), width=80)
    print_budget(console, {"standard": standard, "edge": edge}, title="", caption="", others=others)
    rows = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "activations to backward 32, 1 10.00 1 5.00 2.00" in rows
    assert "masks to backward - 0.00 1 1.00 -" in rows
    assert "total 10.00 6.00 1.67" in rows
    assert "saved 8.00 4.00 2.00" in rows


def test_measured_figures_under_the_predicted_ones():
    step = StepMemory(3 * MIB, table(32, 32), 5 * MIB)
    figures = {"saved_bytes": 2 * MIB, "graph_bytes": 4 * MIB, "peak_live_bytes": 11 * MIB, "resident_bytes": None}
    figures |= {"process_bytes": 300 * MIB, "step_s": 0.25}
    console = Console(file=io.StringIO(), width=80)
    print_measured(console, {"edge": (step, figures)}, batch_size=100, epoch_size=50_099)
    rows = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert [row for row in rows if row][3:-2] == [
        "saved for backward, predicted 3.00",
        "measured by hooks 2.00",
        "measured in autograd's graph 4.00",
        "peak of live tensors, predicted 12.00",
        "measured in torch's allocator 11.00",
        "peak resident above the level before the model -",
        "of the whole process 300.00",
        "time of a step, measured 0.25 s",
        "an epoch of 50,099 0:02:05 h",
    ]
