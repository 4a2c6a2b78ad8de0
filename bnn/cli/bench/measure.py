"""One way to evaluate a network, timed in a process of its own: python -m bnn.cli.bench.measure TASK.

A process imports what its way needs, so that its memory is that of this way.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bnn.errors import BnnError, RunError

_LEAST_CALLS = 5
_ENOUGH_S = 1.0
_C_FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=off")

Figures = dict[str, float | None]
"""`latency_s`, the median seconds of one example; `images_per_s`, of a batch; `process_bytes`, the peak of the process
that evaluates one example, or None where the system cannot tell."""


def measured(way: str, **task: Any) -> Figures:
    """The figures of a way: `bnn`, `torch` or `onnxruntime`.

    Args:
        way: its name.
        task: `file` of the model or of its ONNX form, `recipe` or None, `shape` of one example, `is_bytes`, whether it
            is of uint8, `batch` and `threads`.

    Raises:
        RunError: it fails.
    """
    text = json.dumps({"way": way, **task})
    done = subprocess.run([sys.executable, "-m", "bnn.cli.bench.measure", text], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise RunError(f"{way} could not be measured: {reason}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measured_c(directory: Path, compiler: str, example_bytes: int) -> Figures:
    """The figures of the example program of `export_c` in a directory; one example at a time, on one thread.

    Raises:
        RunError: it cannot be compiled.
    """
    program = directory / "classify"
    sources = [str(path) for path in directory.glob("*.c")]
    done = subprocess.run([compiler, *_C_FLAGS, "-o", str(program), *sources, "-lm"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RunError(f"{compiler} does not compile the export: {(done.stderr.strip().splitlines() or [''])[-1]}")

    def wall_s(count: int) -> float:
        start = time.perf_counter()
        subprocess.run([str(program)], input=bytes(count * example_bytes), stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start

    count = 1
    while wall_s(count) < _ENOUGH_S / 4 and count < 1 << 16:
        count *= 2
    # What starting takes is in both.
    latency = max(statistics.median((wall_s(2 * count) - wall_s(count)) / count for _ in range(_LEAST_CALLS)), 1e-9)
    peak = _peak_of_program(program, bytes(example_bytes))
    return {"latency_s": latency, "images_per_s": 1 / latency, "process_bytes": peak}


def _peak_of_program(program: Path, example: bytes) -> int | None:
    """The peak of a program that waits for more examples."""
    with subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(example)
        process.stdin.flush()
        peak, before = _peak_bytes(process.pid), None
        while peak != before:
            time.sleep(0.2)
            peak, before = _peak_bytes(process.pid), peak
    return peak


def main(text: str) -> None:
    """Prints the figures of a task as JSON."""
    task = json.loads(text)
    run: Callable[[int], object] = {"bnn": _bnn, "torch": _torch, "onnxruntime": _onnxruntime}[task["way"]](task)
    latency = _median_s(run, 1)
    peak = _peak_bytes("self")
    batch = int(task["batch"])
    figures = {"latency_s": latency, "images_per_s": batch / _median_s(run, batch), "process_bytes": peak}
    print(json.dumps(figures))


def _median_s(run: Callable[[int], object], batch: int) -> float:
    run(batch)
    walls: list[float] = []
    while len(walls) < _LEAST_CALLS or sum(walls) < _ENOUGH_S:
        start = time.perf_counter()
        run(batch)
        walls.append(time.perf_counter() - start)
    return statistics.median(walls)


def _bnn(task: dict[str, Any]) -> Callable[[int], object]:
    import torch

    model = _model(task)

    def run(batch: int) -> object:
        with torch.no_grad():
            return model(_floats(task["shape"], batch))

    return run


def _torch(task: dict[str, Any]) -> Callable[[int], object]:
    import torch

    from bnn.cost.float_twin import float_twin

    # What the weights are does not matter.
    twin = float_twin(_model(task).network).to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.fill_(1)

    def run(batch: int) -> object:
        with torch.no_grad():
            return twin(_floats(task["shape"], batch))

    return run


def _model(task: dict[str, Any]) -> Any:
    import torch

    from bnn.cli.trainer import model_of

    torch.set_num_threads(task["threads"])
    return model_of(Path(task["file"]), task["recipe"])


def _floats(shape: Sequence[int], batch: int) -> Any:
    import torch

    x = torch.zeros(batch, *shape)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _onnxruntime(task: dict[str, Any]) -> Callable[[int], object]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    session = onnxruntime.InferenceSession(task["file"], options, providers=["CPUExecutionProvider"])

    def run(batch: int) -> object:
        x = np.zeros((batch, *task["shape"]), np.uint8 if task["is_bytes"] else np.float32)
        return session.run(None, {"image": x})

    return run


def _peak_bytes(process: int | str) -> int | None:
    """The most memory that a process has had resident; None where the system cannot tell."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return None
    lines = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(lines[0][1]) if lines else None


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (BnnError, MemoryError, RuntimeError, TypeError) as error:
        raise SystemExit(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
