"""What a function's own body does: which exceptions it raises and catches, what it calls, whether it yields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from intarsia.data.python_graph.scopes import Function, Target

BINDS = ("body", "orelse", "finalbody")
_RAISES = re.compile(
    r"(?<!not )(?<!n't )(?<!never )\b[Rr]ais(?:es?|ed|ing)\s+(?:an?\s+|the\s+)?[`:\w]*?`*"
    r"\b((?:[a-z_]+\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Iteration|Empty|Full))\b"
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` for such an expression, else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def import_targets(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Target]]:
    """(name that is bound, what to); the name `*` stands for everything."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                yield alias.asname, Target("module", where=alias.name)
            else:
                yield alias.name.partition(".")[0], Target("module", where=alias.name.partition(".")[0])
        return
    where = node.module or ""
    if node.level:
        parts = package.split(".")
        parent = parts[: len(parts) - node.level + 1]
        where = ".".join([*parent, *([where] if where else [])])
    for alias in node.names:
        if alias.name == "*":
            yield "*", Target("module", where=where)
        else:
            yield alias.asname or alias.name, Target("import", alias.name, where)


def said_to_raise(doc: str) -> set[str]:
    """The exceptions a docstring names as raised."""
    return set(_RAISES.findall(" ".join(doc.split())))


def read_body(node: ast.FunctionDef | ast.AsyncFunctionDef, found: Function, owner: str | None, package: str) -> None:
    """Fill `found` from the statements of the function, without those of functions and classes inside it.

    A reference counts when its first name is not a variable of the function (those cannot be resolved); `owner` is the
    name of the object or class a method belongs to, and becomes `self`."""
    args = node.args
    bound = {a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg) if a}
    raised: list[ast.expr] = []
    caught: list[ast.expr] = []
    called: list[ast.expr] = []
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        part = waiting.pop()
        if isinstance(part, _FUNCTIONS):
            bound.add(part.name)
            continue
        match part:
            case ast.Import() | ast.ImportFrom():
                found.imports.update((n, t) for n, t in import_targets(part, package) if n != "*")
            case ast.Name(id=name, ctx=ast.Store()):
                bound.add(name)
            case ast.Raise(exc=ast.expr() as error):
                raised.append(error.func if isinstance(error, ast.Call) else error)
            case ast.ExceptHandler(type=kind, name=name):
                if name:
                    bound.add(name)
                if kind is not None:
                    caught += kind.elts if isinstance(kind, ast.Tuple) else [kind]
            case ast.Call(func=function):
                called.append(function)
            case ast.Yield() | ast.YieldFrom():
                found.generator = True
            case ast.arg(arg=name):  # of a lambda
                bound.add(name)
        waiting.extend(ast.iter_child_nodes(part))
    bound -= set(found.imports)

    def references(nodes: list[ast.expr]) -> set[str]:
        names: set[str] = set()
        for name in filter(None, map(dotted, nodes)):
            first, dot, rest = name.partition(".")
            if owner is not None and first == owner:
                if dot:
                    names.add(f"self.{rest}")
            elif first not in bound:
                names.add(name)
        return names

    found.raises = references(raised) | said_to_raise(found.doc)
    found.catches = references(caught)
    found.calls = references(called)
