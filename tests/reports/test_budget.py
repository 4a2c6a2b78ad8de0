import io

from rich.console import Console

from bnn.accounting.fit import Fit
from bnn.accounting.memory_model import MemoryTable, Variable
from bnn.reports.budget import print_budget, print_fits

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
        "variable kept bits standard bits edge ratio",
        "weights always 32 8.00 8 2.00 4.00",
        "masks to backward 32 4.00 0 0.00 -",
        "total 12.00 2.00 6.00",
        "and a caption that is a good deal longer than the table",
    ]


def test_budget_of_one_preset_has_no_ratio():
    assert lines(print_budget, {"standard": table(4, 8)})[1:-1] == [
        "variable kept bits standard",
        "weights always 4 1.00",
        "masks to backward 8 1.00",
        "total 2.00",
    ]


def test_fits_in_their_order():
    fits = [Fit("standard", "sgd", 100, 1.5 * MIB), Fit("edge", "bop", 7, 2048 * MIB)]
    assert lines(print_fits, fits)[1:-1] == [
        "preset optimizer batch MiB",
        "standard sgd 100 1.50",
        "edge bop 7 2,048.00",
    ]
