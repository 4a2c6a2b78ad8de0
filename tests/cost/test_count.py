"""Counts of a network's layers, small enough to count by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.cost import count_layers, count_network
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, BinaryNorm, MaxPool2d
from bnn.models import binarynet, cnv, gxnor_cnn, resnet18, resnet20, resnete18, vgg_small
from bnn.quantizers import ApproxSign, Sign, Ternary
from bnn.quantizers.gradients import Int8Gradient, SignGradient
from bnn.weights import LatentStore

BATCH = 2


def test_layers_equal_the_shapes_of_a_real_forward_pass():
    model = resnet20(input_shape=(1, 12, 8), classes=3).eval()
    counted = count_layers(model, (1, 12, 8), batch_size=BATCH)
    seen = []
    for name, module in model.named_modules():
        if name in {layer.name for layer in counted}:

            def see(_: nn.Module, inputs: tuple, output: torch.Tensor | tuple, name: str = name) -> None:
                output = output[0] if isinstance(output, tuple) else output
                seen.append((name, inputs[0].numel(), output.numel()))

            module.register_forward_hook(see)
    model(torch.randn(BATCH, 1, 12, 8))
    assert [(layer.name, layer.input_elements, layer.output_elements) for layer in counted] == seen


def test_widths_of_the_operands():
    ternary = LatentStore((4, 8), quantizer=Ternary())
    model = nn.Sequential(
        nn.Linear(8, 8),
        BinaryLinear(8, 8, bias=True, learned_scale=True),
        BinaryLinear(8, 4, store=lambda _: ternary, input_quantizer=None),
        nn.Linear(4, 4, dtype=torch.float32).requires_grad_(False),
    )
    layers = count_layers(model, (8,), batch_size=3)
    assert [layer.kind for layer in layers] == ["Linear", "BinaryLinear", "BinaryLinear", "Linear"]
    assert [(layer.input_bits, layer.weight_bits, layer.output_bits) for layer in layers] == [
        (32, 32, 32),
        (1, 1, 32),
        (32, 2, 32),
        (32, 32, 32),
    ]
    assert [layer.weights for layer in layers] == [64, 64, 32, 16]
    assert [layer.other_parameters for layer in layers] == [8, 16, 0, 4]
    assert [layer.multiply_accumulates for layer in layers] == [192, 192, 96, 48]
    assert [layer.needs_input_gradient for layer in layers] == [False, True, True, True]
    assert [(layer.fan_in, layer.fan_out) for layer in layers] == [(8, 8), (8, 8), (8, 4), (4, 4)]


def test_groups_and_strides_and_padding():
    model = nn.Sequential(BinaryConv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Conv2d(6, 2, 2, bias=False))
    first, second = count_layers(model, (4, 7, 5))
    assert (first.output_elements, first.multiply_accumulates) == (6 * 4 * 3, 6 * 4 * 3 * 2 * 9)
    assert (second.output_elements, second.multiply_accumulates) == (2 * 3 * 2, 2 * 3 * 2 * 6 * 4)
    # An input channel of the first meets the 3 outputs of its group, by 9 taps.
    assert [(layer.fan_in, layer.fan_out) for layer in (first, second)] == [(2 * 9, 3 * 9), (6 * 4, 2 * 4)]


class Unforeseen(nn.Module):
    """Looks at values, which shapes alone do not have."""

    def forward(self, x):
        return x if x.sum().item() > 0 else -x


def test_a_failure_leaves_the_model_as_it_was_too():
    model = nn.Sequential(nn.Linear(4, 4), Unforeseen())
    with pytest.raises(RuntimeError):
        count_layers(model, (4,))
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert not model[0].weight.is_meta


def test_counting_takes_no_memory_for_weights_or_activations():
    """56 million weights and a batch of 4,000 images of BinaryNet would take hundreds of GiB."""
    with torch.device("meta"):
        model = binarynet()
    layers = count_layers(model, (3, 32, 32), batch_size=4000)
    assert sum(layer.multiply_accumulates for layer in layers) == pytest.approx(4000 * 617.0e6, rel=1e-4)


def test_widths_of_gradients_are_those_of_their_quantizers():
    store = LatentStore((4, 8), gradient_quantizer=SignGradient())
    model = nn.Sequential(
        BinaryLinear(8, 8, grad_quantizer=Int8Gradient()),
        BinaryLinear(8, 4, store=lambda _: store),
        nn.Linear(4, 2),
    )
    layers = count_layers(model, (8,))
    assert [(layer.gradient_bits, layer.weight_gradient_bits) for layer in layers] == [(8, 32), (32, 2), (32, 32)]
    assert [layer.input_gradient_bits for layer in layers] == [32, 32, 32]


def rounded() -> Int8Gradient:
    return Int8Gradient(generator=torch.Generator().manual_seed(0))


def widths(layer) -> tuple[int, ...]:
    return layer.input_bits, layer.output_bits, layer.gradient_bits, layer.input_gradient_bits


def test_a_fused_block_moves_what_its_two_passes_move():
    """Product and pooling in float16, its gradient in int8; signs behind the norm, and their gradient in bfloat16."""
    conv = BinaryConv2d(3, 4, 3, padding=1, grad_quantizer=rounded())
    block = BinaryBlock(conv, nn.BatchNorm2d(4), pool=MaxPool2d(2), activation=Sign(), recompute=True)
    model = nn.Sequential(block, nn.Flatten(), BinaryLinear(16, 2, grad_quantizer=rounded()))
    network = count_network(model, (3, 4, 4))
    product = network.layers[0]
    assert [layer.name for layer in network.layers] == [
        *("0.product", "0.pool", "0.norm", "0.activation"),
        *("1", "2"),
    ]
    assert [widths(layer) for layer in network.layers] == [
        (1, 0, 8, 32),  # the pooling takes the product as it comes; the image is float32
        (0, 16, 8, 8),
        (16, 0, 0, 8),  # the sign takes the norm as it comes
        (0, 1, 16, 0),
        (1, 1, 16, 16),
        (1, 32, 8, 16),
    ]
    assert (product.output_elements, product.multiply_accumulates) == (64, 64 * 27)
    # Of the image the signs and the window; of the activation the window, while its signs are the next layer's.
    kept = [layer.saved_elements * layer.saved_bits for layer in network.layers]
    assert kept == [48 * 2, 0, 0, 16, 0, 16]
    # The pooled product and two bits a window are formed again.
    assert [layer.recomputed_bits for layer in network.layers] == [0, 18, None, None, None, None]
    assert network.operations == ()


def test_a_kept_product_is_saved_and_not_formed_again(monkeypatch):
    monkeypatch.setattr("bnn.layers.block._KEPT_FROM", 4 * 27)  # of a pooling of four, and of channels and taps
    conv = BinaryConv2d(3, 4, 3, padding=1, grad_quantizer=rounded())
    block = BinaryBlock(conv, nn.BatchNorm2d(4), pool=MaxPool2d(2), activation=Sign(), recompute=True)
    network = count_network(nn.Sequential(block), (3, 4, 4))
    assert [layer.recomputed_bits for layer in network.layers] == [None] * 4
    # Of the image signs and window; of the pooling which of four, 2 bits; of the norm float16; of the sign its window.
    assert [layer.saved_elements * layer.saved_bits for layer in network.layers] == [48 * 2, 16 * 2, 16 * 16, 16]


def residual_block(**options) -> BinaryBlock:
    conv = BinaryConv2d(4, 4, 3, padding=1, input_quantizer=ApproxSign(), learned_scale=True, grad_quantizer=rounded())
    return BinaryBlock(conv, nn.BatchNorm2d(4), activation=nn.Hardtanh(), **options)


class Residual(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        self.first, self.second = residual_block(**options), residual_block(**options)

    def forward(self, x):
        out = self.first(x)
        return self.second(out, x)


def test_a_residual_block_keeps_its_signs_codes_and_mask():
    """Behind a block flows bfloat16: a sign, 2 bits of its slope and 1 of the clamp are kept of a value of 16 bits."""
    network = count_network(nn.Sequential(Residual(recompute=True)), (4, 5, 6), batch_size=BATCH)
    elements = BATCH * 4 * 5 * 6
    first, norm, clamp, second, _, second_clamp = network.layers
    assert [layer.saved_elements * layer.saved_bits for layer in network.layers] == [
        *(3 * elements, 0, elements),
        *(3 * elements, 0, elements),
    ]
    assert [widths(layer) for layer in (first, norm, clamp)] == [(1, 16, 8, 32), (16, 0, 0, 8), (0, 16, 16, 0)]
    assert [widths(layer) for layer in (second, second_clamp)] == [(1, 16, 8, 16), (0, 16, 16, 0)]
    (add,) = network.operations
    # The shortcut is the float32 input of the network; its sum goes on in the same pass.
    assert (add.name, add.input_elements, add.input_bits) == ("0.second.add", elements, 32)
    assert (add.output_bits, add.gradient_bits, add.saved_elements) == (0, 0, 0)


def test_a_block_that_is_not_fused_counts_as_its_parts():
    network = count_network(nn.Sequential(Residual()), (4, 5, 6), batch_size=BATCH)
    assert [layer.kind for layer in network.layers] == 2 * ["BinaryConv2d", "BatchNorm2d", "Hardtanh"]
    assert all(layer.recomputed_bits is None for layer in network.layers)
    assert [layer.output_bits for layer in network.layers] == 6 * [32]
    # The sum is the block's own, and so are the learned scales, whose products are the convolutions' business.
    assert [(add.name, add.input_elements) for add in network.operations] == [("0.second.add", 2 * BATCH * 120)]


def test_of_a_real_stem_the_input_is_kept_and_the_product_is_float16():
    stem = BinaryBlock(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), activation=nn.ReLU(), recompute=True)
    product, norm, clamp = count_network(nn.Sequential(stem), (3, 6, 6)).layers
    assert (product.kind, product.weight_bits, product.saved_elements, product.saved_bits) == ("Conv2d", 32, 108, 32)
    assert [widths(layer) for layer in (product, norm, clamp)] == [(32, 16, 32, 32), (16, 0, 0, 32), (0, 16, 16, 0)]


@pytest.mark.parametrize(
    ("module", "kept"),
    [
        (nn.BatchNorm2d(3), (BATCH * 3 * 16, 32)),
        (BinaryNorm(3), (BATCH * 3 * 16, 2)),
        (MaxPool2d(2), (BATCH * 3 * 4, 2)),
        (nn.MaxPool2d(2), (BATCH * 3 * 4, 64)),
        (nn.AvgPool2d(2), (0, 32)),
        (nn.Hardtanh(), (BATCH * 3 * 16, 32)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_backward_needs_again(module, kept):
    (layer,) = count_layers(nn.Sequential(module), (3, 4, 4), batch_size=BATCH)
    assert (layer.saved_elements, layer.saved_bits) == kept


def test_views_move_nothing_and_neither_does_the_sign_of_bits():
    model = nn.Sequential(nn.Flatten(), Sign(), Sign(), nn.Identity(), nn.Unflatten(1, (4, 4)), nn.Hardtanh())
    assert [layer.is_view for layer in count_layers(model, (2, 8))] == [True, False, True, True, True, False]


class Shortcut(nn.Module):
    """y = hardtanh(norm(x) + x), in which two operations are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return F.hardtanh(self.norm(x) + x)


def test_operations_outside_modules_are_found():
    network = count_network(nn.Sequential(nn.Conv2d(1, 3, 1), Shortcut()), (1, 2, 2), batch_size=BATCH)
    add, hardtanh = network.operations
    assert (add.name, add.kind, add.input_elements, add.output_elements) == ("1.add", "add", 2 * 24, 24)
    assert (add.saved_elements, hardtanh.saved_elements) == (0, 24)
    assert (hardtanh.name, add.needs_input_gradient, hardtanh.needs_input_gradient) == ("1.hardtanh", True, True)
    assert network.uncounted == ()


class Attention(nn.Module):
    """Multiplies what it gets with itself, in no module."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        x = self.norm(x)
        return x @ x.T @ x


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def test_what_is_not_known_is_named():
    model = nn.Sequential(Attention(), Doubled(), nn.LayerNorm(8), nn.Linear(8, 2))
    assert count_network(model, (8,)).uncounted == ("0.mm (operation)", "1 (Doubled)")
    assert count_network(Doubled(), (8,)).uncounted == ("the network (Doubled)",)


@pytest.mark.parametrize("build", [binarynet, cnv, gxnor_cnn, resnet18, resnet20, resnete18, vgg_small])
def test_every_operation_of_the_package_s_networks_is_known(build):
    with torch.device("meta"):
        model = build()
    shape = (1, 28, 28) if build is gxnor_cnn else (3, 224, 224) if build is resnete18 else (3, 32, 32)
    network = count_network(model, shape)
    assert network.uncounted == ()
    assert bool(network.operations) == (build in (resnet18, resnet20, resnete18))
