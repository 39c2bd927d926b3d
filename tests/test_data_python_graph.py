"""The embedded growing graph: true, the same every time, without leaks, and read without running anything."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from collections import Counter

import pytest

from intarsia.data.python_graph import QUESTIONS, python_graph, questions
from intarsia.data.python_graph.names import Key, Names
from intarsia.data.python_graph.relations import DEFAULTS, _Library, library_facts
from intarsia.data.python_graph.sources import library_files, read_library
from intarsia.data.python_graph.timeline import LEAST_FACTS, merged, snapshots_of
from intarsia.data.python_graph.versions import OLDEST, Versions, label
from intarsia.data.records import Fact
from intarsia.data.snapshots import SPLITS, FactSnapshot

# The graph is built once, by one worker.
pytestmark = pytest.mark.xdist_group("python_graph")
MINOR = sys.version_info.minor


@pytest.fixture(scope="module")
def snapshots() -> list[FactSnapshot]:
    return python_graph()


@pytest.fixture(scope="module")
def facts(snapshots) -> set[Fact]:
    return {fact for snapshot in snapshots for split in SPLITS for fact in getattr(snapshot, split)}


def test_sizes(snapshots, facts):
    assert 15_000 <= len(facts) <= 55_000
    degrees = Counter(entity for fact in facts for entity in (fact.head, fact.tail))
    assert 6_000 <= len(degrees) <= 15_000
    assert min(degrees.values()) >= 2
    assert 9 <= len(snapshots) <= MINOR - 1
    for snapshot in snapshots:
        size = sum(len(getattr(snapshot, split)) for split in SPLITS)
        assert size >= LEAST_FACTS and len(snapshot.test) >= 8 and len(snapshot.valid) >= 8
    relations = Counter(fact.relation for fact in facts)
    assert set(relations) == {*QUESTIONS, "defined_in", "member_of", "part_of"}
    assert min(relations.values()) >= 50
    assert len(snapshots[0].train) < 0.8 * len(facts)


def test_snapshots_are_named_by_versions_in_order(snapshots):
    names = [snapshot.name for snapshot in snapshots]
    assert names[0] == "up to 3.2"
    assert names[1:3] == ["3.3", "3.4"]
    assert names[-1].endswith(f"3.{MINOR}")


# What every Python from 3.11 on can confirm.
@pytest.mark.parametrize(
    "line",
    [
        "FileNotFoundError inherits_from OSError",
        "FileNotFoundError is_a exception",
        "FileNotFoundError added_in Python 3.3",
        "json.JSONDecodeError inherits_from ValueError",
        "json.JSONDecodeError added_in Python 3.5",
        "json.JSONDecodeError defined_in json",
        "json.loads raises json.JSONDecodeError",
        "json.loads takes parameter object_hook",
        "json.JSONDecoder.decode member_of json.JSONDecoder",
        "json.JSONDecoder takes parameter parse_float",
        "dataclasses added_in Python 3.7",
        "dataclasses chapter Python Runtime Services",
        "math.prod added_in Python 3.8",
        "str.removeprefix added_in Python 3.9",
        "asyncio.TaskGroup added_in Python 3.11",
        "asyncio.Task inherits_from asyncio.Future",
        "asyncio.TimeoutError alias_of TimeoutError",
        "asyncio.sleep is_a coroutine",
        "concurrent.futures.ThreadPoolExecutor inherits_from concurrent.futures.Executor",
        "collections.Counter inherits_from dict",
        "collections.Counter.update overrides dict.update",
        "collections.abc.Mapping inherits_from collections.abc.Collection",
        "collections.abc.Mapping is_a abstract class",
        "collections.abc.Mapping implements __contains__",
        "collections.abc part_of collections",
        "datetime.date.fromisoformat is_a class method",
        "configparser.NoOptionError inherits_from configparser.Error",
        "shutil.copy calls shutil.copyfile",
        "shutil.copy calls os.path.isdir",
        "os.path.exists catches OSError",
        "random.randint alias_of random.Random.randint",
        "bz2 imports io",
        "IOError alias_of OSError",
        "http.HTTPStatus is_a enumeration",
        "str.index raises ValueError",
        "list.remove raises ValueError",
        "selectors.BaseSelector.select decorated_as abc.abstractmethod",
    ],
)
def test_what_a_programmer_knows(facts, line):
    head, relation, tail = line.split(" ", 2)
    assert Fact(head, relation, tail) in facts


def test_inheritance_and_exceptions_are_those_of_the_interpreter(facts):
    modules = ("asyncio", "collections", "json", "pathlib", "email.errors", "enum", "io", "builtins")
    known = {name: importlib.import_module(name) for name in modules}

    def found(name: str):
        module, _, rest = name.rpartition(".")
        return getattr(known.get(module or "builtins"), rest, None)

    checked: Counter[str] = Counter()
    for fact in facts:
        head, tail = found(fact.head), found(fact.tail)
        if fact.relation == "inherits_from" and head is not None and tail is not None:
            assert issubclass(head, tail), fact
        elif fact.relation in ("raises", "catches") and tail is not None:
            assert issubclass(tail, BaseException), fact
        elif fact.relation == "implements" and head is not None:
            assert hasattr(head, fact.tail), fact
        else:
            continue
        checked[fact.relation] += 1
    assert min(checked[r] for r in ("inherits_from", "raises", "catches", "implements")) > 100


def test_names_are_public(facts):
    for fact in facts:
        for name in (fact.head, *([fact.tail] if fact.relation not in ("implements", "chapter") else [])):
            assert name and not any(part.startswith("_") for part in name.split(".")), fact
        assert not fact.head.startswith(("posix.", "genericpath.", "builtins.")), fact


def test_splits_do_not_leak(snapshots, facts):
    places = Counter(fact for snapshot in snapshots for split in SPLITS for fact in getattr(snapshot, split))
    assert set(places.values()) == {1}
    known: set[str] = set()
    relations: set[str] = set()
    for snapshot in snapshots:
        known |= {entity for fact in snapshot.train for entity in (fact.head, fact.tail)}
        relations |= {fact.relation for fact in snapshot.train}
        for fact in (*snapshot.valid, *snapshot.test):
            assert {fact.head, fact.tail} <= known and fact.relation in relations, fact


def test_what_is_asked_cannot_be_read_off_the_names(snapshots):
    versions = Versions()
    for fact in (fact for snapshot in snapshots for fact in (*snapshot.valid, *snapshot.test)):
        assert fact.relation in QUESTIONS, fact
        if fact.relation == "is_a":
            assert fact.tail not in DEFAULTS, fact
            assert not (fact.tail == "exception" and fact.head.endswith("Error")), fact
        elif fact.relation in ("inherits_from", "alias_of"):
            assert not fact.head.endswith(fact.tail), fact
        elif fact.relation == "added_in" and "." in fact.head:
            assert versions.of(fact.head.rpartition(".")[0]) < versions.of(fact.head), fact


def test_a_fact_is_in_the_snapshot_of_its_latest_entity(snapshots):
    versions = Versions()
    for snapshot in snapshots:
        numbers = [int(part.rpartition(".")[2]) for part in snapshot.name.split("-")]
        for fact in (fact for split in SPLITS for fact in getattr(snapshot, split)):
            latest = max(versions.of(fact.head), versions.of(fact.tail))
            assert numbers[0] <= latest <= numbers[-1], (snapshot.name, fact)


def test_descriptions_are_a_sentence_about_an_entity_of_the_snapshot(snapshots):
    seen: set[str] = set()
    for snapshot in snapshots:
        entities = {e for split in SPLITS for fact in getattr(snapshot, split) for e in (fact.head, fact.tail)}
        assert snapshot.descriptions.keys() <= entities
        assert not seen & snapshot.descriptions.keys()
        seen |= snapshot.descriptions.keys()
    assert len(seen) > 3_000
    texts = {name: text for snapshot in snapshots for name, text in snapshot.descriptions.items()}
    assert texts["json.loads"].startswith("Deserialize s")
    assert max(len(text.split()) for text in texts.values()) <= 60


def test_the_seed_divides_but_the_facts_stay(snapshots, facts):
    in_order = sorted(facts, key=lambda fact: (fact.head, fact.relation, fact.tail))
    again, other = (snapshots_of(in_order, {}, Versions(), seed) for seed in (0, 1))
    assert [snapshot.test for snapshot in again] == [snapshot.test for snapshot in snapshots]
    assert {fact for snapshot in other for split in SPLITS for fact in getattr(snapshot, split)} == facts
    one, two = ({fact for snapshot in s for fact in snapshot.test} for s in (snapshots, other))
    assert len(one & two) < 0.3 * len(one)


def test_same_graph_in_another_process_and_nothing_shown_or_opened(snapshots):
    code = (
        "import sys, hashlib; from intarsia.data.python_graph import python_graph; g = python_graph();"
        "print(sorted({'this', 'antigravity', 'tkinter', 'turtle', 'test', 'idlelib'} & set(sys.modules)));"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)));"
        "print(hashlib.sha256(repr(g).encode()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = hashlib.sha256(repr(snapshots).encode()).hexdigest()
    assert done.stdout.split("\n") == ["[]", "[]", own, ""] and done.stderr == ""


def test_questions_ask_for_what_no_one_learned(snapshots):
    asked = questions(snapshots)
    assert len(asked) == 12 and asked == questions(snapshots)
    train = {fact for snapshot in snapshots for fact in snapshot.train}
    test = {fact for snapshot in snapshots for fact in snapshot.test}
    for question in asked:
        assert question.text == QUESTIONS[question.relation].format(head=question.head)
        answers = {Fact(question.head, question.relation, answer) for answer in question.answers}
        assert answers & test and not answers & train
        assert all(Fact(question.head, question.relation, answer) in train for answer in question.learned)
    assert len({question.relation for question in asked}) >= 8
    assert len({question.head for question in asked}) == 12
    assert len(questions(snapshots, most=3)) == 3
    assert questions([]) == []


@pytest.mark.parametrize(
    ("name", "minor"),
    {
        "ipaddress": 3, "unittest.mock": 3, "lzma.open": 3, "contextlib.ExitStack": 3, "shutil.which": 3,
        "asyncio": 4, "enum.Enum": 4, "pathlib.Path.exists": 4, "statistics.mean": 4, "functools.singledispatch": 4,
        "typing": 5, "subprocess.run": 5, "math.isclose": 5, "pathlib.Path.home": 5,
        "secrets.token_hex": 6, "random.choices": 6, "enum.Flag": 6,
        "dataclasses.dataclass": 7, "contextvars": 7, "importlib.resources": 7, "asyncio.run": 7, "time.time_ns": 7,
        "math.prod": 8, "typing.Protocol": 8, "functools.cached_property": 8, "importlib.metadata.version": 8,
        "zoneinfo": 9, "graphlib.TopologicalSorter": 9, "functools.cache": 9, "str.removeprefix": 9, "math.lcm": 9,
        "int.bit_count": 10, "itertools.pairwise": 10, "statistics.correlation": 10, "aiter": 10,
        "asyncio.TaskGroup": 11, "tomllib.loads": 11, "ExceptionGroup": 11, "enum.StrEnum": 11, "typing.Self": 11,
        "itertools.batched": 12, "typing.override": 12, "pathlib.Path.walk": 12, "math.sumprod": 12,
        "warnings.deprecated": 13, "copy.replace": 13, "queue.ShutDown": 13, "base64.z85encode": 13,
        "annotationlib": 14, "string.templatelib.Template": 14, "compression.zstd": 14, "uuid.uuid7": 14,
        "json.loads": OLDEST, "dict.update": OLDEST, "functools.lru_cache": OLDEST, "concurrent.futures": OLDEST,
    }.items(),
)  # fmt: skip
def test_versions(name, minor):
    versions = Versions()
    assert versions.said(name) == minor
    assert versions.of(name) == min(minor, MINOR)
    assert versions.of(label(minor)) == min(minor, MINOR)


def test_versions_with_few_facts_share_a_snapshot():
    fact = Fact("a", "calls", "b")
    many = [fact] * LEAST_FACTS
    by_version = {2: many, 3: many, 5: [fact], 4: many, 6: [fact], 7: many, 8: [fact]}
    assert [(name, len(group)) for name, group in merged(by_version)] == [
        ("up to 3.2", LEAST_FACTS),
        ("3.3", LEAST_FACTS),
        ("3.4", LEAST_FACTS),
        ("3.5-3.8", LEAST_FACTS + 3),
    ]
    assert merged({}) == []
    assert merged({2: [fact]}) == [("up to 3.2", [fact])]


def test_works_without_optional_modules(monkeypatch):
    absent = {"_sqlite3", "_ssl", "_curses", "_curses_panel", "readline", "_ctypes", "_decimal", "_lzma"}
    importer = importlib.import_module

    def without(name, *args):
        if name in absent:
            raise ImportError(name)
        return importer(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    facts, _ = library_facts(read_library(), Versions())
    assert not any(fact.head == "sqlite3.Connection.commit" for fact in facts)
    assert Fact("json.loads", "raises", "json.JSONDecodeError") in facts
    assert Fact("decimal.Decimal", "defined_in", "decimal") in facts  # the twin in Python is there


def test_works_without_sources(tmp_path):
    facts, _ = library_facts(read_library(tmp_path / "nowhere"), Versions())
    assert Fact("FileNotFoundError", "inherits_from", "OSError") in facts
    assert not any(fact.head.startswith("shutil") for fact in facts)


@pytest.fixture
def tiny(tmp_path):
    """A library of three modules under names of the real one."""
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text(
        '"""JSON."""\nfrom .decoder import Decoder, Error\nimport shelve\n__all__ = ["Decoder", "load"]\n'
        "def load(text, /, *, hook=None):\n"
        '    """Load. Raises LookupError in the end, but does not raise KeyError."""\n'
        "    text.strip()\n    shelve = text\n    shelve.open()\n    return Decoder().decode(text)\n"
    )
    (tmp_path / "json" / "decoder.py").write_text(
        "from os import path as p\n"
        "class _Base:\n    def walk(this, step): this.decode(step)\n"
        "class Error(ValueError): pass\n"
        "class Decoder(_Base):\n"
        "    def __init__(self, hook): raise TypeError(hook)\n"
        "    def __iter__(self): yield 1\n"
        "    def decode(self, text):\n"
        "        try: self._scan(text)\n"
        "        except (OSError, Error) as error: raise error\n"
        "        def inside(): raise RuntimeError\n"
        "        raise Error('x') from None\n"
        "    def _scan(self, text): pass\n"
        "    alias = decode\n"
        "    @property\n    def size(self): return p.join('a')\n"
        "    @size.setter\n    def size(self, value): pass\n"
    )
    (tmp_path / "shelve.py").write_text(
        "import sys, json\nfrom json import Decoder\n__all__ = ['open', 'Shelf', 'decode']\n"
        "if sys.platform == 'x':\n    _d = Decoder(1)\n    decode = _d.decode\n"
        "async def open(name):\n    from json import load as fetch\n    return fetch(name)\n"
        "class Shelf(json.Decoder):\n    def decode(self, text): return super().decode(text)\n"
    )
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "antigravity.py").write_text("raise SystemExit")
    (tmp_path / "sched.py").write_text("def (:")
    return tmp_path


def test_reading_resolves_names_as_python_would(tiny):
    assert list(library_files(tiny)) == ["json", "json.decoder", "sched", "shelve"]
    names = Names(read_library(tiny))
    assert "sched" not in names.scopes  # cannot be parsed
    assert names.public[Key("json.decoder", "Decoder")] == "json.Decoder"
    found = {
        f"{f.head} {f.relation} {f.tail}" for f in _Library(names).facts() if f.head.startswith(("json", "shelve"))
    }
    assert found >= {
        "json is_a package",
        "json.decoder part_of json",
        "json.Decoder defined_in json",
        "json.Decoder raises TypeError",
        "json.Decoder takes parameter hook",
        "json.Decoder implements __iter__",
        "json.Decoder.walk member_of json.Decoder",  # of a private base
        "json.Decoder.walk calls json.Decoder.decode",
        "json.Decoder.walk takes parameter step",
        "json.Decoder.decode raises json.decoder.Error",
        "json.Decoder.decode catches json.decoder.Error",
        "json.Decoder.decode catches OSError",
        "json.Decoder.alias alias_of json.Decoder.decode",
        "json.Decoder.size is_a property",
        "json.decoder.Error inherits_from ValueError",
        "json.load raises LookupError",
        "json.load takes parameter hook",
        "json.load calls json.Decoder",
        "json imports shelve",
        "shelve imports json",
        "shelve.decode alias_of json.Decoder.decode",
        "shelve.open is_a coroutine",
        "shelve.open calls json.load",
        "shelve.Shelf inherits_from json.Decoder",
        "shelve.Shelf.decode overrides json.Decoder.decode",
    }
    assert not found & {
        "json.Decoder inherits_from object",
        "json.Decoder.decode raises RuntimeError",  # of a function inside
        "json.Decoder.size takes parameter value",
        "json.load raises KeyError",
        "json.load calls shelve.open",  # a variable of that name
        "json.Decoder.decode calls json.Decoder._scan",
    }
