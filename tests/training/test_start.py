import pytest
import torch
from torch import nn

from bnn.errors import CheckpointError
from bnn.layers import BinaryLinear
from bnn.training import Trainer, start_from
from bnn.training.start import take_weights
from tests.training.tiny_runs import recu_run, sgd_run


def test_a_model_gets_the_weights_and_buffers_of_a_run(tmp_path):
    trained, fresh = recu_run(), recu_run()
    Trainer(trained, tmp_path / "run").fit()
    start_from(tmp_path / "run", fresh.model)
    assert all(torch.equal(x, fresh.model.state_dict()[name]) for name, x in trained.model.state_dict().items())
    assert not torch.equal(fresh.model[1].running_mean, recu_run().model[1].running_mean)


def test_another_network_is_refused_and_unchanged(tmp_path):
    Trainer(sgd_run(epochs=1), tmp_path / "run").fit()
    model = recu_run().model
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        start_from(tmp_path / "run", model)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_a_directory_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="checkpoint"):
        start_from(tmp_path, recu_run().model)


def test_a_binary_layer_takes_the_weight_of_a_real_one_of_its_name():
    real = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8))
    binary = nn.Sequential(BinaryLinear(6, 8), nn.BatchNorm1d(8))
    taken = take_weights(binary, dict(real.state_dict()), "a float network")
    assert taken.taken == ["0.store", "1"]
    assert torch.equal(binary[0].store.weight, real[0].weight)
