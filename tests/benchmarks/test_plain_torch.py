import torch
from torch import nn

from benchmarks.contestants.plain_torch import PlainTorch, saved_bytes


def test_saved_bytes_leave_out_parameters_and_count_a_storage_once():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh())
    x = torch.ones(2, 4, requires_grad=True)

    def forward():
        y = model(x)  # keeps x, the weight and tanh's output
        return (y * y).sum() + (x[1:] * model[0].weight).sum()  # keep tanh's output, x and the weight again

    assert saved_bytes(model, forward) == 4 * (x.numel() + 2 * 3)


def test_a_step_learns_and_clips_the_latents():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    latent = model[1].weight
    with torch.no_grad():
        latent.fill_(0.99)
    x, labels = torch.randn((8, 1, 2, 2), generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    contestant = PlainTorch(model, torch.optim.SGD(model.parameters(), lr=1.0), [latent])
    losses = [contestant.take_step(x, labels) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert latent.abs().max() == 1
