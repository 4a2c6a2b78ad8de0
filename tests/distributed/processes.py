"""Real processes of a gloo group, for tests."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[2]

_CALL = """
import os, sys
from importlib import import_module
import torch
from safetensors.torch import save_file
torch.set_num_threads(1)
module, name, target, *arguments = sys.argv[1:]
result = getattr(import_module(module), name)(*arguments)
save_file({key: torch.as_tensor(value).clone().contiguous() for key, value in result.items()}, target)
"""


def start(commands: list[list[str]], **environment: str) -> list[subprocess.Popen]:
    """Starts `python COMMAND` of each rank, with what torchrun tells them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(len(commands)),
        "LOCAL_WORLD_SIZE": str(len(commands)),
        **environment,
    }
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]


def results_of(
    function: Callable[..., dict[str, Tensor | float]], *arguments: str, ranks: int, folder: Path
) -> list[dict[str, Tensor]]:
    """What `function(*arguments)` gives in each of some new processes, the ranks of a group that it joins itself."""
    targets = [folder / f"{function.__name__}-{rank}-of-{ranks}" for rank in range(ranks)]
    call = ["-c", _CALL, function.__module__, function.__name__]
    running = start([[*call, str(target), *arguments] for target in targets])
    errors = [process.communicate(timeout=900)[1] for process in running]
    for process, error in zip(running, errors, strict=True):
        assert process.returncode == 0, error
    return [load_file(target) for target in targets]
