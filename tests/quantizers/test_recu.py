"""The closed forms of ReCU (Xu et al. 2021, arXiv 2103.12369). For a Laplace weight of scale b = mean|w|, the
tau-quantile is Q = -b ln(2 - 2 tau)."""

import math

import pytest
import torch

from bnn.quantizers import ReCU
from tests.contracts import dense, signs

STANDARD_DEVIATION = 2 * math.sqrt(2)
TAUS = [0.6, 0.85, 0.99]


@pytest.fixture
def weight(generator) -> torch.Tensor:
    return torch.randn((6, 4, 3, 3), generator=generator, dtype=torch.float64) * 0.3 + 0.1


def laplace(generator: torch.Generator, n: int, b: float) -> torch.Tensor:
    magnitude = torch.empty(n, dtype=torch.float64).exponential_(1 / b, generator=generator)
    return magnitude * (torch.randint(0, 2, (n,), generator=generator) * 2 - 1)


def standardized(weight: torch.Tensor) -> torch.Tensor:
    return ReCU(tau=1.0).clamped(weight)


class TestStandardization:
    def test_filters_have_mean_zero_and_deviation_two_root_two(self, weight):
        filters = standardized(weight).flatten(1)
        torch.testing.assert_close(filters.mean(1), torch.zeros(6, dtype=torch.float64))
        deviation = filters.std(1, correction=0)
        torch.testing.assert_close(deviation, torch.full_like(deviation, STANDARD_DEVIATION), rtol=1e-3, atol=0)

    def test_is_invariant_to_scale_and_offset_up_to_epsilon(self, weight):
        torch.testing.assert_close(standardized(7 * weight + 3), standardized(weight), rtol=1e-3, atol=1e-3)

    def test_a_laplace_filter_gets_scale_two(self, generator):
        w = laplace(generator, 200_000, 0.37).view(1, -1)
        assert standardized(w).abs().mean().item() == pytest.approx(2, rel=0.01)

    def test_can_be_left_out(self, weight):
        quantizer = ReCU(tau=1.0, standardize=False)
        assert torch.equal(quantizer.clamped(weight), weight)
        assert torch.equal(dense(quantizer(weight)), signs(weight))


class TestBound:
    @pytest.mark.parametrize(("tau", "bound"), [(0.85, 2.4079), (0.99, 7.8240), (1 - 1 / (2 * math.e), 2.0)])
    def test_values_at_mean_magnitude_two(self, tau, bound):
        w = torch.tensor([[1.0, -3.0], [2.0, -2.0]], dtype=torch.float64)
        assert ReCU(tau=tau).bound(w).item() == pytest.approx(bound, abs=5e-5)

    @pytest.mark.parametrize("tau", TAUS)
    def test_empirical_quantile_is_that_of_a_laplace_distribution(self, tau, generator):
        w = laplace(generator, 200_000, 2.0).view(10, -1)
        bound = ReCU(tau=tau, quantile="empirical").bound(w).item()
        assert bound == pytest.approx(-2 * math.log(2 - 2 * tau), rel=0.03)
        assert (w <= bound).double().mean().item() == pytest.approx(tau, abs=0.005)
        assert bound == pytest.approx(ReCU(tau=tau).bound(w).item(), rel=0.03)

    @pytest.mark.parametrize("quantile", ["laplace", "empirical"])
    def test_scope(self, quantile, weight):
        per_filter = ReCU(scope="filter", quantile=quantile).bound(weight)
        assert per_filter.shape == (6, 1, 1, 1)
        for k in range(6):
            expected = ReCU(scope="layer", quantile=quantile).bound(weight[k : k + 1])
            torch.testing.assert_close(per_filter[k, 0, 0, 0], expected)
        assert ReCU(scope="layer", quantile=quantile).bound(weight).shape == ()

    def test_has_no_gradient(self, weight):
        assert not ReCU().bound(weight.requires_grad_()).requires_grad

    @pytest.mark.parametrize("tau", TAUS)
    def test_mean_magnitude_of_a_clamped_laplace_weight(self, tau, generator):
        w = laplace(generator, 400_000, 2.0).view(1, -1)
        clamped = ReCU(tau=tau, standardize=False).clamped(w)
        assert clamped.abs().mean().item() == pytest.approx(2 * (2 * tau - 1), rel=0.02)

    @pytest.mark.parametrize(("tau", "error"), [(0.85, 1.1105), (0.99, 3.3741)])
    def test_quantization_error_of_a_laplace_weight(self, tau, error, generator):
        w = laplace(generator, 1_000_000, 2.0).view(1, -1)
        quantizer = ReCU(tau=tau, standardize=False)
        measured = (quantizer.clamped(w) - 2 * dense(quantizer(w))).square().mean().item()
        assert measured == pytest.approx(error, rel=0.02)


def laplace_quantiles(n: int = 200_000, b: float = 2.0) -> torch.Tensor:
    """[1, n] values that stand for a Laplace distribution of scale b: only their spacing is left as an error."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (b * (u - 0.5).sign() * -torch.log(1 - 2 * (u - 0.5).abs())).view(1, -1)


class TestLaplaceTheory:
    """What tau does to the error of the signs and to the entropy of the weights, with p = 2 - 2 tau."""

    @staticmethod
    def errors(tau: float) -> tuple[float, float]:
        """Mean square of ReCU(w) - alpha sign(w): with alpha = b = 2, and with the best alpha."""
        quantizer = ReCU(tau=tau, standardize=False)
        clamped = quantizer.clamped(laplace_quantiles())
        best = clamped.abs().mean()
        return tuple((clamped.abs() - alpha).square().mean().item() for alpha in (2.0, best))

    @pytest.mark.parametrize("tau", [0.6, 0.75, 0.816, 0.85, 0.94, 0.99])
    def test_quantization_error(self, tau):
        p = 2 - 2 * tau
        fixed, best = self.errors(tau)
        assert fixed == pytest.approx(4 * (1 + 2 * p * math.log(p)), rel=1e-3)
        assert best == pytest.approx(4 * (1 + 2 * p * math.log(p) - p**2), rel=1e-3)

    def test_the_error_is_least_at_1_minus_1_over_2e_and_grows_with_tau_under_the_best_factor(self):
        least = 1 - 1 / (2 * math.e)
        assert self.errors(least)[0] == pytest.approx(4 * (1 - 2 / math.e), rel=1e-3)
        assert self.errors(least)[0] < min(self.errors(least - 0.02)[0], self.errors(least + 0.02)[0])
        assert self.errors(1.0)[0] == pytest.approx(4, rel=1e-3)
        best = [self.errors(tau)[1] for tau in (0.6, 0.7, 0.8, 0.9, 1.0)]
        assert best == sorted(best)

    @pytest.mark.parametrize(("tau", "entropy"), [(0.85, 1.87835), (0.99, 2.35243)])
    def test_entropy_of_the_clamped_weight(self, tau, entropy):
        """In nats: of the density between the bounds, and of the two atoms on them."""
        w = laplace_quantiles()
        quantizer = ReCU(tau=tau, standardize=False)
        bound = quantizer.bound(w)
        clamped = quantizer.clamped(w)
        inside = clamped[clamped.abs() < bound]
        surprise = math.log(4) + inside.abs() / 2  # of a Laplace density of scale 2
        atoms = [(clamped == side * bound).double().mean().item() for side in (-1, 1)]
        measured = surprise.sum().item() / w.numel() - sum(atom * math.log(atom) for atom in atoms)
        assert measured == pytest.approx(entropy, abs=1e-3)
        closed = (2 * tau - 1) * math.log(2 * math.e * 2) + (2 - 2 * tau) * math.log(2)
        assert closed == pytest.approx(entropy, abs=5e-6)

    @pytest.mark.parametrize("tail", ["zero", "pass", "project"])
    def test_clamping_twice_to_one_bound_is_clamping_once(self, tail, weight):
        quantizer = ReCU(tau=0.8, tail=tail, standardize=False)
        bound = quantizer.bound(weight)
        quantizer.bound = lambda standard: bound
        once = quantizer.clamped(weight)
        assert not torch.equal(once, weight)
        assert torch.equal(quantizer.clamped(once), once)

    @pytest.mark.parametrize("scope", ["layer", "filter"])
    def test_clipped_are_those_beyond_the_bound(self, scope, weight):
        quantizer = ReCU(tau=0.8, scope=scope, quantile="empirical")
        clipped = quantizer.is_clipped(weight)
        assert torch.equal(clipped, quantizer.clamped(weight) != standardized(weight))
        # The 0.6-quantile of |w| is a weight or lies between two of them.
        assert clipped.double().mean().item() == pytest.approx(0.4, abs=1 / 36)


class TestForward:
    @pytest.mark.parametrize("tail", ["zero", "pass", "project"])
    @pytest.mark.parametrize("quantile", ["laplace", "empirical"])
    @pytest.mark.parametrize("scope", ["layer", "filter"])
    @pytest.mark.parametrize("tau", [0.51, 0.85, 1.0])
    def test_the_clamp_never_changes_a_sign(self, tail, quantile, scope, tau, weight):
        quantizer = ReCU(tau=tau, tail=tail, quantile=quantile, scope=scope)
        assert torch.equal(dense(quantizer(weight)), signs(standardized(weight)))
        standard, clamped = standardized(weight), quantizer.clamped(weight)
        bound = quantizer.bound(standard)
        assert (clamped.abs() <= bound).all()
        inside = standard.abs() <= bound
        assert torch.equal(clamped[inside], standard[inside])

    @pytest.mark.parametrize("quantile", ["laplace", "empirical"])
    def test_tau_of_one_does_not_clamp(self, quantile, weight):
        assert torch.equal(ReCU(tau=1.0, quantile=quantile).clamped(weight), standardized(weight))

    def test_filters_without_spread_become_plus_one(self):
        for tau in (0.85, 1.0):
            assert torch.equal(dense(ReCU(tau=tau)(torch.full((3, 1), -0.5))), torch.ones(3, 1))


class TestGradient:
    def gradient(self, quantizer: ReCU, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of the weight for a random gradient of the sign, and that gradient."""
        weight = weight.clone().requires_grad_()
        q = quantizer(weight)
        grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).to(weight.dtype)
        q.backward(grad)
        return weight.grad, grad

    @pytest.mark.parametrize("quantile", ["laplace", "empirical"])
    def test_zero_stops_exactly_the_tail(self, quantile, weight):
        quantizer = ReCU(tau=0.8, tail="zero", quantile=quantile, standardize=False)
        gradient, grad = self.gradient(quantizer, weight)
        inside = weight.abs() <= quantizer.bound(weight)
        assert 0 < inside.sum() < weight.numel()
        assert torch.equal(gradient, grad * inside)

    def test_a_weight_on_the_bound_keeps_its_whole_gradient(self):
        w = torch.tensor([[0.5, -2.0, 1.0, -1.0]])
        gradient, grad = self.gradient(ReCU(tau=1.0, quantile="empirical", standardize=False), w)
        assert torch.equal(gradient, grad)

    @pytest.mark.parametrize("tau", [1 - math.exp(-1) / 2, 1.0])
    def test_zero_passes_the_whole_gradient_on_the_bound(self, tau):
        # With this tau the bound is the mean magnitude, which is every weight's.
        weight = torch.tensor([[2.0, -2.0], [2.0, -2.0]], dtype=torch.float64, requires_grad=True)
        quantizer = ReCU(tau=tau, tail="zero", quantile="empirical", standardize=False)
        clamped = quantizer.clamped(weight)
        assert torch.equal(clamped, weight)
        clamped.backward(torch.full_like(weight, 0.2669))
        assert torch.equal(weight.grad, torch.full_like(weight, 0.2669))

    def test_torch_s_own_clamp_decides_no_gradient(self, weight):
        nodes, names = [ReCU().clamped(weight.requires_grad_()).grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is not None:
                names.add(node.name())
                nodes += [following for following, _ in node.next_functions]
        assert "WhereBackward0" in names
        assert not [name for name in names if "Clamp" in name]

    def test_nan_is_not_clamped_away(self):
        assert ReCU(standardize=False).clamped(torch.tensor([[1.0, math.nan]])).isnan().any()

    @pytest.mark.parametrize("tail", ["pass", "project"])
    def test_pass_and_project_stop_nothing(self, tail, weight):
        gradient, grad = self.gradient(ReCU(tau=0.6, tail=tail, standardize=False), weight)
        assert torch.equal(gradient, grad)

    @pytest.mark.parametrize("tail", ["zero", "pass"])
    def test_standardization_removes_mean_and_scale_from_the_gradient(self, tail, weight):
        gradient, _ = self.gradient(ReCU(tau=0.8, tail=tail), weight)
        gradient, filters = gradient.flatten(1), weight.flatten(1)
        zeros = torch.zeros(6, dtype=torch.float64)
        torch.testing.assert_close(gradient.sum(1), zeros)
        # Exactly zero but for the epsilon beside the variance.
        assert ((gradient * filters).sum(1).abs() < 1e-3 * (gradient * filters).abs().sum(1)).all()

    def test_gradient_of_the_clamp_is_right(self, weight):
        quantizer = ReCU(tau=0.8, tail="zero")
        # The bound is a constant by definition, so the derivative is taken with it fixed.
        bound = quantizer.bound(standardized(weight))
        quantizer.bound = lambda standard: bound
        assert torch.autograd.gradcheck(quantizer.clamped, weight[:2].clone().requires_grad_())


class TestProjection:
    @pytest.mark.parametrize("standardize", [True, False])
    @pytest.mark.parametrize("scope", ["layer", "filter"])
    @pytest.mark.parametrize("quantile", ["laplace", "empirical"])
    def test_moves_the_tail_to_the_bound_and_nothing_else(self, standardize, scope, quantile, weight):
        quantizer = ReCU(tau=0.8, tail="project", scope=scope, quantile=quantile, standardize=standardize)
        if standardize:
            variance, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
            factor = STANDARD_DEVIATION / (variance + 1e-5).sqrt()
        else:
            mean, factor = torch.zeros(()), torch.ones(())
        standard = (weight - mean) * factor
        bound = quantizer.bound(standard)
        tail = standard.abs() > bound
        projected = weight.clone()
        quantizer.project_(projected)
        assert 0 < tail.sum() < tail.numel()
        assert torch.equal(projected[~tail], weight[~tail])
        torch.testing.assert_close((projected - mean) * factor, standard.clamp(-bound, bound))

    @pytest.mark.parametrize("tail", ["zero", "pass"])
    def test_the_other_tails_leave_the_weight(self, tail, weight):
        before = weight.clone()
        ReCU(tau=0.6, tail=tail).project_(weight)
        assert torch.equal(weight, before)

    def test_of_a_parameter_leaves_no_trace_in_autograd(self, weight):
        parameter = torch.nn.Parameter(weight)
        ReCU(tau=0.6, tail="project").project_(parameter)
        assert parameter.is_leaf
        assert parameter.grad_fn is None


class TestScale:
    def test_none_by_default(self, weight):
        assert ReCU().scale(weight) is None

    def test_mean_is_that_of_the_clamped_weight(self, weight):
        quantizer = ReCU(tau=0.8, scale="mean")
        expected = quantizer.clamped(weight).abs().mean((1, 2, 3))
        torch.testing.assert_close(quantizer.scale(weight), expected)

    def test_carries_a_gradient(self, weight):
        ReCU(scale="mean").scale(weight.requires_grad_()).sum().backward()
        assert weight.grad.any()


class TestOptions:
    def test_tau_can_be_changed_between_steps(self, weight):
        quantizer = ReCU(tau=0.6)
        loose = quantizer.clamped(weight).abs().max()
        quantizer.tau = 0.9
        assert quantizer.tau == 0.9
        assert quantizer.clamped(weight).abs().max() > loose

    @pytest.mark.parametrize("tau", [0.5, 0.49, 1.01, math.nan])
    def test_refuses_a_tau_outside_its_range(self, tau):
        with pytest.raises(ValueError, match=r"\(0.5, 1\]"):
            ReCU(tau=tau)
        quantizer = ReCU()
        with pytest.raises(ValueError, match="tau"):
            quantizer.tau = tau
        assert quantizer.tau == 0.85

    @pytest.mark.parametrize("option", ["tail", "quantile", "scope", "scale"])
    def test_refuses_unknown_options_and_names_the_known(self, option):
        with pytest.raises(ValueError, match=f"ReCU {option} is one of .*, got 'other'"):
            ReCU(**{option: "other"})

    def test_repr_tells_every_option(self):
        assert repr(ReCU(tail="pass")) == (
            "ReCU(tau=0.85, tail=pass, quantile=laplace, scope=layer, scale=none, standardize=True)"
        )


def test_a_channel_of_equal_weights_has_no_deviation_and_stays_finite():
    weight = torch.full((2, 9), 0.3).requires_grad_()
    quantized = ReCU()(weight)
    quantized.backward(torch.ones(2, 9))
    assert quantized.dense().abs().eq(1).all()
    assert weight.grad.isfinite().all()
    assert ReCU().clamped(weight.detach()).isfinite().all()
