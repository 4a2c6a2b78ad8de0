"""GXNOR-Net on simulated magnetic tunnel junctions, whose random switching performs the ternary transitions."""

from functools import partial
from pathlib import Path
from typing import Literal

from bnn.cost.meters.gated_xnor import GatedXnorMeter
from bnn.data import Dataset, load_dataset
from bnn.methods.gxnor import GxnorDataset, GxnorModel, gxnor_augmentation, gxnor_step
from bnn.training import Precision, Run, warmup_cosine
from hwsim.devices import junctions
from hwsim.devices.device_file import read_device
from hwsim.meters import DeviceMeter
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore
from hwsim.tiles import tiles_of_size
from hwsim.write_schemes import SchemeName, scheme_named


def data(
    *, data_dir: Path, dataset: GxnorDataset = "mnist", train_images: int | None = None, download: bool = False
) -> Dataset:
    """Loads the data set.

    Args:
        data_dir: folder of torchvision's files; for CIFAR-10 also an image folder with train/CLASS and test/CLASS.
        dataset: MNIST has a network of its own, CIFAR-10 and SVHN share one.
        train_images: take this many of the training images, at random; null takes all.
        download: fetch the data into data_dir if they are not there.
    """
    return load_dataset(dataset, data_dir, download=download, train_images=train_images)


def recipe(
    data: Dataset,
    *,
    dataset: GxnorDataset = "mnist",
    model: GxnorModel | None = None,
    epochs: int = 100,
    batch_size: int = 100,
    learning_rate: float = 1e-2,
    momentum: float = 0.997,
    m: float | None = 3.0,
    scheme: SchemeName = "read-first",
    junction: Literal["consistent", "paper", "sot", "ut_austin", "vcma"] = "consistent",
    device_file: Path | None = None,
    overdrive: float = 3.0,
    voltage_V: float | None = None,
    full_pulse_s: float | None = None,
    gain: float | None = None,
    offset_probability: float | None = None,
    gate: float | None = None,
    clock_s: float = 0.0,
    amplitude_noise: float = 0.0,
    jitter_s: float = 0.0,
    write_error: float = 0.0,
    spread: float = 0.0,
    correlated: bool = False,
    area_spread: float | None = None,
    resistance_spread: float | None = None,
    anisotropy_spread: float | None = None,
    tmr_spread: float | None = None,
    barrier_spread: float | None = None,
    critical_current_spread: float | None = None,
    critical_current_ratio_spread: float = 0.0,
    stray_field_T: float = 0.0,
    stray_field_spread_T: float = 0.0,
    temperature_K: float | None = None,
    stuck: float = 0.0,
    stuck_parallel: float | None = None,
    stuck_antiparallel: float | None = None,
    shorted: float = 0.0,
    short_resistance_ohm: float = 400.0,
    idle_s: float = 0.0,
    reads_per_write: float = 0.0,
    endurance_cycles: int | None = None,
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

    Everything but the store is that of gxnor.py: the transitions come from pulses on junctions. The schemes paper,
    linear, pedestal, gated-pedestal and amplitude are what circuits do, without knowledge of a cell's state.
    Pre-distorted and read-first, which reads the cell before, invert the law of switching: the ideal bound.

    Args:
        data: see the function `data`.
        dataset: MNIST has a network of its own, CIFAR-10 and SVHN share one.
        model: another network than that; of CIFAR-10, gxnor_cnn takes an eightieth of the products of gxnor_vgg.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at the start; a cosine takes it to 0.
        momentum: decay of Adam's mean; see DST for why it is long.
        m: steepness of the tanh that gives the probability of a transition; null keeps every step on average.
        scheme: how a probability becomes pulses.
        junction: see docs/hwsim.md; the figures of paper are recalled and not verified.
        device_file: a device of one's own in the junction's place, a TOML file as `hwsim fit` writes it.
        overdrive: current of a full pulse over the critical current.
        voltage_V: in place of the overdrive, the voltage of a full pulse in both directions.
        full_pulse_s: width of a full pulse; null makes one that switches with 0.999.
        gain: of linear and paper: full pulses of width that a step of a whole level adds; null takes the scheme's own,
            as do the next two.
        offset_probability: of linear and paper: with which the least pulse alone switches.
        gate: requested probability below which there is no pulse.
        clock_s: period of the clock whose multiples the widths are.
        amplitude_noise: relative deviation of the voltage, from pulse to pulse.
        jitter_s: deviation of the width, from pulse to pulse.
        write_error: part of the pulses that do nothing.
        spread: relative deviation, from junction to junction, of resistance, magnetoresistance, barrier and critical
            current each, drawn independently, which is a worst case; the pulses are made for the mean.
        correlated: the spread is that of area, resistance-area product, anisotropy field and magnetoresistance, as
            on a wafer.
        area_spread: of the area, in place of spread, as are the next five.
        resistance_spread: of the resistance-area product.
        anisotropy_spread: of the anisotropy field.
        tmr_spread: of the magnetoresistance.
        barrier_spread: of the energy barrier on its own.
        critical_current_spread: of the critical current on its own.
        critical_current_ratio_spread: of the critical current of one direction over that of the other.
        stray_field_T: axial field that the pulses are not made for; positive drives towards antiparallel.
        stray_field_spread_T: its deviation from junction to junction.
        temperature_K: of the array, where it is not the 300 K that the pulses are made for.
        stuck: part of the junctions that never switch; half of them parallel, half antiparallel.
        stuck_parallel: of them those that stay parallel, in place of half.
        stuck_antiparallel: likewise.
        shorted: part of the junctions whose barrier has broken down.
        short_resistance_ohm: of those.
        idle_s: time without voltage before each write.
        reads_per_write: read pulses that each cell sees before each write.
        endurance_cycles: switches after which a junction stays as it is.
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
        scheme=scheme_named(
            scheme,
            m=m,
            overdrive=overdrive,
            voltage_V=voltage_V and (voltage_V, -voltage_V),
            full_pulse_s=full_pulse_s,
            gain=gain,
            offset_probability=offset_probability,
            gate=gate,
        ),
        nonidealities=NonIdealities.uniform(
            spread=spread,
            correlated=correlated,
            area_spread=area_spread,
            resistance_spread=resistance_spread,
            anisotropy_spread=anisotropy_spread,
            tmr_spread=tmr_spread,
            barrier_spread=barrier_spread,
            critical_current_spread=critical_current_spread,
            critical_current_ratio_spread=critical_current_ratio_spread,
            stray_field_T=stray_field_T,
            stray_field_spread_T=stray_field_spread_T,
            temperature_K=temperature_K,
            clock_s=clock_s,
            amplitude_noise=amplitude_noise,
            jitter_s=jitter_s,
            write_error=write_error,
            stuck=stuck,
            stuck_parallel=stuck_parallel,
            stuck_antiparallel=stuck_antiparallel,
            shorted=shorted,
            short_resistance_ohm=short_resistance_ohm,
            idle_s=idle_s,
            reads_per_write=reads_per_write,
            endurance_cycles=endurance_cycles,
        ),
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
        model=model,
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
