"""What a name in a source file stands for, and under which public name a programmer knows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from intarsia.data.python_graph.scopes import Class, Function, Scope, Target

# The platform's own flavour of paths is known by the name it is used under.
_SHOWN = {"posixpath": "os.path"}
# Public by their names, but known only through others.
_HIDDEN = frozenset({"posix", "nt", "genericpath", "pyexpat"})


class Key(NamedTuple):
    """A definition by the module it stands in and its qualified name; a module by the empty name. `instance`: an object
    of that class."""

    module: str
    name: str = ""
    instance: bool = False


class Names:
    """Resolves dotted names of scopes to definitions, and names definitions for the public."""

    def __init__(self, scopes: dict[str, Scope]):
        self.scopes = scopes
        self._found: dict[tuple[str, str], Key | None] = {}
        self._orders: dict[Key, list[Key]] = {}
        self._asked: set[tuple[str, str]] = set()
        self.second: dict[str, Key] = {}
        """Public names beside the one in `public` (aliases), and what they stand for."""
        self.public: dict[Key, str] = {}
        self._name_everything()

    # -- what a name stands for

    def resolve(
        self, module: str, name: str, owner: Key | None = None, local: dict[str, Target] | None = None
    ) -> Key | None:
        """The definition that the dotted `name` stands for in a module, None when that is not certain.

        `owner` is the class that `self` stands for; `local` are names bound by imports inside the function."""
        first, *rest = name.split(".")
        if first == "self" and owner is not None:
            key: Key | None = owner
        elif local and first in local:
            key = self._target(module, local[first])
        else:
            key = self._name(module, first)
        for part in rest:
            if key is None:
                return None
            key = self._attribute(key, part)
        return key

    def _name(self, module: str, name: str) -> Key | None:
        return self._lookup(module, name) or self._builtin(name)

    def _lookup(self, module: str, name: str) -> Key | None:
        """The first thing that a module binds `name` to and that is known here."""
        known = (module, name)
        if known not in self._found:
            if known in self._asked:  # `TimeoutError = TimeoutError`: not this one
                return None
            self._asked.add(known)
            self._found[known] = next(self._bound(module, name), None)
            self._asked.discard(known)
        return self._found[known]

    def _bound(self, module: str, name: str) -> Iterator[Key]:
        """Everything that a module binds `name` to, in this or that case."""
        scope = self.scopes.get(module)
        if scope is None:
            return
        for target in scope.bindings.get(name, ()):
            if key := self._target(module, target, name):
                yield key
        for star in scope.stars:
            if star in self.scopes and name in self._exported(star) and (key := self._lookup(star, name)):
                yield key

    def _target(self, module: str, target: Target, name: str = "") -> Key | None:
        match target:
            case Target("definition"):
                return Key(module, name)
            case Target("module"):
                return Key(target.where) if target.where in self.scopes else None
            case Target("import"):
                found = self._attribute(Key(target.where), target.name)
                # A builtin class of C may be told of by its module alone.
                return found or (self._builtin(target.name) if target.where == "builtins" else None)
            case Target("alias"):
                return self.resolve(module, target.name)
            case Target("instance"):
                made_by = self.resolve(module, target.name)
                if made_by and self.class_of(made_by) and not made_by.instance:
                    return Key(made_by.module, made_by.name, True)
        return None

    def _attribute(self, key: Key, part: str) -> Key | None:
        if not key.name:
            if found := self._lookup(key.module, part):
                return found
            submodule = f"{key.module}.{part}"
            return Key(submodule) if submodule in self.scopes else None
        for owner in self.order(Key(key.module, key.name)):
            found = self.scopes[owner.module].classes[owner.name]
            if part in found.members or part in found.aliases:
                return Key(owner.module, f"{owner.name}.{found.aliases.get(part, part)}")
            if f"{owner.name}.{part}" in self.scopes[owner.module].classes:
                return Key(owner.module, f"{owner.name}.{part}")
        return None

    def _builtin(self, name: str) -> Key | None:
        scope = self.scopes.get("builtins")
        if scope is None or name not in scope.bindings:
            return None
        target = scope.bindings[name][0]
        return Key("builtins", name if target.kind == "definition" else target.name)

    # -- classes

    def class_of(self, key: Key) -> Class | None:
        scope = self.scopes.get(key.module)
        return scope.classes.get(key.name) if scope else None

    def function_of(self, key: Key) -> Function | None:
        scope = self.scopes.get(key.module)
        if scope is None:
            return None
        owner, _, name = key.name.rpartition(".")
        return scope.classes[owner].members.get(name) if owner in scope.classes else scope.functions.get(key.name)

    def bases(self, key: Key) -> list[Key]:
        found = self.class_of(key)
        keys = (self.resolve(key.module, base) for base in (found.bases if found else ()))
        return [base for base in keys if base and base != key and self.class_of(base) and not base.instance]

    def order(self, key: Key) -> list[Key]:
        """The class and those it inherits from, nearest first, each where it comes last among equals."""
        if key in self._orders:
            return self._orders[key]
        if self.class_of(key) is None:
            return []
        self._orders[key] = [key]  # for a circle, which a misread file might have
        found = [key]
        for base in self.bases(key):
            for ancestor in self.order(base):
                if ancestor in found and ancestor != key:
                    found.remove(ancestor)
                if ancestor != key:
                    found.append(ancestor)
        self._orders[key] = found
        return found

    def own_part(self, key: Key) -> list[Key]:
        """The class, and the private classes between it and its public bases: what a reader takes for the class."""
        found, waiting = [key], self.bases(key)
        while waiting:
            base = waiting.pop(0)
            if base not in found and base not in self.public:
                found.append(base)
                waiting += self.bases(base)
        return found

    def public_bases(self, key: Key) -> list[Key]:
        """The nearest public classes that a class inherits from."""
        found: list[Key] = []
        for part in self.own_part(key):
            found += [base for base in self.bases(part) if base in self.public and base not in found]
        return found

    # -- public names

    def _exported(self, module: str) -> set[str]:
        """The names a module means to hand out."""
        scope = self.scopes[module]
        names = set(scope.bindings) if scope.exported is None else set(scope.exported)
        if scope.exported is None or scope.open_ended:
            for star in scope.stars:
                if star in self.scopes and star != module:
                    names |= self._exported(star)
        return {name for name in names if not name.startswith("_")}

    def _more_classes(self, module: str) -> set[str]:
        """Classes that are not in `__all__`, but that others inherit from or catch (`configparser.Error`)."""
        scope = self.scopes[module]
        return {name for name in scope.classes if scope.exported and "." not in name and not name.startswith("_")}

    def _name_everything(self) -> None:
        offers: dict[Key, list[tuple[str, str]]] = defaultdict(list)
        for module in sorted(self.scopes):
            if self.module_name(module):
                for name in sorted(self._exported(module) | self._more_classes(module)):
                    for key in self._bound(module, name):
                        if key.name and not key.instance and self._hands_out(module, name, key):
                            offers[key].append((module, name))
        # A method that a module hands out (`random.randint`) has a name already, unless its class is private.
        for key, places in sorted(offers.items(), key=lambda item: self._method(item[0])):
            known = self._method(key) and Key(key.module, key.name.rpartition(".")[0]) in self.public
            best = min(places, key=lambda place: self._rank(key, place))
            if not known:
                self.public[key] = self._shown(*best)
            for module, name in places:
                if len({k for k in self._bound(module, name) if not k.instance}) > 1 and not known and name != best[1]:
                    continue  # this or that, by the platform
                outer = any(module.startswith(f"{other}.") and name == known_as for other, known_as in places)
                if not outer and (known or name != best[1] or best[0] == "builtins" != module):
                    self.second[self._shown(module, name)] = key
        for shown in self.public.values():
            self.second.pop(shown, None)
        # Nested classes of public ones; an enclosing class comes first.
        for module in sorted(self.scopes):
            for name in sorted(self.scopes[module].classes, key=lambda name: (name.count("."), name)):
                outer, _, inner = name.rpartition(".")
                if outer and not inner.startswith("_") and (shown := self.public.get(Key(module, outer))):
                    self.public.setdefault(Key(module, name), f"{shown}.{inner}")

    def _method(self, key: Key) -> bool:
        return "." in key.name and self.class_of(key) is None

    def _hands_out(self, module: str, name: str, key: Key) -> bool:
        """Whether the name is one of the module's own: defined in it, or taken from behind it."""
        scope, home = self.scopes[module], key.module
        said = (scope.exported is not None or scope.open_ended) and name in self._exported(module)
        if home == module or said or (scope.compiled and home == "builtins"):
            return True
        bound = scope.bindings.get(name, ())
        sources = [target.where for target in bound if target.kind == "import"] or ([] if bound else scope.stars)
        assigned = any(target.kind == "alias" for target in bound) and self.module_name(home) is None
        return assigned or any(s.startswith(f"{module}.") or self.module_name(s) is None for s in sources)

    def _rank(self, key: Key, place: tuple[str, str]) -> tuple[object, ...]:
        """The least is the best place to know a definition by: under its own name, in the package around it, ..."""
        module, name = place
        inside = key.module.startswith(f"{module}.")
        return (
            name != key.name.rpartition(".")[2],
            module == "ntpath",
            not (inside or key.module == module or self.module_name(key.module) is None),
            not inside,
            name not in (self.scopes[module].exported or ()),
            module.count("."),
            module,
            name,
        )

    @staticmethod
    def _shown(module: str, name: str) -> str:
        return name if module == "builtins" else f"{_SHOWN.get(module, module)}.{name}"

    @staticmethod
    def module_name(module: str) -> str | None:
        """The name of a module for the public, None for a private one."""
        if module in _HIDDEN or module.startswith("_") or "._" in module:
            return None
        return _SHOWN.get(module, module)
