"""What a report shows of a training step's memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnn.accounting.memory_model import MemoryTable, network_shape
from bnn.accounting.paper_model import MASK_QUIRKS, PAPER_OPTIMIZERS, PAPER_PRESETS, MaskQuirk, paper_table
from bnn.errors import RunError
from bnn.training import Run

_REFERENCE = "standard"


@dataclass(frozen=True)
class MemoryFigures:
    """Predictions of one step's memory, variable by variable."""

    model: str
    """Whose prediction it is."""
    tables: Mapping[str, MemoryTable]
    """By preset, with the same variables: the run's own first, then what it is compared with."""


def memory_figures(run: Run, arguments: Mapping[str, Any]) -> MemoryFigures | None:
    """The memory of a step of a run: this function alone decides which model predicts it.

    Args:
        run: as its recipe makes it.
        arguments: of the recipe; `preset` and `model` are looked at.

    Returns:
        The figures; None where the model knows nothing of the run's preset, optimizer or network.
    """
    preset, optimizer = arguments.get("preset") or _REFERENCE, type(run.optimizer).__name__.lower()
    if preset not in PAPER_PRESETS or optimizer not in PAPER_OPTIMIZERS:
        return None
    try:
        shape = network_shape(run.model, run.data.image_shape)
    except RunError:
        return None
    tables = {
        name: paper_table(
            shape,
            PAPER_PRESETS[name],
            PAPER_OPTIMIZERS[optimizer],
            batch_size=run.batch_size,
            quirk=MASK_QUIRKS.get(str(arguments.get("model")), MaskQuirk()),
        )
        for name in dict.fromkeys((preset, _REFERENCE))
    }
    return MemoryFigures(
        f"the published model of Wang et al., arXiv 2102.04270, with {type(run.optimizer).__name__}", tables
    )
