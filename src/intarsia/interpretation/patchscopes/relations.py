"""Relations: a target prompt that asks for an attribute, and sentences that mention subjects whose attribute is known.

Source: the files published with the Patchscopes code, made from the LRE relations (Hernandez et al. 2024) and sentences
of WikiText-103. `read_relations` reads the folder with `tasks.tsv` and `attributes.tsv`."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intarsia.data import shared_data
from intarsia.errors import BadInput, did_you_mean

PLACEHOLDER = "x"
TARGET_PROMPTS = {
    "fruit_inside_color": "On the inside, the color of x",
    "fruit_outside_color": "On the outside, the color of x",
    "object_superclass": "Among the superclasses of animal, bird, fish, vegetable, flower, fruit, the superclass of x",
    "substance_phase": "At room temperature, the phase of matter of x",
    "task_done_by_person": "The professional role most suited to handle x",
    "task_done_by_tool": "The tool that is used for x",
    "word_sentiment": "Among positive, negative, neutral, the sentiment of x",
    "work_location": "The place of work where you can usually find a x",
    "company_ceo": "The name of the CEO of x",
    "country_capital_city": "The capital city of x",
    "country_currency": "The official currency of x",
    "country_largest_city": "The largest city in x",
    "food_from_country": "The country of origin for x",
    "person_father": "Name of father of x",
    "person_mother": "Name of mother of x",
    "person_plays_position_in_sport": "In their sport, the position played by x",
    "person_plays_pro_sport": "The professional sport played by x",
    "pokemon_evolutions": "The evolved form of x",
    "product_by_company": "The company which developed x",
    "star_constellation": "The name of the constellation including x",
    "superhero_archnemesis": "The name of the superhero archnemesis of x",
    "superhero_person": "Secret identity of x",
}
MAIN = (
    "fruit_inside_color", "fruit_outside_color", "object_superclass", "substance_phase", "task_done_by_tool",
    "company_ceo", "country_currency", "food_from_country", "person_plays_position_in_sport",
    "person_plays_pro_sport", "product_by_company", "star_constellation",
)  # fmt: skip
"""The twelve relations of the paper's main table."""


@dataclass(frozen=True)
class Mention:
    """A sentence that mentions a subject; `end` is the character after the subject in it."""

    text: str
    end: int


@dataclass(frozen=True)
class Subject:
    """A subject, its attributes (one, or several that are right), and sentences that mention it."""

    name: str
    objects: tuple[str, ...]
    mentions: tuple[Mention, ...]


@dataclass(frozen=True)
class Relation:
    """A relation by its name: the target prompt, which ends with the placeholder, its subjects, and other wordings of
    the question with `{}` for the subject."""

    name: str
    target_prompt: str
    subjects: tuple[Subject, ...]
    wordings: tuple[str, ...] = ()

    def ask(self, subject: str, every: bool = False) -> list[str]:
        """The question about a subject: the target prompt with it in the placeholder's stead; `every` wording."""
        asked = self.target_prompt[: -len(PLACEHOLDER)] + subject
        return [asked, *(wording.replace("{}", subject) for wording in self.wordings if every)]


def holds(text: str, objects: Sequence[str]) -> bool:
    """Whether one of the objects occurs in the text, white space aside."""
    squeezed = "".join(text.split())
    return any(word and word in squeezed for word in ("".join(o.split()) for o in objects))


def data_folder(folder: str) -> Path:
    """The folder with the published files: the one given, else the shared data set `patchscopes`."""
    if folder:
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise BadInput(f"no folder '{folder}': wants one with tasks.tsv, attributes.tsv and multihop.tsv")
        return path
    path = shared_data("patchscopes")
    if path is None:
        raise BadInput(
            "there is no folder with the published relations here: give records (text, label, group) or --folder"
        )
    return path


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of one of the published tab-separated files."""
    path = folder / name
    if not path.is_file():
        raise BadInput(f"{folder} has no {name}: wants the files published with the Patchscopes code")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: _unescaped(v) for k, v in row.items()} for row in csv.DictReader(file, delimiter="\t")]


def _unescaped(value: str) -> str:
    """A few names are published with their accents escaped (`Bras\\u00edlia`)."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), value or "")


def read_relations(folder: Path, names: Iterable[str] = MAIN) -> list[Relation]:
    """Relations of the published files by name, subjects in the order of the file."""
    tasks = rows_of(folder, "tasks.tsv")
    prompts = {row["task"]: row["target_prompt"] for row in tasks}
    wordings = {
        row["task"]: tuple(json.loads(row["lre_templates"]) + json.loads(row["lre_zero_shot_templates"]))
        for row in tasks
    }
    wanted = list(names)
    for name in wanted:
        if name not in prompts:
            raise BadInput(f"no relation '{name}'{did_you_mean(name, prompts)}; known: {', '.join(prompts)}")
    objects: dict[tuple[str, str], dict[str, None]] = {}
    mentions: dict[tuple[str, str], dict[Mention, None]] = {}
    for row in rows_of(folder, "attributes.tsv"):
        key = row["task"], row["subject"]
        objects.setdefault(key, {})[row["object"]] = None
        mentions.setdefault(key, {})[Mention(row["source"], int(row["subject_end_char"]))] = None
    return [
        Relation(
            name,
            prompts[name],
            tuple(
                Subject(subject, tuple(found), tuple(mentions[task, subject]))
                for (task, subject), found in objects.items()
                if task == name
            ),
            wordings[name],
        )
        for name in wanted
    ]


def from_records(records: Sequence[Any], target_prompt: str) -> Relation:
    """A relation from records: `text` mentions the subject `group`, whose attribute is `label`.

    Raises `BadInput` for records without a subject, subjects that are not in their text, and a target prompt that does
    not end with the placeholder."""
    if not target_prompt.endswith(PLACEHOLDER):
        raise BadInput(f"the target prompt must end with the placeholder '{PLACEHOLDER}', was {target_prompt!r}")
    objects: dict[str, dict[str, None]] = {}
    mentions: dict[str, dict[Mention, None]] = {}
    for number, record in enumerate(records, 1):
        subject, label = getattr(record, "group", None), getattr(record, "label", None)
        if not subject or not label:
            raise BadInput(f"record {number}: wants text, label (the attribute) and group (the subject)")
        start = record.text.rfind(subject)
        if start < 0:
            raise BadInput(f"record {number}: the subject '{subject}' is not in its text: {record.text!r}")
        objects.setdefault(subject, {})[label] = None
        mentions.setdefault(subject, {})[Mention(record.text, start + len(subject))] = None
    if not objects:
        raise BadInput("no records were given: wants text, label (the attribute) and group (the subject)")
    subjects = (Subject(name, tuple(found), tuple(mentions[name])) for name, found in objects.items())
    return Relation("given", target_prompt, tuple(subjects))
