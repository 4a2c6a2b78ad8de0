"""AdaQuant beside rounding to the nearest level."""

import copy

import pytest
import torch

from bnn.posttraining.calibration import adaquant, error, nearest
from bnn.posttraining.grids import GRIDS
from bnn.posttraining.products import (
    divergence,
    logits_of,
    operands_of,
    product,
    products_of_network,
    weight_of,
    with_levels,
)
from tests.posttraining.networks import accuracy, data, real


@pytest.mark.parametrize("grid", GRIDS[1:3], ids=lambda grid: grid.width)
def test_it_beats_the_nearest_levels(grid, generator):
    """100 examples, weights alone: what the network says is far nearer to what it said."""
    network, (x, _, x_test, _) = real().network, data()
    layers, reference = products_of_network(network), logits_of(network, x_test)
    seen = operands_of(network, list(layers), x[:100], most_values=1 << 20)
    found = {}
    for steps in (0, 120):
        changed = copy.deepcopy(network)
        for name, layer in layers.items():
            weight, bias = weight_of(layer), layer.bias.detach()
            made = adaquant(weight, bias, grid, seen[name], window=None, steps=steps, generator=generator)
            changed.set_submodule(name, with_levels(layer, grid, made.levels, made.scale, made.bias))
        found[steps] = changed
    apart = {steps: float(divergence(reference, logits_of(changed, x_test))) for steps, changed in found.items()}
    assert 0 < apart[120] < 0.6 * apart[0]
    assert accuracy(found[120]) > accuracy(network) - 0.05


@pytest.mark.parametrize("grid", GRIDS[:3], ids=lambda grid: grid.width)
def test_of_a_convolution_it_is_nearer_to_what_the_layer_gave(grid, generator):
    conv = torch.nn.Conv2d(3, 4, 3, padding=1, stride=2)
    x = torch.randn(32, 3, 8, 8, generator=generator).relu()
    window = with_levels(conv, grid, *vars(nearest(weight_of(conv), conv.bias.detach(), grid)).values()).window
    wanted = conv(x).detach()
    torch.testing.assert_close(product(x, weight_of(conv), conv.bias, window), conv(x))
    start = nearest(weight_of(conv), conv.bias.detach(), grid)
    made = adaquant(weight_of(conv), conv.bias.detach(), grid, x, window=window, steps=120, generator=generator)
    assert error(made, x, wanted, window) < 0.9 * error(start, x, wanted, window)
    layer = with_levels(conv, grid, made.levels, made.scale, made.bias)
    torch.testing.assert_close((layer(x) - wanted).square().mean(), error(made, x, wanted, window))
