"""Where values lie in memory: those that are not needed at the same time share it."""

from __future__ import annotations

from bnn.export.program import Kind, Program, Value, reads

WORD_BITS = 32


def elements(value: Value) -> int:
    """Elements of the array of its kind that a value takes: words of bits, or floats."""
    return value.pixels * -(-value.channels // WORD_BITS) if value.kind == "bits" else value.size


def placed(program: Program) -> dict[Value, int]:
    """The place of each value in the array of its kind, in elements; the program's input has none."""
    first = {step.out: number for number, step in enumerate(program.steps)}
    last = dict(first)
    for number, step in enumerate(program.steps):
        last.update({value: number for value in reads(step) if value in last})
    last[program.output] = len(program.steps)
    places: dict[Value, int] = {}
    # The largest first: small ones then fill the gaps.
    for value in sorted(first, key=lambda value: (-elements(value), value.number)):
        beside = sorted(
            (places[other], places[other] + elements(other))
            for other in places
            if other.kind == value.kind and first[other] <= last[value] and first[value] <= last[other]
        )
        place = 0
        for begin, end in beside:
            if place + elements(value) <= begin:
                break
            place = max(place, end)
        places[value] = place
    return places


def array_sizes(program: Program) -> dict[Kind, int]:
    """Elements of the array of each kind."""
    sizes: dict[Kind, int] = {}
    for value, place in placed(program).items():
        sizes[value.kind] = max(sizes.get(value.kind, 0), place + elements(value))
    return sizes
