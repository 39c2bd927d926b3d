"""Trimming a vocabulary: count, choose, rewrite, slice, and prove that what is left is as it was."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import pre_tokenizers

from intarsia.compression.bpe import merges_of
from intarsia.compression.vocabulary import rewriting
from intarsia.compression.vocabulary.choosing import Merges, choose
from intarsia.compression.vocabulary.slicing import check, named_ids, slice_network
from intarsia.compression.vocabulary.technique import NAME, TrimVocabularyConfig
from intarsia.data import Text
from intarsia.errors import BadInput, IntarsiaError, Note
from intarsia.models import Model
from intarsia.progress import track
from intarsia.sites import run

# Above this share of additional tokens a trimmed vocabulary costs more time than it saves.
MOST_INFLATION = 0.02
PROOF_TOKENS = 48


def trim(model: Model, config: TrimVocabularyConfig, train: Sequence[Text], test: Sequence[Text] | None) -> Model:
    """See `intarsia.compression.trim_vocabulary`."""
    said = rewriting.read(model.tokenizer)
    check(model)
    tokenizer: Any = model.tokenizer
    texts = [record.text for record in train if record.text]
    if not texts:
        raise BadInput("no text to count tokens in: give `train`")
    vocabulary = tokenizer.get_vocab()
    rows = model.network.get_input_embeddings().num_embeddings
    if config.size is not None and config.size >= min(rows, len(vocabulary)):
        raise BadInput(f"size {config.size}: the vocabulary has {len(vocabulary)} tokens; give less to trim it")
    merges = Merges(merges_of(said), bool(said["model"].get("ignore_merges")))
    counts: Counter[int] = Counter()
    for text in track(texts, "counting tokens"):
        counts.update(_ids(tokenizer, text))
    always = _always(model, said, vocabulary, merges)
    choice = choose(counts, always, vocabulary, merges, config.size, config.coverage)
    ids = {old: new for new, old in enumerate(choice.kept)}
    trimmed = rewriting.rewrite(tokenizer, ids)
    changed = model.copy()
    before = sum(p.numel() for p in changed.network.parameters())
    slice_network(changed.network, choice.kept, ids)
    changed = changed.with_network(changed.network, technique=NAME, config=config.model_dump(mode="json"))
    changed.tokenizer = trimmed
    held_out = [record.text for record in test or () if record.text]
    facts = {
        "tokens_before": rows,
        "tokens": len(choice.kept),
        "why": {key: getattr(choice, key) for key in ("always", "counted", "between", "filled")},
        "coverage": choice.coverage,
        "parameters_before": before,
        "parameters": sum(p.numel() for p in changed.network.parameters()),
        "measured_on": "test" if held_out else "train",
        **_compare(tokenizer, trimmed, held_out or texts),
        "logit_difference": _prove(model, changed, choice.kept, texts),
    }
    if facts["inflation"] > MOST_INFLATION:
        warnings.warn(
            f"texts take {facts['inflation']:.1%} more tokens with {len(choice.kept):,} of {rows:,}; a larger size or "
            "coverage keeps them shorter",
            Note,
            stacklevel=4,
        )
    changed.extras[NAME] = facts
    return changed


def _always(model: Model, said: dict[str, Any], vocabulary: dict[str, int], merges: Merges) -> set[int]:
    """The tokens that stay whatever a text has: bytes, added tokens, those that settings name, the chat template's."""
    tokenizer: Any = model.tokenizer
    kept = {vocabulary[byte] for byte in pre_tokenizers.ByteLevel.alphabet() if byte in vocabulary}
    kept |= {token["id"] for token in said["added_tokens"]}
    kept |= {i for i in named_ids(model.network) if i in set(vocabulary.values())}
    if said["model"].get("unk_token") in vocabulary:
        kept.add(vocabulary[said["model"]["unk_token"]])
    names = {i: token for token, i in vocabulary.items()}
    for i in _template_ids(tokenizer):
        kept |= {vocabulary[token] for token in merges.path(names[i])} | {i}
    return kept


def _template_ids(tokenizer: Any) -> set[int]:
    """The tokens that the chat template writes itself."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        return set()
    talk = [{"role": role, "content": "a"} for role in ("system", "user", "assistant")]
    found: set[int] = set()
    # Some templates want no system message, some no answer at the end.
    for messages in (talk, talk[1:], talk[:2], talk[1:2]):
        for prompt in (False, True):
            try:
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            except (TemplateError, ValueError):
                continue
            found |= set(_ids(tokenizer, text))
    return found


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def _compare(before: Any, after: Any, texts: Sequence[str]) -> dict[str, Any]:
    """How many tokens texts take before and after; `IntarsiaError` where decoding does not give back the same."""
    counted = [0, 0]
    for text in track(texts, "checking texts"):
        old, new = _ids(before, text), _ids(after, text)
        counted[0] += len(old)
        counted[1] += len(new)
        if after.decode(new) != before.decode(old):
            raise IntarsiaError(f"the trimmed tokenizer does not give back {json.dumps(text[:60])}; it was not used")
    return {
        "text_tokens_before": counted[0],
        "text_tokens": counted[1],
        "inflation": counted[1] / max(counted[0], 1) - 1,
    }


def _prove(before: Model, after: Model, kept: Sequence[int], texts: Sequence[str]) -> float:
    """The largest difference of a kept token's logit on kept tokens; `IntarsiaError` when it is more than rounding."""
    new: list[int] = []
    for text in texts:
        new += _ids(after.tokenizer, text)
        if len(new) >= PROOF_TOKENS:
            break
    new = new[: min(PROOF_TOKENS, before.context_length or PROOF_TOKENS)]
    index = torch.tensor(kept, device=before.device)
    old = index[torch.tensor([new], device=before.device)]
    with torch.no_grad():
        wanted = run(before, old)[0]
        got = run(after, torch.tensor([new], device=after.device))[0]
    if wanted.shape[-1] > len(kept) == got.shape[-1]:
        wanted = wanted[..., index]
    difference = (wanted.double() - got.double()).abs().max().item()
    most = 64 * torch.finfo(wanted.dtype).eps * max(wanted.abs().max().item(), 1.0)
    if not difference <= most:
        raise IntarsiaError(
            f"the trimmed network gives other numbers (by {difference:.2g}): its vocabulary lies in more places than "
            "its embedding and head"
        )
    return difference
