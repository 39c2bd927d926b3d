"""Continued pre-training on the domain's texts, then the labels, both with general text replayed, in one set of
low-rank updates.

Source: Gururangan et al. 2020, "Don't Stop Pretraining", §4 (task-adaptive: the task's own texts); replay against
forgetting: Rolnick et al. 2019, §3."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from intarsia.adaptation.routes.rungs.lora import LowRank
from intarsia.adaptation.routes.rungs.tuned import Part, label_batches, label_loss
from intarsia.errors import BadInput
from intarsia.measure.likelihood import accepts, given, right_padded
from intarsia.training.loop import Trained, train

if TYPE_CHECKING:
    import torch

    from intarsia.adaptation.routes.bench import Bench
    from intarsia.models import Model

WINDOW = 128  # tokens of a row of text
READING = 0.3  # factor on the learning rate while texts are read
ROWS = 4  # rows of text in a step: logits over the whole vocabulary are what fills the memory


class Pretrain(LowRank):
    """Half of the minutes read, half of them label."""

    def __init__(self) -> None:
        super().__init__("lora", "reads the domain's texts, then low-rank updates on labels")
        self.name = "pretrain"
        self.setting_names = ("layers_from", "rank", "replay")

    def train(self, bench: Bench, new: Model, part: Part, rows: int | None = None) -> Trained:
        assert bench.general is not None
        share = bench.config.replay
        domain = windows(new, ["\n".join((*e.context, e.text)) for e in bench.train])
        general = windows(new, [text.text for text in bench.general.replayed])
        if not domain:
            raise BadInput("pretrain: the training texts have no two tokens to read")
        wanted = round(len(domain) * share / (1 - share)) if general else 0
        random.Random(bench.seed).shuffle(general)
        mixed = domain + [general[i % len(general)] for i in range(wanted)]
        random.Random(bench.seed).shuffle(mixed)
        batches = [mixed[i : i + ROWS] for i in range(0, len(mixed), ROWS)]
        parameters = [(list(part.parameters.values()), 1.0)]
        half = bench.left() / 2
        usual = self.config(bench, half)
        config = usual.model_copy(update={"epochs": 1.0, "learning_rate": usual.learning_rate * READING})
        read = train(
            parameters, len(batches), lambda number: text_loss(new, part.forward, batches[number]), config, bench.seed,
            "reading the domain's texts",
        )  # fmt: skip
        again = general[wanted % max(1, len(general)) :] or general
        labelled = self._label(bench, new, part, again if share else [])
        return Trained(labelled.losses, read.parameters)

    def _label(self, bench: Bench, new: Model, part: Part, general: Sequence[list[int]]) -> Trained:
        """The labels' loss, and in every step a row of general text with its share of the weight."""
        share = bench.config.replay
        with bench.trunk(new) as trunk:
            loss_of = label_loss(bench, new, part, trunk)
            batches = label_batches(bench)
            turn = iter(range(1 << 60))

            def both(number: int) -> Iterator[torch.Tensor]:
                yield (1 - share) * loss_of(batches[number]) if general else loss_of(batches[number])
                if general:
                    yield share * text_loss(new, part.forward, [general[next(turn) % len(general)]])

            return train(
                [(list(part.parameters.values()), 1.0)], len(batches), both, self.config(bench, bench.left()),
                bench.seed, f"training: {self.name}",
            )  # fmt: skip


def windows(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, one after the other with the end token between them, in rows of `WINDOW` tokens."""
    tokenizer = model.tokenizer
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    size = min(WINDOW, model.context_length or WINDOW)
    flat = [token for ids in tokenizer(list(texts), verbose=False)["input_ids"] for token in (*ids, *end)]
    return [flat[i : i + size] for i in range(0, len(flat), size) if len(flat[i : i + size]) > 1]


def text_loss(model: Model, network: Callable[..., Any], rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean loss in nats a token of rows of ids."""
    import torch

    batch = {name: value.to(model.device) for name, value in right_padded(rows, 0).items()}
    logits = network(**given(batch, accepts(model.network)), use_cache=False).logits[:, :-1]
    wanted = batch["input_ids"][:, 1:].masked_fill(batch["attention_mask"][:, 1:] == 0, -100)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=-100)
