"""A network whose slices ranks share: blocks see some rows each, the layers between them all rows of a slice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from bnn.distributed import Exact
from bnn.layers.block import BinaryBlock

_ON_ALL_ROWS = {nn.Linear.forward, nn.BatchNorm1d.forward}  # the norm of images shares the latter


def obstacle_to_sharing(model: nn.Module) -> str | None:
    """Why ranks cannot share a slice that goes through a network, bit for bit; None where they can.

    All parameters and statistics have to be in blocks that recompute their product, linear layers and batch norms.
    """
    for name, module in _outside_of_blocks(model):
        if type(module).forward not in _ON_ALL_ROWS:
            return f"{name} is a {type(module).__name__} outside of the blocks that keep bits"
    return None


@contextmanager
def on_all_rows(model: nn.Module, exchange: Exact) -> Iterator[None]:
    """While it is entered, layers outside of blocks compute all rows of the slice on every rank, and give it its own.

    So their results and the gradients of their parameters are those of one process.
    """
    handles = []
    for _, module in _outside_of_blocks(model):
        handles += [
            module.register_forward_pre_hook(lambda _, inputs: _all_rows(inputs[0], exchange)),
            module.register_forward_hook(lambda _, __, output: _own_rows(output, exchange)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _outside_of_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules with parameters or buffers of their own, in the order of the network, but for those of blocks."""
    in_blocks: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in in_blocks:
            continue
        if isinstance(module, BinaryBlock) and module.is_fused:
            in_blocks.update(module.modules())
        elif next(chain(module.parameters(recurse=False), module.buffers(recurse=False)), None) is not None:
            yield name, module


def _all_rows(x: Tensor, exchange: Exact) -> Any:
    exchange.ranks.agree()
    return _AllRows.apply(x, exchange)  # type: ignore[no-untyped-call]


def _own_rows(x: Tensor, exchange: Exact) -> Any:
    return _OwnRows.apply(x, exchange)  # type: ignore[no-untyped-call]


class _AllRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exact) -> Tensor:
        ctx.exchange = exchange
        return exchange.rows_of_all(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return ctx.exchange.own_rows(grads[0]), None


class _OwnRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exact) -> Tensor:
        ctx.exchange = exchange
        return exchange.own_rows(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return ctx.exchange.rows_of_all(grads[0]), None
