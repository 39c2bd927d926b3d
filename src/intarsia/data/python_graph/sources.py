"""Which modules make up the standard library, and their scopes: source files through `ast`, C modules by looking."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from intarsia.data.python_chapters import SKIPPED_PARTS
from intarsia.data.python_graph.compiled import compiled_names, lend, read_compiled
from intarsia.data.python_graph.reading import read_source
from intarsia.data.python_graph.scopes import Scope, Target
from intarsia.progress import track

# Tests, jokes, command lines, and what is on its way out of the library; of `encodings`, the generated tables.
_LEFT_OUT = SKIPPED_PARTS | {
    *("__hello__", "__phello__", "this", "antigravity", "turtledemo", "idlelib", "pydoc_data"),
    *("lib2to3", "distutils", "site-packages", "dist-packages"),
}
_ONLY_THE_PACKAGE = frozenset({"encodings", "_pyrepl"})
# Python twins of C modules, which are imported in place of them only where C is missing.
_TWINS = {
    "_pyio": "io",
    "_pydecimal": "decimal",
    "_pydatetime": "datetime",
    "_py_abc": "abc",
    "_py_warnings": "warnings",
}
_MULTIPROCESSING = ("Process", "ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError")


def read_library(folder: Path | None = None) -> dict[str, Scope]:
    """Module -> scope, of the standard library in `folder` (by default the running interpreter's) and of the C modules
    of the running interpreter. A module that is not there is passed over."""
    scopes = read_compiled(compiled_names())
    files = library_files(folder or Path(os.__file__).parent)
    for module, path in track(files.items(), "reading the standard library", total=len(files)):
        if module not in scopes and (scope := read_source(path, module)):
            scopes[module] = scope
    lend(scopes)
    _computed(scopes)
    return scopes


def library_files(folder: Path) -> dict[str, Path]:
    """Module -> source file, in the order of the names."""
    found = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.stem not in sys.stdlib_module_names or path.stem in _LEFT_OUT:
            continue
        if path.suffix == ".py":
            found[path.stem] = path
        elif (path / "__init__.py").is_file():
            for file in sorted(path.rglob("*.py")):
                parts = file.relative_to(folder).with_suffix("").parts
                if _LEFT_OUT.intersection(parts) or not all(part.isidentifier() for part in parts):
                    continue
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                if path.stem not in _ONLY_THE_PACKAGE or name == path.stem:
                    found[name] = file
    return found


def _computed(scopes: dict[str, Scope]) -> None:
    """Bind the names that modules compute when they are run."""
    for twin, module in _TWINS.items():
        if twin in scopes and module in scopes:
            for name in sorted(scopes[twin].exported or ()):
                scopes[module].bind(name, Target("import", name, twin))
    # A package that loads parts of itself when they are asked for: `concurrent.futures`.
    for package, scope in scopes.items():
        if scope.package:
            parts = [part for part in scopes if part.startswith(f"{package}.") and part not in scope.bindings]
            for name in sorted((scope.exported or set()) - set(scope.bindings)):
                homes = [part for part in parts if name in scopes[part].classes or name in scopes[part].functions]
                if len(homes) == 1 and name not in ("main",):
                    scope.bind(name, Target("import", name, homes[0]))
    for home, prefix in (("_hashlib", "openssl_"), ("_blake2", "blake2")):
        known = scopes[home].bindings if home in scopes and "hashlib" in scopes else ()
        for name in sorted(name for name in known if name.startswith(prefix)):
            scopes["hashlib"].bind(name.removeprefix("openssl_"), Target("import", name, home))
            scopes["hashlib"].exported = (scopes["hashlib"].exported or set()) | {name.removeprefix("openssl_")}
    # `multiprocessing` takes its names from an object.
    scope, context = scopes.get("multiprocessing"), scopes.get("multiprocessing.context")
    if scope and context and "BaseContext" in context.classes:
        names = [name for name in context.classes["BaseContext"].members if not name.startswith("_")]
        for name in names:
            scope.bind(name, Target("alias", f"context.BaseContext.{name}"))
        for name in _MULTIPROCESSING:
            scope.bind(name, Target("import", name, "multiprocessing.context"))
        scope.exported = {*names, *_MULTIPROCESSING}
