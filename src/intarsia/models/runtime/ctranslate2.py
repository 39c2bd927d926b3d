"""CTranslate2 as a `Runtime`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from intarsia.errors import IntarsiaError, MissingExtra, first_line
from intarsia.models.runtime.asking import checked_ids, known_of, threads_for


class CTranslate2:
    """A folder of CTranslate2, run on the CPU. It rounds activations to 8 bits inside a product.

    - context_length: the most tokens, prompt and answer together."""

    name = "ctranslate2"
    no_session = (
        "it gives logits of whole texts alone, with nothing kept for the next call, or chooses all tokens by itself"
    )
    """Why it cannot be asked step by step: `forward_batch` takes and gives no cache, `generate_tokens` no logits before
    a token is chosen, and its cache of prompts (`static_prompt`) finds a prompt again only as a whole."""

    def __init__(self, path: str | Path, threads: int | None = None):
        try:
            import ctranslate2
        except ImportError:
            raise MissingExtra("running a CTranslate2 model", "ctranslate2") from None
        self.path = Path(path)
        self.threads = threads_for(threads)
        self.bytes = (self.path / "model.bin").stat().st_size
        try:
            self._generator = ctranslate2.Generator(
                str(self.path), device="cpu", compute_type="default", inter_threads=1, intra_threads=self.threads
            )
        except (RuntimeError, ValueError) as error:
            raise IntarsiaError(f"{self.path} does not open in CTranslate2: {first_line(error)}") from None
        # It knows words in place of numbers.
        self._words: list[str] = json.loads((self.path / "vocabulary.json").read_text(encoding="utf-8"))
        self.vocabulary = len(self._words)
        known = known_of(self.path)
        self.context_length: int = known.get("context_length") or 2048
        self.ends: tuple[int, ...] = tuple(known.get("end", ()))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of every position, float32 [token, vocabulary]."""
        ids = checked_ids(ids, 0, self.vocabulary, self.context_length)
        found = self._generator.forward_batch([ids], return_log_probs=False)
        return np.array(found, dtype=np.float32)[0, :, : self.vocabulary]

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """`count` tokens that follow, greedily, whatever they are; the first comes once the prompt is read."""
        ids = checked_ids(ids, count, self.vocabulary, self.context_length)
        words = [self._words[i] for i in ids]
        for step in self._generator.generate_tokens(words, max_length=count, min_length=count, sampling_topk=1):
            yield step.token_id

    def generate(self, ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """The tokens that follow `ids`, greedily; ends early after an end token, which is included."""
        ids = checked_ids(ids, max_new_tokens, self.vocabulary, self.context_length)
        words, ends = [self._words[i] for i in ids], [self._words[i] for i in self.ends]
        steps = self._generator.generate_tokens(words, max_length=max_new_tokens, sampling_topk=1, end_token=ends)
        return [step.token_id for step in steps]
