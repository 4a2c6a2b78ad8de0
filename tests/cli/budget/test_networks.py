import pytest
import torch
from torch import nn

from bnn.cli.budget.networks import NetworkBuilder, find_network
from bnn.errors import RunError, UsageError
from bnn.weights import LatentStore

MY_MODEL = """
import torch
from torch import nn

from bnn.layers import BinaryLinear
from bnn.weights import LatentStore


def plain():
    return nn.Linear(4, 3)


def trained():
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(torch.from_numpy(__import__("numpy").ones((3, 4), "float32")))
    return model


def presets(*, store=LatentStore, norm=None):
    return nn.Sequential(BinaryLinear(4, 8, store=store), (norm or nn.BatchNorm1d)(8), BinaryLinear(8, 3, store=store))
"""


@pytest.fixture
def my_model(tmp_path) -> str:
    path = tmp_path / "my_model.py"
    path.write_text(MY_MODEL)
    return str(path)


def test_the_library_s_networks_have_a_shape_and_take_presets():
    network = find_network("cnv", None)
    assert (network.input_shape, network.takes_presets) == ((3, 32, 32), True)
    assert find_network("cnv", (1, 40, 40)).input_shape == (1, 40, 40)
    assert not find_network("gxnor_cnn", None).takes_presets


def test_a_network_on_meta_takes_no_memory(my_model):
    for name in ("plain", "trained", "presets"):
        model = find_network(f"{my_model}:{name}", (4,)).build_on_meta(input_shape=(4,))
        assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def test_options_that_a_function_does_not_take_are_left_out(my_model):
    network = find_network(f"{my_model}:plain", (4,))
    assert not network.takes_presets
    assert isinstance(network.build(input_shape=(4,), store=LatentStore), nn.Linear)
    made = []

    def store(shape):
        made.append(tuple(shape))
        return LatentStore(shape)

    network = find_network(f"{my_model}:presets", (4,))
    assert network.takes_presets
    network.build(input_shape=(4,), store=store)
    assert made == [(8, 4), (3, 8)]


def test_what_is_refused(my_model):
    with pytest.raises(UsageError, match="no network 'mpl', but there is 'mlp'"):
        find_network("mpl", None)
    with pytest.raises(UsageError, match="--input"):
        find_network(f"{my_model}:plain", None)
    with pytest.raises(RunError, match=r"must return a torch\.nn\.Module, not Tensor"):
        NetworkBuilder("mine", lambda: torch.ones(1), (4,)).build()
