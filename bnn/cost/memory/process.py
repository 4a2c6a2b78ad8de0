"""What a process takes for a step, its allocator and the objects of the network included."""

from bnn.ops.memory import RESULTS

# Python's objects of a module, and what autograd notes of it.
_MODULE_BYTES = 1 << 14
# What the C library holds beyond the tensors: holes, the workspaces of kernels, and the code that oneDNN makes for
# layers. Of what has been freed it keeps much, unless it is told not to (`bnn.training.allocator`): holes between
# tensors then take up to as much as these. Both are above the need of each network that was tried under a limit of the
# process's memory (benchmarks/records.md), as `least_private_bytes` measures it.
_HOLDING_LITTLE, _OTHERWISE = 1 / 32, 1.0
_HOLDING_LITTLE_BYTES, _OTHERWISE_BYTES = 5 << 20, 6 << 20


def process_bytes(tensor_bytes: float, *, modules: int) -> float:
    """The private memory that a process needs for a network and its steps, above its level before.

    Pages of the libraries' code, which the system can drop and read again, are not in it, nor Python and torch, nor the
    10 MiB that MKL takes for its first product of large matrices and keeps.

    Args:
        tensor_bytes: the most that tensors take at once, such as `StepMemory.table.total_bytes`, predicted after the
            preset of the step has been prepared: it says whether the process is to hold little memory.
        modules: of the network.
    """
    if RESULTS.is_kept:
        held = _HOLDING_LITTLE * tensor_bytes + _HOLDING_LITTLE_BYTES
    else:
        held = _OTHERWISE * tensor_bytes + _OTHERWISE_BYTES
    return tensor_bytes + held + modules * _MODULE_BYTES
