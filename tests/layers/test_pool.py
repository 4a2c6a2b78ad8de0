"""Max-pooling equals torch's, forward and backward, and keeps a few bits a window."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bnn.bits import BitTensor
from bnn.layers import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from bnn.layers.pool import pad_channels
from tests.contracts import CHANNELS_LAST, randn, saved_bytes


@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_torch_with_ties(batch, channels, size, kernel, stride, pad, channels_last, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (batch, channels, *size), generator=generator).float()
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    padding = kernel // 2 if pad else 0
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    pooled = MaxPool2d(kernel, stride=stride, padding=padding)(ours)
    expected = F.max_pool2d(theirs, kernel, stride, padding)
    assert torch.equal(pooled, expected)
    grad = torch.randn(expected.shape, generator=generator)
    pooled.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


def test_gradient_is_bit_equal_where_windows_do_not_overlap(generator):
    x = torch.randn(4, 6, 8, 8, generator=generator)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    grad = torch.randn(4, 6, 4, 4, generator=generator)
    MaxPool2d(2)(ours).backward(grad)
    F.max_pool2d(theirs, 2).backward(grad)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(("kernel", "bits"), [(1, 0), (2, 2), (3, 4)])
def test_keeps_bits_of_the_choice_only(kernel, bits, generator):
    x = torch.randn(8, 16, 18, 18, generator=generator, requires_grad=True)
    pool = MaxPool2d(kernel)
    windows = pool(x.detach()).numel()
    with saved_bytes() as saved:
        pool(x)
    assert sum(saved.values()) == windows * bits / 8


def test_pools_bits_as_bits(generator):
    x = BitTensor.from_dense(torch.randn(2, 5, 6, 6, generator=generator))
    pooled = MaxPool2d(2)(x)
    assert isinstance(pooled, BitTensor)
    assert torch.equal(pooled.dense(), F.max_pool2d(x.dense(), 2))


def test_nan_is_not_lost():
    x = torch.zeros(1, 1, 2, 2)
    for place in range(4):
        broken = x.clone()
        broken.view(-1)[place] = float("nan")
        assert MaxPool2d(2)(broken).isnan().all()


def test_gradient_goes_to_the_last_nan_as_in_torch():
    x = torch.tensor([[[[1.0, float("nan")], [float("nan"), 2.0]]]]).requires_grad_()
    MaxPool2d(2)(x).backward(torch.ones(1, 1, 1, 1))
    assert x.grad.flatten().tolist() == [0, 0, 1, 0]


def test_refuses_more_values_than_a_choice_can_number():
    with pytest.raises(ValueError, match="1 to 256 values"):
        MaxPool2d(17)(torch.zeros(1, 1, 17, 17))


def test_refuses_a_padding_that_could_win():
    with pytest.raises(ValueError, match="at most half the kernel of 2, got 2"):
        MaxPool2d(2, padding=2)


def test_repr_tells_the_window():
    assert repr(MaxPool2d(3, stride=2, padding=1)) == "MaxPool2d(kernel_size=3, stride=2, padding=1)"


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3, 8, 6), {"kernel_size": 2}),
        ((2, 3, 7, 5), {"kernel_size": 2}),
        ((2, 3, 7, 5), {"kernel_size": 2, "ceil_mode": True}),
        ((2, 3, 9, 9), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        ((1, 1, 4, 8), {"kernel_size": (2, 4)}),
        ((2, 5, 4, 4), {"kernel_size": 2, "divisor_override": 3}),
    ],
)
def test_average_is_torch_s_and_saves_nothing(shape, options):
    gradients = []
    for pool in (AvgPool2d(**options), nn.AvgPool2d(**options)):
        x = randn(*shape).requires_grad_()
        with saved_bytes() as saved:
            y = pool(x)
        assert bool(sum(saved.values())) == (type(pool) is nn.AvgPool2d)
        y.backward(randn(*y.shape, seed=1))
        gradients.append((y, x.grad))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("pool", [MaxPool2d(2), AvgPool2d(2)])
def test_one_image_is_a_batch_of_one(pool, generator):
    x = torch.randn((3, 6, 6), generator=generator)
    assert torch.equal(pool(x), pool(x[None])[0])


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("uses", [("pooled", "same"), ("pooled",), ("same",)])
def test_average_with_its_input_adds_that_one_s_gradient(kernel, uses):
    gradients = []
    for with_input in (True, False):
        x = randn(2, 3, 4, 6).requires_grad_()
        pool = AvgPool2d(kernel)
        pooled, same = pool(x, with_input=True) if with_input else (pool(x), x)
        assert torch.equal(same, x)
        results = {"pooled": pooled.square().sum(), "same": same.pow(3).sum()}
        sum(results[name] for name in uses).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("before", "after"), [(3, 4), (0, 5), (2, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_of_zeros_are_those_of_torch(before, after, dtype):
    x, padding = randn(2, 5, 4, 3).to(dtype), (0, 0, 0, 0, before, after)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    outs = pad_channels(leaves[0], before, after), F.pad(leaves[1], padding)
    assert torch.equal(*outs)
    assert outs[0].is_contiguous(memory_format=CHANNELS_LAST)
    for out in outs:
        out.backward(randn(*out.shape, seed=1).to(dtype))
    assert torch.equal(leaves[0].grad, leaves[1].grad)
    assert pad_channels(x.to("meta"), before, after).shape == outs[0].shape
    graph = torch.fx.symbolic_trace(PaddingChannels())
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"] == [F.pad]


class PaddingChannels(nn.Module):
    def forward(self, x):
        return pad_channels(x, 1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_global_average_is_that_of_torch(dtype):
    x, pool = randn(3, 5, 4, 6).to(dtype).contiguous(memory_format=CHANNELS_LAST), GlobalAvgPool2d()
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    with saved_bytes() as saved:
        out = pool(leaves[0])
    expected = nn.AdaptiveAvgPool2d(1)(leaves[1])
    assert not sum(saved.values())
    torch.testing.assert_close(out, expected, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    for mean in (out, expected):
        mean.backward(randn(3, 5, 1, 1, seed=1).to(dtype))
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=torch.finfo(dtype).eps, atol=0)
    assert torch.equal(pool.eval()(x), expected)
    assert pool.train()(x[0]).shape == (5, 1, 1)
