"""Clips, scales and grids of real values."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from bnn.quantizers.real import (
    LearnedPowerOfTwoScale,
    PowerOfTwoScale,
    best_exponent,
    bits_of_channels,
    clipped,
    corrected,
    exponential_grid,
    gaussian_clip,
    gaussian_error,
    laplace_clip,
    laplace_error,
    rounded,
)
from tests.contracts import randn, signs


def laplace(n: int, seed: int = 0) -> torch.Tensor:
    return torch.empty(n).exponential_(generator=torch.Generator().manual_seed(seed)) * signs(randn(n, seed=seed + 1))


def mean_square(x: torch.Tensor) -> float:
    return float(x.double().square().mean())


class TestClips:
    @pytest.mark.parametrize(("bits", "clip"), [(1, 1.863), (2, 2.831), (3, 3.897), (4, 5.029), (5, 6.205)])
    def test_of_a_laplace_variable(self, bits, clip):
        assert laplace_clip(bits) == pytest.approx(clip, abs=1e-3)
        rectified = laplace_clip(bits, rectified=True)
        assert rectified * math.exp(rectified) == pytest.approx(12 * 4.0**bits)

    @pytest.mark.parametrize(("bits", "clip"), [(1, 1.24), (2, 1.71), (3, 2.15), (4, 2.56)])
    def test_of_normal_values(self, bits, clip):
        assert gaussian_clip(bits) == pytest.approx(clip, abs=6e-3)
        assert gaussian_error(gaussian_clip(bits), bits) <= gaussian_error(clip + 0.1, bits)

    @pytest.mark.parametrize(
        ("bits", "error", "of_a_sample", "predicted"), [(4, 0.0510, 0.0524, 0.0460), (2, 0.398, 0.402, 0.285)]
    )
    def test_errors_of_a_laplace_variable_are_more_than_predicted(self, bits, error, of_a_sample, predicted):
        """By an integral over the density; an independent sample of 400,000 lies within two deviations of it."""
        x, clip = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 1e4, laplace_clip(bits)
        squares = (clipped(x, clip, bits) - x).square()
        mean, of_squares = (float((value * (-x).exp()).sum() / 1e4) for value in (squares, squares.square()))
        assert mean == pytest.approx(error, abs=2e-4)
        assert mean_square(clipped(laplace(400_000), clip, bits) - laplace(400_000)) == pytest.approx(mean, rel=0.03)
        assert 0 < of_a_sample - mean < 2 * math.sqrt((of_squares - mean**2) / 400_000)
        assert laplace_error(clip, bits) == pytest.approx(predicted, abs=5e-4)

    def test_without_a_clip_the_error_is_several_times_as_large(self):
        x = laplace(400_000)
        assert mean_square(clipped(x, float(x.abs().max()), 4) - x) == pytest.approx(0.259, rel=0.2)

    def test_levels_of_one_bit_are_too_small_for_binary_weights(self):
        (_, level) = clipped(randn(100), gaussian_clip(1), 1).unique().tolist()
        assert level == pytest.approx(0.62, abs=0.01)
        x = randn(100_000)
        assert mean_square(level * signs(x) - x) > mean_square(x.abs().mean() * signs(x) - x) + 0.02

    def test_channels_share_the_steps(self):
        bits = bits_of_channels(torch.tensor([1.0, 8.0, 1.0, 8.0]), mean_bits=4)
        assert float(bits[1] - bits[0]) == pytest.approx(2)  # 8^(2/3) = 4
        assert float(torch.exp2(bits).sum()) == pytest.approx(4 * 2.0**4)

    def test_correction_gives_back_mean_and_norm(self):
        weight = randn(5, 4, 3, 3) + torch.linspace(-1, 1, 5).view(-1, 1, 1, 1)
        quantized = corrected(clipped(weight, 2.0, 2), weight)
        torch.testing.assert_close(quantized.mean((1, 2, 3)), weight.mean((1, 2, 3)))
        torch.testing.assert_close(quantized.flatten(1).std(dim=1), weight.flatten(1).std(dim=1))

    @pytest.mark.parametrize("bits", [0, 17])
    def test_widths_are_checked(self, bits):
        for clip in (laplace_clip, gaussian_clip):
            with pytest.raises(ValueError, match=f"^a clip is that of 1 to 16 bits, got {bits}$"):
                clip(bits)
        with pytest.raises(ValueError, match=f"^a uniform grid has 1 to 16 bits, got {bits}$"):
            clipped(randn(4), 1.0, bits)

    def test_clips_of_channels_are_checked(self):
        with pytest.raises(ValueError, match=r"^the clip of a channel is above 0, got 0$"):
            bits_of_channels(torch.tensor([1.0, 0.0]), mean_bits=4)


@pytest.mark.parametrize(("bits", "cosine"), [(2, 0.842), (4, 0.987), (8, 0.9999)])
def test_cosines_of_uniform_grids_lie_above_their_bound(bits, cosine):
    """Of N = 1000 normal values; the bound is 2^M / (2^M + sqrt(ln N)) (Banner et al. 2018)."""
    x = randn(40, 1000)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    found = torch.cosine_similarity(((x - low) / step).round() * step + low, x).mean().item()
    assert found == pytest.approx(cosine, abs=0.01)
    assert found > 2**bits / (2**bits + math.sqrt(math.log(1000)))
    assert torch.cosine_similarity(signs(x), x).mean().item() == pytest.approx(math.sqrt(2 / math.pi), abs=0.01)


class TestPowerOfTwo:
    def test_the_exponent_is_the_best_of_all(self):
        x = randn(4000) * 0.07
        errors = {k: mean_square(rounded(x, 2.0**k, 4) - x) for k in range(-14, 3)}
        assert best_exponent(x, 4, mask_outliers=False) == min(errors, key=errors.get)

    def test_one_outlier_moves_the_exponent_unless_it_is_masked(self):
        x = randn(300)
        outlier = x.clone()
        outlier[0] = 20 * x.std()
        assert best_exponent(outlier, 4) == best_exponent(x, 4)
        assert best_exponent(outlier, 4, mask_outliers=False) > best_exponent(x, 4, mask_outliers=False)

    def test_weights_that_matter_decide(self):
        x = torch.cat([torch.full((50,), 0.2), torch.full((50,), 1.0)])
        importance = torch.cat([torch.full((50,), 1e6), torch.full((50,), 1e-3)])
        exponents = [best_exponent(x, 2, mask_outliers=False, importance=of) for of in (None, importance)]
        assert exponents[1] < exponents[0]

    @pytest.mark.parametrize(("momentum", "flips"), [(0.0, True), (0.99, False)])
    def test_a_running_mean_keeps_the_exponent_from_going_to_and_fro(self, momentum, flips):
        scale, found = PowerOfTwoScale(bits=3, momentum=momentum), []
        for step in range(200):
            scale(randn(60, seed=step) * 0.75)
            found.append(scale.scale)
        assert (len(set(found[-100:])) > 1) == flips

    def test_a_frozen_scale_stays(self):
        scale = PowerOfTwoScale(bits=4, momentum=0.0)
        scale(randn(100))
        before, scale.frozen = scale.scale, True
        scale(100 * randn(100))
        assert scale.scale == before

    @pytest.mark.parametrize(
        "make", [partial(PowerOfTwoScale, momentum=0.5), LearnedPowerOfTwoScale], ids=["fitted", "learned"]
    )
    def test_a_layer_learns_through_it(self, make):
        layer = nn.Linear(20, 3, bias=False)
        register_parametrization(layer, "weight", make(bits=4))
        target = randn(3, 20, seed=5)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = (layer.weight - target).square().mean() * 10
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 20
        weight = layer.weight.detach()
        exponent = torch.log2(weight[weight != 0].abs().min())
        levels = weight / torch.exp2(exponent)
        torch.testing.assert_close(levels, levels.round())
        assert exponent.item() == round(exponent.item())

    def test_the_learned_scale_has_the_gradient_of_its_product(self):
        scale, weight = LearnedPowerOfTwoScale(bits=3), randn(50).requires_grad_()
        (scale(weight) * randn(50, seed=1)).sum().backward()
        assert scale.log2_scale.grad.abs() > 0
        assert weight.grad.any()

    def test_errors(self):
        for make in (PowerOfTwoScale, LearnedPowerOfTwoScale):
            for bits in (1, 17):
                with pytest.raises(ValueError, match=f"^a uniform grid has 2 to 16 bits, got {bits}$"):
                    make(bits=bits)
        with pytest.raises(ValueError, match=r"lies in \[0, 1\), got 1"):
            PowerOfTwoScale(bits=2, momentum=1)
        with pytest.raises(ValueError, match="a weight of zeros has no scale"):
            best_exponent(torch.zeros(3), 4)


def lost(q: torch.Tensor, x: torch.Tensor) -> float:
    """1 less the correlation."""
    return 1 - float((q * x).sum() / (q.norm() * x.norm()))


def at_means(q: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """With the mean of each interval for its level, as the exponential grid has it."""
    _, place = q.unique(return_inverse=True)
    sums = torch.zeros(int(place.max()) + 1).index_add_(0, place, x)
    return (sums / torch.bincount(place))[place]


def student(n: int) -> torch.Tensor:
    return randn(n) / (randn(3, n, seed=9).square().mean(0)).sqrt()


@pytest.mark.parametrize(
    ("draw", "largest_loss", "clipped_loss", "exponential_loss"),
    [
        pytest.param(randn, 0.0159, 0.0054, 0.0070, marks=pytest.mark.slow),
        pytest.param(laplace, 0.0390, 0.0110, 0.0098, marks=pytest.mark.slow),
        (student, 0.226, 0.045, 0.021),
    ],
    ids=["normal", "laplace", "student"],
)
def test_exponential_grid_beside_a_clipped_one(draw, largest_loss, clipped_loss, exponential_loss):
    """And beside one whose clip is the largest value, which is another in every sample."""
    x = draw(100_000)
    assert lost(at_means(clipped(x, float(x.abs().max()), 4), x), x) == pytest.approx(largest_loss, rel=0.25)
    best = min(lost(at_means(clipped(x, clip, 4), x), x) for clip in torch.linspace(1, 12, 24).tolist())
    tolerance = 0.1
    assert best == pytest.approx(clipped_loss, rel=tolerance)
    assert lost(exponential_grid(x, 4), x) == pytest.approx(exponential_loss, rel=tolerance)


def test_exponential_grid_has_its_levels_and_keeps_signs():
    x = randn(1000)
    q = exponential_grid(x, 3)
    assert len(q.unique()) == 8
    assert torch.equal(signs(q), signs(x))
    assert q.abs().unique().tolist() == sorted(q.abs().unique().tolist())
    assert not exponential_grid(torch.zeros(4), 3).any()


@pytest.mark.parametrize("bits", [0, 9])
def test_exponential_widths_are_checked(bits):
    with pytest.raises(ValueError, match=f"^an exponential grid has 1 to 8 bits, got {bits}$"):
        exponential_grid(randn(4), bits)
