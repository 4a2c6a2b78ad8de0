"""AdaQuant beside rounding to the nearest level."""

import copy
import itertools

import pytest
import torch

from bnn.posttraining.calibration import Moments, adaquant, nearest
from bnn.posttraining.grids import GRIDS
from bnn.posttraining.products import (
    divergence,
    logits_of,
    moments_of,
    products_of_network,
    weight_of,
    window_of,
    with_levels,
)
from tests.posttraining.networks import accuracy, data, real


@pytest.mark.parametrize("grid", GRIDS[1:4], ids=lambda grid: grid.width)
def test_it_beats_the_nearest_levels(grid):
    """100 examples, weights alone: what the network says is far nearer to what it said."""
    network, (x, _, x_test, _) = real().network, data()
    layers, reference = products_of_network(network), logits_of(network, x_test)
    seen, apart = moments_of(network, list(layers), x[:100]), {}
    for way in ("nearest", "adaquant"):
        changed = copy.deepcopy(network)
        for name, layer in layers.items():
            of_layer = (weight_of(layer), layer.bias.detach(), grid)
            made = nearest(*of_layer) if way == "nearest" else adaquant(*of_layer, seen[name])
            changed.set_submodule(name, with_levels(layer, grid, made.levels, made.scale, made.bias))
        apart[way] = float(divergence(reference, logits_of(changed, x_test)))
    assert 0 < apart["adaquant"] < 0.7 * apart["nearest"]
    assert accuracy(changed) > accuracy(network) - 0.05


@pytest.mark.parametrize("grid", GRIDS[:4], ids=lambda grid: grid.width)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_of_a_convolution_the_error_falls_with_every_sweep(grid, bias, groups, generator):
    conv = torch.nn.Conv2d(4, 4, 3, padding=1, stride=2, bias=bias, groups=groups)
    x = torch.randn(32, 4, 8, 8, generator=generator).cumsum(3).relu()
    own = None if conv.bias is None else conv.bias.detach()
    moments = Moments(conv.weight.shape, window_of(conv))
    moments.add(x, most_rows=10**6)
    assert moments.rows == 32 * 4 * 4
    made = [nearest(weight_of(conv), own, grid)]
    made += [adaquant(weight_of(conv), own, grid, moments, sweeps=sweeps) for sweeps in (1, 2, 10)]
    with torch.no_grad():
        layers = [with_levels(conv, grid, one.levels, one.scale, one.bias) for one in made]
        errors = [float((layer(x) - conv(x)).square().mean()) for layer in layers]
    # The damping counts, too, but little.
    assert all(after <= 1.02 * before for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]
