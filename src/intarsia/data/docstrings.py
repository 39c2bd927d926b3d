"""Docstrings of an installed module, read without running it: Python source through `ast`, C modules by `__doc__`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from intarsia.data.python_chapters import COMPILED, SKIPPED_PARTS, SOURCES, UMBRELLAS

MAX_WORDS = 60
_SIGNATURE = re.compile(
    r"^[A-Za-z_][\w.]*\s?\(.*\)\s*(->\s*\S+(,? \S+)?|:|--)?$|^[A-Za-z_][\w.]*\([^)]*\)\s*(->|--|=)\s*"
)
_MARKUP = re.compile(r":(?:\w+:)+`~?([^`]*)`|``([^`]*)``|`([^`]*)`")


def docstrings(package: str) -> Iterator[tuple[str, str, str]]:
    """(module, name within its file, docstring) of every public function, class and method of a top-level module or
    package. The module is `package` itself, or a sub-package of it where the package is a mere umbrella.

    Deterministic for one interpreter: files in name order, definitions in the order of the source, members of C
    modules in name order. A module that is not installed yields nothing."""
    modules = [package]
    for module, path in _files(package):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        if module not in modules:
            modules.append(module)
        for name, text in _walk(tree, ""):
            yield module, name, text
    for module in modules:
        for source in COMPILED.get(module, ()):
            for name, text in _compiled(source):
                yield module, name, text


def clean(docstring: str, max_words: int = MAX_WORDS) -> str:
    """A docstring as prose: signature lines, doctests, field lists and markup cut, white space folded, first paragraphs
    up to `max_words` words."""
    words: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = []
        for line in paragraph.splitlines():
            text = line.strip()
            if text.startswith((">>>", "...", "$ ", ":param", ":return", ":type", ".. ", "@")):
                break
            if not lines and not words and _SIGNATURE.match(text):
                text = _SIGNATURE.sub("", text).strip()
            if text and not re.fullmatch(r"[-=~*#+_\s|]+", text):
                lines.append(text)
        new = _MARKUP.sub(lambda m: next(g for g in m.groups() if g is not None), " ".join(lines)).split()
        if words and (len(words) >= 25 or len(words) + len(new) > max_words):
            break
        words += new
    return " ".join(words[:max_words])


def _files(package: str) -> list[tuple[str, Path]]:
    found: dict[Path, str] = {}
    for name in (package, *SOURCES.get(package, ())):
        try:
            # `find_spec` of a top-level name imports nothing; a dotted one imports only its package.
            spec = None if name in sys.builtin_module_names else importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is None or not (spec.origin or "").endswith(".py"):
            continue
        origin = Path(spec.origin)
        if "site-packages" in origin.parts or "dist-packages" in origin.parts:
            continue  # a package of that name which is not the standard library's
        files = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
        for file in files:
            inside = file.relative_to(origin.parent).with_suffix("").parts
            if SKIPPED_PARTS.intersection(inside) or file in found:
                continue
            part = inside[0] if package in UMBRELLAS and not inside[0].startswith("_") else ""
            found[file] = f"{package}.{part}" if part else package
    return [(module, file) for file, module in found.items()]


def _walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if child.name.startswith("_"):
                continue
            name = f"{prefix}{child.name}"
            if text := ast.get_docstring(child):
                yield name, text
            if isinstance(child, ast.ClassDef):
                yield from _walk(child, f"{name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from _walk(child, prefix)


def _compiled(name: str) -> Iterator[tuple[str, str]]:
    try:
        module = importlib.import_module(name)
    except ImportError:
        return
    for key, value in sorted(vars(module).items()):
        if key.startswith("_") or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        home = getattr(value, "__module__", None) or name
        if inspect.isclass(value) and home.partition(".")[0].lstrip("_") != name.partition(".")[0].lstrip("_"):
            continue  # an exception or base class that belongs to another module
        if isinstance(doc := value.__doc__, str):
            yield key, doc
        if inspect.isclass(value):
            for part, member in sorted(vars(value).items()):
                doc = getattr(member, "__doc__", None)
                described = inspect.isroutine(member) or inspect.isdatadescriptor(member)
                if not part.startswith("_") and described and isinstance(doc, str):
                    yield f"{key}.{part}", doc
