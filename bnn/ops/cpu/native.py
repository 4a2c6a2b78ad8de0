"""Loads the extension `bnn._native`, chooses its instruction set and calls its functions.

The environment variable ``BNN_KERNELS`` chooses: ``amx``, ``avx512``, ``avx2``, ``neon-dot``, ``neon`` or ``generic``
forces an instruction set, ``reference`` forces the specifications; unset, the best set of this CPU is used. A build
without the extension, or one whose results are wrong here, falls back to the specifications with one RuntimeWarning.
"""

import importlib
import os
import warnings
from types import ModuleType
from typing import Any

import torch

from bnn.errors import BnnError
from bnn.ops import product_gradients
from bnn.ops.cpu.check import invoke, some_bits, wrong_function
from bnn.ops.geometry import Window
from bnn.ops.operation import Backend, Function

_backend = Backend("CPU")


def instruction_set() -> str:
    """The instruction set in use: amx, avx512, avx2, neon-dot, neon, generic; or reference where not native."""
    return _instruction_set


def kernel(function: Function) -> Function:
    """Registers the decorated function for the operation of its name, if native kernels are in use."""
    return _backend.kernel(function) if _extension else function


def call(name: str, *arguments: Any) -> Any:
    """Calls a function of the extension, to which tensors go as pointers, on all threads of torch."""
    assert _extension is not None
    return invoke(_extension, _instruction_set, torch.get_num_threads(), name, *arguments)


def products_are_right(extension: ModuleType, isa: str) -> bool:
    """Compares products of a few sizes, with partial words and tiles, to a loop over Python's integers."""
    for rows, outputs, features in ((5, 19, 139), (9, 33, 256), (3, 2, 1)):
        packed = some_bits(rows + outputs, features)
        out = torch.full((rows, outputs), torch.nan)
        invoke(extension, isa, 1, "linear", packed[:rows], packed[rows:], out, rows, outputs, features)
        bits = [int.from_bytes(row, "little") % 2**features for row in packed.numpy()]
        right = [[features - 2 * (a ^ b).bit_count() for b in bits[rows:]] for a in bits[:rows]]
        if out.tolist() != right:
            return False
    return True


def gradients_are_right(extension: ModuleType, isa: str) -> bool:
    """Compares both gradients of a small convolution, with partial tiles and padding, to their specification."""
    x_shape, weight_shape = (3, 5, 7, 6), (37, 5, 3, 2)
    window = Window.of(stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    _, outputs, *size = window.output_shape(x_shape, weight_shape)
    # The images of the extension are channels last.
    q = (torch.arange(3 * 37 * size[0] * size[1]) ** 2 * 31 % 255 - 127).to(torch.int8).view(3, *size, 37)
    x, weight, scale = some_bits(3, 5 * 7 * 6), some_bits(37, 5 * 3 * 2), 0.5
    geometry = (x_shape, weight_shape[2:], *window.for_torch[:3], size, outputs, 1)
    of_input, of_weight = torch.empty(3, 7, 6, 5), torch.empty(37, 3, 2, 5)
    invoke(
        extension,
        isa,
        1,
        "conv2d_backward_input",
        q,
        scale,
        weight,
        of_input,
        *geometry,
        of_input.itemsize,
        0,
        [],
        0,
        0,
    )
    invoke(extension, isa, 1, "conv2d_backward_weight", q, scale, x, of_weight, *geometry, of_weight.itemsize)
    q, factor = q.movedim(-1, 1), torch.tensor(scale)
    return torch.equal(
        of_input.movedim(-1, 1),
        product_gradients.conv2d_backward_input(q, factor, weight, weight_shape, x_shape, window, torch.float32),
    ) and torch.equal(
        of_weight.movedim(-1, 1),
        product_gradients.conv2d_backward_weight(q, factor, x, x_shape, weight_shape, window),
    )


def load() -> tuple[ModuleType | None, str]:
    """The extension, or None where there is none that gives right results or none is wanted; and its instruction set.

    Raises:
        BnnError: ``BNN_KERNELS`` asks for an instruction set that is not there.
    """
    wanted = os.environ.get("BNN_KERNELS", "")
    if wanted == "reference":
        return None, "reference"
    try:
        extension = importlib.import_module("bnn._native")
        names = extension.instruction_sets()
    except ImportError:
        extension, names = None, []
    if wanted and wanted not in names:
        raise BnnError(
            f"BNN_KERNELS={wanted}, but there is {' '.join(names) or 'no native kernel'} here;"
            " unset it for the best, or set it to reference"
        )
    advice = "reinstall, or set BNN_KERNELS=reference"
    if extension is None:
        reason = "the native kernels are not built"
        advice = f"install a C++ compiler and {advice}"
    elif not products_are_right(extension, wanted or names[0]):
        reason = f"the native {wanted or names[0]} kernels give wrong products on this machine"
    elif not gradients_are_right(extension, wanted or names[0]):
        reason = f"the native {wanted or names[0]} kernels give wrong gradients on this machine"
    elif (name := wrong_function(extension, wanted or names[0])) is not None:
        reason = f"the native {wanted or names[0]} kernels give a wrong {name} on this machine"
    else:
        return extension, wanted or names[0]
    warnings.warn(
        f"{reason}: the packed operations run on their slow reference ({advice})", RuntimeWarning, stacklevel=2
    )
    return None, "reference"


_extension, _instruction_set = load()
