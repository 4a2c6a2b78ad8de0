"""What happens to accumulators in torch's own wrappers for several processes; run by each of them."""

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from bnn.distributed import Exchange, exchanging
from bnn.errors import BnnError
from bnn.models import mlp
from bnn.presets import prepare

SHAPE = (1, 4, 4)


def _error(preset: str, wrap) -> Tensor:
    """The line of the error that the first step ends with, as bytes; none where there is no error."""
    step = prepare(preset, lambda: mlp(input_shape=SHAPE, classes=4, hidden=(16,)), input_shape=SHAPE)
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    try:
        wrapped = wrap(step.model)
        x = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(torch.distributed.get_rank()))
        nn.functional.cross_entropy(wrapped(x), torch.arange(8) % 4).backward()
    except BnnError as error:
        # Nothing has been stepped.
        if wrap is not fully_shard:
            assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
        return torch.tensor(list(str(error).encode()), dtype=torch.uint8)
    return torch.zeros(0, dtype=torch.uint8)


def errors() -> dict[str, Tensor]:
    torch.distributed.init_process_group("gloo")
    found = {}
    for preset in ("edge", "edge-min"):
        found[f"{preset} DDP"] = _error(preset, DistributedDataParallel)
        found[f"{preset} fully_shard"] = _error(preset, fully_shard)
    found["standard DDP"] = _error("standard", DistributedDataParallel)
    with exchanging(Exchange()):
        found["edge alone"] = _error("edge", lambda model: model)
    torch.distributed.destroy_process_group()
    return found
