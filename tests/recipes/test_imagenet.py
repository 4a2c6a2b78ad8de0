"""The recipes for large sets of pictures, from shards of a few."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bnn.data.shards import write_shards
from bnn.errors import RecipeError
from bnn.models.resnet_imagenet import RealWeightUnit, ResidualUnit, recu_resnet18
from bnn.quantizers import ApproxSign
from bnn.training import Trainer
from bnn.training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def shards(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(images, folder)
    return folder


def test_recu_s_network_has_the_layers_of_its_public_code():
    with torch.device("meta"):
        model = recu_resnet18()
    assert sum(weight.numel() for weight in model.parameters() if weight.dim() > 1) == 11_678_912
    stem, pool, *units, _, _, norm, classifier = model
    assert (stem.product.stride, pool.kernel_size, norm.num_features, classifier.in_features) == ((2, 2), 3, 512, 512)
    assert [unit.block.product.stride for unit in units] == [1, 1, 1, 1] + 3 * [2, 1, 1, 1]
    assert all(unit.block.product.learned_scale is not None for unit in units)


@pytest.mark.parametrize("stride", [1, 2])
def test_recu_s_unit_is_that_of_its_public_code(stride, generator):
    options = {"store": None, "input_quantizer": ApproxSign(), "learned_scale": True, "averages": False}
    unit = ResidualUnit(8, 8 * stride, stride=stride, activation=nn.Hardtanh(), **options)
    x = torch.randn((2, 8, 6, 4), generator=generator)
    shortcut = x
    if stride == 2:
        weight = unit.shortcut.product.weight
        assert weight.shape == (16, 8, 1, 1)
        shortcut = unit.shortcut.norm(nn.functional.conv2d(x[:, :, ::2, ::2], weight))
    expected = (unit.block.norm(unit.block.product(x)) + shortcut).clamp(-1, 1)
    torch.testing.assert_close(unit(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_unit_of_the_first_stage_multiplies_signs_by_real_weights(stride, generator):
    options = {"store": None, "input_quantizer": ApproxSign(), "learned_scale": True, "averages": False}
    unit = RealWeightUnit(8, 8 * stride, stride=stride, activation=nn.Hardtanh(), **options)
    x = torch.randn((2, 8, 6, 4), generator=generator, requires_grad=True)
    weight = unit.block.product.weight
    signs = torch.where(x >= 0, 1.0, -1.0)
    product = nn.functional.conv2d(signs, weight, stride=stride, padding=1)
    expected = (unit.block.norm(product) + (x if stride == 1 else unit.shortcut(x))).clamp(-1, 1)
    found = unit(x)
    torch.testing.assert_close(found, expected)
    weight_gradient, x_gradient = torch.autograd.grad(found.square().sum(), (weight, x))
    assert bool(weight_gradient.any())
    assert bool(x_gradient.any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "second"}, "name its run with --start"),
        ({"start": Path("run")}, "add --stage second"),
        ({"teacher": Path("run"), "float_teacher": "resnet34"}, "there is one teacher"),
        ({"stage": "first", "weight_decay": 1e-4}, "leave out --weight-decay"),
        ({"float_teacher": "resnet33"}, "no classifier 'resnet33'"),
    ],
)
def test_options_that_contradict_each_other_are_one_line(options, message, shards):
    with pytest.raises(RecipeError, match=message):
        load_recipe(RECIPES / "imagenet_recu.py")(data_dir=shards, image_size=64, **options)


@pytest.mark.slow
def test_the_second_stage_begins_with_the_weights_of_the_first(shards, tmp_path):
    recipe = load_recipe(RECIPES / "imagenet_recu.py")
    options = {"data_dir": shards, "image_size": 64, "epochs": 1, "batch_size": 4, "validation": 0.0}
    first = recipe(stage="first", **options)
    assert type(first.optimizer) is torch.optim.Adam
    assert first.optimizer.param_groups[0]["lr"] == 1e-3
    Trainer(first, tmp_path / "first").fit()
    second = recipe(stage="second", start=tmp_path / "first", teacher=tmp_path / "first", **options)
    real = [unit.block.product.weight for unit in first.model.modules() if isinstance(unit, RealWeightUnit)]
    latent = [unit.block.product.store.weight for unit in second.model.modules() if isinstance(unit, ResidualUnit)]
    assert len(real) == 16
    assert all(map(torch.equal, real, latent))
    assert (second.training_loss.part, second.training_loss.temperature) == (1.0, 1.0)
    Trainer(second, tmp_path / "second").fit()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        *(("imagenet", {"model": model}) for model in ("resnete18", "birealnet18", "quicknet_small")),
        ("imagenet_recu", {}),
        ("imagenet_recu", {"preset": "edge-min"}),
    ],
)
def test_two_steps_change_every_weight(recipe, options, shards):
    run = load_recipe(RECIPES / f"{recipe}.py")(data_dir=shards, image_size=64, epochs=1, batch_size=4, **options)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.model.train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        result = run.take(torch.randn(4, 3, 64, 64, generator=generator), torch.arange(4))
        assert result is not None
        assert 0 < result.loss < 10
    same = [name for name, value in run.model.state_dict().items() if torch.equal(value, before[name])]
    # Behind a factor of 1e-8, a real weight's first steps without decay are below its precision.
    # A norm undoes the scale in front of it, whose gradient is of the order of the norm's eps.
    still = ("tau",) if recipe == "imagenet" else ("tau", "shortcut", "learned_scale")
    assert not [name for name in same if not any(part in name for part in still)]


@pytest.mark.slow
def test_recu_s_recipe_has_the_settings_of_its_public_code(shards):
    run = load_recipe(RECIPES / "imagenet_recu.py")(data_dir=shards, image_size=64)
    assert (run.epochs, run.batch_size) == (200, 512)
    decayed, others = run.optimizer.param_groups
    assert (decayed["lr"], decayed["momentum"], decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.9, 1e-4, 0)
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    assert sum(parameter.dim() == 4 for parameter in others["params"]) == 3
    assert all("norm" in names[id(p)] or "shortcut" in names[id(p)] or p.dim() == 1 for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    norms = [module for module in run.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(torch.equal(norm.weight, torch.full_like(norm.weight, 1e-8)) for norm in norms)
    (schedule,) = run.callbacks
    assert (schedule.start, schedule.end) == (0.85, 0.99)
