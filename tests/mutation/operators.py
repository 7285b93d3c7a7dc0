"""Small faults, one at a time: what a slip of the hand would make of a module.

Beyond what is usual (comparisons, conditions, constants, removed statements), a fault may drop an element of a table:
in this project half of the rules are tables at module or class level. Not touched are annotations, documentation,
providers' examples, and the words of refusals, which nobody decides by.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final

_COMPARISONS: Final[Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}

_ARITHMETIC: Final[Mapping[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}

_NAMES: Final[Mapping[str, str]] = {
    "any": "all",
    "all": "any",
    "max": "min",
    "min": "max",
    "startswith": "endswith",
    "endswith": "startswith",
    "removeprefix": "removesuffix",
    "removesuffix": "removeprefix",
    "rstrip": "lstrip",
    "fullmatch": "match",
    "lower": "upper",
    "partition": "rpartition",
    "rpartition": "partition",
    "search": "match",
}
"""Functions and methods that are easily taken for one another."""

_LONGEST = 110
_AROUND = 25
"""Characters, of what is shown of a fault."""

_TEXT_OF_PEOPLE = {"description"}
"""Keyword arguments that only people read."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one fault."""

    line: int
    where: str
    """The function or class, such as 'Claims.text'."""
    before: str
    after: str
    code: CodeType

    @property
    def name(self) -> str:
        """What it is called wherever its line stands."""
        return f"{self.where}: `{self.before}` -> `{self.after}`"


@dataclass(frozen=True, slots=True)
class _Site:
    """A place in the tree: what stands there can be replaced, and put back."""

    parent: ast.AST
    field: str
    index: int | None
    scope: str
    around: tuple[ast.AST, ...]
    """The enclosing nodes up to the statement, the innermost last."""

    @property
    def node(self) -> ast.AST:
        held = getattr(self.parent, self.field)
        node = held if self.index is None else held[self.index]
        assert isinstance(node, ast.AST)
        return node

    @property
    def is_last(self) -> bool:
        return isinstance(self.parent, ast.FunctionDef) and self.parent.body[-1] is self.node

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node

    def shown(self) -> str:
        """The most of what is around that fits into a line."""
        for node in (*self.around, self.node):
            text = ast.unparse(node)
            if len(text) <= _LONGEST and "\n" not in text:
                return text
        return ast.unparse(self.node).replace("\n", " ")


def mutants(source: str, filename: str) -> Iterator[Mutant]:
    """Every fault of a module, in the order of its lines."""
    tree = ast.parse(source, filename)
    for site in _sites(tree, "module", ()):
        original, before = site.node, site.shown()
        for replacement in _faults(original, site):
            site.put(ast.copy_location(replacement, original))
            code = compile(ast.fix_missing_locations(tree), filename, "exec")
            after = site.shown()
            site.put(original)
            yield Mutant(getattr(original, "lineno", 0), site.scope, *_where_they_differ(before, after), code)


def _where_they_differ(before: str, after: str) -> tuple[str, str]:
    """Two long texts, cut to what is not the same in them, and a little around."""
    if max(len(before), len(after)) <= _LONGEST:
        return before, after
    start = max(0, _shared(before, after) - _AROUND)
    end = max(0, _shared(before[:start:-1], after[:start:-1]) - _AROUND)
    return before[start : len(before) - end], after[start : len(after) - end]


def _shared(one: str, other: str) -> int:
    """How many characters at the start are the same."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _sites(node: ast.AST, scope: str, around: tuple[ast.AST, ...]) -> Iterator[_Site]:
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list", "bases", "type_params", "targets", "target", "ctx"}:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_talk(child):
                continue
            inside = scope
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside = child.name if scope == "module" else f"{scope}.{child.name}"
            enclosing = () if _has_body(node) else (*around, node) if isinstance(node, ast.stmt | ast.expr) else around
            yield _Site(node, field, index, inside, enclosing)
            yield from _sites(child, inside, enclosing)


def _has_body(node: ast.AST) -> bool:
    return hasattr(node, "body") and not isinstance(node, ast.IfExp | ast.Lambda)


def _is_talk(node: ast.AST) -> bool:
    """Documentation, types, examples, and what is only printed."""
    if isinstance(node, ast.FunctionDef) and node.name == "example":
        return True
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in {"Literal", "Mapping"}:
        return True
    return isinstance(node, ast.keyword) and node.arg in _TEXT_OF_PEOPLE


def _faults(node: ast.AST, site: _Site) -> Iterator[ast.AST]:
    """What may stand there instead."""
    if isinstance(node, ast.stmt):
        # A function that ends returns None anyway.
        if not (ast.unparse(node) == "return None" and site.is_last):
            yield from _of_statements(node)
    elif isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict | ast.comprehension):
        yield from _of_collections(node)
    elif isinstance(node, ast.expr):
        yield from _of_expressions(node, site)


def _of_statements(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.If() | ast.While():
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Raise() | ast.Continue() | ast.Expr() | ast.AugAssign():
            yield ast.Pass()
        case ast.Return(value=value):
            yield ast.Pass()
            # `None` for another thing that counts as nothing is no fault that anyone decides by.
            if value is not None and (not isinstance(value, ast.Constant) or value.value):
                yield ast.Return(ast.Constant(None))


def _of_collections(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.comprehension(ifs=[_, *_]):
            yield _with(node, ifs=[])
        case ast.Tuple(elts=held) | ast.List(elts=held) | ast.Set(elts=held) if len(held) > 1:
            for place in range(len(held)):
                yield _with(node, elts=[*held[:place], *held[place + 1 :]])
        case ast.Dict(keys=keys, values=values) if len(keys) > 1:
            for place in range(len(keys)):
                yield _with(
                    node, keys=[*keys[:place], *keys[place + 1 :]], values=[*values[:place], *values[place + 1 :]]
                )


def _of_expressions(node: ast.expr, site: _Site) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp(values=values):
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), values)
            for place in range(len(values)):
                rest = [*values[:place], *values[place + 1 :]]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        case ast.UnaryOp():
            yield node.operand
        case ast.BinOp() if type(node.op) in _ARITHMETIC and not _speaks(site):
            yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
        case ast.IfExp():
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Constant():
            yield from _constants(node, site)
        case ast.Name(id=name) if name in _NAMES:
            yield ast.Name(_NAMES[name], ast.Load())
        case ast.Attribute(attr=name) if name in _NAMES:
            yield ast.Attribute(node.value, _NAMES[name], ast.Load())


def _comparisons(node: ast.Compare) -> Iterator[ast.AST]:
    for place, operator in enumerate(node.ops):
        for other in _COMPARISONS[type(operator)]:
            yield ast.Compare(node.left, [*node.ops[:place], other(), *node.ops[place + 1 :]], node.comparators)


def _constants(node: ast.Constant, site: _Site) -> Iterator[ast.AST]:
    match node.value:
        case bool():
            yield ast.Constant(not node.value)
        case int() | float() if not _speaks(site):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        case str() if not _speaks(site):
            yield ast.Constant(node.value + "XX")
        case bytes():
            yield ast.Constant(b"" if node.value else b"XX")


def _speaks(site: _Site) -> bool:
    """Whether this is within the words of an error: in a `raise`, or in the making of a refusal."""
    return any(
        isinstance(node, ast.Raise)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "refusals"
        )
        for node in (*site.around, site.parent)
    )


def _with(node: ast.AST, **changes: Any) -> ast.AST:
    fields = {name: getattr(node, name, None) for name in node._fields}
    return type(node)(**{**fields, **changes})
