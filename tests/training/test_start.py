import pytest
import torch

from bnn.errors import CheckpointError
from bnn.training import Trainer, start_from
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
