"""Every function of an instruction set is tried when it is loaded, and a wrong one is named."""

from types import SimpleNamespace

import pytest

from bnn.ops.cpu import check

extension = pytest.importorskip("bnn._native", reason="the native kernels are not built")
CALLS = {
    **check.product_calls(),
    **check.pooling_calls(),
    **check.element_calls(),
    **check.norm_calls(),
    **check.block_calls(),
}
FUNCTIONS = {name for name in dir(extension) if not name.startswith("_")} - {"instruction_sets", "arena"}


def test_every_function_is_tried():
    assert set(CALLS) == FUNCTIONS


@pytest.mark.parametrize("isa", extension.instruction_sets())
def test_sets_that_are_right_pass(isa):
    assert check.wrong_function(extension, isa) is None


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_that_does_nothing_is_found(name):
    isa = extension.instruction_sets()[0]
    functions = {other: getattr(extension, other) for other in FUNCTIONS}
    right = functions[name]
    functions[name] = lambda isa, *arguments: right(isa, *arguments) if isa == "generic" else None
    assert check.wrong_function(SimpleNamespace(**functions), isa) == name
