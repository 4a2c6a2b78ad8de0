"""What simulated junctions cost beside ideal ternary weights.

    python -m benchmarks.hwsim_speed [--steps 30] [--stores NAMES] [--threads 2] [--json FILE]

Two figures, from one run: the training step of the recipe `gxnor`'s network with junctions beside the same step with
ideal weights, the two taken in turns; and how long ten million junctions take to get a pulse each, in one store. The
network has 581,408 weights, the batch is of noise.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from bnn.models import initialize
from bnn.models.gxnor_cnn import gxnor_cnn
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.weights import DiscreteStore, StoreFactory
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore
from hwsim.tiles import Tiles
from hwsim.write_schemes import scheme_named

CELLS = (2500, 2000)
"""Of the single store: 10^7 junctions."""


def stores() -> dict[str, StoreFactory]:
    """What is compared, by its name in the table; the first is the ideal one."""
    spread = NonIdealities.uniform(spread=0.05)
    return {
        "ideal": DiscreteStore,
        "read-first": DeviceStore,
        "pre-distorted": partial(DeviceStore, scheme=scheme_named("pre-distorted")),
        "pedestal": partial(DeviceStore, scheme=scheme_named("pedestal")),
        "linear": partial(DeviceStore, scheme=scheme_named("linear")),
        "paper": partial(DeviceStore, scheme=scheme_named("paper")),
        "gated-pedestal": partial(DeviceStore, scheme=scheme_named("gated-pedestal")),
        "amplitude": partial(DeviceStore, scheme=scheme_named("amplitude")),
        "spread of 5 %": partial(DeviceStore, nonidealities=spread),
        "tiles": partial(DeviceStore, tiles=Tiles(wire_ohm=1.0, adc_bits=6, dac_bits=8, sense_offset=0.1)),
        "tiles with noise": partial(
            DeviceStore, tiles=Tiles(wire_ohm=1.0, adc_bits=6, dac_bits=8, sense_offset=0.1, temperature_K=300.0)
        ),
    }


def training_step(store: StoreFactory, *, batch_size: int) -> Callable[[], None]:
    """A step of the network on one batch of noise."""
    model = gxnor_cnn(store=store)
    initialize(model, generator=torch.Generator().manual_seed(0))
    optimizer = DST(Adam(model.parameters(), lr=1e-2))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((batch_size, 1, 28, 28), generator=generator)
    y = torch.randint(10, (batch_size,), generator=generator)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds_of_pulses(store: nn.Module, *, repeats: int) -> list[float]:
    """Times in which every junction of a store gets a pulse that is made for a probability about 0.1."""
    assert isinstance(store, DeviceStore)
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(store.shape, generator=generator).mul_(0.1)
    taken = []
    for _ in range(repeats + 1):
        before = time.perf_counter()
        store.program(delta, generator)
        taken.append(time.perf_counter() - before)
    return taken[1:]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each (default: %(default)s)")
    parser.add_argument("--stores", default=",".join(stores()), help="beside the ideal one (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="images a step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file for the times in seconds")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    made, names = stores(), options.stores.split(",")
    if unknown := set(names) - made.keys():
        parser.error(f"there is no store {unknown.pop()!r}; there are {', '.join(made)}")
    chosen = {name: made[name] for name in made if name in ("ideal", *names)}
    steps = {name: training_step(store, batch_size=options.batch) for name, store in chosen.items()}
    step_s: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.steps + 3):
        for name, step in steps.items():
            before = time.perf_counter()
            step()
            if turn >= 3:  # the first ones make tables and fill caches
                step_s[name].append(time.perf_counter() - before)
    ideal = statistics.median(step_s["ideal"])
    print(f"training step, batch {options.batch}, {options.threads} threads, median of {options.steps}")
    for name, taken in step_s.items():
        median = statistics.median(taken)
        print(f"  {name:28} {median * 1e3:7.1f} ms   {median / ideal:.2f} of ideal")

    pulse_s = seconds_of_pulses(DeviceStore(CELLS, scheme=scheme_named("pre-distorted")), repeats=5)
    print(f"pulses on 10^7 junctions       {statistics.median(pulse_s):7.3f} s")
    if options.json is not None:
        times = {"threads": options.threads, "load": Path("/proc/loadavg").read_text(encoding="utf-8").split()[0]}
        options.json.write_text(json.dumps({**times, "step_s": step_s, "pulse_s": pulse_s}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
