"""Flows by name: `FILE.py:NAME`, as the command line takes them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from intarsia.errors import BadInput, did_you_mean, first_line
from intarsia.prompting.execute.flows.flow import Flow
from intarsia.prompting.tracing import Trace, stands_for


def load_flow(target: str) -> Flow:
    """The flow that `FILE.py:NAME` or `package.module:NAME` names. The file is run, as an import runs it.

    Raises `BadInput` for a file that is not there or fails, and a name that is no flow."""
    place, mark, name = target.rpartition(":")
    if not mark or not place or not name:
        raise BadInput(f"'{target}' is no flow: give FILE.py:NAME")
    module = module_of(place)
    found = getattr(module, name, None)
    known = [key for key, value in vars(module).items() if isinstance(value, Flow)]
    if not isinstance(found, Flow):
        if callable(found):
            raise BadInput(f"{place}: '{name}' is a function, and no flow: write @flow before it")
        there = f"; there are: {', '.join(known)}" if known else "; there is no @flow in it"
        raise BadInput(f"{place}: no flow '{name}'{did_you_mean(name, known) or there}")
    return found


def flow_of(trace: Trace) -> Flow:
    """The flow that left a trace. Raises `BadInput` where it does not say, or its file is gone."""
    target = trace.facts.get("flow")
    if not target:
        raise BadInput(f"trace {trace.id[:12]} ({trace.name}) is of no flow: it cannot be gone on with")
    if "<locals>" in target:
        raise BadInput(f"trace {trace.id[:12]} is of a flow inside a function ({target}): go on with it in Python")
    return load_flow(target)


def module_of(place: str) -> ModuleType:
    """The module of `FILE.py`, or of that name, also in the working folder. Raises `BadInput` where there is none."""
    if place.endswith(".py"):
        return _file(Path(place).expanduser())
    if "" not in sys.path:
        sys.path.insert(0, "")
    return _module(place)


def _file(file: Path) -> ModuleType:
    if not file.is_file():
        raise BadInput(f"{file}: no such file")
    name = file.stem
    loaded = sys.modules.get(name)
    if loaded is not None and Path(getattr(loaded, "__file__", None) or ".").absolute() == file.absolute():
        return loaded
    if loaded is not None or importlib.util.find_spec(name) is not None:
        name = f"{name}_flow"  # another module is called so: it must not be hidden
    folder = str(file.absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # what lies beside it can be imported, as where the file is run
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise BadInput(f"{file}: cannot be imported: {type(error).__name__}: {first_line(error)}") from error
    # Traces of it that were begun by running the file say that its classes are of `__main__`.
    stands_for("__main__", module)
    return module


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadInput(f"{name}: cannot be imported: {first_line(error)}; give FILE.py:NAME") from None
