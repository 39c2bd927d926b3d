"""Answers held to JSON schemas: how many are valid, and what it costs a token; beside xgrammar and outlines' core.

    python -m bench.prompting.shapes [--quick] [--json FILE] [--model NAME]

Random schemas (`bench.prompting.schemas`), answers drawn from a network that was never trained over the vocabulary of
the model named (SmolLM2's), so that nothing but the form makes them valid. A contender that refuses a schema, or that
comes to no end within the tokens given, has no valid answer there. Each takes its own tokens; all have the same draws.
Whether an answer is valid says `jsonschema`. Then the model itself decodes under our form, for the form's share of the
time. All times are of the processor, so that a busy machine does not show in them: run it with one thread. Peers are
measured where they are installed; that of outlines compiles a schema to a finite automaton first and is
given the first few schemas only."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jsonschema import Draft202012Validator, FormatChecker

import intarsia
from bench.common import parser, show, start, write
from bench.prompting.schemas import schema
from intarsia.prompting.base import Constraint
from intarsia.prompting.base.masking import Matcher
from intarsia.prompting.base.token_bytes import lexicon, token_bytes

FORMATS = FormatChecker(["uuid", "ipv4", "email"])
MOST = 1500


class Ours:
    """The forms of this package."""

    name = "intarsia"

    def __init__(self, tokenizer: Any, vocabulary: int):
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        lexicon(tokenizer)

    def open(self, text: str) -> Any:
        return Matcher(self.tokenizer, Constraint("json", text), self.vocabulary)

    def mask(self, at: Matcher, logits: torch.Tensor, room: int) -> None:
        at.apply(logits, room)

    def accept(self, at: Matcher, token: int) -> None:
        at.accept(token)

    def ended(self, at: Matcher) -> bool:
        return at.done


class XGrammar:
    """xgrammar: a pushdown automaton with masks that are worked out beforehand."""

    name = "xgrammar"

    def __init__(self, tokenizer: Any, vocabulary: int):
        import xgrammar

        self.library = xgrammar
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.bits = xgrammar.allocate_token_bitmask(1, vocabulary)

    def open(self, text: str) -> Any:
        return self.library.GrammarMatcher(self.compiler.compile_json_schema(text, any_whitespace=False))

    def mask(self, at: Any, logits: torch.Tensor, room: int) -> None:
        at.fill_next_token_bitmask(self.bits)
        self.library.apply_token_bitmask_inplace(logits[None], self.bits)

    def accept(self, at: Any, token: int) -> None:
        if not at.accept_token(token):
            raise ValueError("refused its own token")

    def ended(self, at: Any) -> bool:
        return at.is_terminated()


class Outlines:
    """outlines' core: a schema as a regular expression, and that as an automaton over tokens."""

    name = "outlines"

    def __init__(self, tokenizer: Any, vocabulary: int):
        import outlines_core
        from outlines_core.json_schema import build_regex_from_schema

        self.library, self.regex = outlines_core, build_regex_from_schema
        tokens: dict[bytes, list[int]] = {}
        for i, spelt in enumerate(token_bytes(tokenizer)):
            if spelt and i != tokenizer.eos_token_id:
                tokens.setdefault(spelt, []).append(i)
        self.tokens = outlines_core.Vocabulary(tokenizer.eos_token_id, tokens)
        self.end = tokenizer.eos_token_id
        self.bits = np.zeros((vocabulary + 31) // 32, np.int32)
        self.vocabulary = vocabulary

    def open(self, text: str) -> Any:
        return self.library.Guide(self.library.Index(self.regex(text, whitespace_pattern="[ ]?"), self.tokens))

    def mask(self, at: Any, logits: torch.Tensor, room: int) -> None:
        at.write_mask_into(self.bits.ctypes.data, self.bits.size, self.bits.itemsize)
        allowed = np.unpackbits(self.bits.view(np.uint8), bitorder="little")[: self.vocabulary].view(bool)
        logits.masked_fill_(torch.from_numpy(~allowed), float("-inf"))

    def accept(self, at: Any, token: int) -> None:
        if token != self.end:
            at.advance(token, False)

    def ended(self, at: Any) -> bool:
        return False


def untrained(vocabulary: int) -> Callable[[list[int], Any], tuple[torch.Tensor, Any]]:
    """A small Llama with random weights: logits of the next token, and its cache."""
    import transformers as tf

    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    return stepping(tf.LlamaForCausalLM(config).eval())


def stepping(network: Any) -> Callable[[list[int], Any], tuple[torch.Tensor, Any]]:
    def step(ids: list[int], cache: Any) -> tuple[torch.Tensor, Any]:
        with torch.no_grad():
            out = network(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
        return out.logits[0, -1].float(), out.past_key_values

    return step


def answer(
    contender: Any, at: Any, step: Any, first: list[int], end: int, seed: int, masks: list[float], passes: list[float]
) -> list[int] | None:
    """The ids of an answer; None where it comes to no end. Seconds of masks and of passes are noted."""
    draw = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    new, cache = first, None
    while len(ids) < MOST:
        if contender.ended(at):
            return ids
        begun = time.process_time()
        logits, cache = step(new, cache)
        logits = logits.clone()
        masked = time.process_time()
        contender.mask(at, logits, MOST - len(ids))
        masks.append(time.process_time() - masked)
        passes.append(masked - begun)
        token = int(torch.multinomial(logits.softmax(-1), 1, generator=draw))
        begun = time.process_time()
        if token == end:
            return ids
        contender.accept(at, token)
        masks[-1] += time.process_time() - begun
        ids.append(token)
        new = [token]
    return ids if contender.ended(at) else None


def valid(text: str, given: dict[str, Any]) -> bool:
    try:
        Draft202012Validator(given, format_checker=FORMATS).validate(json.loads(text))
    except Exception:
        return False
    return True


def measure(contender: Any, tokenizer: Any, step: Any, count: int, samples: int) -> dict[str, float]:
    """Figures of one contender over `count` schemas."""
    compiles: list[float] = []
    masks: list[float] = []
    passes: list[float] = []
    refused = good = endless = 0
    for seed in range(count):
        given = schema(seed)
        text = json.dumps(given)
        for sample in range(samples):
            begun = time.process_time()
            try:
                at = contender.open(text)
            except BaseException as error:  # some panic
                if isinstance(error, KeyboardInterrupt):
                    raise
                refused += samples
                break
            compiles.append(time.process_time() - begun)
            try:
                ids = answer(contender, at, step, [1], tokenizer.eos_token_id, 1000 * seed + sample, masks, passes)
            except (ValueError, RuntimeError):
                continue
            if ids is None:
                endless += 1
            else:
                good += valid(tokenizer.decode(ids), given)
    total = count * samples
    return {
        "valid_share": good / total,
        "refused_share": refused / total,
        "endless_share": endless / total,
        "compile_ms": statistics.median(compiles) * 1e3,
        "compile_ms_p95": float(np.quantile(compiles, 0.95)) * 1e3,
        "mask_us": statistics.median(masks) * 1e6,
        "mask_us_mean": statistics.fmean(masks) * 1e6,
        "mask_us_p99": float(np.quantile(masks, 0.99)) * 1e6,
        "tokens": len(masks),
    }


def forcing(tokenizer: Any, count: int) -> float:
    """Share of an answer's tokens that need no pass through the network, over the schemas."""
    draw, forced, total = np.random.default_rng(0), 0, 0
    for seed in range(count):
        at = Matcher(tokenizer, Constraint("json", json.dumps(schema(seed))))
        made = 0
        while not at.done and made < MOST:
            some = at.forced()
            if some:
                forced += at.accept_many(some)
                made, total = made + len(some), total + len(some)
                continue
            at.accept(int(draw.choice(np.flatnonzero(at.allowed()))))
            made, total = made + 1, total + 1
    return forced / total


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--model", default="smollm2-135m", help="whose vocabulary, and whose decoding is timed")
    made.add_argument("--schemas", type=int, help="how many (default: 200, quick: 40)")
    options = made.parse_args()
    start(options)
    write(run(options.model, quick=options.quick, schemas=options.schemas), options.json)


def run(name: str = "smollm2-135m", *, quick: bool = False, schemas: int | None = None) -> dict[str, float]:
    """Measure and print; the figures."""
    count = schemas or (40 if quick else 200)
    samples = 1 if quick else 2
    model = intarsia.load(name)
    tokenizer, vocabulary = model.tokenizer, model.network.config.vocab_size
    step = untrained(vocabulary)
    figures: dict[str, float] = {}
    rows = []
    for make, share in ((Ours, 1.0), (XGrammar, 1.0), (Outlines, 0.1)):
        begun = time.process_time()
        try:
            contender = make(tokenizer, vocabulary)
        except ImportError:
            print(f"{make.name}: not installed, left out")
            continue
        ready = time.process_time() - begun
        found = measure(contender, tokenizer, step, max(10, round(count * share)), samples)
        rows.append(
            [make.name, str(max(10, round(count * share)) * samples), f"{found['valid_share']:.3f}",
             f"{found['refused_share']:.3f}", f"{ready * 1e3:.0f}", f"{found['compile_ms']:.2f}",
             f"{found['compile_ms_p95']:.1f}", f"{found['mask_us']:.0f}", f"{found['mask_us_p99']:.0f}"]
        )  # fmt: skip
        prefix = "" if make is Ours else f"{make.name}_"
        figures |= {f"{prefix}{key}": value for key, value in found.items()}
        figures[f"{prefix}ready_ms"] = ready * 1e3
    figures["valid_schema_share"] = figures.pop("valid_share")
    figures["forced_token_share"] = forcing(tokenizer, count)
    # The model itself, held to a form: what of its time the form takes.
    masks: list[float] = []
    passes: list[float] = []
    ours, real = Ours(tokenizer, vocabulary), stepping(model.network)
    prompt = tokenizer.encode("Write JSON: ")
    for seed in range(3 if quick else 8):
        at = ours.open(json.dumps(schema(seed)))
        answer(ours, at, real, prompt, tokenizer.eos_token_id, seed, masks, passes)
    figures["decode_share"] = sum(masks) / (sum(masks) + sum(passes))
    show(
        f"{count} random schemas, {samples} answers each, of an untrained network over {vocabulary} tokens",
        ["", "answers", "valid", "refused", "ready ms", "compile", "p95", "mask us", "p99"],
        rows,
    )
    print(
        f"{name}: the form takes {figures['decode_share']:.1%} of the time of decoding "
        f"({statistics.fmean(passes) * 1e3:.1f} ms a pass); {figures['forced_token_share']:.1%} of tokens are forced"
    )
    return figures


if __name__ == "__main__":
    main()
