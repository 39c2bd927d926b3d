"""Instruction tuning step by step: mark the answers, train on them, merge."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from intarsia.adaptation.conversations import IGNORED, Marked, mark
from intarsia.errors import BadInput, Note
from intarsia.measure.likelihood import accepts, check_causal, given, right_padded
from intarsia.training import lora
from intarsia.training.loop import fixed_batches, seeded, train

if TYPE_CHECKING:
    import torch

    from intarsia.adaptation.instruct import InstructConfig
    from intarsia.data import Chat, TextPair
    from intarsia.models import Model


def tune(
    model: Model,
    config: InstructConfig,
    records: Sequence[Chat | TextPair],
    dev: Sequence[Chat | TextPair] | None,
    seed: int,
) -> Model:
    """See `intarsia.adaptation.instruct.instruct`."""
    check_causal(model)
    if model.tokenizer is None:
        raise BadInput("instruction tuning needs text: this model has no tokenizer (wrap(network, tokenizer))")
    rows, cut = prepare(model, records, config.max_tokens)
    held_out = prepare(model, dev, config.max_tokens)[0] if dev else None
    facts: dict[str, Any] = {"conversations": len(records), "rows": len(rows), "cut": cut}
    facts["answer_tokens"] = sum(row.answers for row in rows)
    if held_out:
        facts["dev_loss_before"] = mean_loss(model, model.network, held_out)
    new = model.copy()
    with seeded(seed):
        adapted, parameters = lora.attach(new.network, config)
        batches = fixed_batches([len(row.ids) for row in rows], config.batch_size, seed)

        def loss_of(number: int) -> torch.Tensor:
            total, count = answer_loss(new, adapted, [rows[row] for row in batches[number]])
            return total / count

        trained = train([(parameters, 1.0)], len(batches), loss_of, config, seed, "tuning on answers")
        network = lora.merge(adapted)
    out = model.with_network(network, technique="adaptation.instruct", config=config.model_dump(mode="json"), seed=seed)
    if held_out:
        facts["dev_loss_after"] = mean_loss(out, out.network, held_out)
    facts |= {"trained_parameters": trained.parameters, "losses": [round(loss, 6) for loss in trained.losses]}
    out.extras["adaptation.instruct"] = facts
    return out


def prepare(model: Model, records: Sequence[Chat | TextPair], max_tokens: int | None) -> tuple[list[Marked], int]:
    """Marked rows, cut at the end to what the network takes, and how many were cut (also said in a warning).

    Raises `BadInput` for no conversations, or when nothing of any answer is left."""
    if not records:
        raise BadInput("instruction tuning wants conversations; none were given")
    rows = [row for record in records for row in mark(model.tokenizer, record)]
    limits = [n for n in (max_tokens, model.context_length) if n is not None]
    cut = 0
    if limits:
        limit = min(limits)
        cut = sum(len(row.ids) > limit for row in rows)
        rows = [Marked(row.ids[:limit], row.labels[:limit]) for row in rows]
        whole = len(rows)
        rows = [row for row in rows if row.answers]
        if not rows:
            raise BadInput(f"no answer begins within {limit} tokens: raise max_tokens or shorten the conversations")
        if cut:
            lost = f"; {whole - len(rows)} of them had no answer left and were dropped" if whole > len(rows) else ""
            warnings.warn(f"{cut} of {whole} conversations were cut to {limit} tokens{lost}", Note, stacklevel=3)
    return rows, cut


def answer_loss(model: Model, network: Any, rows: Sequence[Marked]) -> tuple[torch.Tensor, int]:
    """Summed loss in nats over the answers' tokens of a batch, and their number."""
    import torch

    inputs = right_padded([row.ids for row in rows], model.tokenizer.pad_token_id or 0)
    labels = right_padded([row.labels for row in rows], IGNORED)["input_ids"].to(model.device)
    # A position predicts the next token; logits are computed only where some row has an answer to predict.
    wanted = labels[:, 1:]
    places = (wanted != IGNORED).any(0).nonzero()[:, 0]
    batch = given({name: value.to(model.device) for name, value in inputs.items()}, accepts(model.network))
    logits = network(**batch, logits_to_keep=places, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), wanted[:, places].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return loss, int((wanted != IGNORED).sum())


def mean_loss(model: Model, network: Any, rows: Sequence[Marked], batch_size: int = 8) -> float:
    """Mean loss in nats per answer token."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for i in range(0, len(rows), batch_size):
            loss, n = answer_loss(model, network, rows[i : i + batch_size])
            total, count = total + loss.item(), count + n
    return round(total / count, 6)
