"""A module written in C, as a `Scope`, by looking at it: such a module has no source to read, and importing it has no
effect but the import."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from intarsia.data.python_chapters import COMPILED
from intarsia.data.python_graph.bodies import said_to_raise
from intarsia.data.python_graph.scopes import Class, Function, Scope, Target

# Beside those of `COMPILED`: more C modules behind public names.
_MORE = ("_ast", "_bisect", "_ctypes", "_typing", "itertools", "sys")
# Classes of C that a Python module hands out without any C module naming them. These modules are loaded in any case.
_LENT = {
    "re": ("Match", "Pattern"),
    "types": (
        *("AsyncGeneratorType", "BuiltinFunctionType", "CellType", "CodeType", "CoroutineType", "FrameType"),
        *("FunctionType", "GenericAlias", "GeneratorType", "MappingProxyType", "MethodType", "ModuleType"),
        *("TracebackType", "UnionType"),
    ),
}


def compiled_names() -> list[str]:
    return sorted({name for names in COMPILED.values() for name in names}.union(_MORE))


def read_compiled(names: Iterable[str]) -> dict[str, Scope]:
    """The scopes of those C modules that this interpreter has."""
    scopes = {}
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if not str(getattr(module, "__file__", None) or "").endswith(".py"):
            scopes[name] = _scope(module, name, vars(module))
    return scopes


def lend(scopes: dict[str, Scope]) -> None:
    """Add the classes of C that Python modules hand out to the scopes of those."""
    for name, keys in _LENT.items():
        if name in scopes:
            module = importlib.import_module(name)
            lent = _scope(module, name, {key: vars(module)[key] for key in keys if key in vars(module)}, lent=True)
            scopes[name].classes |= lent.classes
            for key in lent.classes:
                scopes[name].bindings.pop(key, None)
                scopes[name].bind(key, Target("definition", key))


def _scope(module: ModuleType, name: str, members: dict[str, Any], lent: bool = False) -> Scope:
    """`lent`: the classes belong to the module, whatever they say themselves."""
    scope = Scope(name, compiled=True, doc=module.__doc__ or "")
    for key, value in sorted(members.items()):
        # A hook may have been replaced by somebody (`sys.excepthook`); what was there first is kept beside it.
        original = members.get(f"__{key}__")
        value = original if inspect.isbuiltin(original) else value
        if inspect.isclass(value):
            home = value.__module__
            second = value.__name__ != key and home == name and value.__name__ in members
            if not lent and (second or home == "builtins" != name or (home == "builtins" and value.__name__ != key)):
                scope.bind(key, Target("import", value.__name__, home))  # IOError is OSError
                continue
            if not lent and not _own(home, name):
                continue  # an exception or base class that belongs to another module
            scope.classes[key] = _class(value, scope)
        elif inspect.isroutine(value) and not (inspect.isfunction(value) or inspect.ismethod(value)):
            scope.functions[key] = _function(value)
        else:
            continue
        scope.bind(key, Target("definition", key))
    return scope


def _own(home: str, name: str) -> bool:
    """Whether a class of the C module `name` that says it is from `home` is its own: it may give the public name."""
    if home.rpartition(".")[2].lstrip("_") == name.lstrip("_"):
        return True
    return any(home in (public, *names) for public, names in COMPILED.items() if name in names)


def _class(value: type, scope: Scope) -> Class:
    found = Class(doc=value.__doc__ if isinstance(value.__doc__, str) else "")
    for base in value.__bases__:
        if base is not object:
            if base.__module__ != scope.module and base.__module__ != "builtins":
                scope.bind(base.__name__, Target("import", base.__name__, base.__module__))
            found.bases.append(base.__name__)
    for key, member in sorted(vars(value).items()):
        if key in ("__init__", "__new__"):
            continue
        if key.startswith("__") and key.endswith("__"):
            if member is not None:  # None: `__hash__` of what cannot be hashed
                found.members[key] = Function()
        elif isinstance(member, classmethod | staticmethod) or type(member).__name__ == "classmethod_descriptor":
            found.members[key] = _function(getattr(value, key))
            found.members[key].decorators.append("staticmethod" if isinstance(member, staticmethod) else "classmethod")
        elif inspect.isroutine(member):
            found.members[key] = _function(member)
        elif inspect.isdatadescriptor(member):
            found.members[key] = Function(data=True, doc=_doc(member))
    parameters = _parameters(value)
    if parameters:
        found.members["__init__"] = Function(parameters=parameters)
    return found


def _function(value: Any) -> Function:
    doc = _doc(value)
    return Function(parameters=_parameters(value), doc=doc, raises=said_to_raise(doc))


def _doc(value: Any) -> str:
    doc = getattr(value, "__doc__", None)
    return doc if isinstance(doc, str) else ""


def _parameters(value: Any) -> list[str]:
    """The names of the parameters, where the function tells them. (`inspect.signature` would run the defaults.)"""
    text = getattr(value, "__text_signature__", None)
    try:
        args = ast.parse(f"def f{text.replace('$', '')}: pass").body[0].args if text else None  # type: ignore[attr-defined]
    except SyntaxError:
        return []
    names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)] if args else []
    # The first one is marked in the text when it is the object, the class or the module.
    return [name for name in names[text.startswith("($") if text else 0 :] if not name.startswith("_")]
