"""What every quantizer and every binary layer promises, whoever adds one."""

import copy
import math

import pytest
import torch
from torch import nn

import bnn.layers
import bnn.quantizers
from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from bnn.quantizers import Quantizer
from bnn.weights import LatentStore, WeightStore
from tests.contracts import concrete_classes, dense, signs

QUANTIZERS = concrete_classes(bnn.quantizers, Quantizer)
LAYERS = concrete_classes(bnn.layers, BinaryLayer)

# A layer of each class, with the shape of an input.
SAMPLES = {
    BinaryLinear: (lambda **options: BinaryLinear(11, 5, **options), (4, 11)),
    BinaryConv2d: (lambda **options: BinaryConv2d(3, 5, 3, padding=1, **options), (2, 3, 6, 7)),
}


def test_the_walk_finds_the_known_classes():
    assert {"ApproxSign", "ReCU", "ScaledSign", "Sign", "Ternary"} <= {cls.__name__ for cls in QUANTIZERS}
    assert set(LAYERS) == set(SAMPLES), "give a new layer a sample, so that the contracts below hold it too"


def test_packages_export_what_they_define():
    assert set(bnn.quantizers.__all__) == {cls.__name__ for cls in QUANTIZERS} | {"Quantizer"}
    assert {cls.__name__ for cls in LAYERS} <= set(bnn.layers.__all__)


@pytest.mark.parametrize("cls", QUANTIZERS)
class TestQuantizer:
    @pytest.mark.parametrize("shape", [(4, 6), (5, 3, 3, 2), (1, 9)])
    def test_values_are_levels_in_the_shape_of_the_input(self, cls, shape, generator):
        quantizer = cls()
        x = torch.randn(shape, generator=generator)
        q = quantizer(x)
        assert q.shape == x.shape
        assert q.dtype == x.dtype
        assert isinstance(q, BitTensor) == (quantizer.levels == (-1.0, 1.0))
        assert set(dense(q).unique().tolist()) <= set(quantizer.levels)

    def test_every_level_is_reached(self, cls, generator):
        x = torch.randn((20, 30), generator=generator)
        assert tuple(dense(cls()(x)).unique().tolist()) == cls().levels

    def test_levels_and_storage_bits_agree(self, cls):
        quantizer = cls()
        assert list(quantizer.levels) == sorted(set(quantizer.levels))
        assert quantizer.storage_bits == math.ceil(math.log2(len(quantizer.levels)))

    def test_says_whether_its_values_are_just_the_signs_of_the_input(self, cls, generator):
        x = torch.randn((20, 30), generator=generator) + 0.5
        assert cls().is_sign == torch.equal(dense(cls()(x)), signs(x))

    def test_a_subclass_with_a_forward_of_its_own_is_no_longer_just_signs(self, cls):
        assert not type("Own", (cls,), {"forward": lambda self, x: x})().is_sign

    def test_says_whether_it_scales(self, cls, generator):
        assert cls().scales == (cls().scale(torch.randn((4, 6), generator=generator)) is not None)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_gradient_is_dense_finite_and_shaped_like_the_input(self, cls, dtype, generator):
        x = torch.randn((4, 6), generator=generator).to(dtype).requires_grad_()
        (cls()(x) * torch.randn((4, 6), generator=generator).to(dtype)).sum().backward()
        assert type(x.grad) is torch.Tensor
        assert x.grad.shape == x.shape
        assert x.grad.dtype == dtype
        assert x.grad.isfinite().all()
        assert x.grad.any()

    def test_is_differentiable_only_where_asked(self, cls, generator):
        x = torch.randn((4, 6), generator=generator)
        assert not cls()(x).requires_grad
        with torch.no_grad():
            assert not cls()(x.requires_grad_()).requires_grad

    def test_refuses_nan(self, cls, generator):
        x = torch.randn((4, 6), generator=generator)
        x[1, 2] = math.nan
        with pytest.raises(NonFiniteError):
            cls()(x)

    def test_scale_is_one_positive_factor_a_channel(self, cls, generator):
        scale = cls().scale(torch.randn((5, 3, 2, 2), generator=generator))
        assert scale is None or (scale.shape == (5,) and bool((scale > 0).all()))

    def test_projection_keeps_the_quantized_weight(self, cls, generator):
        quantizer = cls()
        weight = torch.randn((4, 6), generator=generator)
        before = dense(quantizer(weight))
        quantizer.project_(weight)
        assert torch.equal(dense(quantizer(weight)), before)

    def test_does_not_change_its_input(self, cls, generator):
        x = torch.randn((4, 6), generator=generator)
        before = x.clone()
        cls()(x)
        assert torch.equal(x, before)

    def test_has_no_shape_and_no_state_of_its_own(self, cls):
        assert not cls().state_dict()

    def test_copies_are_independent(self, cls):
        original = cls()
        copied = copy.deepcopy(original)
        options = [name for name, value in vars(original).items() if isinstance(value, float)]
        for name in options:
            setattr(copied, name, getattr(original, name) * 0.99)
            assert getattr(copied, name) != getattr(original, name)
        assert type(copied) is cls
        assert vars(copied) is not vars(original)

    def test_repr_names_the_class(self, cls):
        assert repr(cls()).startswith(cls.__name__ + "(")


@pytest.mark.parametrize("cls", LAYERS)
class TestLayer:
    def test_output_is_an_ordinary_tensor_of_the_input_dtype(self, cls, generator):
        make, shape = SAMPLES[cls]
        y = make()(torch.randn(shape, generator=generator))
        assert type(y) is torch.Tensor
        assert y.shape[:2] == (shape[0], 5)
        assert y.dtype == torch.float32

    def test_takes_bits_as_it_takes_their_dense_value(self, cls, generator):
        make, shape = SAMPLES[cls]
        layer = make()
        bits = BitTensor.from_dense(torch.randn(shape, generator=generator))
        assert torch.equal(layer(bits), layer(bits.dense()))

    def test_gradient_reaches_input_weight_scale_and_bias(self, cls, generator):
        make, shape = SAMPLES[cls]
        layer = make(learned_scale=True, bias=True)
        x = torch.randn(shape, generator=generator).requires_grad_()
        layer(x).square().sum().backward()
        for tensor in (x, *layer.parameters()):
            assert type(tensor.grad) is torch.Tensor
            assert tensor.grad.shape == tensor.shape
            assert tensor.grad.any()

    @pytest.mark.parametrize("quantizer", QUANTIZERS)
    def test_works_with_every_quantizer_of_weights_and_inputs(self, cls, quantizer, generator):
        make, shape = SAMPLES[cls]
        layer = make(
            store=lambda weight_shape: LatentStore(weight_shape, quantizer=quantizer()),
            input_quantizer=quantizer(),
        )
        x = torch.randn(shape, generator=generator).requires_grad_()
        layer(x).sum().backward()
        assert x.grad.isfinite().all()
        assert layer.store.weight.grad.isfinite().all()

    def test_state_dict_keys_are_stable(self, cls):
        make, _ = SAMPLES[cls]
        assert list(make().state_dict()) == ["store.weight"]
        assert list(make(learned_scale=True, bias=True).state_dict()) == [
            "learned_scale",
            "bias",
            "store.weight",
        ]

    def test_state_dict_round_trip_gives_the_same_output(self, cls, generator):
        make, shape = SAMPLES[cls]
        one, other = make(bias=True, learned_scale=True), make(bias=True, learned_scale=True)
        other.load_state_dict(one.state_dict())
        x = torch.randn(shape, generator=generator)
        assert torch.equal(one(x), other(x))

    def test_owns_copies_of_its_patterns(self, cls):
        make, _ = SAMPLES[cls]
        pattern = bnn.quantizers.Sign()
        first, second = make(input_quantizer=pattern), make(input_quantizer=pattern)
        assert first.input_quantizer is not pattern
        assert first.input_quantizer is not second.input_quantizer
        assert make().input_quantizer is not make().input_quantizer

    def test_deepcopy_is_independent(self, cls):
        make, _ = SAMPLES[cls]
        layer = make()
        copied = copy.deepcopy(layer)
        with torch.no_grad():
            copied.store.weight.zero_()
        assert layer.store.weight.any()

    def test_store_is_a_weight_store_of_the_declared_shape(self, cls):
        make, _ = SAMPLES[cls]
        store = make().store
        assert isinstance(store, WeightStore)
        assert store.shape == tuple(store.read().shape)
        assert store.storage_bits == 1

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_evaluates_without_gradient_to_the_same_values(self, cls, mode, generator):
        make, shape = SAMPLES[cls]
        layer = make(learned_scale=True, bias=True)
        x = torch.randn(shape, generator=generator)
        expected = layer(x).detach()
        with mode():
            assert torch.equal(layer(x), expected)

    def test_works_in_half_precision_and_inside_a_sequence(self, cls, generator):
        make, shape = SAMPLES[cls]
        layer = nn.Sequential(make(bias=True)).bfloat16()
        assert layer(torch.randn(shape, generator=generator).bfloat16()).dtype == torch.bfloat16

    def test_repr_tells_the_shape(self, cls):
        make, _ = SAMPLES[cls]
        assert repr(make()).startswith(cls.__name__ + "(")
        assert "5" in repr(make()).splitlines()[1]
