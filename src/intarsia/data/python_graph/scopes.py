"""What was read of the standard library, before any name is resolved: scopes (a source file or a C module each) with
their classes and functions. References are dotted names as they stand in the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Target(NamedTuple):
    """What a name of a scope stands for.

    - `definition`: the class or function of this name, here
    - `module`: the module `where`
    - `import`: `name` of the module `where`
    - `alias`: the dotted `name`, in this scope
    - `instance`: an object of the class with the dotted `name`, in this scope"""

    kind: str
    name: str = ""
    where: str = ""


@dataclass
class Function:
    """A function or method; what several definitions of one name say (branches, setters) is put together."""

    parameters: list[str] = field(default_factory=list)
    decorators: list[str] = field(default_factory=list)
    coroutine: bool = False
    generator: bool = False
    data: bool = False
    """Whether it is a data descriptor of a C class (a property, as far as a reader can see)."""
    doc: str = ""
    raises: set[str] = field(default_factory=set)
    catches: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    imports: dict[str, Target] = field(default_factory=dict)
    """Names that imports inside the function bind."""

    def add(self, other: Function) -> None:
        self.parameters += [name for name in other.parameters if name not in self.parameters]
        self.decorators += [name for name in other.decorators if name not in self.decorators]
        self.coroutine |= other.coroutine
        self.generator |= other.generator
        self.data |= other.data
        self.doc = self.doc or other.doc
        self.raises |= other.raises
        self.catches |= other.catches
        self.calls |= other.calls
        self.imports = other.imports | self.imports


@dataclass
class Class:
    """A class with what its own body defines. `aliases`: second names of members (name -> member)."""

    bases: list[str] = field(default_factory=list)
    decorators: list[str] = field(default_factory=list)
    abstract: bool = False
    named_tuple: bool = False
    doc: str = ""
    members: dict[str, Function] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def add(self, other: Class) -> None:
        self.bases += [name for name in other.bases if name not in self.bases]
        self.decorators += [name for name in other.decorators if name not in self.decorators]
        self.abstract |= other.abstract
        self.named_tuple |= other.named_tuple
        self.doc = self.doc or other.doc
        for name, member in other.members.items():
            self.members.setdefault(name, Function()).add(member)
        self.aliases = other.aliases | self.aliases


@dataclass
class Scope:
    """A module's source file, or a C module. Classes and functions by their qualified names (`Outer.Inner`).

    - stars: the modules everything is imported from, in order.
    - exported: the names in `__all__`, None without one. `open_ended`: `__all__` has more than literals."""

    module: str
    package: bool = False
    compiled: bool = False
    doc: str = ""
    bindings: dict[str, list[Target]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    exported: set[str] | None = None
    open_ended: bool = False
    classes: dict[str, Class] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)

    def bind(self, name: str, target: Target) -> None:
        known = self.bindings.setdefault(name, [])
        if target in known:
            return
        # What is defined here counts before what is imported in its place: it says more.
        known.insert(0, target) if target.kind == "definition" else known.append(target)
