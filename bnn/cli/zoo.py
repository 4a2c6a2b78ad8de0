"""`bnn zoo`: the networks of larq-zoo and their weights."""

from __future__ import annotations

from pathlib import Path

from bnn.cli.arguments import ArgumentParser, require_choice
from bnn.errors import DataError, UsageError

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as larq-zoo has them


def zoo(arguments: list[str]) -> None:
    """Lists the networks, imports a file of weights or verifies an imported one."""
    parser = ArgumentParser(prog="bnn zoo", description="The networks of larq-zoo and their weights.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=ArgumentParser)
    commands.add_parser("list", help="the networks, with the files of their weights")
    importing = commands.add_parser("import", help="read a weight file of larq-zoo (.h5)")
    importing.add_argument("name", metavar="MODEL", help="one of `bnn zoo list`")
    importing.add_argument("file", metavar="FILE", type=Path, help="the file of larq-zoo (.h5)")
    importing.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        type=Path,
        required=True,
        help="to write: .safetensors to train, .bnnz to predict",
    )
    verifying = commands.add_parser("verify", help="check an imported file, and this machine's arithmetic")
    verifying.add_argument("name", metavar="MODEL", help="one of `bnn zoo list`")
    verifying.add_argument("file", metavar="FILE", type=Path, help="what `bnn zoo import` wrote (.safetensors)")
    options = parser.parse_args(arguments)
    from bnn.models.zoo import RELEASED

    if options.command == "list":
        _list()
        return
    require_choice("network of the zoo", options.name, RELEASED)
    if options.command == "import":
        _import(options.name, options.file, options.out)
    else:
        _verify(options.name, options.file)


def _list() -> None:
    from rich.console import Console

    from bnn.reports.zoo import print_zoo

    print_zoo(Console())


def _import(name: str, file: Path, out: Path) -> None:
    if out.suffix not in (".safetensors", ".bnnz"):
        raise UsageError(f"{out} is neither .safetensors, to train, nor .bnnz, to predict: name such a file with -o")
    from bnn.codec import described, save
    from bnn.data.preprocessing import Preprocessing
    from bnn.models.zoo import RELEASED, weights_file
    from bnn.models.zoo.keras_file import read_weights

    model, digest = read_weights(file, name)
    if digest == RELEASED[name].sha256:
        print(f"{file}: the weights of {name} that larq-zoo has published (SHA-256 {digest[:16]}...)")
    else:
        print(f"{file}: fits {name}, but is not the file that larq-zoo has published: its SHA-256 is {digest}")
    if out.suffix == ".bnnz":
        about = described(
            model,
            preprocessing=Preprocessing(image_shape=(3, 224, 224), mean=_MEAN, std=_STD),
            about={"zoo": name, "source_sha256": digest},
        )
        save(model, out, about=about, quick=True)  # shorter codings gain little on binary weights
    else:
        weights_file.save(model, out, name=name, source_sha256=digest)
    print(f"weights: {out}")


def _verify(name: str, file: Path) -> None:
    from bnn.models.zoo import RELEASED, checking, weights_file

    released = RELEASED[name]
    model, source = weights_file.load(file, name)
    if (fault := checking.first_fault(model)) is not None:
        raise DataError(f"{file}: {fault}: import it anew")
    counted = checking.parameters(model), checking.binary_weights(model)
    if counted != (released.parameters, released.binary_weights):
        raise DataError(f"{name} has {counted} parameters and binary weights, larq-zoo's has other numbers")
    print(f"{file}: {counted[0]:,} parameters, {counted[1]:,} of them binary weights, as larq-zoo counts them")
    published = "that larq-zoo has published" if source == released.sha256 else "that is none of larq-zoo's"
    print(f"weights: from a file {published}" if source else "weights: the file does not say where they are from")
    case = checking.golden()[name]["cases"][0]
    difference = checking.largest_difference(name, case)
    if not difference <= checking.TOLERANCE:
        raise DataError(
            f"this machine computes {name} otherwise than larq-zoo: with weights made for the check, logits differ by"
            f" {difference:.2g}; report it with the output of `bnn --version`"
        )
    check = f"logits of larq-zoo's {released.larq_name}, with weights made for the check"
    print(f"arithmetic: {check}, within {difference:.1e}")
