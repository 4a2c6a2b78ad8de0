"""What a walk over autograd's graph finds."""

import torch

from bnn.cost.memory.saved_tensors import saved_tensors
from bnn.quantizers import Sign


class Hides(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.hidden = [x * 2]
        return x * 3

    @staticmethod
    def backward(ctx, grad):
        return grad * 3


def saved_bytes(y):
    storages = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in saved_tensors(y)}
    return sum(storages.values())


def test_a_walk_finds_what_hooks_do_not_see():
    x = torch.ones(10, requires_grad=True)
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(seen.append, lambda nothing: nothing):
        Hides.apply(x)
    assert [tensor.numel() for tensor in seen] == [10]
    assert saved_bytes(Hides.apply(x)) == 40 + 40


def test_a_walk_goes_through_the_whole_graph_and_knows_bits():
    x = torch.randn(4, 16, requires_grad=True)
    y = (Sign()(x) * x).exp()
    # The window's bits, the product's two factors (of which one is bits), and the result of exp.
    assert saved_bytes(y) == 4 * 2 + 4 * 2 + 4 * 64 + 4 * 64
    assert saved_bytes(torch.ones(3)) == 0
