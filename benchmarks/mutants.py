"""Mutants: a module with one change each.

A comparison, its equality or an arithmetic operator is another one, a number is one more or less, a condition is
negated, `and` is `or`, an argument that is given by name is left out. Nothing is changed in annotations, text with
values in it, `raise`, `extra_repr`, decorators of classes and `strict` of `zip`, which say something to a reader or
guard against what does not happen.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

# Operators that a mutant swaps, by their names in `ast`.
_SWAPS = """Lt LtE, Lt GtE, Gt GtE, Gt LtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, Mult Pow,
    FloorDiv Mod, LShift RShift, BitAnd BitOr, BitXor BitAnd"""
_PAIRS = [(getattr(ast, one), getattr(ast, other)) for one, other in (pair.split() for pair in _SWAPS.split(","))]


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    path: str
    line: int
    change: str
    """Before -> after."""
    source: str
    """Of the changed module."""


def mutants(path: str, source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its code."""
    tree = ast.parse(source)
    found = []
    for node in list(_code(tree)):
        for name, value in _changes(node):
            original, before = getattr(node, name), _shown(node)
            setattr(node, name, value)
            changed = ast.unparse(ast.fix_missing_locations(tree))
            found.append(Mutant(path, node.lineno, f"{before}  ->  {_shown(node)}", changed))  # type: ignore[attr-defined]
            setattr(node, name, original)
    return found


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it that a mutant may change."""
    if isinstance(node, (ast.JoinedStr, ast.Raise)) or (
        isinstance(node, ast.FunctionDef) and node.name == "extra_repr"
    ):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or (name == "decorator_list" and isinstance(node, ast.ClassDef)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not (isinstance(child, ast.keyword) and child.arg == "strict"):
                yield from _code(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    """The fields of a node that a mutant has otherwise, with their other values."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in _others(operator):
                yield "ops", [*node.ops[:place], other, *node.ops[place + 1 :]]
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)):
        for other in _others(node.op):
            yield "op", other
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "value", node.value + 1
        yield "value", node.value - 1
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(node.test, ast.UnaryOp):
        yield "test", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operand", ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Call):
        for place, keyword in enumerate(node.keywords):
            if keyword.arg != "strict":
                yield "keywords", node.keywords[:place] + node.keywords[place + 1 :]


def _others(operator: ast.AST) -> list[ast.AST]:
    return [b() if isinstance(operator, a) else a() for a, b in _PAIRS if isinstance(operator, (a, b))]


def _shown(node: ast.AST) -> str:
    return ast.unparse(node.test if isinstance(node, (ast.If, ast.While)) else node)
