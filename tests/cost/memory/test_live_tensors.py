"""The memory that is watched, on tensors whose sizes are known."""

import pytest
import torch

from bnn.bits import BitTensor
from bnn.cost.memory.live_tensors import KEPT, LiveTensors, workspace_bytes
from bnn.ops.memory import RESULTS

aten = torch.ops.aten
DEVICES = ["cpu", "meta"]


def watched(device: str) -> LiveTensors:
    return LiveTensors(torch.device(device))


def peak(live: LiveTensors) -> int:
    return sum(live.at_peak().values())


@pytest.mark.parametrize("device", DEVICES)
def test_peak_is_what_was_held_at_once(device):
    live = watched(device)
    with live:
        a = torch.zeros(100, device=device)
        b = a + 1  # 800 bytes
        del a
        c = b.double()  # 1,200
        del b, c
        d = torch.ones(100, device=device)
    assert peak(live) == 1200
    assert sorted(live.at_peak().values()) == [400, 800]
    del d


@pytest.mark.parametrize("device", DEVICES)
def test_views_share_memory_and_keep_it(device):
    live = watched(device)
    with live:
        whole = torch.zeros(10, 10, device=device)
        part = whole[2:3].t().unsqueeze(0)
        del whole
        other = torch.zeros(50, device=device)
    assert peak(live) == 400 + 200
    assert live.memory_of(part).nbytes == 400
    del part, other


@pytest.mark.parametrize("device", DEVICES)
def test_memory_counts_once_it_is_written(device):
    live = watched(device)
    with live:
        strides = torch.empty(1000, 1000, device=device).t().stride()
        assert peak(live) == 0
        out = torch.empty(10, 10, device=device)
        out[0] = 1
    assert strides == (1, 1000)
    assert peak(live) == 400 + 4  # and the number that was written


def test_other_devices_do_not_count():
    live = watched("meta")
    with live:
        kept = torch.zeros(100)
        shape = torch.zeros(10, device="meta")
    assert peak(live) == 40
    del kept, shape


@pytest.mark.parametrize("device", DEVICES)
def test_bits_count_as_bits(device):
    live = watched(device)
    x = torch.ones(16, 64, device=device)
    live.hold([x])
    with live:
        bits = BitTensor.from_dense(x)
    memory = live.memory_of(bits)
    assert (memory.nbytes, memory.is_packed, memory.source) == (16 * 8, True, ("bnn::pack", 0))
    assert peak(live) == 4 * 16 * 64 + 16 * 8


def test_what_is_made_of_weights_alone_is_of_weights():
    live = watched("cpu")
    weight, x = torch.ones(4), torch.ones(4)
    live.hold([weight], holds_weights=True)
    live.hold([x])
    with live:
        doubled = weight * 2
        product = doubled * x
        made = weight.new_empty(4).fill_(1)
    assert [live.memory_of(y).holds_weights for y in (weight, doubled, product, made)] == [True, True, False, False]


def test_a_number_is_read_from_shapes_only_where_it_may_be():
    live = watched("meta")
    x = torch.ones(3, device="meta")
    with live:
        with pytest.raises(RuntimeError, match="meta"):
            x.sum().item()
        live.may_read_numbers = True
        assert x.sum().item() == 1.0
        assert bool((x > 0).any()) is True
        assert torch.zeros((), dtype=torch.int64, device="meta").item() == 1


def test_workspace_of_operations():
    image, weight = torch.ones(2, 4, 5, 5), torch.ones(8, 4, 3, 3)
    last = image.contiguous(memory_format=torch.channels_last)
    assert workspace_bytes(aten.native_batch_norm_backward.default, [image]) == 4 * 200
    assert workspace_bytes(torch.ops.bnn.norm_sign.default, [image, torch.ones(4)]) == 4 * 200
    assert workspace_bytes(torch.ops.bnn.norm_sign.default, [last]) == 0
    assert workspace_bytes(aten.add.Tensor, [image, image]) == 0
    assert workspace_bytes(aten.mm.default, [weight[0, 0], weight[0, 0].double()]) == 0
    assert workspace_bytes(aten.lt.Tensor, [image.double(), image]) == 8 * 200
    assert workspace_bytes(aten.where.self, [image > 0, image, image]) == 0


def test_workspace_of_a_convolution_s_backward():
    def workspace(gradient, x, weight, **stride):
        return workspace_bytes(aten.convolution_backward.default, [gradient, x, weight], **stride)

    gradient, x, weight = torch.ones(2, 8, 3, 3), torch.ones(2, 5, 5, 5), torch.ones(8, 5, 3, 3)
    nbytes = [4 * tensor.numel() for tensor in (gradient, x, weight)]
    last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (gradient, x, weight)]
    assert workspace(*last) == 2 * nbytes[2]
    assert workspace(last[0], last[1], last[2][:, :, :1, :1]) == 4 * 8 * 5  # a slice that is copied, and no more
    assert workspace(gradient, last[1], last[2]) == nbytes[0] + 2 * nbytes[2]
    assert workspace(last[0], last[1], weight) == nbytes[2] + 2 * nbytes[2]
    assert workspace(gradient, x, weight) == sum(nbytes)
    assert workspace(last[0], x, weight) == sum(nbytes) + nbytes[0]
    assert workspace(gradient, x[:, :1].contiguous(), weight[:, :1].contiguous()) == nbytes[0] + nbytes[2] // 5
    image = nbytes[0] // 2
    assert workspace(*last, stride=2) == 2 * nbytes[2] + image
    assert workspace(gradient, x, weight, stride=2) == sum(nbytes) + image
    assert workspace(last[0], last[1], last[2][:, :, :1, :1], stride=2) == 4 * 8 * 5


def test_an_image_is_copied_where_the_gradient_of_the_input_of_a_stride_is_formed():
    def peak_of(**options):
        live = watched("meta")
        x, weight = (
            torch.empty(1, 3, 40, 40, device="meta"),
            torch.empty(64, 3, 3, 3, device="meta", requires_grad=True),
        )
        x.requires_grad_(options["needs_gradient"])
        with live:
            y = torch.nn.functional.conv2d(x, weight, stride=options["stride"], padding=1)
            y.backward(torch.empty_like(y))
        return peak(live), y.nbytes

    (strided, gradient), (plain, _) = (peak_of(stride=2, needs_gradient=needed) for needed in (True, False))
    assert strided - plain == gradient + 4 * 3 * 40 * 40  # and the gradient itself
    (strided, _), (plain, _) = (peak_of(stride=1, needs_gradient=needed) for needed in (True, False))
    assert strided - plain == 4 * 3 * 40 * 40


def convolutions_of(
    x_shape, weight_shape, *, stride=1, needs_gradient=True, groups=1, last=False, device="meta"
) -> int:
    live, layout = watched(device), torch.channels_last if last else torch.contiguous_format
    x = torch.empty(x_shape, device=device, memory_format=layout, requires_grad=needs_gradient)
    weight, bias = (torch.empty(shape, device=device, requires_grad=True) for shape in (weight_shape, weight_shape[:1]))
    with live:
        for _ in range(2):
            y = torch.nn.functional.conv2d(x, weight, bias, stride=stride, groups=groups)
            y.backward(torch.empty_like(y))
    return len(live.convolutions)


def test_convolutions_that_onednn_makes_code_for():
    assert convolutions_of((2, 3, 9, 9), (8, 3, 3, 3)) == 3  # the output and two gradients, each once
    assert convolutions_of((2, 3, 9, 9), (8, 3, 3, 3), needs_gradient=False) == 2
    assert convolutions_of((2, 3, 9, 9), (8, 3, 3, 3), stride=2) == 5
    assert convolutions_of((2, 3, 9, 9), (8, 3, 3, 3), stride=2, needs_gradient=False) == 2
    assert convolutions_of((15, 3, 9, 9), (8, 3, 1, 1)) == 0, "a product of matrices"
    assert convolutions_of((15, 3, 9, 9), (8, 3, 1, 1), stride=2) == 3
    assert convolutions_of((16, 3, 9, 9), (8, 3, 1, 1)) == 3
    assert convolutions_of((2, 8, 9, 9), (8, 1, 3, 3), stride=2, groups=8) == 5
    assert convolutions_of((2, 8, 9, 9), (8, 1, 3, 3), stride=2, groups=8, last=True) == 4, "a channel each: gradients"


@pytest.mark.parametrize(
    ("channels", "side", "has_code"), [(3, 9, False), (3, 10, True), (64, 1, False), (65, 1, False)]
)
def test_convolutions_of_floats_have_code_where_neither_kernels_nor_products_of_matrices_form_them(
    monkeypatch, channels, side, has_code
):
    monkeypatch.setattr(RESULTS, "is_kept", True)
    live, window = watched("meta"), [1, 1, 0, 0, 1, 1, 1]
    x = torch.empty(4, channels, 50, 50, device="meta")
    weight = torch.empty(64, channels, side, side, device="meta")
    with live:
        y = torch.ops.bnn.float_conv2d(x, weight, window, torch.float32)
        q = torch.empty_like(y)
        gradient = torch.ops.bnn.real_conv2d_backward_weight(q, x, weight.shape, window)
        size = y.nbytes
        del y
        z = q.double()
    assert [nbytes for memory, nbytes in live.at_peak().items() if memory.source == KEPT] == [size]
    assert len(live.convolutions) == (2 if has_code else 0)
    del gradient, z


def test_small_storages_keep_what_they_take_at_most():
    live, large = watched("meta"), 1 << 18
    with live:
        a = torch.ones(100, device="meta")
        del a
        b = torch.ones(large, dtype=torch.uint8, device="meta")
        c = torch.ones(50, device="meta")
        del b, c
    assert peak(live) == large + 200
    assert live.allocated_bytes() == large + 400


def test_workspace_belongs_to_the_peak():
    live = watched("cpu")
    x, scale = torch.randn(4, 3, 6, 6, requires_grad=True), torch.ones(3)
    live.hold([x, scale])
    with live:
        y = torch.nn.functional.batch_norm(x, None, None, scale, training=True)
        y.backward(torch.ones_like(y))
    image = 4 * 4 * 3 * 36
    # x, y, their gradients and the copy; mean, deviation, scale, and the gradient of a bias that is not there.
    assert 5 * image < peak(live) < 5 * image + 100


def test_large_results_take_the_place_of_freed_ones(monkeypatch):
    """As in `ResultMemory`: what is held is the most that was in use at once."""
    monkeypatch.setattr(RESULTS, "is_kept", True)
    live, mib = watched("meta"), 1 << 20

    def result(size: int) -> torch.Tensor:
        gradient = torch.zeros(1, size, dtype=torch.bfloat16, device="meta")
        live.hold([gradient])
        return torch.ops.bnn.pass_slopes(gradient, torch.empty(0, 1, 1, dtype=torch.uint8, device="meta"), [1.0])

    with live:
        first, second = result(3 * mib), result(mib // 2)
        del first
        smaller, larger = result(mib + 1), result(3 * mib)
    held = live.at_peak()
    # 2 MiB of the 7 that were in use lie in what the first has freed; the last has to have 2 more than are free.
    assert [held[live.memory_of(x)] for x in (second, smaller, larger)] == [mib, 2 * mib + 2, 6 * mib]
    assert not any(memory.source == KEPT for memory in held)
    with live:
        del smaller, larger
        third = result(mib)
    assert sum(live.at_peak().values()) == sum(held.values())
    assert live._range._held == 9 * mib + 2
    del third
