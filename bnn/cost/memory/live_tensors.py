"""The memory that tensors take at every moment of some work, from the calls of torch's operations."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnn.bits import BitTensor
from bnn.ops.cpu.products import sums_floats
from bnn.ops.geometry import Window
from bnn.ops.memory import LARGE_BYTES, RESULTS

# Memory that has been asked for and not been written to is none yet; code that only asks for the strides of such a
# tensor takes none at all.
_UNWRITTEN = ("aten::empty", "aten::new_empty")
# What makes tensors of packed bits, if they are of uint8.
_PACKS = ("bnn::", "aten::new_empty")
# Elementwise operations whose truth values stay as they are.
_TAKES_MASK = ("aten::where", "aten::masked_fill")
_FEW_CHANNELS = 4
_FEW_IMAGES = 16  # fewer of them have no code for a kernel of 1x1
# Operations whose results take the place of earlier ones on the CPU, if they are large; and `bnn.ops.memory.empty`.
_REUSES_MEMORY = {
    "aten::empty",
    *(f"bnn::{name}" for name in ("pack", "unpack", "sign_window", "norm_sign", "sign_codes", "norm_clamp_")),
    "bnn::max_pool2d",
    *(f"bnn::{name}" for name in ("conv2d", "real_conv2d", "float_conv2d", "conv2d_max_pool2d")),
    *(f"bnn::{name}" for name in ("max_pool2d_backward", "max_pool2d_choices", "max_pool2d_scatter")),
    *(f"bnn::{name}" for name in ("window_means", "window_means_backward")),
    *(f"bnn::{name}" for name in ("norm_gradient", "norm_gradient_integers", "pass_slopes")),
    *(f"bnn::{kind}_backward_{of}" for kind in ("conv2d", "linear") for of in ("input", "input_slopes", "weight")),
    "bnn::conv2d_backward_weight_ternary",
    "bnn::real_conv2d_backward_weight",
    "bnn::normed_conv2d_backward",
}
_READ_NUMBER = "aten::_local_scalar_dense"
_BACKWARD = "aten::convolution_backward"
_CONVOLUTIONS = ("aten::convolution", _BACKWARD)
# Which argument has the strides, as its first two numbers at least.
_STRIDES = {"aten::convolution": 3, _BACKWARD: 4, "bnn::float_conv2d": 2, "bnn::real_conv2d_backward_weight": 3}
# Those of real numbers for which there are kernels up to a size, and torch's own above it, with their window.
_OF_FLOATS = {"bnn::float_conv2d": "aten::convolution", "bnn::real_conv2d_backward_weight": _BACKWARD}

KEPT = ("freed", 0)
"""The source of memory that is kept for results to come."""


@dataclass(eq=False)
class Memory:
    """The storage that one or more tensors share."""

    nbytes: int
    itemsize: int
    """Bytes of an element of the tensor that it was made for."""
    is_packed: bool
    """Whether it holds bits that an operation of this package has packed."""
    dim: int
    """Dimensions of that tensor."""
    source: tuple[str, int]
    """The operation that made it, and the number of its result."""
    holds_weights: bool
    """Whether it holds parameters, or something made of parameters alone."""


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, notes when storages on one device come into use and when they are freed.

    On the meta device nothing is computed and no memory is taken, yet storages come and go as they would. What
    operations take for themselves while they run is not seen, but for what `workspace_bytes` knows of.

    Args:
        device: of the tensors that count.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.may_read_numbers = False
        """Whether a number may be read from a meta tensor. It is then taken to be 1, or true: what code asks of
        gradients and moments is whether they are finite, and whether there are some that need more work."""
        self.convolutions: set[tuple[object, ...]] = set()
        """Results of torch's own convolutions that differ in a shape, layout or dtype, forward and backward: oneDNN
        makes code for each of them, thrice as much for an input's gradient where the kernel strides, and none
        for outputs of single channels that lie last."""
        self._log: list[tuple[Memory, int]] = []
        self._range = _Range() if device.type == "meta" and RESULTS.is_kept else None
        self._of_storage: dict[int, Memory] = {}
        self._unwritten: set[int] = set()

    def memory_of(self, x: Tensor) -> Memory:
        """The memory of a tensor, whatever device it is on; of a `BitTensor` that of its bits."""
        return self._note(x.packed if isinstance(x, BitTensor) else x, ("", 0), holds_weights=False)

    def hold(self, tensors: Iterable[Tensor], *, holds_weights: bool = False) -> list[Memory]:
        """Counts tensors that were there before."""
        memories = [self._note(x, ("", 0), holds_weights=holds_weights) for x in tensors]
        for x in tensors:
            self._use(x)
        return memories

    def at_peak(self) -> dict[Memory, int]:
        """The storages in use at the peak, with their bytes, transients within an operation included."""
        live = most = length = 0
        for place, (_, change) in enumerate(self._log, start=1):
            live += change
            if live > most:
                most, length = live, place
        held: dict[Memory, int] = {}
        for memory, change in self._log[:length]:
            held[memory] = held.get(memory, 0) + change
        return {memory: nbytes for memory, nbytes in held.items() if nbytes}

    def allocated_bytes(self) -> int:
        """The most that large storages take at once, and the most that small ones do, maybe at another moment.

        So much the GNU C library takes for them where the threshold for pieces of their own is `LARGE_BYTES`: small
        ones lie in a heap that can shrink at its end alone, where something else always lies.
        """
        large = [change for memory, change in self._log if memory.nbytes >= LARGE_BYTES]
        small = [change for memory, change in self._log if memory.nbytes < LARGE_BYTES]
        return max(accumulate(large, initial=0)) + max(accumulate(small, initial=0))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation and notes the storages that it uses and makes."""
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(isinstance(x, BitTensor) for x in inputs):
            return NotImplemented  # comes again with the bits
        name = func._schema.name
        if name == _READ_NUMBER and inputs[0].is_meta and self.may_read_numbers:
            return torch.ones((), dtype=inputs[0].dtype).item()
        results = func(*args, **kwargs)
        if name == "aten::convolution" and any(_channels_lie_last(x) for x in inputs[:2]):
            results = results.contiguous(memory_format=torch.channels_last)  # as it is on the CPU
        outputs = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        convolution = _convolution(name, args)
        stride = max(args[4]) if name == _BACKWARD and args[-1][0] else 1
        if convolution is not None:
            self._note_convolution(convolution, inputs, outputs, max(args[_STRIDES[name]][:2]))
        inputs, outputs = ([x for x in xs if x.device == self.device] for xs in (inputs, outputs))
        is_written = not name.startswith(_UNWRITTEN)
        holds_weights = is_written and bool(inputs) and all(self.memory_of(x).holds_weights for x in inputs)
        for number, x in enumerate(outputs):
            self._note(x, (name, number), holds_weights=holds_weights)
        if not _only_views(func):
            for x in inputs + outputs if is_written else inputs:
                self._use(x)
            if workspace := workspace_bytes(func, inputs, stride=stride):
                memory = Memory(workspace, 4, False, 1, (name, len(outputs)), False)
                self._log += [(memory, workspace), (memory, -workspace)]
        return results

    def _note_convolution(self, name: str, inputs: list[Tensor], outputs: list[Tensor], stride: int) -> None:
        operands = [*inputs, *outputs]  # torch's backward pass takes the weight, and this package's gives its gradient
        x, weight = operands[1:3] if name == _BACKWARD else operands[:2]
        is_pixel = weight.shape[2:].numel() == 1
        if is_pixel and stride == 1 and len(x) < _FEW_IMAGES:
            return  # a product of matrices on one thread
        key = tuple((operand.shape, operand.stride(), operand.dtype) for operand in inputs)
        results = sum(1 for y in outputs if y.dim() == weight.dim())  # a bias has no code of its own
        if weight.shape[1] == 1 < x.shape[1] and name != _BACKWARD and _channels_lie_last(x):  # of a channel each
            return
        of_input = name == _BACKWARD and outputs[0].shape == x.shape
        more = 2 if of_input and stride > 1 and not is_pixel else 0
        self.convolutions |= {(name, number, *key) for number in range(results + more)}

    def _note(self, x: Tensor, source: tuple[str, int], *, holds_weights: bool) -> Memory:
        storage = x.untyped_storage()
        key = storage._cdata
        if key not in self._of_storage:
            packed = x.dtype is torch.uint8 and source[0].startswith(_PACKS)
            self._of_storage[key] = Memory(storage.nbytes(), x.itemsize, packed, x.dim(), source, holds_weights)
            self._unwritten.add(key)
            weakref.finalize(storage, self._forget, key).atexit = False
        return self._of_storage[key]

    def _use(self, x: Tensor) -> None:
        key = x.untyped_storage()._cdata
        if key in self._unwritten:
            self._unwritten.remove(key)
            memory = self._of_storage[key]
            if self._range is not None and _is_large_result(memory):
                self._log.append(self._range.take(memory))
            self._log.append((memory, memory.nbytes))

    def _forget(self, key: int) -> None:
        memory = self._of_storage.pop(key)
        if key in self._unwritten:
            self._unwritten.remove(key)
        else:
            self._log.append((memory, -memory.nbytes))
            if self._range is not None and _is_large_result(memory):
                self._log.append(self._range.give_back(memory))


class _Range:
    """Follows `bnn.ops.memory.ResultMemory`, of which it is a copy without memory."""

    def __init__(self) -> None:
        self._used = self._held = 0
        self._free = Memory(LARGE_BYTES, 1, False, 1, KEPT, False)

    def take(self, result: Memory) -> tuple[Memory, int]:
        """What changes where a result takes memory, in that which no result holds."""
        self._used += result.nbytes
        grown = max(0, self._used - self._held)
        self._held += grown
        return self._free, grown - result.nbytes

    def give_back(self, result: Memory) -> tuple[Memory, int]:
        """What changes where a result is freed."""
        self._used -= result.nbytes
        return self._free, result.nbytes


def _convolution(name: str, args: tuple[Any, ...]) -> str | None:
    """The operation of torch's own by which another's result is formed on the CPU, if that is a convolution."""
    if name not in _OF_FLOATS:
        return name if name in _CONVOLUTIONS else None
    x, second, *rest = args
    if x.dtype is not torch.float32:  # integers, as the kernels take them
        return None
    window, weight_shape = Window(*args[_STRIDES[name]]), second.shape if name == "bnn::float_conv2d" else rest[0]
    is_product = _OF_FLOATS[name] == _BACKWARD and window.is_of_pixels(weight_shape)
    return None if sums_floats(weight_shape, window) or is_product else _OF_FLOATS[name]


def _is_large_result(memory: Memory) -> bool:
    """Whether it is a result that takes the place of earlier ones on the CPU."""
    operation, _ = memory.source
    return operation in _REUSES_MEMORY and memory.nbytes >= LARGE_BYTES


def workspace_bytes(func: Any, inputs: list[Tensor], *, stride: int = 1) -> int:
    """Bytes that some operations take on the CPU while they run, besides their results.

    Args:
        func: the operation.
        inputs: its tensors.
        stride: of the convolution whose input's gradient is formed.

    Seen in the allocations of torch 2.13 with oneDNN: a convolution's backward pass copies operands whose layout is
    not its own; where channels lie last it then forms the weight's gradient, unless the kernel is 1x1, in a layout of
    its own and copies that, and else has all operands in such layouts, but for images of few channels; where it
    strides, the input's gradient is formed of a copy of the output's, an image at a time. The backward pass of a batch
    norm begins with a copy of the output's gradient; elementwise operations on several dtypes copy the narrower
    operands; and operations on bits copy images whose channels do not lie last.
    """
    name = func._schema.name
    if name == _BACKWARD:
        gradient, x, weight = operands = inputs[:3]
        last = _channels_lie_last(x) or _channels_lie_last(weight)
        layout = torch.channels_last if last else torch.contiguous_format
        copies = sum(_nbytes(operand) for operand in operands if not operand.is_contiguous(memory_format=layout))
        copies += _nbytes(gradient[:1]) if stride > 1 and weight.shape[2:].numel() > 1 else 0
        if last:
            return copies + (2 * _nbytes(weight) if weight.shape[2:].numel() > 1 else 0)
        return copies + _nbytes(gradient) + _nbytes(weight) + (_nbytes(x) if x.shape[1] > _FEW_CHANNELS else 0)
    if name == "aten::native_batch_norm_backward":
        return _nbytes(inputs[0])
    if name.startswith("bnn::"):
        images = [x for x in inputs if x.dim() == 4 and not x.is_contiguous(memory_format=torch.channels_last)]
        return sum(_nbytes(x) for x in images)
    if torch.Tag.pointwise in func.tags and not name.startswith(_TAKES_MASK):
        wide = max((x.itemsize for x in inputs), default=0)
        return sum(wide * x.numel() for x in inputs if x.itemsize < wide)
    return 0


def _channels_lie_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _nbytes(x: Tensor) -> int:
    return x.numel() * x.itemsize


def _only_views(func: Any) -> bool:
    """Whether an operation gives another view of its input's memory and does nothing else."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
