import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from bnn.ops.memory import RESULTS

# Small tensors: one thread is faster than the hand-over to several, and sums come out the same on every machine.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def steps_beside_float_are_not_measured() -> Iterator[None]:
    """Summaries have made-up figures of memory: to take the steps in a copy is as much work as a small training."""
    from bnn.cost.meters import beside_float

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beside_float, "_measured", lambda run: (2**20, 2**22))
        yield


@pytest.fixture(autouse=True)
def same_weights_in_any_order() -> None:
    """Seeds torch's own generator, which draws the weights of layers that a test does not initialize."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_memory_of_other_tests() -> None:
    """Gives back what presets in earlier tests have kept for results, which would count in later ones."""
    RESULTS.is_kept = False
    RESULTS.give_back()
