"""What a process takes for a step, its allocator and the objects of the network included."""

# Python's objects of a module, and what autograd notes of it.
_MODULE_BYTES = 1 << 14
# The addresses that oneDNN reserves for code, a kernel at a time: up to three for the result of a convolution, and
# fewer for those of networks with many, which share some.
_KERNEL_BYTES = 1 << 18
_KERNELS, _SHARED_KERNELS, _OWN_KERNELS = 3.0, 36, 1.2
# What the C library holds beyond the tensors: holes, small tensors and the workspaces of kernels. Above the need of
# each network that was tried under a limit of the process's memory (benchmarks/records), as `least_private_bytes`
# measures it. Between these it differs by 6 MiB, which neither tensors nor modules explain.
_HELD, _HELD_BYTES = 1 / 40, 15 << 18


def process_bytes(tensor_bytes: float, *, modules: int, convolutions: int) -> float:
    """The private memory that a process needs for a network and its steps, above its level before, where it gives back
    what it frees, as every preset does under a limit (`bnn.training.allocator`).

    Pages of the libraries' code, which the system can drop and read again, are not in it, nor Python and torch, nor the
    10 MiB that MKL takes for its first product of large matrices and keeps.

    Args:
        tensor_bytes: what is allocated for tensors, such as `LiveTensors.allocated_bytes`.
        modules: of the network.
        convolutions: results of torch's own that differ, forward and backward, such as `LiveTensors.convolutions`.
    """
    held = _HELD * tensor_bytes + _HELD_BYTES
    kernels = min(_KERNELS * convolutions, _SHARED_KERNELS + _OWN_KERNELS * convolutions)
    return tensor_bytes + held + modules * _MODULE_BYTES + kernels * _KERNEL_BYTES
