"""The facts about the standard library: from scopes and resolved names to (head, relation, tail)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from intarsia.data.docstrings import clean
from intarsia.data.python_chapters import CHAPTER_OF
from intarsia.data.python_graph.names import Key, Names
from intarsia.data.python_graph.scopes import Function, Scope
from intarsia.data.python_graph.versions import OLDEST, Versions, label
from intarsia.data.records import Fact

QUESTIONS = {
    "raises": "What does {head} raise?",
    "inherits_from": "What does {head} inherit from?",
    "added_in": "In which version came {head}?",
    "overrides": "What does {head} override?",
    "takes": "Which parameter does {head} take?",
    "calls": "What does {head} call?",
    "catches": "Which exception does {head} catch?",
    "imports": "Which module does {head} import?",
    "chapter": "Which chapter of the library reference describes {head}?",
    "is_a": "What kind of thing is {head}?",
    "implements": "Which special method does {head} implement?",
    "decorated_as": "Which decorator does {head} stand under?",
    "alias_of": "What is {head} another name of?",
}
"""The relations one can ask about, with the question; `{head}` is the entity. The others (`defined_in`, `member_of`,
`part_of`) can be read off the names."""

# Kinds that go without saying.
DEFAULTS = frozenset({"module", "package", "class", "function", "method"})
_SPECIAL = """
iter next len getitem setitem delitem contains reversed missing call enter exit aenter aexit aiter anext await eq hash
lt repr str bool bytes format add sub mul and or int float index getattr get set fspath reduce copy del class_getitem
"""
SPECIAL = frozenset(f"__{name}__" for name in _SPECIAL.split())
LEAST_TAKERS = 3
# Calls of the other builtins (len, isinstance) say nothing.
_TELLING = frozenset({"open", "compile", "exec", "eval", "input", "print", "sorted", "hash", "memoryview", "frozenset"})
_ON_METHODS = {"property": "property", "classmethod": "class method", "staticmethod": "static method"}


def library_facts(scopes: dict[str, Scope], versions: Versions) -> tuple[list[Fact], dict[str, str]]:
    """All facts, sorted, each once; and what the documentation of an entity says first, in a sentence.

    Left out: parameters that fewer than `LEAST_TAKERS` functions take, entities of which nothing is known but where
    they stand, and, over and over, facts about an entity that occurs in no other fact."""
    library = _Library(Names(scopes))
    facts = set(library.facts())
    facts |= set(_added_in(facts, versions))
    takers = Counter(fact.tail for fact in facts if fact.relation == "takes")
    facts = {fact for fact in facts if fact.relation != "takes" or takers[fact.tail] >= LEAST_TAKERS}
    told = {fact.head for fact in facts if not _dull(fact)} | {fact.tail for fact in facts}
    facts = {fact for fact in facts if fact.head in told}
    while lonely := {name for name, n in Counter(e for f in facts for e in (f.head, f.tail)).items() if n < 2}:
        facts = {fact for fact in facts if fact.head not in lonely and fact.tail not in lonely}
    entities = {entity for fact in facts for entity in (fact.head, fact.tail)}
    descriptions = {name: text for name, text in sorted(library.descriptions.items()) if name in entities}
    return sorted(facts, key=lambda fact: (fact.head, fact.relation, fact.tail)), descriptions


def _added_in(facts: set[Fact], versions: Versions) -> Iterator[Fact]:
    """The versions of what came after `OLDEST`; of a member of a class only where it came later than the class."""
    classes = {fact.head: fact.tail for fact in facts if fact.relation == "member_of"}
    for name in {fact.head for fact in facts if fact.relation == "is_a"}:
        before = versions.of(classes[name]) if name in classes else OLDEST
        if (version := versions.of(name)) > before and version == versions.said(name):
            yield Fact(name, "added_in", label(version))


def _dull(fact: Fact) -> bool:
    return fact.relation not in QUESTIONS or (fact.relation == "is_a" and fact.tail in DEFAULTS)


def first_sentence(doc: str) -> str:
    """What a docstring begins with, as prose; "" when it has none."""
    paragraphs = re.split(r"\n\s*\n", doc.strip())
    text = next((text for paragraph in paragraphs if (text := clean(paragraph))), "")
    for end in range(20, len(text) - 2):
        if text[end] == "." and text[end + 1] == " " and text[end + 2].isupper() and text[end - 2 : end] != ".g":
            return text[: end + 1]
    return text


class _Library:
    def __init__(self, names: Names):
        self.names = names
        self.scopes = names.scopes
        self.descriptions: dict[str, str] = {}
        self.modules = {shown for module in self.scopes if (shown := names.module_name(module))}
        self.signed: dict[str, str] = {}
        """Which module's definition tells the parameters, by the name of the function."""
        self.classes = {shown for key, shown in names.public.items() if names.class_of(key)}

    def facts(self) -> Iterator[Fact]:
        for module in sorted(self.scopes):
            if shown := self.names.module_name(module):
                yield from self.module(module, shown)
        # C before its twin in Python, which may name parameters otherwise.
        for key, shown in sorted(self.names.public.items(), key=lambda item: not self.scopes[item[0].module].compiled):
            if shown in self.modules:
                continue  # `curses.has_key` is a module and a function of it
            if self.names.class_of(key):
                yield from self.class_(key, shown)
            elif function := self.names.function_of(key):
                kind = "coroutine" if function.coroutine else "generator" if function.generator else "function"
                yield from self.placed(shown, kind, function.doc)
                yield from self.function(key, shown, function)
        for shown, key in self.names.second.items():
            if (target := self.shown(key)) and shown not in self.modules:
                kind = "function" if self.names.function_of(key) else self.kind(key)
                yield from self.placed(shown, kind, "")
                yield Fact(shown, "alias_of", target)

    def placed(self, shown: str, kind: str, doc: str) -> Iterator[Fact]:
        yield Fact(shown, "is_a", kind)
        if "." in shown:
            home = shown.rpartition(".")[0]
            yield Fact(shown, "member_of" if home in self.classes else "defined_in", home)
        self.describe(shown, doc)

    def describe(self, shown: str, doc: str) -> None:
        if shown not in self.descriptions and (text := first_sentence(doc)):
            self.descriptions[shown] = text

    def shown(self, key: Key | None) -> str | None:
        """The public name of a definition, None for a private one."""
        if key is None or key.instance or not key.name:
            return None
        if (shown := self.names.public.get(key)) or self.names.class_of(key):
            return shown
        owner, _, name = key.name.rpartition(".")
        if not owner or name.startswith("_"):
            return None
        return f"{home}.{name}" if (home := self.names.public.get(Key(key.module, owner))) else None

    def module(self, module: str, shown: str) -> Iterator[Fact]:
        scope = self.scopes[module]
        yield Fact(shown, "is_a", "package" if scope.package else "module")
        self.describe(shown, scope.doc)
        if "." in shown:
            yield Fact(shown, "part_of", shown.rpartition(".")[0])
        chapter = CHAPTER_OF.get(module) or next(
            (CHAPTER_OF[part] for part in _parents(module) if part in CHAPTER_OF), None
        )
        if chapter:
            yield Fact(shown, "chapter", chapter)
        for name in sorted(scope.imports):
            target = name if name in self.scopes else name.rpartition(".")[0]
            other = self.names.module_name(target) if target in self.scopes else None
            if other and other != shown and target not in ("builtins", *_parents(module)):
                yield Fact(shown, "imports", other)

    def kind(self, key: Key) -> str:
        order = self.names.order(key)
        if any(k.module == "builtins" and k.name == "Warning" for k in order):
            return "warning"
        if any(k.module == "builtins" and k.name == "BaseException" for k in order):
            return "exception"
        return "enumeration" if any(k.module == "enum" and k.name == "Enum" for k in order[1:]) else "class"

    def class_(self, key: Key, shown: str) -> Iterator[Fact]:
        own = self.names.own_part(key)
        found = [c for part in own if (c := self.names.class_of(part))]
        yield from self.placed(shown, self.kind(key), found[0].doc)
        if any(c.named_tuple for c in found):
            yield Fact(shown, "is_a", "named tuple")
        if any(c.abstract for c in found) or any(
            d.endswith("abstractmethod") for c in found for m in c.members.values() for d in m.decorators
        ):
            yield Fact(shown, "is_a", "abstract class")
        for base in self.names.public_bases(key):
            if (name := self.shown(base)) and name not in ("object", shown):
                yield Fact(shown, "inherits_from", name)
        yield from self.decorators(key, shown, found[0].decorators)
        seen: set[str] = set()
        for part, class_ in zip(own, found, strict=True):
            for name, member in class_.members.items():
                if name in ("__init__", "__new__"):
                    if name not in seen:
                        yield from self.function(part, shown, member, owner=key)
                elif name in SPECIAL:
                    yield Fact(shown, "implements", name)
                elif not name.startswith("_") and name not in seen:
                    yield from self.method(key, part, f"{shown}.{name}", name, member)
                seen.add(name)
            for name, member_name in class_.aliases.items():
                public = not name.startswith("_") and not member_name.startswith("_") and name not in class_.members
                if public and (member := class_.members.get(member_name)):
                    yield from self.placed(f"{shown}.{name}", _kind_of_method(member), "")
                    yield Fact(f"{shown}.{name}", "alias_of", f"{shown}.{member_name}")

    def method(self, owner: Key, part: Key, shown: str, name: str, member: Function) -> Iterator[Fact]:
        yield from self.placed(shown, _kind_of_method(member), member.doc)
        yield from self.function(part, shown, member, owner=owner)
        for ancestor in self.names.order(owner)[1:]:
            above = self.names.class_of(ancestor)
            base = self.names.public.get(ancestor)
            if above and base and name in above.members and f"{base}.{name}" != shown:
                yield Fact(shown, "overrides", f"{base}.{name}")
                break

    def function(self, key: Key, shown: str, function: Function, owner: Key | None = None) -> Iterator[Fact]:
        """What a function's signature and body say. `owner`: the class whose method it is."""
        module = key.module
        if function.parameters and self.signed.setdefault(shown, module) == module:
            for parameter in function.parameters:
                yield Fact(shown, "takes", f"parameter {parameter}")
        yield from self.decorators(key, shown, function.decorators)
        for relation, references in (("raises", function.raises), ("catches", function.catches)):
            for name in references:
                found = self.names.resolve(module, name, owner, function.imports)
                if (error := self.shown(found)) and found and self.kind(found) in ("exception", "warning"):
                    yield Fact(shown, relation, error)
        for name in function.calls:
            found = self.names.resolve(module, name, owner, function.imports)
            called = self.shown(found)
            if found is None or called is None or called == shown:
                continue
            if self.names.class_of(found) and self.kind(found) in ("exception", "warning"):
                continue
            if found.module != "builtins" or "." in found.name or found.name in _TELLING:
                yield Fact(shown, "calls", called)

    def decorators(self, key: Key, shown: str, decorators: list[str]) -> Iterator[Fact]:
        for name in decorators:
            decorator = self.shown(self.names.resolve(key.module, name))
            if decorator and decorator not in _ON_METHODS:
                yield Fact(shown, "decorated_as", decorator)


def _kind_of_method(member: Function) -> str:
    if member.data or any(d.endswith("property") for d in member.decorators):
        return "property"
    kind = next((_ON_METHODS[d] for d in member.decorators if d in _ON_METHODS), None)
    return kind or ("coroutine" if member.coroutine else "generator" if member.generator else "method")


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
