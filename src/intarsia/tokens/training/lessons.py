"""`Lessons`: records of pictures made into the batches of each step."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from intarsia.data import ImageQuestion, ImageText
from intarsia.data.pictures import Gallery, gallery, source_of
from intarsia.errors import BadInput
from intarsia.models import Model
from intarsia.models.pixels import image_processor, pixels
from intarsia.models.seeing import image_token, kind_of, question_inputs, text_inputs
from intarsia.progress import tell
from intarsia.tokens.losses import Task, answering, pairing

WHO = "tokens.train"
HELD = 512 * 2**20
"""Bytes of pixels that are kept in memory; what does not fit is read again in each round."""
DESCRIBE = "Describe the picture."


class Lessons:
    """Batches for one model. `lessons(step)` is the batch of a step, the same at every call.

    - task: the loss that goes with them; records: those that can be read; unread: how many cannot.
    - rounds: batches in one time through the records.

    Raises `BadInput` for records that do not teach this kind of network, and when not one picture can be read."""

    def __init__(self, model: Model, records: Sequence[Any], batch_size: int, max_tokens: int = 64, seed: int = 0):
        self.model, self.batch_size, self.max_tokens, self.seed = model, batch_size, max_tokens, seed
        self.kind = kind_of(model)
        if self.kind == "encoder":
            raise BadInput(
                f"{WHO}: {type(model.network).__name__} is a bare vision tower, nothing says what it is trained for: "
                "give a model with a head, a text tower or a language model"
            )
        given = gallery(records)
        for record in given.records:
            self._check(record)
        self.task: Task = pairing if self.kind == "dual" else answering
        self.processor = image_processor(model)
        self._held: dict[int, Tensor] = {}
        self._free = HELD
        self.records = self._readable(given)
        self.unread = len(given.records) - len(self.records)
        if self.kind == "dual" and len({r.text for r in self.records}) < 2:
            raise BadInput(f"{WHO}: the texts are all the same: give pictures with different texts to tell apart")
        self._groups = self._grouped()
        self._orders: tuple[int, list[list[int]]] | None = None
        self.rounds = len(self._order(0))

    @property
    def facts(self) -> str:
        """Hash of the records and of how they are batched."""
        said = [[str(r), self._size_of(r)] for r in self.records]
        return hashlib.sha256(json.dumps([said, self.batch_size, self.max_tokens, self.seed]).encode()).hexdigest()

    def __call__(self, step: int) -> dict[str, Any]:
        """Keyword arguments of the network for a step, on its device."""
        rows = self._order(step // self.rounds)[step % self.rounds]
        records = [self.records[i] for i in rows]
        values = torch.cat([self._pixels(i) for i in rows]).to(self.model.device)
        if self.kind == "dual":
            return {
                **text_inputs(self.model, [r.text for r in records]),
                "pixel_values": values,
                "same": self._same(records),
            }
        if self.kind == "class":
            labels = [self._classes[str(r.label)] for r in records]
            return {"pixel_values": values, "labels": torch.tensor(labels, device=self.model.device)}
        return self._answers(values, [question_of(r) for r in records])

    # ---- what is refused

    @property
    def _classes(self) -> dict[str, int]:
        return {str(name): int(i) for i, name in self.model.config.id2label.items()}

    def _check(self, record: Any) -> None:
        if self.kind == "dual" and not (isinstance(record, ImageText) and record.text.strip()):
            raise BadInput(f"{WHO}: a dual encoder learns from pictures with texts; given {_short(record)}")
        if self.kind == "answer" and not (isinstance(record, ImageText | ImageQuestion) and question_of(record)[1]):
            raise BadInput(
                f"{WHO}: this network learns from questions with answers, or captions; given {_short(record)}"
            )
        if self.kind == "class" and str(getattr(record, "label", None)) not in self._classes:
            known = ", ".join(list(self._classes)[:5])
            raise BadInput(
                f"{WHO}: a classifier learns from pictures with labels ({known} ...); given {_short(record)}"
            )

    def _readable(self, given: Gallery) -> list[Any]:
        kept = []
        for place, record, picture in given:
            self._keep(len(kept), pixels(self.model, [picture], self.processor))
            kept.append(record)
            tell("reading pictures", place + 1, len(given.records))
        tell("reading pictures", len(given.records), len(given.records), finished=True)
        given.tell()
        return kept

    # ---- pictures

    def _keep(self, index: int, values: Tensor) -> None:
        size = values.numel() * values.element_size()
        if size <= self._free:
            self._held[index] = values.cpu()
            self._free -= size

    def _pixels(self, index: int) -> Tensor:
        if index in self._held:
            return self._held[index]
        return pixels(self.model, [self.records[index]], self.processor).cpu()

    def _size_of(self, record: Any) -> str:
        from pathlib import Path

        source = source_of(record)
        return str(Path(source).stat().st_size) if isinstance(source, str) and Path(source).is_file() else ""

    # ---- order

    def _grouped(self) -> list[list[int]]:
        """Records that may share a batch. BLIP reads padded places of a question as words: one length at a time."""
        places = list(range(len(self.records)))
        if self.kind != "answer" or image_token(self.model):
            return [places]
        groups: dict[int, list[int]] = {}
        tokenizer: Any = self.model.tokenizer
        if tokenizer is None:
            raise BadInput(f"{WHO}: this model has no tokenizer: questions cannot be put to it")
        for i in places:
            groups.setdefault(len(tokenizer(question_of(self.records[i])[0])["input_ids"]), []).append(i)
        return [groups[length] for length in sorted(groups)]

    def _order(self, number: int) -> list[list[int]]:
        """The batches of one time through the records, shuffled by the seed."""
        if self._orders is None or self._orders[0] != number:
            draw = random.Random(self.seed * 1_000_003 + number)
            batches = []
            for group in self._groups:
                mixed = draw.sample(group, len(group))
                chunks = [mixed[i : i + self.batch_size] for i in range(0, len(mixed), self.batch_size)]
                # A single pair cannot be told apart from anything.
                batches += [c for c in chunks if len(c) > 1 or self.kind != "dual"] or chunks
            draw.shuffle(batches)
            self._orders = number, batches
        return self._orders[1]

    def _same(self, records: Sequence[Any]) -> Tensor:
        """[row, row] bool: pairs that are right: of one picture, or with the same words."""
        images, texts = ([str(getattr(r, name)) for r in records] for name in ("image", "text"))
        rows = [
            [a == b or s == t for b, t in zip(images, texts, strict=True)] for a, s in zip(images, texts, strict=True)
        ]
        return torch.tensor(rows, device=self.model.device)

    # ---- words

    def _answers(self, values: Tensor, said: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Questions with their answers behind them (LLaVA, BLIP for captions), or beside (BLIP for questions)."""
        model, tokenizer = self.model, self.model.tokenizer
        if tokenizer is None:
            raise BadInput(f"{WHO}: this model has no tokenizer: answers cannot be learned")
        text = model.config.get_text_config()
        answers = [self._ids(answer) for _, answer in said]
        if image_token(model):
            given = question_inputs(model, values, [question for question, _ in said])
            eos = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
            added, counts = self._padded([[*ids, *eos] for ids in answers])
            ids = torch.cat([given["input_ids"], added.clamp(min=0).where(counts, _pad(tokenizer))], dim=1)
            mask = torch.cat([given["attention_mask"], counts.long()], dim=1)
            labels = torch.cat([torch.full_like(given["input_ids"], -100), added.where(counts, -100)], dim=1)
            return {"input_ids": ids, "attention_mask": mask, "pixel_values": values, "labels": labels}
        bos, end = text.bos_token_id, text.sep_token_id
        if hasattr(model.network, "text_encoder"):
            given = question_inputs(model, values, [question for question, _ in said])
            ids, counts = self._padded([[bos, *answer, end] for answer in answers])
            return {**given, "labels": ids.where(counts, -100)}
        heads = [[bos, *tokenizer(question, add_special_tokens=False)["input_ids"]] for question, _ in said]
        ids, counts = self._padded([[*head, *answer, end] for head, answer in zip(heads, answers, strict=True)])
        asked = torch.tensor([len(head) for head in heads], device=ids.device)[:, None]
        learned = counts & (torch.arange(ids.shape[1], device=ids.device) >= asked)
        return {
            "input_ids": ids.where(counts, _pad(tokenizer)),
            "attention_mask": counts.long(),
            "pixel_values": values,
            "labels": ids.where(learned, -100),
        }

    def _ids(self, answer: str) -> list[int]:
        tokenizer: Any = self.model.tokenizer
        return tokenizer(answer.strip(), add_special_tokens=False)["input_ids"][: self.max_tokens]

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """[row, token] ids padded on the right with 0, and which of them are real."""
        width, device = max(map(len, rows)), self.model.device
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        real = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        return ids, real.bool()


def question_of(record: Any) -> tuple[str, str]:
    """What is asked and what is to be answered; a caption answers the request to describe the picture."""
    if isinstance(record, ImageQuestion):
        return record.question, record.answer.strip()
    return DESCRIBE, record.text.strip()


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id or 0)


def _short(record: Any) -> str:
    said = str(record)
    return said if len(said) < 120 else said[:117] + "..."
