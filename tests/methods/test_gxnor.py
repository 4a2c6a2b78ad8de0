"""GXNOR-Net's step and augmentation, by their options."""

from types import SimpleNamespace

import pytest

from bnn.data import RandomCrop, RandomFlip, RandomShift
from bnn.errors import RecipeError
from bnn.methods.gxnor import gxnor_augmentation, gxnor_step
from bnn.weights import WeightStore

MNIST = SimpleNamespace(name="mnist", image_shape=(1, 28, 28), num_classes=7)


def test_options_reach_the_network_and_the_optimizer():
    step = gxnor_step(MNIST, learning_rate=0.5, momentum=0.25, m=None, precision="bfloat16", seed=3)
    (group,) = step.optimizer.param_groups
    options = {"lr": 0.5, "betas": (0.25, 0.999), "m": None, "seed": 3}
    assert {name: group[name] for name in options} == options
    assert step.precision == "bfloat16"
    assert [parameter.shape[0] for parameter in step.model.parameters() if parameter.dim() > 1][-1] == 7


def test_defaults_are_those_of_the_records():
    step = gxnor_step(MNIST)
    (group,) = step.optimizer.param_groups
    options = {"lr": 0.01, "betas": (0.997, 0.999), "m": 3.0, "seed": 0}
    assert {name: group[name] for name in options} == options
    assert step.precision == "float32"


@pytest.mark.parametrize(
    ("name", "shape", "model", "weights"),
    [
        ("mnist", (1, 28, 28), None, 581_408),
        ("svhn", (3, 32, 32), None, 12_973_440),
        ("svhn", (3, 32, 32), "gxnor_cnn", 877_920),
        ("mnist", (1, 32, 32), "gxnor_vgg", 12_971_136),
    ],
)
def test_a_data_set_has_its_network_or_another(name, shape, model, weights):
    step = gxnor_step(SimpleNamespace(name=name, image_shape=shape, num_classes=10), model=model)
    assert sum(module.size for module in step.model.modules() if isinstance(module, WeightStore)) == weights


def test_images_of_mnist_are_shifted_and_others_cropped():
    assert gxnor_augmentation("mnist") == []
    assert gxnor_augmentation("mnist", shift=0.1) == [RandomShift(fraction=0.1)]
    assert gxnor_augmentation("cifar10") == [RandomCrop(padding=4), RandomFlip()]
    assert gxnor_augmentation("svhn") == [RandomCrop(padding=4)]
    with pytest.raises(RecipeError, match="those of svhn are cropped at random: leave shift 0"):
        gxnor_augmentation("svhn", shift=0.1)
