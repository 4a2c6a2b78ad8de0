"""The loss by a teacher: closed forms, a float teacher under every preset, and one of a model file."""

import math
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.codec import Model
from bnn.cost.memory.of_run import predict_run
from bnn.data import Preprocessing, Split
from bnn.data.torchvision_import import import_torchvision
from bnn.errors import DataError, DistributedError, RecipeError
from bnn.methods.distillation import DistilledLoss, Teacher, torchvision_teacher
from bnn.models import mlp
from bnn.presets import prepare
from bnn.training import Run
from tests.training.tiny_runs import tiny_dataset


def fixed(logits: torch.Tensor) -> nn.Module:
    """Gives the same logits whatever the batch."""
    return nn.Sequential(nn.Flatten(), _Constant(logits))


class _Constant(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_two_classes_in_closed_form():
    """Logits (a, 0) at temperature T have the probability s(a / T): KL of two coins, times T^2."""
    loss = DistilledLoss(fixed(torch.tensor([[2.0, 0.0]])), temperature=2.0, part=0.25)
    p, q = 1 / (1 + math.exp(-1)), 0.5
    divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    found = loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.zeros(3, 1, 2, 2))
    assert found.item() == pytest.approx(0.25 * 4 * divergence + 0.75 * math.log(2))


def test_with_the_whole_part_at_temperature_1_its_gradient_is_that_of_cross_entropy_with_the_teacher():
    teacher, logits = torch.randn(1, 5), torch.randn(4, 5, requires_grad=True)
    loss = DistilledLoss(fixed(teacher), temperature=1.0, part=1.0)
    (found,) = torch.autograd.grad(loss(logits, torch.zeros(4, dtype=torch.int64), torch.zeros(4, 1)), logits)
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, teacher.softmax(1).expand(4, -1)), logits)
    assert torch.allclose(found, expected, atol=1e-6)
    assert DistilledLoss(fixed(teacher), part=0.0)(logits, torch.arange(4), torch.zeros(4, 1)) == F.cross_entropy(
        logits, torch.arange(4)
    )


@pytest.mark.parametrize(("options", "message"), [({"temperature": 0.0}, "above 0"), ({"part": 1.5}, r"in \[0, 1\]")])
def test_values_out_of_range_are_one_line(options, message):
    with pytest.raises(RecipeError, match=message):
        DistilledLoss(nn.Identity(), **options)


@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
def test_a_float_teacher_teaches_under_every_preset_and_is_counted(preset):
    data = tiny_dataset()
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    build = lambda: mlp(input_shape=(1, 6, 6), hidden=(16,), classes=4)  # noqa: E731
    step = prepare(preset, build, input_shape=(1, 6, 6))
    loss = DistilledLoss(teacher, temperature=2.0, part=1.0)
    run = Run(**vars(step) | {"training_loss": loss}, data=data, epochs=1, batch_size=20, seed=0)
    x = data.preprocessing.normalized(data.train.images[:20])
    labels = data.train.labels[:20]
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    run.model.train()
    losses = [run.take(x, labels).loss for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert teacher[1].weight.grad is None
    run.model.eval()
    assert torch.equal(run.forward(x, labels)[1], F.cross_entropy(run.model(x), labels)), "evaluation asks no teacher"
    held = [v.bytes for v in predict_run(run).table.variables if v.name == "teacher"]
    assert sum(held) == 4 * (36 * 4 + 4)


def test_a_network_of_a_file_sees_pictures_as_it_was_trained_on_and_gives_the_classes_of_the_data():
    data = tiny_dataset()
    takes = Preprocessing(data.image_shape, (0.1,), (0.5,))
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
    model = Model(network, preprocessing=takes, classes=("d", "x", "a", "b", "c"))
    images = data.train.images[:6]
    found = Teacher(model, data)(data.preprocessing.normalized(images))
    assert torch.allclose(found, model(takes.normalized(images))[:, [2, 3, 4, 0]], atol=1e-5)
    with pytest.raises(RecipeError, match="the teacher does not know the class 'b'"):
        Teacher(Model(network, preprocessing=takes, classes=("a", "c", "d")), data)
    with pytest.raises(RecipeError, match="the teacher takes images of 1x8x8, the data have 1x6x6"):
        Teacher(Model(network, preprocessing=replace(takes, image_shape=(1, 8, 8)), classes="abcd"), data)


@pytest.fixture
def published(monkeypatch) -> dict[str, torch.Tensor]:
    """Weights that take the place of torchvision's, of a small classifier."""
    models = import_torchvision("models", needed_by="this test")
    state = models.squeezenet1_1().state_dict()
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_, **__: state)
    return state


def test_a_classifier_of_torchvision_sees_pictures_as_it_was_trained_on(published):
    pictures = Split(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.arange(2))
    data = replace(
        tiny_dataset(),
        train=pictures,
        test=pictures,
        classes=tuple(f"n{k:04}" for k in range(1000)),
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.6, 0.7),
    )
    teacher = torchvision_teacher("squeezenet1_1", data).eval()
    images = data.train.images
    model = import_torchvision("models", needed_by="this test").squeezenet1_1()
    model.load_state_dict(published)
    x = Preprocessing((3, 64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).normalized(images)
    found = teacher(data.preprocessing.normalized(images))
    assert torch.allclose(found, model.eval()(x), atol=1e-4)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with pytest.raises(RecipeError, match="squeezenet1_1 tells the 1000 classes of ImageNet apart, the data have 4"):
        torchvision_teacher("squeezenet1_1", tiny_dataset())
    with pytest.raises(RecipeError, match="takes images of 3x224x224, the data have 1x6x6"):
        torchvision_teacher("squeezenet1_1", replace(tiny_dataset(), classes=data.classes))


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch):
    models = import_torchvision("models", needed_by="this test")

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(
        DataError, match=r"squeezenet1_1 cannot be fetched: .*no network.*put squeezenet1_1-.*\.pth into"
    ):
        torchvision_teacher("squeezenet1_1", tiny_dataset())


def test_the_exact_exchange_is_refused():
    step = prepare("standard", lambda: mlp(input_shape=(1, 6, 6), hidden=(8,)), input_shape=(1, 6, 6))
    step.training_loss = DistilledLoss(nn.Identity())
    step.exchange = type("Exact", (), {"shares_slices": True})()
    with pytest.raises(DistributedError, match="take --exchange count"):
        step.take(torch.zeros(2, 1, 6, 6), torch.zeros(2, dtype=torch.int64))
