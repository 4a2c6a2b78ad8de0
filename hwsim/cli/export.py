"""`hwsim export`: a junction as a compact model for simulators of circuits."""

from pathlib import Path

from bnn.cli.arguments import ArgumentParser
from bnn.errors import UsageError
from bnn.training.directory import replace_file
from hwsim.cli.files import read_file
from hwsim.devices import named
from hwsim.devices.device_file import read_device
from hwsim.devices.verilog_a import verilog_a


def export(arguments: list[str]) -> None:
    """Writes a Verilog-A module, by the arguments after `hwsim export`, and prints where it holds.

    Raises:
        UsageError: arguments that cannot be understood, or a junction of measured tables.
        DataError: the device file cannot be read.
        RunError: the module cannot be written.
    """
    parser = ArgumentParser(
        prog="hwsim export",
        description="Writes a junction as a Verilog-A module, whose file names the module as well.",
        epilog="The module switches when the share u of junctions has switched earlier; vary u to draw junctions.",
    )
    parser.add_argument("-o", "--output", metavar="MODULE.va", type=Path, required=True)
    parser.add_argument(
        "--junction", choices=list(named.junctions()), default="consistent", help="its name (default: %(default)s)"
    )
    parser.add_argument("--device", metavar="TOML", type=Path, help="in its place a file, as `hwsim fit` writes")
    parser.add_argument("--temperature-K", type=float, help="of the junction (default: 300)")
    options = parser.parse_args(arguments)
    source = f"junction {options.junction} of hwsim" if options.device is None else f"device file {options.device.name}"
    try:
        if options.device is None:
            device = named.junctions()[options.junction]()
        else:
            device = read_file(read_device, options.device)
        if options.temperature_K is not None:
            device = device.at_temperature(options.temperature_K)
            source += f" at {options.temperature_K:g} K"
        text = verilog_a(device, name=options.output.stem, source=source)
    except ValueError as error:
        raise UsageError(str(error)) from None
    replace_file(options.output, text)
    print(f"{options.output}: holds for an overdrive of 2 or more, and never switches below the critical current")
