import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.errors import CheckpointError
from bnn.layers import BinaryConv2d
from bnn.quantizers import Ternary
from bnn.training import Trainer
from bnn.weights import DiscreteStore
from tests.training.tiny_runs import recu_run, sgd_run


def product_dtypes(run):
    dtypes = {True: set(), False: set()}
    for module in run.model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda module, _, y: dtypes[module.training].add(y.dtype))
    return dtypes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_of_the_precision_in_training_and_evaluation(precision, tmp_path):
    run = recu_run(epochs=1, precision=precision)
    dtypes = product_dtypes(run)
    Trainer(run, tmp_path / "run").fit()
    assert dtypes == {True: {getattr(torch, precision)}, False: {getattr(torch, precision)}}


def test_loss_and_everything_that_is_kept_stay_of_float32(tmp_path):
    seen = set()

    def loss(logits, labels):
        seen.add(logits.dtype)
        return F.cross_entropy(logits, labels)

    run = recu_run(epochs=1, precision="bfloat16", loss=loss)
    Trainer(run, tmp_path / "run").fit()
    kept = [*run.model.parameters(), *(value for state in run.optimizer.state.values() for value in state.values())]
    assert seen | {x.dtype for x in kept} == {torch.float32}


def test_the_run_learns_as_with_float32(tmp_path):
    narrow = Trainer(sgd_run(epochs=8, precision="bfloat16"), tmp_path / "narrow").fit()
    wide = Trainer(sgd_run(epochs=8), tmp_path / "wide").fit()
    assert narrow["train_loss"] == pytest.approx(wide["train_loss"], rel=0.1)
    assert narrow["train_loss"] != wide["train_loss"]


def test_products_of_levels_are_exact():
    layer = BinaryConv2d(
        24, 8, 3, padding=1, store=DiscreteStore, input_quantizer=Ternary(threshold=0.5, surrogate="rectangular")
    )
    x = torch.randn(2, 24, 5, 5, generator=torch.Generator().manual_seed(0))
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = layer(x)
    # Sums below 256 are whole numbers of bfloat16.
    assert narrow.dtype is torch.bfloat16
    assert exact.abs().max() < 256
    assert torch.equal(narrow.float(), exact)


def test_another_precision_is_another_run(tmp_path):
    Trainer(recu_run(epochs=1), tmp_path / "run").fit()
    with pytest.raises(CheckpointError, match="belongs to another run"):
        Trainer(recu_run(epochs=1, precision="bfloat16"), tmp_path / "run").load()
