"""Networks, quantizers and layers beside larq's, whose values lie in golden/larq.json (see benchmarks/golden.py).

Where this package means something else than larq on purpose, the test says so and holds the exact difference.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bnn.cost import storage
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.models import birealnet18, resnete18
from bnn.quantizers import ApproxSign, Quantizer, ScaledSign, Sign, Ternary

GOLDEN = json.loads((Path(__file__).parent / "golden" / "larq.json").read_text())
THRESHOLD = GOLDEN["threshold"]


def case(group: str, name: str) -> dict[str, Tensor]:
    return {key: torch.tensor(value) for key, value in GOLDEN[group][name].items()}


def run(quantizer: Quantizer, golden: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The quantizer's values and gradient on larq's grid."""
    x = golden["x"].clone().requires_grad_()
    y = quantizer(x)
    (gradient,) = torch.autograd.grad(y, x, golden["upstream"])
    return y.detach(), gradient


@pytest.mark.parametrize(("name", "network"), [("resnete18", resnete18), ("birealnet18", birealnet18)])
def test_networks_have_the_weights_and_outputs_of_the_zoo(name, network):
    golden = GOLDEN["networks"][name]
    height, width, channels = golden["input_shape"]
    with torch.device("meta"):
        model = network()
        output = model(torch.empty(1, channels, height, width))
    stored = storage(model)
    assert stored.discrete_weights == golden["binary_weights"]
    assert stored.weights - stored.discrete_weights == golden["real_weights"]
    assert list(output.shape[1:]) == golden["output_shape"]


@pytest.mark.parametrize(("name", "quantizer"), [("ste_sign", Sign()), ("approx_sign", ApproxSign())])
def test_signs_equal_larq_everywhere(name, quantizer):
    """At 0 and -0 both give +1; at |x| = 1 `Sign` passes the gradient and `ApproxSign` has come down to 0."""
    golden = case("quantizers", name)
    values, gradient = run(quantizer, golden)
    assert torch.equal(values, golden["y"])
    assert torch.equal(gradient, golden["gradient_x"])


def test_the_grid_meets_every_edge():
    x = case("quantizers", "ste_sign")["x"]
    assert {0.0, -1.0, 1.0, THRESHOLD, -THRESHOLD} <= set(x.flatten().tolist())
    assert (x.signbit() & (x == 0)).any()


def test_ternary_differs_from_larq_at_the_threshold_alone():
    """|x| = threshold is 0 here, as in the paper (|x| > threshold is ±1); larq makes it ±1."""
    golden = case("quantizers", "ste_tern")
    values, gradient = run(Ternary(threshold=THRESHOLD), golden)
    at_threshold = golden["x"].abs() == THRESHOLD
    assert torch.equal(values[~at_threshold], golden["y"][~at_threshold])
    assert (values[at_threshold] == 0).all()
    assert torch.equal(golden["y"][at_threshold], golden["x"][at_threshold].sign())
    assert torch.equal(gradient, golden["gradient_x"])


def test_ternary_weight_networks_threshold_equals_larq():
    golden = case("quantizers", "ste_tern_twn")
    values, gradient = run(Ternary(), golden)
    assert torch.equal(values, golden["y"])
    assert torch.equal(gradient, golden["gradient_x"])


def test_scaled_sign_has_larqs_values_and_adds_the_gradient_of_the_scale():
    """larq's magnitude-aware sign takes the mean |w| for a constant; here its gradient flows to the weight, too."""
    golden = case("quantizers", "magnitude_aware_sign")
    # larq's outputs are the last axis, here they are the first.
    w, upstream = golden["x"].t().clone().requires_grad_(), golden["upstream"].t()
    quantizer = ScaledSign()
    values = quantizer(w) * quantizer.scale(w).unsqueeze(1)
    (gradient,) = torch.autograd.grad(values, w, upstream)
    torch.testing.assert_close(values, golden["y"].t())

    signs = golden["y"].t().sign()
    of_scale = w.detach().sign() * (upstream * signs).mean(dim=1, keepdim=True)
    assert of_scale.abs().max() > 0.01
    torch.testing.assert_close(gradient, golden["gradient_x"].t() + of_scale)


@pytest.mark.parametrize(
    ("name", "layer", "x_axes", "kernel_axes"),
    [
        ("dense", BinaryLinear(11, 5), (0, 1), (1, 0)),
        # larq: NHWC and (kh, kw, in, out); here: NCHW and (out, in, kh, kw)
        ("conv2d_stride_2", BinaryConv2d(3, 4, 3, stride=2), (0, 3, 1, 2), (3, 2, 0, 1)),
    ],
)
def test_layers_equal_larq(name, layer, x_axes, kernel_axes):
    """Equal to the last bit. Padding is left out: its kind is not what is compared here."""
    golden = case("layers", name)
    with torch.no_grad():
        layer.store.weight.copy_(golden["kernel"].permute(kernel_axes))
    x = golden["x"].permute(x_axes).clone().requires_grad_()
    y = layer(x)
    y.backward(golden["upstream"].permute(x_axes))
    assert torch.equal(y, golden["y"].permute(x_axes))
    assert torch.equal(x.grad, golden["gradient_x"].permute(x_axes))
    assert torch.equal(layer.store.weight.grad, golden["gradient_kernel"].permute(kernel_axes))
