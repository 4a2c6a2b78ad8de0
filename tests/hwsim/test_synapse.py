"""The cell's law of transitions, from all four states, in closed form."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsim.synapse import STATES, WEIGHTS, junctions_of, requested_probabilities, source_states, transition_matrix

CODE = {name: code for code, name in enumerate(STATES)}
parts = st.integers(0, 999).map(lambda n: n / 1000)
bools = pytest.mark.parametrize("read_first", [False, True])


def law(steps: float, start: str, **options) -> dict[str, float]:
    """Probabilities above 0 of the states after, by their names."""
    row = transition_matrix(steps, **options)[CODE[start]]
    return {name: float(row[code]) for name, code in CODE.items() if row[code] > 0}


def test_weights_are_the_difference_of_the_junctions():
    first, second = junctions_of(torch.arange(4))
    assert (second.int() - first.int()).tolist() == list(WEIGHTS)
    assert dict(zip(STATES, WEIGHTS, strict=True)) == {"0_s": 0, "0_w": 0, "+1": 1, "-1": -1}
    assert (first & second).tolist() == [False, False, False, True], "0_w is the one with two high resistances"


class TestBlind:
    @given(p=parts)
    def test_upwards(self, p):
        # The forbidden jump: -1 to +1 with p².
        assert law(p, "-1", read_first=False) == pytest.approx(
            {
                k: v
                for k, v in {"-1": (1 - p) ** 2, "0_s": p * (1 - p), "0_w": p * (1 - p), "+1": p * p}.items()
                if v > 0
            }
        )
        for zero in ("0_s", "0_w"):
            assert law(p, zero, read_first=False) == pytest.approx({zero: 1 - p, **({"+1": p} if p else {})})
        assert law(p, "+1", read_first=False) == {"+1": 1}

    def test_a_certain_step_is_the_first_junction_s(self):
        p = 0.25
        assert law(1 + p, "-1", read_first=False) == {"0_s": 1 - p, "+1": p}
        assert law(1 + p, "0_w", read_first=False) == {"+1": 1}
        # Here the second one should have it.
        assert law(1 + p, "0_s", read_first=False) == {"0_s": 1 - p, "+1": p}
        assert law(-1 - p, "+1", read_first=False) == {"0_w": 1 - p, "-1": p}

    def test_two_certain_steps_reach_the_end_from_everywhere(self):
        for start, (steps, end) in itertools.product(STATES, ((2.0, "+1"), (2.7, "+1"), (-2.0, "-1"), (-5.0, "-1"))):
            assert law(steps, start, read_first=False) == {end: 1}


class TestReadFirst:
    @given(p=parts)
    def test_is_the_ideal_law_by_way_of_0_w(self, p):
        def some(**values: float) -> dict[str, float]:
            return pytest.approx({k.replace("m1", "-1").replace("p1", "+1"): v for k, v in values.items() if v})

        assert law(p, "-1", read_first=True) == some(**{"m1": 1 - p, "0_w": p})
        assert law(1 + p, "-1", read_first=True) == some(**{"0_w": 1 - p, "p1": p})
        assert law(p, "0_w", read_first=True) == some(**{"0_w": 1 - p, "p1": p})
        assert law(p, "0_s", read_first=True) == some(**{"0_s": 1 - p, "p1": p})
        assert law(1 + p, "0_s", read_first=True) == {"+1": 1}
        assert law(1 + p, "0_w", read_first=True) == {"+1": 1}
        assert law(p, "+1", read_first=True) == {"+1": 1}

    @given(steps=st.floats(-3, 3))
    def test_the_weight_moves_as_discrete_state_transitions_say(self, steps):
        """Bounded, k levels and one more with what is left."""
        matrix = transition_matrix(steps, read_first=True)
        for code, weight in enumerate(WEIGHTS):
            expected = dict.fromkeys((-1, 0, 1), 0.0)
            size, sign = abs(steps), 1 if steps > 0 else -1
            whole, part = int(size), size - int(size)
            for extra, share in ((0, 1 - part), (1, part)):
                expected[max(-1, min(1, weight + sign * (whole + extra)))] += share
            found = dict.fromkeys((-1, 0, 1), 0.0)
            for after, p in zip(WEIGHTS, matrix[code].tolist(), strict=True):
                found[after] += p
            assert found == pytest.approx(expected, abs=1e-12)


@bools
class TestEveryLaw:
    @given(steps=st.floats(-4, 4))
    def test_rows_sum_to_1(self, read_first, steps):
        matrix = transition_matrix(steps, read_first=read_first)
        assert matrix.sum(dim=1).tolist() == pytest.approx([1] * 4)
        assert (matrix >= 0).all()

    def test_no_step_is_no_event(self, read_first):
        assert torch.equal(transition_matrix(0.0, read_first=read_first), torch.eye(4, dtype=torch.float64))

    @given(steps=st.floats(0, 4))
    def test_down_is_up_with_the_junctions_exchanged(self, read_first, steps):
        up, down = (transition_matrix(x, read_first=read_first) for x in (steps, -steps))
        exchanged = torch.tensor([0, 2, 1, 3])
        if read_first or steps < 1:  # blind, a certain step is the first junction's in both directions
            assert torch.allclose(down[exchanged][:, exchanged], up)

    @given(steps=st.floats(-4, 4), share=st.floats(0, 1))
    def test_pulses_that_do_nothing_or_half(self, read_first, steps, share):
        stay = transition_matrix(steps, read_first=read_first, switch_probability=lambda p, _: 0 * p)
        assert torch.equal(stay, torch.eye(4, dtype=torch.float64))
        part = transition_matrix(steps, read_first=read_first, switch_probability=lambda p, _: share * p)
        assert part.sum(dim=1).tolist() == pytest.approx([1] * 4)
        assert bool((part.diagonal() >= transition_matrix(steps, read_first=read_first).diagonal() - 1e-12).all())

    def test_what_is_requested_is_a_probability_and_0_without_a_step(self, read_first):
        before = junctions_of(torch.arange(4)).unsqueeze(-1)
        steps = (torch.arange(-300, 301) / 100).expand(4, -1)
        p = requested_probabilities(before.expand(2, 4, 601), steps, read_first=read_first)
        assert p.shape == (2, 4, 601)
        assert bool(((p >= 0) & (p <= 1)).all())
        assert not p[..., 300].any()
        if read_first:
            assert not p[before != source_states(steps)].any(), "no pulse that only holds"


def test_switch_probability_knows_the_state_before():
    """A pulse out of antiparallel that never works."""
    matrix = transition_matrix(0.5, read_first=False, switch_probability=lambda p, antiparallel: p * ~antiparallel)
    assert matrix[CODE["-1"]].tolist() == [0, 0.5, 0, 0.5]
    assert matrix[CODE["0_w"], CODE["0_w"]] == 1
