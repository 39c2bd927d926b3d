"""What `adaptation.dialogue` does: turns, the labellers one by one, and what each counts for."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.adaptation.dialogue import mixing
from intarsia.adaptation.dialogue.features import columns, main_speakers
from intarsia.adaptation.dialogue.figures import counted, figure, figures
from intarsia.adaptation.dialogue.linear import choose
from intarsia.adaptation.dialogue.neighbours import Neighbours
from intarsia.adaptation.dialogue.reading import Reader, key_of, vectors_of
from intarsia.adaptation.dialogue.scripts import Writer, Writing, by_dialogue
from intarsia.adaptation.dialogue.shifts import easier_half
from intarsia.adaptation.dialogue.states import AtTurns, Depths, frozen
from intarsia.adaptation.dialogue.tagging import tune
from intarsia.adaptation.dialogue.technique import NAME
from intarsia.adaptation.trunk import Trunk
from intarsia.data import Turn, load_data, relabelled, split
from intarsia.data.dialogues import mapped, without_overlap
from intarsia.errors import BadInput, Note, did_you_mean
from intarsia.measure.likelihood import check_causal
from intarsia.training.loop import seeded
from intarsia.training.lora import first_block

if TYPE_CHECKING:
    from intarsia.adaptation.dialogue.technique import DialogueConfig
    from intarsia.models import Model

BEHIND, WITHIN = (0.01, 0.03, 0.1, 0.3), (0.003, 0.01, 0.03)  # strengths that are tried
TURN = "turns of dialogues (dialogue, turn, speaker, text, label)"


def learn(
    model: Model, config: DialogueConfig, train: Sequence[Turn], dev: Sequence[Turn] | None,
    test: Sequence[Turn] | None, seed: int,
) -> Model:  # fmt: skip
    """See `intarsia.adaptation.dialogue.technique.dialogue`."""
    check_causal(model)
    if model.tokenizer is None:
        raise BadInput("labelling dialogues needs text: this model has no tokenizer (wrap(network, tokenizer))")
    train, dev = splits(train, dev, config, seed)
    train += joined(train, [*dev, *(test or [])], config)
    labels = sorted({t.label for t in train if t.label})
    if config.recipe == "dialoguellm":
        words_of(labels, config)
        from intarsia.adaptation.dialogue.published import learn as published

        return published(model, config, train, dev, labels, seed)
    words_of(labels, config)
    warn_of_twins(train, dev)
    if not config.labellers:
        raise BadInput(f"{NAME}: labellers is empty: name network, linear or neighbours")
    return _Learning(model, config, train, dev, labels, seed).go()


def splits(
    train: Sequence[Turn], dev: Sequence[Turn] | None, config: DialogueConfig, seed: int
) -> tuple[list[Turn], list[Turn]]:
    """Both splits, labelled by the column that is asked for, and checked."""
    asked = dev is not None
    for name, given in (("train", train), ("dev", dev or [])):
        if odd := next((t for t in given if not isinstance(t, Turn)), None):
            raise BadInput(
                f"{NAME}: {name} holds a {type(odd).__name__}; wanted {TURN}: a file of these columns, a turn a line"
            )
    if not train:
        raise BadInput(f"{NAME}: train is empty; wanted {TURN}")
    if config.label is not None:
        train = relabelled(train, config.label)
        dev = relabelled(dev, config.label) if dev else dev
    counts = Counter(t.label for t in train if t.label)
    if not counts:
        raise BadInput(f"{NAME}: no turn of train has a label: name the column that holds it (label)")
    if len(counts) == 1:
        raise BadInput(f"{NAME}: every labelled turn of train is '{next(iter(counts))}': two labels or more are wanted")
    if dev is None:
        if len(by_dialogue(train)) < 2:
            raise BadInput(
                f"{NAME}: train is one dialogue: some are held back to choose by; give dev, or more dialogues"
            )
        share = max(config.dev_share, 1 / len(by_dialogue(train)))  # a dialogue at least
        parts = split(train, {"train": 1 - share, "dev": share}, by="group", seed=seed)
        train, dev = parts["train"], parts["dev"]
        missing = sorted(set(counts) - {t.label for t in train})
        if missing:
            # A label that stands in few dialogues: those belong to train.
            back = {t.group for t in dev if t.label in missing}
            train = [*train, *(t for t in dev if t.group in back)]
            dev = [t for t in dev if t.group not in back]
    known = {t.label for t in train if t.label}
    if odd := next((t.label for t in dev if t.label and t.label not in known), None):
        raise BadInput(
            f"{NAME}: dev has the label '{odd}', which no turn of train has{did_you_mean(odd, known)}; "
            f"train has {', '.join(sorted(known))}"
        )
    if not any(t.label for t in dev):
        raise BadInput(
            f"{NAME}: no turn of dev has a label: what each labeller counts for is chosen there"
            if asked
            else f"{NAME}: too few dialogues have each label to hold some back: give dev, or more dialogues"
        )
    return list(train), list(dev)


def warn_of_twins(train: Sequence[Turn], dev: Sequence[Turn]) -> None:
    """Say when whole dialogues of dev stand in train: what is chosen there favours whoever remembers."""

    def texts(turns: Sequence[Turn]) -> set[tuple[str, ...]]:
        return {tuple(turns[i].text for i in numbers) for numbers in by_dialogue(turns)}

    mine = texts(dev)
    if both := len(mine & texts(train)):
        warnings.warn(
            f"{both} of {len(mine)} dialogues of dev are in train, too: what is chosen on them favours remembering",
            Note,
            stacklevel=4,
        )


def words_of(labels: Sequence[str], config: DialogueConfig) -> list[str]:
    """The words of each label, as the network would write them: given, or its name with a space before it."""
    given = config.verbalisers or {}
    if odd := next((name for name in given if name not in labels), None):
        raise BadInput(
            f"{NAME}: verbalisers: no label is called '{odd}'{did_you_mean(odd, labels)}; train has {', '.join(labels)}"
        )
    if empty := next((name for name, words in given.items() if not words.strip()), None):
        raise BadInput(f"{NAME}: verbalisers: the words of '{empty}' are empty")
    return [given.get(name, " " + name.replace("_", " ").lower()) for name in labels]


def joined(train: Sequence[Turn], judges: Sequence[Turn], config: DialogueConfig) -> list[Turn]:
    """Train turns of the other data sets, with labels of this one, without what stands in the turns that judge."""
    labels, out = {t.label for t in train if t.label}, []
    for name in config.others:
        data = load_data(name)
        turns = data.splits.get("train", [])
        if config.label is not None and all(isinstance(t, Turn) for t in turns):
            turns = relabelled(turns, config.label)
        if not turns or not all(isinstance(t, Turn) for t in turns):
            raise BadInput(f"{NAME}: others: {name} has no split 'train' of {TURN}")
        if config.label_map is not None:
            turns = mapped(turns, config.label_map)
        if odd := next((t.label for t in turns if t.label and t.label not in labels), None):
            raise BadInput(f"{NAME}: others: {name} has the label '{odd}', which train lacks: give a label_map")
        out += [replace(t, group=f"{name}: {t.group}") for t in without_overlap(turns, judges)]
    return out


class _Learning:
    """One run."""

    def __init__(
        self, model: Model, config: DialogueConfig, train: list[Turn], dev: list[Turn], labels: list[str], seed: int
    ):
        self.model, self.config, self.train, self.dev, self.labels, self.seed = model, config, train, dev, labels, seed
        number = {name: i for i, name in enumerate(labels)}
        self.y, self.y_dev = (np.array([number.get(t.label, -1) for t in part]) for part in (train, dev))
        self.counts = np.bincount(self.y[self.y >= 0], minlength=len(labels))
        if (rare := [labels[i] for i in np.flatnonzero(self.counts < 2)]) and len(rare):
            warnings.warn(f"labels with a single turn are hardly learned: {', '.join(rare)}", Note, stacklevel=4)

    def go(self) -> Model:
        config = self.config
        prior = ((self.counts + 1) / (self.counts + 1).sum()).tolist()
        reader = Reader(
            self.labels, mixing.equal([], len(self.labels)), window=config.window, decay=config.decay,
            future=config.future,
        )  # fmt: skip
        facts: dict[str, Any] = {}
        vectors = None
        if {"linear", "neighbours"} & set(config.labellers):
            reader.embedder, reader.embedder_key = config.embedder, key_of(config.embedder)
            vectors = self._embeddings(reader, facts)
        new = self.model
        if {"network", "states"} & set(config.labellers):
            new = self._network(reader, facts)
        each = {name: s[self.y_dev >= 0] for name, s in reader.each(new, self.dev, vectors).items()}
        y = self.y_dev[self.y_dev >= 0]
        reader.mix = mixing.fit(each, y)
        reader.mix, facts["tau"] = mixing.shifted(reader.mix, each, y, np.log(prior), self._figure)
        facts["dev"] = {name: figures(scores, y) for name, scores in {**each, "mix": reader.mix.scores(each)}.items()}
        out = new.with_network(
            new.network, technique=NAME, config=config.model_dump(mode="json", exclude_defaults=True), seed=self.seed
        )
        saved, note = reader.save()
        out.parts[NAME] = saved
        out.extras[NAME] = {
            "recipe": config.recipe,
            **note,
            "facts": facts | counted(self.train, self.dev, self.labels),
        }
        from intarsia.adaptation.dialogue.finding import found

        out.finding = found(out.extras[NAME])
        return out

    def _embeddings(self, reader: Reader, facts: dict[str, Any]) -> np.ndarray:
        """Fit who works on sentence embeddings; gives those of dev."""
        config = self.config
        both = vectors_of(config.embedder, [*self.train, *self.dev])
        mine, held = both[: len(self.train)], both[len(self.train) :]
        known, y = self.y >= 0, self.y[self.y >= 0]
        if "neighbours" in config.labellers:
            groups = np.empty(len(self.train), np.int64)
            for number, turns in enumerate(by_dialogue(self.train)):
                groups[turns] = number
            kept = mine[known].astype(np.float16).astype(np.float32)  # as it is saved
            reader.neighbours = Neighbours(kept, y, groups[known], len(self.labels), config.nearest)
        if "linear" in config.labellers:
            reader.speakers = main_speakers(self.train, config.main_speakers)
            asked = self.y_dev >= 0
            chosen = choose(
                reader.features(self.train, mine)[known], y, len(self.labels),
                (reader.features(self.dev, held)[asked], self.y_dev[asked]), self._figure,
                groups=columns(mine.shape[1], len(reader.speakers), config.future),
            )  # fmt: skip
            reader.linear = chosen.linear
            facts["linear"] = {"strength": chosen.strength, "exponent": chosen.exponent}
        return held

    def _network(self, reader: Reader, facts: dict[str, Any]) -> Model:
        """Fit who works on the network's states: linear models of the frozen part first, then the adapters above."""
        config, model = self.config, self.model
        reader.writing = Writing.of(config, model)
        scripts = Writer(model.tokenizer, reader.writing).write(self.train)
        tuned = "network" in config.labellers
        new = model.copy() if tuned else model
        blocks = model.config.get_text_config().num_hidden_layers
        first = first_block(model.network, config.layers_from) if tuned else blocks
        if "states" in config.labellers and not first:
            raise BadInput(f"{NAME}: states are read below the adapters: set layers_from (0.667: above two thirds)")
        trunk = Trunk.of(new, config.trunk_cache if first else "off", config.layers_from) if tuned else None
        try:
            if "states" in config.labellers:
                reader.depths = Depths.of(blocks, first)
                self._states(reader, frozen(new, scripts, len(self.train), reader.depths, trunk), facts)
            if not tuned:
                return model
            easy = easier_half(scripts, self.train) if config.curriculum else []
            with seeded(self.seed):
                words = words_of(self.labels, config)
                network, reader.head, trained = tune(new, scripts, self.y, words, config, self.seed, easy, trunk)
        finally:
            if trunk:
                trunk.close()
        facts["network"] = {
            "rows": len(scripts), "tokens": sum(len(s.ids) for s in scripts), "trained_parameters": trained.parameters,
            "losses": [round(loss, 5) for loss in trained.losses],
        }  # fmt: skip
        return new.with_network(network)

    def _states(self, reader: Reader, found: AtTurns, facts: dict[str, Any]) -> None:
        """Linear models of the two places."""
        assert reader.writing is not None and reader.depths is not None
        known, asked = self.y >= 0, self.y_dev >= 0
        scripts = Writer(self.model.tokenizer, reader.writing).write(self.dev)
        dev = frozen(self.model, scripts, len(self.dev), reader.depths, None)
        for part, strengths in (("behind", BEHIND), ("within", WITHIN)):
            mine, held = (getattr(states, part).astype(np.float32) for states in (found, dev))
            chosen = choose(
                mine[known], self.y[known], len(self.labels), (held[asked], self.y_dev[asked]), self._figure,
                strengths=strengths,
            )  # fmt: skip
            setattr(reader, part, chosen.linear)
            facts[part] = {"strength": chosen.strength, "exponent": chosen.exponent}

    @property
    def _figure(self) -> Callable[[np.ndarray, np.ndarray], float]:
        return partial(figure, self.config.choose_for)
