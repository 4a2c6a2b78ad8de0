"""The stop-watch and the memory meter of every contestant. Only the standard library: it runs in all environments."""

import ctypes
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Task:
    """What a contestant does."""

    model: str
    """Name of a network in `bnn.models`."""
    input_shape: tuple[int, ...]
    """(C, H, W) of an image."""
    classes: int
    batch: int
    """Images of a step."""
    warmup: int
    """Steps before the stop-watch runs."""
    steps: int
    """Steps that are timed."""
    threads: int
    mode: str = ""
    """How the contestant computes: a preset of this package, or dtype, layout and compilation of torch."""
    weights: str = "sign"
    """`sign` trains latent weights behind their signs; `recu` as ReCU does."""
    inference: bool = False
    """Whether a step is the forward pass of evaluation."""

    def rehearsal(self) -> "Task":
        """A task so small that its step takes no memory to speak of, but what its library loads on first use."""
        return replace(self, model="mlp", input_shape=(1, 2, 2), classes=2, batch=2, weights="sign")

    def to_json(self) -> str:
        """The task as a command-line argument."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Task":
        """The task of a command-line argument."""
        fields = json.loads(text)
        return Task(**{**fields, "input_shape": tuple(fields["input_shape"])})


@dataclass(frozen=True)
class Figures:
    """What a contestant measured."""

    step_s: list[float]
    """Wall time of each timed step."""
    last_loss: float | None
    """None: of inference."""
    peak_bytes: int
    """Most resident memory of the process in the timed steps, libraries included."""
    peak_above_start_bytes: int
    """How far that lies above the resident memory just before the model was made, the library being loaded and used."""
    peak_is_of_whole_process: bool
    """True where the system cannot reset the peak, which then includes the loading of the libraries."""
    saved_bytes: int | None
    """Bytes of distinct tensors that autograd keeps from forward for backward, parameters aside; None: not known."""
    parameters: int
    """Trained numbers."""
    instruction_set: str | None = None
    """What this package's kernels ran on; None: of others."""


class PeakMemory:
    """The process's peak resident memory from the making of this object on, or from its last restart."""

    def __init__(self) -> None:
        self.is_of_whole_process = not self.restart()
        self.start_bytes = _status_bytes("VmRSS")

    def restart(self) -> bool:
        """Gives the system back what is free and forgets the peak up to now; False where it cannot be forgotten."""
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        return _reset_peak()

    def peak_bytes(self) -> int:
        """Most resident memory up to now."""
        return _status_bytes("VmHWM")


def step_times_s(
    step: Callable[[], float | None], *, warmup: int, steps: int, before_timing: Callable[[], object] = lambda: None
) -> tuple[list[float], float | None]:
    """Runs a step `warmup` times, then `steps` times with the stop-watch.

    Args:
        step: returns its loss, if it has one.
        warmup: steps without stop-watch.
        steps: at least 1.
        before_timing: called between the two.

    Returns:
        Wall time of each timed step, and the last loss.
    """
    for _ in range(warmup):
        step()
    before_timing()
    times_s = []
    loss = None
    for _ in range(steps):
        begin = time.perf_counter()
        loss = step()
        times_s.append(time.perf_counter() - begin)
    return times_s, loss


def main(run: Callable[[Task], Figures]) -> None:
    """Runs the task of the command line and prints its figures."""
    print(json.dumps(asdict(run(Task.from_json(sys.argv[1])))))


def _reset_peak() -> bool:
    """Sets the peak to the present level, where the system has that and allows it."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of Linux; elsewhere the peak of getrusage stands for both."""
    if _STATUS.exists():
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
