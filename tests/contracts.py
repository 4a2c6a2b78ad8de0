"""What the tests of several packages share: the dense meaning of bits, a memory meter, a walk over a package."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers import BinaryBlock

T = TypeVar("T")

CHANNELS_LAST = torch.channels_last


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bits_of(*shape: int, seed: int = 0) -> BitTensor:
    """Random bits; `randn` of the same arguments has these signs."""
    return BitTensor.from_dense(randn(*shape, seed=seed))


def signs(x: Tensor) -> Tensor:
    """+1 where `x` >= 0, else -1, without any code of the package."""
    return (x >= 0).to(x.dtype) * 2 - 1


def dense(x: Tensor) -> Tensor:
    return x.dense() if isinstance(x, BitTensor) else x


class STESign(torch.autograd.Function):
    """Signs whose gradient passes where |x| <= 1: the float emulation that the packed layers are held to."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return signs(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class PackSigns(torch.autograd.Function):
    """Packs signs; the gradient passes."""

    @staticmethod
    def forward(ctx, x):
        return BitTensor.from_dense(x)

    @staticmethod
    def backward(ctx, grad):
        assert type(grad) is Tensor, "a gradient is dense"
        return grad


@contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Bytes of the distinct storages that autograd saves inside the block, by storage; sum the values."""
    bytes_by_storage: dict[int, int] = {}
    kept_alive = []

    def pack(x: Tensor) -> Tensor:
        memory = x.packed if isinstance(x, BitTensor) else x
        kept_alive.append(memory)
        storage = memory.untyped_storage()
        bytes_by_storage[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield bytes_by_storage


def concrete_classes(package: ModuleType, base: type[T]) -> list[type[T]]:
    """Every subclass of `base` that a module of `package` defines."""
    modules = [package] + [importlib.import_module(m.name) for m in walk(package)]
    classes = {
        cls
        for module in modules
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base and cls.__module__ == module.__name__
    }
    return sorted(classes, key=lambda cls: cls.__name__)


def walk(package: ModuleType) -> Iterator[pkgutil.ModuleInfo]:
    return pkgutil.walk_packages(package.__path__, package.__name__ + ".")


def parts_in_order(model: nn.Sequential) -> list[nn.Module]:
    """The layers of a network, and of each block among them the product, the pooling, the norm and the activation."""
    return [
        part
        for layer in model
        for part in (
            (layer.product, layer.pool, layer.norm, layer.activation) if isinstance(layer, BinaryBlock) else (layer,)
        )
        if part is not None
    ]
