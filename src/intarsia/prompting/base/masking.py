"""An answer is held to a form where its tokens are chosen: what the form does not allow gets no probability.

The form is kept by llguidance: a derivative-based lexer below an Earley parser, run along a trie of the vocabulary.
Source: Willard & Louf 2023, "Efficient Guided Generation for Large Language Models" (masks of tokens from a form);
Beurer-Kellner et al. 2024, "Guiding LLMs The Right Way" (tokens that need no choice)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.prompting.base.closing import LIKELY, Closing
from intarsia.prompting.base.errors import PromptingError
from intarsia.prompting.base.token_bytes import lexicon

if TYPE_CHECKING:
    import numpy as np

    from intarsia.prompting.base.constraint import Constraint

# JSON as `json.dumps` writes it, on one line: models have read much of it, and no room is left to ramble in.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Matcher:
    """Where an answer stands in the form that it must have. Not shared between threads; different ones may be.

    - tokenizer: a Hugging Face tokenizer, fast or not.
    - vocabulary: rows of the logits, where the model has more than the tokenizer has tokens; those are never allowed.
    - end: ids of the tokens that end an answer; None: the tokenizer's own.

    Raises `BadInput` when the form cannot be understood, or asks for what llguidance cannot hold (JSON schema's `not`,
    look-ahead in a regex...)."""

    def __init__(
        self,
        tokenizer: Any,
        constraint: Constraint,
        vocabulary: int | None = None,
        *,
        end: int | Sequence[int] | None = None,
    ):
        import llguidance

        self._lexicon = lexicon(tokenizer, end)
        self.end: tuple[int, ...] = tuple(self._lexicon.eos_tokens)
        self.vocabulary = self._lexicon.vocab_size if vocabulary is None else vocabulary
        self._at = llguidance.LLMatcher(self._lexicon, _grammar(constraint), log_level=0)
        if self._at.is_error():
            raise _refused(constraint, self._at.get_error())
        self._ended = False
        self._mask: np.ndarray | None = None
        self._closing = Closing(self._lexicon, self.vocabulary, self.end[0])
        # A complement (`~`) holds the bytes that stand for special tokens too: masks show those, though none may come.
        self._doubtful = (
            [i for i in range(self._lexicon.vocab_size) if self._lexicon.is_special_token(i) and i not in self.end]
            if constraint.kind == "grammar" and "~" in constraint.source
            else []
        )

    def allowed(self) -> np.ndarray:
        """[vocabulary] bool: the tokens that may come next. The ends are among them exactly when the form is complete.
        Not to be written to: it is the same array until the next token is accepted."""
        import numpy as np

        if self._mask is None:
            words = np.zeros((self._lexicon.vocab_size + 31) // 32, np.int32)
            self._at.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
            self._check()
            mask = np.unpackbits(words.view(np.uint8), bitorder="little")[: self._lexicon.vocab_size].view(bool)
            if len(mask) < self.vocabulary:
                mask = np.concatenate([mask, np.zeros(self.vocabulary - len(mask), bool)])
            mask = mask[: self.vocabulary]
            for i in self._doubtful:
                if i < len(mask) and mask[i] and not self._at.validate_tokens([i]):
                    mask[i] = False
            if not mask.any():
                raise PromptingError("the form leaves no token to go on with: the vocabulary cannot spell it")
            self._mask = mask
        return self._mask

    def apply(self, logits: Any, room: int | None = None) -> None:
        """Set what is not allowed to minus infinity, in place. logits: [vocabulary], torch (any device) or numpy.

        - room: tokens that may still come, with the one that ends the answer. Where hardly enough are left, only those
          are allowed after which the form can still be completed (`closing`), of the likely ones."""
        import numpy as np

        allowed = self.allowed()
        if room is not None and not self._ended and self._closing.tight(self._at, room):
            fitting = self._closing.fitting(self._at, room, _likely(logits, allowed))
            allowed = np.zeros(len(allowed), bool)
            allowed[fitting] = True
        places: Any = np.flatnonzero(allowed)
        few = len(places) * 8 < len(allowed)  # most often: then it is faster to put back what may stay
        if hasattr(logits, "masked_fill_"):
            import torch

            if few:
                places = torch.from_numpy(places).to(logits.device)
                kept = logits[places]
                logits.fill_(float("-inf"))
                logits[places] = kept
            else:
                logits.masked_fill_(torch.from_numpy(~allowed).to(logits.device), float("-inf"))
        elif few:
            kept = logits[places]
            logits.fill(float("-inf"))
            logits[places] = kept
        else:
            logits[~allowed] = float("-inf")

    def forced(self) -> list[int]:
        """The tokens that come next whatever the model would say; none where there is a choice, ends left out. They are
        the ones that the tokenizer itself would make of that text. They are not accepted yet."""
        if self._ended:
            return []
        ids = self._at.compute_ff_tokens()
        self._check()
        return [] if any(i >= self.vocabulary for i in ids) else ids

    def accept(self, token: int) -> None:
        """Go on by one token. Raises `BadInput` where it is not allowed; nothing has changed then."""
        if not self.accept_many([token]):
            raise BadInput(f"the form does not allow the token {token} here")

    def accept_many(self, tokens: Iterable[int]) -> int:
        """Go on as far as the tokens are allowed. Returns how many were."""
        count = 0
        for token in tokens:
            if self._ended:
                break
            if token in self.end:
                if not self._at.is_accepting():
                    break
                self._ended = True
            elif not 0 <= token < self._lexicon.vocab_size or self._at.is_stopped():
                break
            elif not self._at.try_consume_tokens([token]):
                self._check()
                break
            else:
                self._closing.accept(token)
            count += 1
        if count:
            self._mask = None
        return count

    @property
    def may_end(self) -> bool:
        """Whether the answer so far has the whole form."""
        return self._ended or self._at.is_accepting()

    @property
    def done(self) -> bool:
        """Whether nothing can follow but an end: the form is complete, or an end was accepted."""
        return self._ended or (self._at.is_stopped() and self._at.is_accepting())

    def fork(self) -> Matcher:
        """Another one that stands where this stands, and goes its own way."""
        other = object.__new__(Matcher)
        other.__dict__.update(self.__dict__, _at=self._at.deep_copy(), _closing=self._closing.fork())
        return other

    def _check(self) -> None:
        if self._at.is_error():
            raise PromptingError(f"the form became too large to follow: {_one_line(self._at.get_error())}")


def _likely(logits: Any, allowed: np.ndarray) -> list[int]:
    """The allowed tokens that are most likely."""
    import numpy as np

    places = np.flatnonzero(allowed)
    values = logits[places].float().cpu().numpy() if hasattr(logits, "masked_fill_") else logits[places]
    return places[np.argsort(-values, kind="stable")[:LIKELY]].tolist()


def check_constraint(constraint: Constraint) -> None:
    """Raise `BadInput` where a form cannot be held, before any model is there."""
    import llguidance

    failed, said = llguidance.LLMatcher.validate_grammar_with_warnings(_grammar(constraint))
    if failed:
        raise _refused(constraint, said[0])


class MaskingProcessor:
    """A form for `transformers`' own `generate`: `network.generate(..., logits_processor=[MaskingProcessor(...)])`.

    Greedy, drawn and beam search, any batch. One serves one call of `generate`. Arguments: as of `Matcher`."""

    def __init__(self, tokenizer: Any, constraint: Constraint, *, end: int | Sequence[int] | None = None):
        self._first = Matcher(tokenizer, constraint, end=end)
        self._prompt = -1
        self._at: dict[tuple[int, ...], Matcher] = {}

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """input_ids: [row, token]; scores: [row, vocabulary]. Returns the scores, masked."""
        if self._prompt < 0:
            self._prompt = input_ids.shape[1]
            self._first.vocabulary = scores.shape[1]
            self._at = {(): self._first}
        now: dict[tuple[int, ...], Matcher] = {}
        scores = scores.clone()
        for row, ids in enumerate(input_ids[:, self._prompt :].tolist()):
            key = tuple(ids)
            if key not in now:
                if key not in self._at:
                    # By its text and not by its row: beams change places.
                    at = self._at[key[:-1]].fork()
                    at.accept_many(key[-1:])
                    now[key] = at
                else:
                    now[key] = self._at[key]
            if not now[key]._ended:  # past its end, generate pads a row whatever is said here
                now[key].apply(scores[row])
        self._at = now
        return scores


def _grammar(constraint: Constraint) -> str:
    """A form in llguidance's own terms."""
    import llguidance

    make, source = llguidance.LLMatcher, constraint.source
    match constraint.kind:
        case "choice":
            texts = _choices(source)
            return make.grammar_from_lark("start: " + " | ".join(json.dumps(t, ensure_ascii=False) for t in texts))
        case "regex":
            return make.grammar_from_regex(source)
        case "json":
            try:
                return make.grammar_from_json_schema(source, defaults=JSON_STYLE)
            except ValueError as error:
                raise _refused(constraint, str(error)) from None
        case "grammar":
            return make.grammar_from_lark(source)
    raise BadInput(f"a form is choice, regex, json or grammar, not '{constraint.kind}'")


def _choices(source: str) -> list[str]:
    try:
        texts = json.loads(source)
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadInput("a choice wants a JSON list of one text or more")
    return texts


def _refused(constraint: Constraint, why: str) -> BadInput:
    words = {"json": "JSON schema"}.get(constraint.kind, constraint.kind)
    return BadInput(f"the {words} of '{constraint.name}' cannot be held: {_one_line(why)}")


def _one_line(why: str) -> str:
    """llguidance's reason without its picture of the place and its state."""
    why = why.partition("<state>")[0].partition("<grammar>")[0]
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    reasons = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    if reasons and lines:
        return f"{lines[0].removesuffix('regex parse error:').strip().rstrip(':')}: {reasons[0]}"[:300]
    return (lines[0] if lines else "no reason given")[:300]
