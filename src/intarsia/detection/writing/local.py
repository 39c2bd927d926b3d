"""`LocalWriter`: a causal language model on this machine writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.detection.writing.seeds import mixed_seed
from intarsia.detection.writing.writer import check_drawing
from intarsia.errors import BadInput, first_line
from intarsia.measure.likelihood import check_causal, length_batches
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

TOKENS = 8192  # of a batch, with those that are to be written
ROWS = 16


class LocalWriter:
    """Any causal Hugging Face model with its tokenizer.

    Texts are drawn from the model's own distribution: a temperature, penalties or a cut to the k most probable tokens
    that the model's generation settings ask for do not apply. Equal calls give equal texts."""

    def __init__(self, model: Model):
        """Raises `BadInput` for a model that is not a causal language model, or has no tokenizer."""
        check_causal(model)
        if model.tokenizer is None:
            raise BadInput("writing needs text: this model has no tokenizer (wrap(network, tokenizer))")
        self.model, self.name = model, model.identity.source

    def write(
        self, prompts: Sequence[str], *, most_tokens: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0,
        chat: bool = True,
    ) -> list[str]:  # fmt: skip
        """As `Writer.write`. With `chat`, prompts stand in the tokenizer's chat template where it has one.

        A plain prompt too long for the network's context loses its beginning. Raises `BadInput` for one in a chat
        template that is too long, for a prompt without tokens, or for settings no text can be drawn with."""
        from intarsia.sites import generate

        check_drawing(most_tokens, temperature, top_p)
        chat = chat and bool(getattr(self.model.tokenizer, "chat_template", None))
        rows = [self._ids(prompt, chat, most_tokens) for prompt in prompts]
        how = {"do_sample": False}
        if temperature > 0:
            how = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}  # type: ignore[dict-item]
        out = [""] * len(rows)
        batches = length_batches([len(row) + most_tokens for row in rows], TOKENS, rows=ROWS)
        for number, batch in enumerate(track(batches, "writing")):
            made = generate(
                self.model, [rows[i] for i in batch], max_new_tokens=most_tokens, seed=mixed_seed(seed, number),
                repetition_penalty=1.0, **how,
            )  # fmt: skip
            for i, new in zip(batch, made.ids.tolist(), strict=True):
                out[i] = self._text(rows[i], self._until_end(new), chat)
        return out

    def _ids(self, prompt: str, chat: bool, most_tokens: int) -> list[int]:
        tokenizer = self.model.tokenizer
        if chat:
            turn = [{"role": "user", "content": prompt}]
            try:
                prompt = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))  # type: ignore[union-attr]
            except Exception as error:  # templates raise what they like
                raise BadInput(f"{self.name}: its chat template takes no lone prompt ({first_line(error)})") from None
        # A template writes the special tokens itself.
        ids = list(tokenizer(prompt, add_special_tokens=not chat, verbose=False)["input_ids"])  # type: ignore[misc]
        while ids and ids[-1] in self._ends() and not chat:
            ids.pop()  # an end that nobody wrote
        if not ids:
            raise BadInput("a prompt is empty: give a text to go on from")
        room = (self.model.context_length or len(ids) + most_tokens) - most_tokens
        if room < 1 or (chat and len(ids) > room):
            raise BadInput(
                f"{self.name}: a prompt of {len(ids)} tokens and {most_tokens} to be written do not fit its context "
                f"of {self.model.context_length}; shorten the prompt, or ask for less"
            )
        return ids[-room:]

    def _text(self, prompt: list[int], new: list[int], chat: bool) -> str:
        def text(ids: list[int]) -> str:
            return self.model.tokenizer.decode(ids, skip_special_tokens=True)  # type: ignore[union-attr,return-value]

        # Decoded alone, a continuation may lose the space it begins with.
        if not chat and (whole := text(prompt + new)).startswith(begun := text(prompt)):
            return whole[len(begun) :]
        return text(new)

    def _until_end(self, new: list[int]) -> list[int]:
        ends = self._ends()
        return new[: next((at for at, token in enumerate(new) if token in ends), len(new))]

    def _ends(self) -> set[int]:
        stop = getattr(self.model.network.generation_config, "eos_token_id", None)
        if stop is None:
            stop = self.model.tokenizer.eos_token_id  # type: ignore[union-attr]
        return set() if stop is None else {stop} if isinstance(stop, int) else set(stop)
