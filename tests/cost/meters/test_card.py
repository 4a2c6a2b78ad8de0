"""The card tells every choice, and changes with it."""

from functools import partial

import pytest
import torch
from torch import nn

from bnn.cost.meters.card import quantization_card
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, BinaryNorm
from bnn.optim import SGD, Adam
from bnn.quantizers import ApproxSign, ReCU, Sign, Ternary
from bnn.quantizers.gradients import Int8Gradient, SignGradient
from bnn.training import Run
from bnn.weights import AccumulatorStore, DiscreteStore, LatentStore, SparseStore
from tests.training.tiny_runs import tiny_dataset


def run(*layers: nn.Module, optimizer=torch.optim.Adam, **options) -> Run:
    """A network of 1x6x6 images with a real first layer."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), *layers, nn.Flatten(), nn.Linear(64, 4))
    options = {"epochs": 2, "batch_size": 12, "seed": 3, "validation": 0.2, **options}
    return Run(model=model, data=tiny_dataset(), optimizer=optimizer(model.parameters(), lr=0.1), **options)


def conv(**options) -> nn.Module:
    return BinaryConv2d(4, 4, 3, padding=1, **options)


def test_card_of_a_network_by_hand():
    assert quantization_card(run(BinaryNorm(4), conv(), nn.BatchNorm2d(4), conv(learned_scale=True))) == {
        "first layer": "Conv2d, weights of 32 bits, input of 32 bits",
        "inner layers": "2: BinaryConv2d, weights of 1 bit, input of 1 bit",
        "last layer": "Linear, weights of 32 bits, input of 32 bits",
        "weight levels": "-1, +1, symmetric (Sign)",
        "scale of weights": "1 x none; 1 x learned, per output channel",
        "input levels": "-1, +1, symmetric (Sign)",
        "blocks": "none",
        # 2 x 2304 of 576 + 4608 + 256
        "quantized": "weights and inputs of 84.7 % of the forward pass's products",
        # 36 + 256 of 36 + 288 + 256
        "real weights": "50.3 % of all",
        "accumulator": "7 bits hold every such sum exactly",
        "latent weights": "LatentStore, 32 bits",
        "gradient of a weight": "32 bits",
        "gradient of a product": "32 bits",
        "optimizer": "Adam, state as wide as the parameters",
        "norms": "1 x BinaryNorm, 32 bits; 1 x BatchNorm2d, 32 bits",
        "precision": "products of float32",
        "batch": "12",
        "loss": "cross_entropy",
        "augmentation": "none",
        "data": "drawn",
        "split": "48 training, 12 validation, 20 test examples",
        "labels": "those of the data set",
        "selection": "the final epoch, number 2; nothing is selected on the test split",
        "seed": "3, of order, augmentation and validation split",
    }


def block(**options) -> nn.Module:
    return BinaryBlock(conv(grad_quantizer=Int8Gradient(generator=generator), **options), nn.BatchNorm2d(4))


def recomputed(**options) -> nn.Module:
    made = block(**options)
    made.recompute = True
    return made


generator = torch.Generator()


def ternarized(shape, *, value: float) -> SparseStore:
    """A ternary store whose magnitude is `value`."""
    store = SparseStore(shape)
    with torch.no_grad():
        store.weight.fill_(value)
    store.ternarize_(torch.arange(store.size).view(store.shape) % 2 == 0)
    return store


signs = SignGradient(packed=True, scale="none", generator=generator)
int16 = partial(LatentStore, dtype=torch.float16)


@pytest.mark.parametrize(
    ("changed", "field", "text"),
    [
        (run(conv(input_quantizer=Ternary())), "input levels", "-1, 0, +1, symmetric (Ternary)"),
        (run(conv(input_quantizer=None)), "input levels", "as they come"),
        (run(conv(input_quantizer=None)), "accumulator", "of floats"),
        (run(block()), "blocks", "layer by layer"),
        (
            run(recomputed(input_quantizer=ApproxSign())),
            "blocks",
            "product formed again in backward, bfloat16 between convolutions, gradient of the sign in 4 slopes",
        ),
        (run(recomputed(input_quantizer=None)), "blocks", "product formed again in backward, bfloat16 between conv"),
        (run(conv(), BinaryConv2d(4, 4, 1)), "accumulator", "7 bits"),
        (run(BinaryConv2d(4, 4, 1), conv()), "accumulator", "7 bits"),
        (run(conv(store=partial(LatentStore, quantizer=ReCU(scale="mean")))), "scale of weights", "analytic, per"),
        (run(conv(store=partial(LatentStore, quantizer=ReCU()))), "weight levels", "(ReCU)"),
        (run(conv(store=DiscreteStore)), "weight levels", "-1, 0, +1, symmetric (DiscreteStore)"),
        (run(conv(store=DiscreteStore)), "latent weights", "none"),
        (run(conv(store=partial(DiscreteStore, space=2))), "weight levels", "-1, -0.5, 0, +0.5, +1, symmetric"),
        (run(conv(store=SparseStore)), "weight levels", "real (SparseStore)"),
        (run(conv(store=partial(ternarized, value=0.5))), "weight levels", "-0.5, 0, +0.5, symmetric (SparseStore)"),
        (run(conv(store=AccumulatorStore), optimizer=SGD), "latent weights", "AccumulatorStore, 8 bits"),
        (run(conv(store=int16)), "latent weights", "LatentStore, 16 bits"),
        (run(conv(store=partial(LatentStore, gradient_quantizer=signs))), "gradient of a weight", "1 bit (SignGr"),
        (run(conv(grad_quantizer=Int8Gradient())), "gradient of a product", "8 bits (Int8Gradient)"),
        (run(optimizer=partial(Adam, state_dtype=torch.bfloat16)), "optimizer", "Adam, state of 16 bits, 2 moments"),
        (run(batch_size=10, slice_size=4), "batch", "10, at most 4 at a time"),
        (run(batch_size=4, slice_size=10), "batch", "4"),
        (run(precision="bfloat16"), "precision", "products of bfloat16; memory and energy are predicted for float32"),
        (run(loss=nn.MultiMarginLoss()), "loss", "MultiMarginLoss"),
        (run(seed=8), "seed", "8, of"),
        (run(validation=0.5), "split", "30 training, 30 validation"),
    ],
)
def test_a_choice_changes_the_card(changed, field, text):
    card = quantization_card(changed)
    assert card[field].startswith(text) or (text.startswith("(") and text in card[field])
    assert set(card) == set(quantization_card(run(conv(input_quantizer=Sign()))))


def test_last_layer_of_bits():
    model = run()
    model.model[-1] = BinaryLinear(64, 4)
    card = quantization_card(model)
    assert card["last layer"] == "BinaryLinear, weights of 1 bit, input of 1 bit"
    assert card["inner layers"] == "none"
