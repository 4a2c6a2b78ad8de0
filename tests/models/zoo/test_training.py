"""The networks of larq-zoo under the preset that takes the least memory; and in files."""

import re
import warnings

import pytest
import torch

import bnn
from bnn.codec import save
from bnn.layers import BinaryBlock, BinaryLayer
from bnn.models.zoo import RELEASED
from bnn.presets import prepare

# Networks whose binary layers are all kept in bits.
IN_BITS = ("quicknet_small", "quicknet", "quicknet_large", "binary_resnet_e18", "birealnet")


def one_step(name: str, size: int, classes: int) -> tuple[torch.nn.Module, float, str]:
    """The network after a step, its loss, and what the preset has warned of."""
    shape = (3, size, size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step = prepare("edge-min", lambda: RELEASED[name].build(input_shape=shape, classes=classes), input_shape=shape)
    x = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    step.model.train()
    result = step.take(x, torch.tensor([0, 1]))
    assert result is not None
    return step.model, result.loss, " ".join(str(warning.message) for warning in caught)


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_a_step_of_whole_images_in_the_least_memory(name):
    model, loss, warned = one_step(name, 224, 1000)
    assert 0 < loss < 1e4
    layers = {module: name for name, module in model.named_modules() if isinstance(module, BinaryLayer)}
    fused = {module.product for module in model.modules() if isinstance(module, BinaryBlock) and module.is_fused}
    for layer, place in layers.items():
        if layer not in fused:
            assert re.search(rf"(^|\s){re.escape(place.removesuffix('.product'))} (keeps floats|is outside)", warned)
    assert (set(layers) <= fused) == (name in IN_BITS)


@pytest.mark.slow
def test_a_rectified_network_is_kept_in_bits():
    model, loss, warned = one_step("quicknet_small", 32, 5)
    assert loss < 100
    assert not warned
    assert all(module.is_fused for module in model.modules() if isinstance(module, BinaryBlock))


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_a_file_holds_the_network(name, tmp_path):
    from bnn.models.zoo.checking import golden, logits, with_check_values

    case = golden()[name]["cases"][0]
    model = with_check_values(name, size=case["size"], classes=case["classes"])
    save(model, tmp_path / "model.bnnz", quick=True)
    again = bnn.load(tmp_path / "model.bnnz")
    found = torch.tensor(case["logits"])
    assert (logits(again, name, case["size"])[:: case["step"]][: len(found)] - found).abs().max() < 1e-4
