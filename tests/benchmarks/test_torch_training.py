import torch
from torch import nn

from benchmarks.contestants.measure import Task
from benchmarks.contestants.torch_training import Trained, run, saved_bytes, training_step
from bnn.layers import BinaryLinear


def test_saved_bytes_leave_out_parameters_and_count_a_storage_once():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh())
    x = torch.ones(2, 4, requires_grad=True)

    def forward():
        y = model(x)  # keeps x, the weight and tanh's output
        return (y * y).sum() + (x[1:] * model[0].weight).sum()  # keep tanh's output, x and the weight again

    assert saved_bytes(model, forward) == 4 * (x.numel() + 2 * 3)


def test_saved_bytes_of_bits_are_those_of_the_packed_rows():
    layer = BinaryLinear(16, 3)
    x = torch.randn((2, 16), generator=torch.Generator().manual_seed(0), requires_grad=True)
    # The sign of each input and weight, and whether it lies in the window.
    assert saved_bytes(layer, lambda: layer(x)) == 2 * (2 + 3) * 16 / 8


def test_a_step_learns_and_clips_the_latents():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    latent = model[1].weight
    with torch.no_grad():
        latent.fill_(0.99)
    x, labels = torch.randn((8, 1, 2, 2), generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    trained = Trained(model, torch.optim.SGD(model.parameters(), lr=1.0), [latent])
    step = training_step(trained, x, labels)
    losses = [step() for _ in range(5)]
    assert losses[-1] < losses[0]
    assert latent.abs().max() == 1


def test_figures_are_of_the_task_and_not_of_its_rehearsal():
    built = []

    def build(task):
        model = nn.Sequential(nn.Flatten(), nn.Linear(task.input_shape[1] * task.input_shape[2], task.classes))
        built.append(task)
        return Trained(model, torch.optim.SGD(model.parameters()), [])

    task = Task("binarynet", (1, 4, 4), classes=3, batch=5, warmup=0, steps=2, threads=1)
    figures = run(task, build)
    assert [(of.model, of.batch) for of in built] == [("mlp", 2), ("binarynet", 5)]
    assert figures.parameters == 16 * 3 + 3
    assert len(figures.step_s) == 2
    assert figures.peak_above_start_bytes <= figures.peak_bytes
