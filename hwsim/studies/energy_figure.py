"""The figure that answers when a junction pays: bars of a step's energy, part by part."""

from pathlib import Path

from hwsim.array_energy import PARTS
from hwsim.studies.figures import figure
from hwsim.studies.tables import Table

# By who takes it: greys for CMOS, colours for the tiles.
_SHADES = ("#e8e8e8", "#bbbbbb", "#888888", "#555555", "#0072b2", "#cc79a7", "#d55e00", "#009e73")


def draw(table: Table, path: Path, *, title: str = "") -> None:
    """Draws for each price table a panel with a bar for each variant, in per cent of all in CMOS.

    Args:
        table: as of `energy.energy`.
        path: of the file, .svg or .png.
        title: above.

    Raises:
        RunError: the file cannot be written.
    """
    names = list(dict.fromkeys(table["prices"]))
    with figure(path, title, panels=len(names)) as panels:
        for axes, name in zip(panels, names, strict=True):
            rows = [row for row, prices in enumerate(table["prices"]) if prices == name]
            whole = table["total_J"][rows[0]]
            left = [0.0] * len(rows)
            for part, shade in zip(PARTS, _SHADES, strict=True):
                share = [100 * table[f"{part}, J"][row] / whole for row in rows]
                axes.barh(range(len(rows)), share, left=left, color=shade, label=part)
                left = [before + now for before, now in zip(left, share, strict=True)]
            for place, total in enumerate(left):
                axes.text(total, place, f" {total:.0f} %", va="center", fontsize=8)
            axes.set_yticks(
                range(len(rows)), [table["products"][row].replace(" on ", "\non ") for row in rows], fontsize=8
            )
            axes.invert_yaxis()
            axes.set_xlim(0, 118)
            axes.grid(visible=False, axis="y")
            axes.set_xlabel(f"{name}: % of {1e3 * whole:.3g} mJ", fontsize=8)
        handles, parts = panels[0].get_legend_handles_labels()
        picture = panels[0].get_figure()
        assert picture is not None
        picture.legend(handles, parts, loc="outside lower center", ncols=4, fontsize=8)
