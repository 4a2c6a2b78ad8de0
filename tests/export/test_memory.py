"""Values that are needed at the same time do not share memory."""

from bnn.export import program_of
from bnn.export.memory import array_sizes, elements, placed
from bnn.export.program import reads
from bnn.models import resnet8
from tests.export.networks import network


def test_living_values_lie_apart_and_dead_ones_make_room():
    program = program_of(network(resnet8, (3, 32, 32), preset="edge-min"))
    places, sizes = placed(program), array_sizes(program)
    total = 0
    for number, step in enumerate(program.steps):
        later = {value for other in program.steps[number:] for value in reads(other)} | {program.output}
        made = {other.out for other in program.steps[: number + 1]}
        living = [value for value in places if (value in later and value in made) or value == step.out]
        total = max(total, sum(elements(value) for value in living))
        for value in living:
            assert places[value] + elements(value) <= sizes[value.kind]
            for other in living:
                if other != value and other.kind == value.kind:
                    apart = places[value] + elements(value) <= places[other]
                    assert apart or places[other] + elements(other) <= places[value]
    assert sum(sizes.values()) < 1.5 * total
    assert sum(sizes.values()) < sum(map(elements, places)) / 2
