import copy

import pytest
import torch
from torch import nn

from bnn.weights import Accumulator
from bnn.weights.accumulator import decode, encode

CODES = torch.arange(-128, 128, dtype=torch.int8)


def test_codes_are_256_values_around_zero():
    values = decode(CODES)
    assert values.dtype == torch.float32
    assert torch.equal(values, -values.flip(0))
    assert values[0] == -127.5 / 128
    assert (values.diff() == 1 / 128).all()
    assert not (values == 0).any()


def test_encode_inverts_decode(generator):
    assert torch.equal(encode(decode(CODES), None), CODES)
    assert torch.equal(encode(decode(CODES), generator), CODES)


def test_encode_clamps(generator):
    far = torch.tensor([-7.0, -1.0, 1.0, 7.0])
    assert encode(far, generator).tolist() == encode(far, None).tolist() == [-128, -128, 127, 127]


def test_small_updates_get_through_on_average(generator):
    codes = torch.zeros(100_000, dtype=torch.int8)
    moved = encode(decode(codes) + 0.001, generator)
    assert decode(moved).mean().item() - decode(codes[:1]).item() == pytest.approx(0.001, abs=5e-5)
    assert torch.equal(encode(decode(codes) + 0.001, None), codes)


def test_gradients_add_up_and_call_the_hooks():
    parameter = Accumulator(torch.zeros(2, 3, dtype=torch.int8))
    seen = []
    handle = parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.sum().item()))
    parameter.accumulate(torch.ones(2, 3))
    parameter.accumulate(torch.ones(2, 3, dtype=torch.bfloat16))
    handle.remove()
    parameter.accumulate(torch.ones(2, 3))
    assert seen == [6, 12]
    assert torch.equal(parameter.grad, torch.full((2, 3), 3.0))


class TestInAModule:
    @staticmethod
    def module() -> nn.Module:
        module = nn.Module()
        module.weight = Accumulator(torch.arange(6, dtype=torch.int8).view(2, 3))
        return module

    def test_is_a_parameter_in_the_state_and_keeps_its_codes(self):
        module = self.module()
        assert [name for name, _ in module.named_parameters()] == ["weight"]
        other = self.module()
        with torch.no_grad():
            other.weight.zero_()
        other.load_state_dict(module.state_dict())
        assert torch.equal(other.weight, module.weight)

    def test_copies_are_independent_and_whole(self):
        module = self.module()
        calls = []
        module.weight.register_post_accumulate_grad_hook(calls.append)
        copied = copy.deepcopy(module)
        copied.weight.accumulate(torch.ones(2, 3))
        with torch.no_grad():
            copied.weight.zero_()
        assert isinstance(copied.weight, Accumulator)
        assert module.weight.grad is None
        assert module.weight.any()
        assert not calls

    def test_changes_of_dtype_leave_it_alone(self):
        weight = self.module().bfloat16().weight
        assert isinstance(weight, Accumulator)
        assert weight.dtype == torch.int8
        weight.accumulate(torch.ones(2, 3))
