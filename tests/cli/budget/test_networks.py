from importlib.util import find_spec

import pytest
import torch

from bnn.cli.budget.networks import NetworkBuilder, find_network
from bnn.errors import RecipeError, RunError, UsageError

MY_MODEL = """
import torch
from torch import nn



def plain():
    return nn.Linear(4, 3)


def trained():
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(torch.from_numpy(__import__("numpy").ones((3, 4), "float32")))
    return model


def of_shape(*, input_shape):
    return nn.Linear(input_shape[0], 3)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)


ready = plain()
"""


@pytest.fixture
def my_model(tmp_path) -> str:
    path = tmp_path / "my_model.py"
    path.write_text(MY_MODEL)
    return str(path)


def test_the_library_s_networks_have_a_shape():
    assert find_network("cnv", None).input_shape == (3, 32, 32)
    assert find_network("cnv", (1, 40, 40)).input_shape == (1, 40, 40)
    assert find_network("mlp", (1, 4, 5)).build()[1].product.store.shape[1] == 20


@pytest.mark.parametrize("name", ["plain", "trained", "of_shape", "Own", "ready"])
def test_a_network_on_meta_takes_no_memory(my_model, name):
    model = find_network(f"{my_model}:{name}", (4,)).build_on_meta()
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert sum(parameter.numel() for parameter in model.parameters()) >= 4 * 3


def test_a_module_that_is_ready_is_copied(my_model):
    network = find_network(f"{my_model}:ready", (4,))
    network.build_on_meta()
    first, second = network.build(), network.build()
    assert not first.weight.is_meta
    assert first is not second
    assert torch.equal(first.weight, second.weight)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_networks_of_torchvision_are_named():
    network = find_network("torchvision:resnet18", (3, 32, 32))
    model = network.build_on_meta()
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert find_network("torchvision:vgg11", None).input_shape == (3, 224, 224)
    with pytest.raises(RecipeError, match="but there is 'resnet18'"):
        find_network("torchvision:resnet19", None)


def test_what_is_refused(my_model):
    with pytest.raises(UsageError, match="no network 'mpl', but there is 'mlp'"):
        find_network("mpl", None)
    with pytest.raises(UsageError, match="--input"):
        find_network(f"{my_model}:plain", None)
    with pytest.raises(RunError, match=r"must return a torch\.nn\.Module, not Tensor"):
        NetworkBuilder("mine", lambda: torch.ones(1), (4,)).build()
