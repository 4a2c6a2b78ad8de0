"""The measured step: python -m bnn.cli.budget.measure TASK, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from bnn.cli.budget.configurations import TrainingConfiguration, load_libraries, step_on_cpu
from bnn.cli.budget.networks import NetworkBuilder, find_network
from bnn.cost.memory.limited import least_private_bytes
from bnn.cost.memory.measured import measure_resident, measure_step, measure_time
from bnn.cost.memory.resident import PeakResident, peak_rss_bytes
from bnn.errors import BnnError, RunError
from bnn.training.allocator import give_back_freed_memory


def measure(network: NetworkBuilder, configuration: TrainingConfiguration) -> dict[str, float | None]:
    """Takes a few steps with random data in a fresh process.

    Returns:
        The bytes of `bnn.cost.memory.measured.MeasuredMemory`; `resident_bytes`, how far the process's resident
        memory rose above its level before the model was made, or None where the system cannot tell; `process_bytes`,
        the peak of the whole process, Python and torch included; and `step_s`, the median seconds of a step.

    Raises:
        RunError: the step fails, such as for want of memory.
    """
    return _measured(network, configuration, "figures")


def measure_needed(network: NetworkBuilder, configuration: TrainingConfiguration) -> float | None:
    """`bnn.cost.memory.limited.least_private_bytes` of a step in a fresh process, on one thread.

    Raises:
        RunError: the step fails, such as for want of memory.
    """
    return _measured(network, configuration, "needed")["needed_bytes"]


def _measured(network: NetworkBuilder, configuration: TrainingConfiguration, what: str) -> dict[str, float | None]:
    task = {"model": network.name, "input": network.input_shape, "configuration": asdict(configuration), "what": what}
    done = subprocess.run(
        [sys.executable, "-m", "bnn.cli.budget.measure", json.dumps(task)], capture_output=True, text=True
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise RunError(f"the step of {configuration.preset} could not be measured: {reason}")
    figures: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(text: str) -> None:
    """Prints the figures of a task as JSON."""
    task = json.loads(text)
    network = find_network(task["model"], tuple(task["input"]))
    configuration = TrainingConfiguration(**task["configuration"])
    shape: dict[str, Any] = {"input_shape": network.input_shape, "batch_size": configuration.batch_size}
    needed_alone = task["what"] == "needed"
    if needed_alone:
        torch.set_num_threads(1)
        give_back_freed_memory()  # holes that libraries leave differ from process to process
    load_libraries(configuration)
    if needed_alone:
        needed_bytes = least_private_bytes(partial(step_on_cpu, network, configuration), **shape)
        print(json.dumps({"needed_bytes": needed_bytes}))
        return
    try:
        resident = PeakResident()
    except OSError:
        resident = None
    step = step_on_cpu(network, configuration)
    risen = measure_resident(step, resident, **shape) if resident else None
    figures = {"resident_bytes": risen, "process_bytes": peak_rss_bytes(), "step_s": measure_time(step, **shape)}
    print(json.dumps({**figures, **asdict(measure_step(step, **shape))}))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (BnnError, MemoryError, RuntimeError) as error:
        raise SystemExit(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
