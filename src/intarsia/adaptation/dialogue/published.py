"""DialogueLLM as it was published: an instruction with the label list, the video's description, the context and the
target; low-rank adapters; the label is written out.

Source: Zhang et al. 2025, DialogueLLM (arXiv 2310.11374), §3-4, and its released scripts. Two things of the scripts are
not taken over: the repetition penalty, which lowers the very words the instruction lists, and reading the answer by a
fixed order of words with a random label where none is found."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from intarsia.adaptation.conversations import IGNORED, Marked
from intarsia.adaptation.dialogue.answers import read_answer
from intarsia.adaptation.dialogue.figures import counted, figures
from intarsia.adaptation.dialogue.scripts import by_dialogue
from intarsia.adaptation.dialogue.technique import NAME
from intarsia.adaptation.instruction_tuning import answer_loss
from intarsia.errors import BadInput
from intarsia.measure.likelihood import LabelScores, left_padded, length_batches
from intarsia.progress import track
from intarsia.training import lora
from intarsia.training.loop import fixed_batches, seeded, train

if TYPE_CHECKING:
    from intarsia.adaptation.dialogue.technique import DialogueConfig
    from intarsia.data import LabelledText, Turn
    from intarsia.models import Model

PAPER: dict[str, Any] = {
    "past": 1, "speakers": "none", "rank": 4, "alpha": 16.0, "dropout": 0.05, "targets": ("q_proj", "v_proj"),
    "layers_from": 0.0, "learning_rate": 3e-4, "schedule": "cosine", "warmup": 0.0, "final_rate": 0.1,
    "betas": (0.9, 0.95), "weight_decay": 0.1, "clip": 1.0, "batch_size": 128, "epochs": 10.0, "max_tokens": 256,
}  # fmt: skip
"""The paper's settings; what a person sets goes before."""

SURE = 0.99  # probability of the label that was written: a text has none, and the others share the rest


def as_published(config: DialogueConfig) -> DialogueConfig:
    """The config with the paper's value wherever nothing was said."""
    return config.model_copy(update={k: v for k, v in PAPER.items() if k not in config.model_fields_set})


class Asking:
    """Turns as instructions.

    - words: of the labels, in the order they are listed. examples: answered questions before every question."""

    def __init__(
        self, words: Sequence[str], past: int | None, future: int, speakers: str, examples: Sequence[str] = ()
    ):
        self.words, self.past, self.future, self.speakers = list(words), past, future, speakers
        self.examples = list(examples)

    def head(self, about: bool) -> str:
        """The instruction."""
        names = ", ".join(f'"{word}"' for word in self.words)
        sources = "the description of the video and the context" if about else "the context"
        task = f"Use {sources} to tell how the speaker of the input feels. Answer with one of: {names}."
        return "\n\n".join([f"### Instruction:\n{task}", *self.examples])

    def texts(self, turns: Sequence[Turn]) -> list[tuple[list[str], str]]:
        """(context lines, the rest of the prompt) of every turn, so that what is too long can lose its oldest lines."""
        out: list[tuple[list[str], str]] = [([], "")] * len(turns)
        for numbers in by_dialogue(turns):
            names: dict[str, str] = {}
            lines = [self._line(turns[i], names) for i in numbers]
            for place, i in enumerate(numbers):
                context = (
                    lines[0 if self.past is None else max(0, place - self.past) : place]
                    + lines[place + 1 : place + 1 + self.future]
                )
                out[i] = context, lines[place]
        return out

    def _line(self, turn: Turn, names: dict[str, str]) -> str:
        if self.speakers == "none" or not turn.speaker:
            return turn.text
        local = names.setdefault(turn.speaker, f"Speaker_{len(names) + 1}")
        return f"{local if self.speakers == 'local' else turn.speaker}: {turn.text}"

    def question(self, context: Sequence[str], text: str, about: str) -> str:
        """All after the instruction, to where the answer begins."""
        parts = [f"### Video description:\n{about}"] if about else []
        if context:
            parts.append("### Context:\n" + "\n".join(context))
        return "\n\n".join([*parts, f"### Input:\n{text}", "### Response:\n"])

    def prompts(self, turns: Sequence[Turn], tokenizer: Any, limit: int) -> list[list[int]]:
        """Token ids of every prompt, at most `limit`: first the oldest context goes, then the end of what is seen, then
        of what is said."""
        out = []
        for turn, (context, text) in zip(turns, self.texts(turns), strict=True):
            context, about = list(context), turn.about
            while True:
                whole = f"{self.head(bool(about))}\n\n{self.question(context, text, about)}"
                ids = list(tokenizer(whole, verbose=False)["input_ids"])
                if len(ids) <= limit:
                    break
                if context:
                    context.pop(0)
                elif len(about) > 8:
                    about = about[: max(8, len(about) - 4 * (len(ids) - limit))]
                elif len(text) > 8:
                    text = text[: max(8, len(text) - 4 * (len(ids) - limit))]
                else:
                    raise BadInput(
                        f"{NAME}: the instruction alone takes {len(ids)} tokens, and there is room for {limit}: raise "
                        "max_tokens" + (" or lower shots" if self.examples else "")
                    )
            out.append(ids)
        return out


def learn(
    model: Model, config: DialogueConfig, train_turns: Sequence[Turn], dev: Sequence[Turn], labels: Sequence[str],
    seed: int,
) -> Model:  # fmt: skip
    """Tune by instructions; judged on dev."""
    config = as_published(config)
    if any(t.label and "\n" in t.label for t in train_turns):
        raise BadInput(f"{NAME}: a label of several lines cannot be written out")
    written_as = [(config.verbalisers or {}).get(name, name).strip().casefold() for name in labels]
    if twice := next((word for word in written_as if written_as.count(word) > 1), None):
        raise BadInput(f"{NAME}: two labels are both written '{twice}': give verbalisers that tell them apart")
    words = {name: (config.verbalisers or {}).get(name, name).strip() for name in labels}
    asking = Asking(list(words.values()), config.past, config.future, config.speakers)
    asking.examples = examples(asking, train_turns, words, config.shots, seed)
    limit = min(config.max_tokens, model.context_length or config.max_tokens)
    answer = {name: _answer(model.tokenizer, word) for name, word in words.items()}
    room = limit - max(map(len, answer.values()))
    prompts = asking.prompts(train_turns, model.tokenizer, room)
    asking.prompts(dev, model.tokenizer, room)  # what does not fit is told of now
    rows = [_row(ids, answer[t.label], config) for ids, t in zip(prompts, train_turns, strict=True) if t.label]
    new = model.copy()
    with seeded(seed):
        adapted, parameters = lora.attach(new.network, config)
        batches = fixed_batches([len(row.ids) for row in rows], config.batch_size, seed)

        def loss_of(number: int) -> Iterator[torch.Tensor]:
            some = [rows[i] for i in batches[number]]
            count = sum(row.answers for row in some)
            for start in range(0, len(some), config.micro_batch):
                loss, _ = answer_loss(new, adapted, some[start : start + config.micro_batch])
                yield loss / count

        trained = train([(parameters, 1.0)], len(batches), loss_of, config, seed, "tuning on instructions")
        network = lora.merge(adapted)
    settings = config.model_dump(mode="json", exclude_defaults=True)
    out = model.with_network(network, technique=NAME, config=settings, seed=seed)
    note: dict[str, Any] = {
        "recipe": config.recipe, "labels": list(labels), "past": asking.past, "future": asking.future,
        "speakers": asking.speakers, "examples": asking.examples, "limit": room, "beams": config.beams,
        "words": asking.words,
    }  # fmt: skip
    judged = [i for i, t in enumerate(dev) if t.label]
    y = np.array([list(labels).index(dev[i].label) for i in judged])
    note["facts"] = counted(train_turns, dev, labels) | {
        "dev": {"answers": figures(label(out, note, dev).scores[judged], y)},
        "network": {
            "rows": len(rows), "tokens": sum(len(row.ids) for row in rows), "trained_parameters": trained.parameters,
            "losses": [round(loss, 5) for loss in trained.losses],
        },
    }  # fmt: skip
    out.parts.pop(NAME, None)
    out.extras[NAME] = note
    from intarsia.adaptation.dialogue.finding import found

    out.finding = found(note)
    return out


def label(model: Model, note: dict[str, Any], records: Sequence[LabelledText]) -> LabelScores:
    """Let the model write the label of every turn; probability `SURE` on what it wrote."""
    from intarsia.adaptation.dialogue.reading import as_turns

    labels = note["labels"]
    asking = Asking(note["words"], note["past"], note["future"], note["speakers"], note["examples"])
    turns, places = as_turns(records)
    prompts = asking.prompts(turns, model.tokenizer, note["limit"])
    words = note["words"]
    longest = max(len(model.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words) + 2
    scores = np.full((len(turns), len(labels)), np.log((1 - SURE) / max(1, len(labels) - 1)))
    for i, text in enumerate(written(model, prompts, longest, note["beams"])):
        scores[i, read_answer(text, words)] = np.log(SURE)
    scores = scores[places]
    return LabelScores(tuple(labels), scores, scores, np.exp(scores), np.full(len(places), np.nan))


def written(model: Model, prompts: Sequence[Sequence[int]], longest: int, beams: int = 1) -> list[str]:
    """What the model writes after each prompt, at most `longest` tokens."""
    out = [""] * len(prompts)
    tokenizer = model.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    for rows in track(length_batches([len(p) for p in prompts], 4096, rows=32), "writing labels"):
        batch = left_padded([prompts[r] for r in rows], pad)
        ids = batch["input_ids"].to(model.device)
        with torch.inference_mode():
            made = model.network.generate(
                input_ids=ids, attention_mask=batch["attention_mask"].to(model.device), max_new_tokens=longest,
                do_sample=False, num_beams=beams, pad_token_id=pad, repetition_penalty=1.0,
                eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        for row, tokens in zip(rows, made[:, ids.shape[1] :], strict=True):
            out[row] = tokenizer.decode(tokens, skip_special_tokens=True)
    return out


def examples(asking: Asking, turns: Sequence[Turn], words: dict[str, str], shots: int, seed: int) -> list[str]:
    """`shots` answered questions of each label, drawn from train, in turn by label."""
    if not shots:
        return []
    of_label: dict[str, list[int]] = defaultdict(list)
    for i, turn in enumerate(turns):
        of_label[turn.label].append(i)
    draw = random.Random(seed)
    chosen = {name: draw.sample(of_label[name], min(shots, len(of_label[name]))) for name in words}
    texts = asking.texts(turns)
    return [
        asking.question(texts[i][0], texts[i][1], turns[i].about) + words[turns[i].label]
        for round_ in range(shots) for name in words for i in chosen[name][round_ : round_ + 1]
    ]  # fmt: skip


def _answer(tokenizer: Any, word: str) -> list[int]:
    ids = list(tokenizer(word, add_special_tokens=False)["input_ids"])
    return [*ids, tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else ids


def _row(prompt: list[int], answer: list[int], config: DialogueConfig) -> Marked:
    ids = [*prompt, *answer]
    known = list(prompt) if config.loss_on == "sequence" else [IGNORED] * len(prompt)
    return Marked(ids, [*known, *answer])
