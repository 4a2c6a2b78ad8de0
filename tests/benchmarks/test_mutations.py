import ast

import pytest

from benchmarks import mutations
from benchmarks.mutants import Mutant, mutants

MODULE = '''"""A module."""

from dataclasses import dataclass

LIMIT: int = 3


def inside(x: int, *, low: float = 0.5) -> bool:
    """Whether x is."""
    if not x:
        return False
    return low < x <= LIMIT and sum([x], start=2 * x) != 0 if f"{x + 1}" else x


@dataclass(frozen=True)
class Bounds:
    def extra_repr(self):
        return "bounds" + "between"

    def refuse(self):
        zip([], [], strict=True)
        raise ValueError("out" + "of")
'''
TEST = """from made_up import inside


def test_some_bounds():
    assert [inside(x) for x in (0, 1, 3, 4)] == [False, True, True, False]
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "made_up.py").write_text(MODULE)
    (tmp_path / "test_made_up.py").write_text(TEST)
    monkeypatch.setattr(mutations, "ROOT", tmp_path)
    # Each run of the tests starts the faster.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    mutations._PROCESSES.set_forkserver_preload([])
    monkeypatch.setattr(mutations, "COVERED", {"made_up.py": "test_made_up.py"})
    return tmp_path


def test_mutants_have_one_change_each():
    found = mutants("made_up.py", MODULE)
    assert {mutant.change for mutant in found if mutant.line < 12} == {
        "3  ->  4",
        "3  ->  2",
        "0.5  ->  1.5",
        "0.5  ->  -0.5",
        "not x  ->  not not x",
        "False  ->  True",
    }
    comparisons = {mutant.change for mutant in found if mutant.change.startswith("low < x <= LIMIT  ->")}
    after = ("low <= x <= LIMIT", "low >= x <= LIMIT", "low < x < LIMIT", "low < x > LIMIT")
    assert comparisons == {f"low < x <= LIMIT  ->  {change}" for change in after}
    changes = {mutant.change for mutant in found}
    assert {"sum([x], start=2 * x)  ->  sum([x])", "2 * x  ->  2 / x", "2 * x  ->  2 ** x"} <= changes
    assert not any(change.startswith(("x + 1", "1 ")) for change in changes), "text stays"
    assert max(mutant.line for mutant in found) == 12, "what says something or guards stays"
    for mutant in found:
        lines = zip(mutant.source.splitlines(), ast.unparse(ast.parse(MODULE)).splitlines(), strict=True)
        assert sum(one != other for one, other in lines) == 1


@pytest.mark.slow
def test_what_tests_look_at_is_killed_and_the_rest_survives(root, capsys):
    found = {mutant.change: mutant for mutant in mutants("made_up.py", MODULE)}
    drawn = [found[change] for change in ("low < x <= LIMIT  ->  low < x < LIMIT", "0.5  ->  -0.5")]
    assert mutations.run(drawn) == {"killed": 1, "survived": 1}
    assert capsys.readouterr().out.splitlines() == [
        "killed    made_up.py:12  low < x <= LIMIT  ->  low < x < LIMIT",
        "survived  made_up.py:8  0.5  ->  -0.5",
    ]
    assert (root / "made_up.py").read_text() == MODULE


@pytest.mark.slow
def test_a_mutant_that_never_ends_is_killed_and_taken_back(root):
    endless = Mutant("made_up.py", 1, "endless", "while True:\n    pass")
    assert mutations.fate(endless, root, limit_s=3) == "timeout"
    assert (root / "made_up.py").read_text() == MODULE


@pytest.mark.parametrize(
    ("test", "message"),
    [("def test_it(): assert False", "fail without any mutant"), ("def test_it(): pass", "do not import made_up.py")],
)
def test_tests_that_tell_nothing_are_refused(root, test, message):
    (root / "test_made_up.py").write_text(test)
    with pytest.raises(SystemExit, match=message):
        mutations.run(mutants("made_up.py", MODULE)[:1])


def test_every_module_that_matters_is_there():
    paths = mutations.covered(mutations.ROOT, ["*"])
    assert all(any(mutations.fnmatch(path, pattern) for path in paths) for pattern in mutations.COVERED)
    for tests in mutations.COVERED.values():
        assert all((mutations.ROOT / test).exists() for test in tests.split())
    assert mutations.mirror_of("bnn/optim/bop.py", mutations.ROOT) == ["tests/optim/test_bop.py"]
    assert mutations.mirror_of("hwsim/synapse.py", mutations.ROOT) == ["tests/hwsim/test_synapse.py"]
    assert mutations.mirror_of("bnn/methods/penalty.py", mutations.ROOT) == []
    assert mutations.covered(mutations.ROOT, ["bnn/optim/b*p.py"]) == ["bnn/optim/bop.py"]
