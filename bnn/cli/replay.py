"""`bnn replay`: samples of what a network has learned, for a training that adds classes where the pictures are not."""

from __future__ import annotations

from pathlib import Path

from bnn.cli.arguments import ArgumentParser, parse_size
from bnn.cli.trainer import add_recipe_option, arguments_of_run, model_of, moved_data, named_recipe
from bnn.errors import RunError, UsageError


def replay(arguments: list[str]) -> None:
    """Runs the command.

    Raises:
        RunError: the run cannot be read, or its network or data do not serve.
        RecipeError: there is no such layer, or no room for a sample of each class.
    """
    parser = ArgumentParser(
        prog="bnn replay",
        description="Writes what the first layers of a run's network make of its training pictures, a bit an element:"
        " samples that `bnn train images --start RUN --replay FILE` sees again beside the pictures of new classes.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of the run")
    parser.add_argument(
        "--freeze", metavar="LAYER", required=True, help="the last layer that will not be trained any more"
    )
    parser.add_argument("--fit", metavar="SIZE", type=parse_size, required=True, help="of all samples, as 512KiB")
    parser.add_argument("--seed", type=int, default=0, help="which samples are kept (default: %(default)s)")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where the run's data are now")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="(default: RUN/replay.safetensors)")
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"--seed is in 0..2**63-1, got {options.seed}")
    import torch

    from bnn.models.freezing import freeze
    from bnn.training.directory import read_configuration
    from bnn.training.evaluation import relabelled
    from bnn.training.recipe import load_data, values_from_json, values_to_json
    from bnn.training.replay import FILE, Replay, fill, frozen_digest, row_bytes_of, sample_bytes, save

    configuration = read_configuration(options.run)
    model = model_of(options.run, options.recipe)
    if model.preprocessing is None or not model.classes:
        raise RunError(f"{options.run} does not say its classes and how pictures become its input")
    takes = model.preprocessing
    recipe = named_recipe(options.run, configuration, options.recipe)
    given = arguments_of_run(options.run, configuration)
    if options.data_dir is not None:
        given = {**given, **values_to_json(moved_data(recipe, given, options.data_dir))}
    network = freeze(model.network, options.freeze, input_shape=takes.image_shape, hands_on_bits=True).eval()
    row_bytes = row_bytes_of(network, takes.image_shape)
    kept = Replay(
        options.fit // sample_bytes(row_bytes),
        row_bytes,
        model.classes,
        upto=options.freeze,
        mean=takes.mean,
        std=takes.std,
        network=frozen_digest(network),
        generator=torch.Generator().manual_seed(options.seed),
    )
    data = load_data(recipe, values_from_json(recipe, given))
    fill(kept, network, relabelled(data.train, data.classes, model.classes))
    lacking = [name for name, seen in zip(model.classes, kept.seen.tolist(), strict=True) if not seen]
    if lacking:
        raise RunError(f"there are no training examples of {', '.join(lacking)}, which the network knows")
    path = options.out or options.run / FILE
    save(kept, path)
    print(
        f"{len(kept):,} samples of {len(model.classes)} classes, {8 * row_bytes:,} bits each, in"
        f" {kept.nbytes:,} bytes: {path}"
    )
