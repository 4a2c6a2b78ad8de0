"""GXNOR-Net on simulated magnetic tunnel junctions, whose random switching performs the ternary transitions."""

from functools import partial
from pathlib import Path
from typing import Literal

from bnn.cost.meters.gated_xnor import GatedXnorMeter
from bnn.data import Dataset, load_dataset
from bnn.methods.gxnor import GxnorDataset, gxnor_augmentation, gxnor_step
from bnn.training import Precision, Run, warmup_cosine
from hwsim.devices import junctions
from hwsim.devices.device_file import read_device
from hwsim.meters import DeviceMeter
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore
from hwsim.tiles import tiles_of_size
from hwsim.write_schemes import SchemeName, scheme_named


def data(*, data_dir: Path, dataset: GxnorDataset = "mnist", download: bool = False) -> Dataset:
    """Loads the data set.

    Args:
        data_dir: folder of torchvision's files; for CIFAR-10 also an image folder with train/CLASS and test/CLASS.
        dataset: MNIST has a network of its own, CIFAR-10 and SVHN share one.
        download: fetch the data into data_dir if they are not there.
    """
    return load_dataset(dataset, data_dir, download=download)


def recipe(
    data: Dataset,
    *,
    dataset: GxnorDataset = "mnist",
    epochs: int = 100,
    batch_size: int = 100,
    learning_rate: float = 1e-2,
    momentum: float = 0.997,
    m: float | None = 3.0,
    scheme: SchemeName = "read-first",
    junction: Literal["consistent", "paper", "ut_austin"] = "consistent",
    device_file: Path | None = None,
    overdrive: float = 3.0,
    spread: float = 0.0,
    stuck: float = 0.0,
    temperature_K: float | None = None,
    tile_size: int | None = None,
    wire_ohm: float = 0.0,
    adc_bits: int | None = None,
    dac_bits: int | None = None,
    sense_offset: float = 0.0,
    thermal_noise: bool = False,
    shift: float = 0.0,
    precision: Precision = "float32",
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains a ternary convolutional network whose weights are pairs of junctions that switch at random.

    Everything but the store is that of gxnor.py: the transitions come from pulses on junctions. The schemes linear,
    pedestal and pre-distorted write without knowledge of a cell's state; read-first is pre-distorted and reads the
    cell before.

    Args:
        data: see the function `data`.
        dataset: MNIST has a network of its own, CIFAR-10 and SVHN share one.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at the start; a cosine takes it to 0.
        momentum: decay of Adam's mean; see DST for why it is long.
        m: steepness of the tanh that gives the probability of a transition; null keeps every step on average.
        scheme: how a probability becomes pulses.
        junction: see docs/hwsim.md; the figures of paper are recalled and not verified.
        device_file: a device of one's own in the junction's place, a TOML file as `hwsim fit` writes it.
        overdrive: current of a pulse over the critical current.
        spread: relative deviation, from junction to junction, of resistance, magnetoresistance, barrier and critical
            current each; the pulses are made for the mean.
        stuck: part of the junctions that never switch; half of them parallel, half antiparallel.
        temperature_K: of the array, where it is not the 300 K that the pulses are made for.
        tile_size: cells on a line of the arrays that products are made on, forward and backward; null computes them.
        wire_ohm: of such a line, between two cells.
        adc_bits: of the converters behind the lines; null for no steps.
        dac_bits: of what drives the lines; null for no steps.
        sense_offset: deviation of the offset of each line's amplifier, in units of one cell's current.
        thermal_noise: whether lines have that of their cells, at 300 K.
        shift: largest random shift of MNIST's training images, as a part of their height and width.
        precision: of the products; levels are exact in bfloat16, too, which is far faster on some processors.
        validation: part of the training images to hold out.
        seed: of the weights, junctions and transitions, the order of the images, the augmentation and the validation
            split.
    """
    augment = gxnor_augmentation(dataset, shift=shift)
    store = partial(
        DeviceStore,
        device=read_device(device_file) if device_file else getattr(junctions, junction)(),
        scheme=scheme_named(scheme, m=m, overdrive=overdrive),
        nonidealities=NonIdealities.uniform(spread=spread, stuck=stuck, temperature_K=temperature_K),
    )
    tiles = tiles_of_size(
        tile_size,
        wire_ohm=wire_ohm,
        adc_bits=adc_bits,
        dac_bits=dac_bits,
        sense_offset=sense_offset,
        temperature_K=300.0 if thermal_noise else None,
    )
    step = gxnor_step(
        data,
        store=partial(store, tiles=tiles),
        learning_rate=learning_rate,
        momentum=momentum,
        m=m,
        precision=precision,
        seed=seed,
    )
    return Run(
        **vars(step),
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        augment=augment,
        callbacks=[GatedXnorMeter(), DeviceMeter()],
    )
