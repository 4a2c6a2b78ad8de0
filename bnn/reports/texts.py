"""Numbers as people read them."""

from datetime import timedelta

ABSENT = "—"
"""Shown where there is no figure."""


def number(value: float | None, form: str, unit: str = "") -> str:
    """A figure by a format, and its unit."""
    return ABSENT if value is None else f"{value:{form}}{unit}"


def percent(share: float | None) -> str:
    """0.1234 becomes `12.34 %`."""
    return ABSENT if share is None else f"{100 * share:.2f} %"


def energy(energy_J: float | None) -> str:
    """0.0123 becomes `12.3 mJ`."""
    return ABSENT if energy_J is None else f"{engineering(energy_J)}J"


def duration(wall_s: float | None) -> str:
    """`12.3 s` or, from two minutes on, hours, minutes and seconds."""
    if wall_s is None:
        return ABSENT
    return f"{wall_s:.1f} s" if wall_s < 120 else f"{timedelta(seconds=round(wall_s))} h"


def size(size_bytes: float) -> str:
    """1536 becomes `1.50 KiB`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.2f} {unit}"
    return f"{size_bytes:.0f} B"


def engineering(value: float) -> str:
    """Three figures and the prefix of a unit: 0.0123 becomes `12.3 m`."""
    value = float(f"{value:.3g}")
    prefixes = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("µ", 1e-6), ("n", 1e-9))
    prefix, factor = next(((name, scale) for name, scale in prefixes if value >= scale), ("p", 1e-12))
    return f"{value / factor:.3g} {prefix}" if value else "0 "
