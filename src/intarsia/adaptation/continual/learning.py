"""The one loop: a method takes task after task, and every method is judged alike."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from intarsia.adaptation.continual import bundle
from intarsia.adaptation.continual.bundle import TECHNIQUE
from intarsia.adaptation.continual.finding import Learned, StreamFinding
from intarsia.adaptation.continual.judging import Judge, how_to_judge
from intarsia.adaptation.continual.methods import METHODS, Lesson, Method
from intarsia.adaptation.continual.metrics import diagonal
from intarsia.adaptation.continual.reading import Reader
from intarsia.adaptation.continual.rows import Row, Writer
from intarsia.adaptation.continual.skills import Skills, attach, attach_prompts, detach, layer_names, skills_of
from intarsia.adaptation.continual.stream import Task, tasks_of
from intarsia.adaptation.continual.teaching import teach
from intarsia.adaptation.continual.technique import ContinualConfig
from intarsia.adaptation.trunk import Overflow, Trunk
from intarsia.data import read_stream
from intarsia.errors import BadInput, Note
from intarsia.measure import provenance
from intarsia.models import cache
from intarsia.models.saved import Saved
from intarsia.models.weights import weights_key
from intarsia.progress import tell
from intarsia.training.loop import seeded
from intarsia.training.lora import first_block

if TYPE_CHECKING:
    from intarsia.data import TaskPair
    from intarsia.models import Model


def learn(
    model: Model, config: ContinualConfig, stream: Sequence[TaskPair], seed: int, *, trunk_folder: Path | None = None
) -> Model:
    """See `intarsia.adaptation.continual.technique.continual`.

    - trunk_folder: keep the states of the frozen blocks there, for other runs on the same model and data."""
    if isinstance(stream, str | Path):
        stream = read_stream(stream)
    limits = config.train_limit, config.dev_limit, config.test_limit
    tasks, unseen = tasks_of(stream, config.order, config.unseen, limits=limits, seed=seed)
    had = bundle.check(model, config, [task.name for task in tasks])
    new = model.copy()
    mark = _mark(model, config, stream, seed)
    keep = config.keep or cache.cache_dir() / "continual" / mark
    trained = [parameter for parameter in new.network.parameters() if parameter.requires_grad]
    course = Course(new, config, tasks, unseen, had, seed, trunk_folder)
    try:
        finding = course.run(keep / "learned.safetensors", mark)
    finally:
        course.close()
    for parameter in trained:
        parameter.requires_grad_(True)
    if config.single:
        finding = finding.model_copy(update={"single": _alone(model, config, tasks, seed, keep, mark, trunk_folder)})
    out = model.with_network(
        new.network, technique=TECHNIQUE, config=config.model_dump(mode="json", exclude={"keep"}), seed=seed
    )
    out.extras[TECHNIQUE] = bundle.note(course.skills, course.method, config, finding, had, _instructions(tasks))
    out.finding = finding
    return out


def _instructions(tasks: Sequence[Task]) -> dict[str, str]:
    """Of tasks whose training examples all have the same."""
    found = {task.name: {example.instruction for example in task.train} for task in tasks}
    return {name: next(iter(same)) for name, same in found.items() if len(same) == 1}


def _alone(
    model: Model, config: ContinualConfig, tasks: list[Task], seed: int, keep: Path, mark: str, trunk: Path | None
) -> list[float | None]:
    """[task] the score of a block that learned this task alone, for forward transfer."""
    plain = model.copy()
    detach(plain.network)
    own = config.model_copy(update={"method": "oracle"})
    course = Course(plain, own, tasks, [], None, seed, trunk)
    try:
        return diagonal(course.run(keep / "alone.safetensors", f"{mark}-alone").matrix)
    finally:
        course.close()


def _mark(model: Model, config: ContinualConfig, stream: Sequence[TaskPair], seed: int) -> str:
    """Tells this very run from any other: by weights, skills, data, settings and seed."""
    from intarsia.data import Dataset

    skills = skills_of(model.network)
    blocks = [float(t.double().sum()) for t in skills.tensors().values()] if skills is not None else []
    told = [
        weights_key(model), blocks, model.extras.get(TECHNIQUE), Dataset({"stream": list(stream)}).sha256,
        config.model_dump(mode="json", exclude={"keep"}), seed,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Course:
    """A stream while it is learned."""

    def __init__(
        self, model: Model, config: ContinualConfig, tasks: list[Task], unseen: list[Task], had: dict[str, Any] | None,
        seed: int, trunk_folder: Path | None,
    ):  # fmt: skip
        self.model, self.config, self.tasks, self.unseen, self.seed = model, config, tasks, unseen, seed
        self.kind = METHODS[config.method]
        self.decoder_only = not getattr(model.config, "is_encoder_decoder", False)
        self.earlier = len((had or {}).get("tasks", {}))
        self._check_trunk()
        first = first_block(model.network, config.layers_from)
        found = skills_of(model.network)
        self.skills: Skills = self._attached(first) if found is None else found
        self._settle()
        self.rows = self._written()
        self.hows = {task.name: how_to_judge(task, config.judge) for task in self._all}
        trunk = self._trunk(first if found is None else self.skills.first, trunk_folder)
        self.reader = Reader(model, self.skills, trunk)
        with seeded(seed):  # a router that is learned begins at random
            self.method: Method = self.kind(self.reader, config)
        bundle.take_state(self.method, had)
        self.judge = Judge(self.reader, config.max_answer, self.method.frozen)
        self.learned: list[Learned] = []
        self.base: dict[str, float | None] = {}  # scores without any block

    @property
    def _all(self) -> tuple[Task, ...]:
        """Also those that are only judged."""
        return (*self.tasks, *self.unseen)

    def _check_trunk(self) -> None:
        """Raises `BadInput` where states are to be stored and nothing below the blocks is frozen."""
        if self.config.trunk_cache in ("auto", "off"):
            return
        if self.kind.prompts:
            raise BadInput(f"the method {self.kind.name} works by prompts, which change every block: trunk_cache off")
        if not self.decoder_only:
            raise BadInput("an encoder-decoder has no frozen trunk to store: trunk_cache off")

    def _attached(self, first: int) -> Skills:
        """New skills of the method's kind, beside blocks `first` and up."""
        network, config, kind = self.model.network, self.config, self.kind
        if kind.prompts:
            return attach_prompts(network, kind.length(config), joined=kind.joined)
        return attach(network, layer_names(network, config.targets, first))

    def _settle(self) -> None:
        """Nothing of the network moves any more; the skills are trained as the settings say."""
        network = self.model.network
        network.eval()  # its own dropout is off: states below the blocks are constants
        if getattr(network, "is_gradient_checkpointing", False):
            network.gradient_checkpointing_disable()  # it would run blocks again after their weights are gone
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        for stack in self.skills.stacks:
            stack.dropout = self.config.dropout
        if self.skills.prompts is not None:
            self.skills.prompts.hidden = self.config.prompt_mlp

    def _written(self) -> dict[str, dict[str, list[Row]]]:
        """The rows of every task and split."""
        config = self.config
        reserved = self.kind.positions(config, self.earlier + len(self.tasks))
        writer = Writer(self.model, config.template, config.max_tokens, config.max_answer, reserved)
        return {
            task.name: {split: writer.rows(getattr(task, split)) for split in ("train", "dev", "test")}
            for task in self._all
        }

    def _trunk(self, first: int, folder: Path | None) -> Trunk | None:
        """Stored states of the blocks below the first adapted one, where that is asked for, or possible and worth its
        place."""
        asked, dtype = self.config.trunk_cache, "float16"
        if asked == "off":
            return None
        if asked != "auto":
            return Trunk.of(self.model, asked, first, folder)
        if not first or not self.decoder_only or self.kind.prompts:
            return None
        tokens = sum(len(row.ids) for splits in self.rows.values() for rows in splits.values() for row in rows)
        size = tokens * self.model.config.get_text_config().hidden_size * 2
        room = (
            shutil.disk_usage(folder or tempfile.gettempdir()).free if folder is None or folder.is_dir() else size * 4
        )
        if size > room / 2:
            told = f"states of the frozen blocks would take {size / 1e9:.0f} GB: they are computed anew in every step"
            warnings.warn(Note(told), stacklevel=2)
            return None
        return Trunk(self.model, first, dtype, folder)

    def close(self) -> None:
        """Give files back."""
        if self.reader.trunk is not None:
            self.reader.trunk.close()

    # ---- all of it

    def run(self, file: Path, mark: str) -> StreamFinding:
        """Learn what is not learned yet, judge, and say how it went.

        - file: where finished tasks are kept; mark: of this run, so that it goes on from no other's."""
        self.mark = mark
        self._prepare([row for splits in self.rows.values() for rows in splits.values() for row in rows])
        self._take_up(file)
        if self.learned:
            self.method.took_up([self._lesson_of(n, t) for n, t in enumerate(self.tasks[: len(self.learned)])])
        else:
            self.method.begin_run()
            self.base = {name: self._score(name, bare=True) for name in self.rows}
        if self.method.joint:
            self._joint()
        else:
            for number, task in enumerate(self.tasks):
                if number < len(self.learned):
                    continue
                tell("tasks", number, len(self.tasks), step=task.name)
                row = self._learn(number, task)
                row.base = self.base.get(task.name)
                self._keep(file)
            tell("tasks", len(self.tasks), len(self.tasks), finished=True)
        return self._told()

    def _prepare(self, rows: list[Row]) -> None:
        try:
            self.reader.prepare(rows)
        except Overflow:
            trunk = self.reader.trunk
            if self.config.trunk_cache != "auto" or trunk is None:
                raise
            trunk.close()
            self.reader.trunk = Trunk(self.model, trunk.first, "float32", trunk.folder)
            self.reader.prepare(rows)

    def _lesson_of(self, number: int, task: Task) -> Lesson:
        place = self.earlier + number
        rows = self.rows[task.name]
        return Lesson(task.name, place, rows["train"], rows["dev"], self.seed + place)

    def _learn(self, number: int, task: Task) -> Learned:
        before = self._score(task.name)
        again = task.name in self.skills.names
        row = teach(self.method, self._lesson_of(number, task))
        if again:
            self.judge.forget()
        row.before, row.judged = before, self.hows[task.name]
        self.learned.append(row)
        begun = time.process_time()
        row.after = [self._score(done.name) for done in self.tasks[: number + 1]]
        row.judging = time.process_time() - begun
        return row

    def _joint(self) -> None:
        """All tasks at once: only the last line of the matrix is there."""
        if self.learned:
            return
        every = {
            split: [row for task in self.tasks for row in self.rows[task.name][split]] for split in ("train", "dev")
        }
        whole = teach(self.method, Lesson("all tasks", 0, every["train"], every["dev"], self.seed))
        scores = [self._score(task.name) for task in self.tasks]
        for number, task in enumerate(self.tasks):
            last = number == len(self.tasks) - 1
            row = Learned(
                name=task.name, judged=self.hows[task.name], base=self.base[task.name], before=self.base[task.name]
            )
            row.after, row.examples = list(scores) if last else [None] * (number + 1), len(task.train)
            self.learned.append(row)
        last_row = self.learned[-1]
        last_row.steps, last_row.losses = whole.steps, whole.losses
        last_row.seconds, last_row.cpu_seconds = whole.seconds, whole.cpu_seconds

    def _score(self, name: str, *, bare: bool = False) -> float | None:
        rows, how = self.rows[name]["test"], self.hows[name]
        serve = (lambda rows: None) if bare else self.method.serve
        return self.judge.score(rows, how, serve, f"judging {name}")

    # ---- kept

    def _keep(self, file: Path) -> None:
        note = {
            "learned": [row.model_dump(mode="json") for row in self.learned],
            "base": self.base,
            "mark": self.mark,
            **bundle.state_note(self.skills, self.method),
        }
        Saved(bundle.state_tensors(self.skills, self.method), note).write(file)

    def _take_up(self, file: Path) -> None:
        try:
            saved = Saved.read(file)
        except BadInput:
            saved = None  # a half-written one of an older version: begin again
        if saved is None:
            return
        if saved.note.get("mark") != self.mark:
            raise BadInput(f"{file.parent} keeps another run (other settings, data or model): give another --keep")
        bundle.load_state(self.skills, self.method, saved)
        self.learned = [Learned.model_validate(row) for row in saved.note["learned"]]
        self.base = saved.note["base"]
        warnings.warn(Note(f"going on after {self.learned[-1].name}, where it was stopped"), stacklevel=2)

    # ---- what to say

    def _told(self) -> StreamFinding:
        with torch.no_grad():
            for row in self.learned:
                row.attention, row.routed = self._use(row.name)
        unseen = {task.name: score for task in self.unseen if (score := self._score(task.name)) is not None}
        finding = StreamFinding(
            title=f"{len(self.tasks)} tasks, one after the other", technique=TECHNIQUE, method=self.config.method,
            tasks=self.learned, unseen=unseen,
            unseen_base={name: value for name in unseen if (value := self.base.get(name)) is not None},
            provenance=provenance(seed=self.seed, settings=self.config.model_dump(mode="json", exclude={"keep"})),
        )  # fmt: skip
        return finding.model_copy(update={"summary": _summary(finding, self.earlier)})

    def _use(self, name: str) -> tuple[dict[str, float], float | None]:
        rows = self.rows[name]["test"] or self.rows[name]["dev"]
        weights = self.method.serve(rows) if rows else None
        if weights is None or len(self.skills.names) < 2:
            return {}, None
        mean = weights.reshape(len(rows), -1, weights.shape[-1]).mean((0, 1)).tolist()
        attention = {block: round(value, 4) for block, value in zip(self.skills.names, mean, strict=True)}
        chances = self.method.routed(rows)
        if chances is None or name not in self.skills.names:
            return attention, None
        right = (chances.argmax(1) == self.skills.names.index(name)).float().mean()
        return attention, round(float(right), 4)


def _summary(finding: StreamFinding, earlier: int) -> str:
    parts = [f"{len(finding.tasks)} tasks learned" + (f", {earlier} were there" if earlier else "") + "."]
    if finding.ap is not None:
        parts.append(
            f"AP {finding.ap:.1f}" + (f", F.Ra {finding.forgetting:.1f}" if finding.forgetting is not None else "")
        )
        parts[-1] += "."
    if finding.routing is not None:
        parts.append(f"{finding.routing:.1%} of test prompts were taken for their task.")
    return " ".join(parts)
