"""A binary network on your own pictures: any folder with a folder of each class."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bnn.data import Augmentation, Dataset, RandomCrop, RandomFlip, image_folder
from bnn.errors import DataError, RecipeError, near_match
from bnn.methods.distillation import DistilledLoss, trained_teacher
from bnn.models import binarynet, cnv, initialize, mlp, resnet8, resnet18, resnet20, resnete18, vgg_small
from bnn.models.freezing import freeze as frozen
from bnn.models.torchvision_networks import PREFIX, torchvision_network
from bnn.presets import Preset, prepare
from bnn.training import Precision, Run, warmup_cosine
from bnn.training.replay import KeepReplay, upto_of, with_earlier_classes
from bnn.training.replay import load as load_replay
from bnn.training.start import classes_of, option_of, shape_of, take_weights, weights_of

# Each with what the height and width of its images are multiples of, and their least.
_MODELS = {
    "resnet8": (resnet8, 8, 8),
    "resnet18": (resnet18, 8, 8),
    "resnet20": (resnet20, 4, 4),
    "resnete18": (resnete18, 32, 32),
    "vgg_small": (vgg_small, 8, 8),
    "binarynet": (binarynet, 8, 8),
    "cnv": (cnv, 1, 32),
    "mlp": (mlp, 1, 1),
}


def data(
    *,
    data_dir: Path,
    image_size: int = 64,
    grey: bool = False,
    test_part: float = 0.2,
    skip_damaged: bool = False,
    seed: int = 0,
) -> Dataset:
    """Loads pictures of any size and colours.

    Args:
        data_dir: a folder with train/CLASS/PICTURE and test/CLASS/PICTURE, or with CLASS/PICTURE, which is then
            divided.
        image_size: height and width in pixels that pictures are scaled to, after their centre has been cut out.
        grey: whether pictures become grey.
        test_part: part of each class to test on, of a folder that has no part for it.
        skip_damaged: whether to leave out pictures that cannot be decoded.
        seed: of the division.
    """
    return image_folder(
        data_dir,
        size=image_size,
        channels=1 if grey else 3,
        test_part=test_part,
        seed=seed,
        skip_damaged=skip_damaged,
        name="images",
    )


def recipe(
    data: Dataset,
    *,
    model: str | None = None,
    preset: Preset = "standard",
    epochs: int = 60,
    batch_size: int = 32,
    learning_rate: float | None = None,
    flip: bool = True,
    crop: bool = True,
    precision: Precision = "float32",
    validation: float = 0.1,
    start: Path | None = None,
    freeze: str | None = None,
    replay: Path | None = None,
    teacher: Path | None = None,
    temperature: float = 4.0,
    teacher_part: float = 0.9,
    seed: int = 0,
) -> Run:
    """Trains a binary network on a folder of pictures.

    The classes are the names of the folders, and are kept with the network, so that `bnn predict` names them.

    Args:
        data: see the function `data`.
        model: the network: resnet8, resnet18, resnet20, resnete18, vgg_small, binarynet, cnv or mlp of `bnn models`; or
            torchvision:NAME, a classifier of torchvision with binary layers, as torchvision:resnet18. By default that
            of the run that `start` names, or else resnet8.
        preset: how much memory the training takes; see bnn.presets.
        epochs: passes over the training images.
        batch_size: images a step, with those that are replayed.
        learning_rate: at the start; a cosine takes it to 0. By default the preset's own.
        flip: whether pictures are mirrored at random; leave it out where left and right differ, as in letters.
        crop: whether pictures are moved at random, by up to an eighth of their size.
        precision: of the products; bfloat16 is several times as fast on some processors.
        validation: part of the training images to hold out.
        start: a run's directory or a model file (.bnnz) whose weights the layers of the same name and shape begin with;
            the others, such as a head for other classes, are drawn.
        freeze: the last layer that is not trained any more, by its name, or how many layers with weights are not; with
            `start`.
        replay: a file of `bnn replay`: samples of the classes that `start` knows, which the training sees again beside
            the pictures of new classes, so that both are known in the end. It freezes the layers before the samples.
        teacher: a run's directory or a model file (.bnnz) that knows the classes and takes pictures of the same size,
            from whose outputs the network learns beside the labels (see bnn.methods.distillation).
        temperature: of the teacher's outputs.
        teacher_part: of the teacher in the loss, in [0, 1]; the labels have the rest.
        seed: of the weights, the order of the images, the augmentation, the division and the validation split.
    """
    if data.num_classes < 2 and replay is None:
        raise DataError(f"{data.source} has the one class {data.classes[0]}: a network tells at least 2 apart")
    if (freeze or replay) is not None and start is None:
        raise RecipeError("drawn weights are not worth freezing: say with --start what to begin with")
    if teacher is not None and replay is not None:
        raise RecipeError("a teacher has no outputs for samples that are replayed: leave out --teacher or --replay")
    kept = None if replay is None else load_replay(replay, generator=torch.Generator().manual_seed(seed))
    if kept is not None:
        data, freeze = with_earlier_classes(data, kept), upto_of(kept, freeze)
    network, notes = _network(model or _model_of(start), data), []

    def build() -> nn.Module:
        made = network()
        if start is None:
            return made
        initialize(made, generator=torch.Generator().manual_seed(seed))
        classes = (classes_of(start), data.classes)
        notes.append(str(take_weights(made, weights_of(start), str(start), classes=classes)))
        if shape_of(start) not in (None, data.image_shape):
            notes.append(f"{start} takes images of {_size(shape_of(start))}, these are {_size(data.image_shape)}")
        if freeze is None:
            return made
        return frozen(made, freeze, input_shape=data.image_shape, hands_on_bits=kept is not None)

    step = prepare(
        preset,
        build,
        input_shape=data.image_shape,
        learning_rate=learning_rate,
        seed=seed,
        keep_weights=start is not None,
    )
    generators = dict(step.generators)
    if kept is not None:
        batch_size = kept.prepare(step.model, data.num_classes, batch_size=batch_size, source=str(replay))
        generators["replay"] = kept.generator
        notes.append(f"{kept}, beside {batch_size} new ones")
    distilled = None
    if teacher is not None:
        distilled = DistilledLoss(trained_teacher(teacher, data), temperature=temperature, part=teacher_part)
    augment: list[Augmentation] = [RandomFlip()] if flip else []
    if crop:
        augment.insert(0, RandomCrop(padding=max(1, data.image_shape[1] // 8)))
    return Run(
        **vars(step) | {"precision": precision, "replay": kept, "generators": generators, "training_loss": distilled},
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        augment=augment,
        callbacks=[] if kept is None else [KeepReplay()],
        notes=notes,
    )


def _model_of(start: Path | None) -> str:
    """The network that a run was trained with, which may have been that of the run that it began with."""
    if start is None:
        return "resnet8"
    name, earlier = option_of(start, "model"), option_of(start, "start")
    if name is not None or earlier is None:
        return name or "resnet8"
    if not Path(earlier).exists():
        raise RecipeError(f"{start} does not say which network it is: name it with --model")
    return _model_of(Path(earlier))


def _network(name: str, data: Dataset) -> Callable[[], nn.Module]:
    """Makes the network for the images and classes of the data."""
    if name.startswith(PREFIX):
        own_name = name.removeprefix(PREFIX)
        return lambda: torchvision_network(own_name, input_shape=data.image_shape, classes=data.num_classes).network
    if name not in _MODELS:
        raise RecipeError(
            f"there is no network {name!r}{near_match(name, _MODELS)}; there are: {', '.join(_MODELS)}, {PREFIX}NAME"
        )
    make, step_size, least = _MODELS[name]
    _, height, _ = data.image_shape
    if height % step_size or height < least:
        raise RecipeError(f"{name} takes images of multiples of {step_size} pixels from {least} on, not {height}")
    return partial(make, input_shape=data.image_shape, classes=data.num_classes)


def _size(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))
