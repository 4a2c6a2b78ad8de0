"""GXNOR-Net on MNIST: ternary weights that are pairs of simulated magnetic tunnel junctions."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch

from bnn.cost.gated_xnor import GatedXnorMeter
from bnn.data import RandomShift, mnist
from bnn.models import initialize
from bnn.models.gxnor_cnn import gxnor_cnn
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.training import Run, warmup_cosine
from hwsim.devices import junctions
from hwsim.meters import DeviceMeter
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore
from hwsim.write_schemes import SchemeName, scheme_named


def recipe(
    *,
    data_dir: Path,
    epochs: int = 100,
    batch_size: int = 100,
    learning_rate: float = 1e-2,
    momentum: float = 0.997,
    m: float | None = 3.0,
    scheme: SchemeName = "read-first",
    preset: Literal["consistent", "paper", "ut_austin"] = "consistent",
    overdrive: float = 3.0,
    spread: float = 0.0,
    stuck: float = 0.0,
    temperature_K: float | None = None,
    shift: float = 0.0,
    validation: float = 0.1,
    seed: int = 0,
    download: bool = False,
) -> Run:
    """Trains a ternary convolutional network on MNIST whose weights are junctions that switch at random.

    Everything but the store is that of mnist_gxnor.py: the transitions come from pulses on junctions. The schemes
    linear, pedestal and pre-distorted write without knowledge of a cell's state; read-first is pre-distorted and reads
    the cell before.

    Args:
        data_dir: folder of torchvision's MNIST, that is with MNIST/raw in it.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at the start; a cosine takes it to 0.
        momentum: decay of Adam's mean; see DST for why it is long.
        m: steepness of the tanh that gives the probability of a transition; null keeps every step on average.
        scheme: how a probability becomes pulses.
        preset: the junction, see docs/hwsim.md; the figures of paper are recalled and not verified.
        overdrive: current of a pulse over the critical current.
        spread: relative deviation, from junction to junction, of resistance, magnetoresistance, barrier and critical
            current each; the pulses are made for the mean.
        stuck: part of the junctions that never switch; half of them parallel, half antiparallel.
        temperature_K: of the array, where it is not the 300 K that the pulses are made for.
        shift: largest random shift of the training images, as a part of their height and width.
        validation: part of the training images to hold out.
        seed: of the weights, the junctions, the transitions, the order of the images and the validation split.
        download: fetch MNIST into data_dir if it is not there.
    """
    data = mnist(data_dir, download=download)
    store = partial(
        DeviceStore,
        device=getattr(junctions, preset)(),
        scheme=scheme_named(scheme, m=m, overdrive=overdrive),
        nonidealities=NonIdealities.uniform(spread=spread, stuck=stuck, temperature_K=temperature_K),
    )
    model = gxnor_cnn(input_shape=data.image_shape, classes=data.num_classes, store=store)
    initialize(model, generator=torch.Generator().manual_seed(seed))
    return Run(
        model=model,
        data=data,
        optimizer=DST(Adam(model.parameters(), lr=learning_rate, betas=(momentum, 0.999), seed=seed), m=m),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        augment=[RandomShift(fraction=shift)] if shift else [],
        callbacks=[GatedXnorMeter(), DeviceMeter()],
    )
