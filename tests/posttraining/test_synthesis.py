"""Inputs made of the statistics of norms."""

import pytest
import torch

from bnn.errors import RunError
from bnn.posttraining.quantization import quantize
from bnn.posttraining.synthesis import statistics_loss, synthesize
from tests.posttraining.networks import binary, data, real


def test_the_norms_see_the_statistics_of_their_data():
    network = binary().network
    noise, made = (synthesize(network, (1, 8, 8), count=64, steps=steps) for steps in (0, 60))
    losses = [float(statistics_loss(network, x).detach()) for x in (noise, made, data()[0][:64])]
    assert made.shape == (64, 1, 8, 8)
    assert losses[1] < 0.1 * losses[0]
    assert losses[2] < 0.5 * losses[0]
    assert all(loss >= 0 for loss in losses)


def test_images_begin_as_noise_whose_neighbours_and_colours_go_together():
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).eval()
    image = synthesize(norm, (3, 32, 32), count=500, steps=0)
    assert float(image.mean()) == pytest.approx(0, abs=0.05)
    assert float(image.var()) == pytest.approx(1, abs=0.1)
    assert float((image[..., 1:] * image[..., :-1]).mean()) > 0.6
    assert float((image[:, 0] * image[:, 1]).mean()) == pytest.approx(0.9, abs=0.1)
    power = torch.fft.fft2(image).abs().square().mean((0, 1))
    assert float(power[0, 4] / power[0, 8]) == pytest.approx(4, rel=0.2)


def test_a_network_without_norms_cannot_synthesize_and_is_told_so():
    with pytest.raises(RunError, match="no norm of the network has kept the statistics"):
        synthesize(real().network, (1, 8, 8), count=4)
    with pytest.raises(RunError, match="from 2 to 65,536 inputs are made, not 1"):
        synthesize(binary().network, (1, 8, 8), count=1)


def test_they_calibrate():
    model = binary()
    x = synthesize(model.network, (1, 8, 8), count=32, steps=5)
    found = quantize(model, x, fit_bytes=10**6, steps=2)
    with torch.no_grad():
        torch.testing.assert_close(found.model(data()[2]).argmax(1), model(data()[2]).argmax(1))
