"""Tokens a second, with spread: what is compared takes turns, so that a busy moment of the machine hits all alike."""

from __future__ import annotations

import contextlib
import inspect
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pydantic
import torch

from intarsia.errors import BadInput
from intarsia.measure.provenance import provenance
from intarsia.measure.size import shape_of, token_inputs
from intarsia.progress import track
from intarsia.report import Column, Figure, Finding, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model

Spread = tuple[float, float, float]
RATE = Column(name="tokens/s", format=",.1f", better="higher", help="median of the rounds, and their range")


class Lap(NamedTuple):
    """Tokens a second of one round; `decode` is None where nothing is generated."""

    prefill: float
    decode: float | None


class Speed(pydantic.BaseModel):
    """Tokens a second as (median, lowest, highest) over the rounds: reading the prompt, and writing after it."""

    prefill: Spread
    decode: Spread | None = None


class SpeedComparison(Finding):
    """Speeds of several models, and each one's ratio to the first, taken round by round."""

    volatile: ClassVar[frozenset[str]] = frozenset({"speeds", "ratios", "summary"})

    prompt_tokens: int
    new_tokens: int
    repeats: int
    speeds: dict[str, Speed]
    ratios: dict[str, Speed]

    def tables(self) -> list[Table]:
        """One row a model."""
        columns = [
            Column(name="model"),
            Column(name="prefill", unit="tokens/s", format=",.1f", better="higher"),
            Column(name="decode", unit="tokens/s", format=",.1f", better="higher"),
            Column(name="prefill ratio", format=".2f", better="higher", help="to the first model, round by round"),
            Column(name="decode ratio", format=".2f", better="higher", help="to the first model, round by round"),
        ]
        rows = [
            [name, speed.prefill, speed.decode, self.ratios[name].prefill, self.ratios[name].decode]
            for name, speed in self.speeds.items()
        ]
        return [Table(title=self.title, columns=columns, rows=rows, note=f"median and range of {self.repeats} rounds")]

    def figures(self) -> list[Figure]:
        """Bars of both speeds."""
        return speed_figures(self.speeds)


def compare_speed(
    models: Mapping[str, Model] | Sequence[Model],
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 24,
    repeats: int = 5,
) -> SpeedComparison:
    """Time several models in turns (ABAB...), one prompt of `prompt_tokens` random tokens each, then `new_tokens` more.

    The ratios are of rounds that followed each other, so they hold on a busy machine where the speeds themselves do
    not. The first is the one the others are compared with. All run in torch, with its present number of threads."""
    if not isinstance(models, Mapping):
        models = {
            model.identity.source if len(models) == 1 else f"model {i}": model for i, model in enumerate(models, 1)
        }
    if not models:
        raise BadInput("compare_speed: no models given")
    laps = take_turns({k: torch_lap(m, prompt_tokens, new_tokens) for k, m in models.items()}, repeats)
    first = next(iter(laps))
    ratios = {}
    for name, own in laps.items():
        pairs = list(zip(own, laps[first], strict=True))
        decode = [a.decode / b.decode for a, b in pairs if a.decode and b.decode]
        ratios[name] = Speed(
            prefill=spread([a.prefill / b.prefill for a, b in pairs]), decode=spread(decode) if decode else None
        )
    speeds = {name: summed(own) for name, own in laps.items()}
    parts = [f"{name} reads {ratio.prefill[0]:.2f} times as fast" for name, ratio in ratios.items() if name != first]
    return SpeedComparison(
        title="Speed",
        summary=f"Against {first}: {'; '.join(parts)}." if parts else "",
        technique="measure.speed",
        provenance=provenance(),
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        repeats=repeats,
        speeds=speeds,
        ratios=ratios,
    )


def take_turns(runners: Mapping[str, Callable[[], Lap]], repeats: int) -> dict[str, list[Lap]]:
    """Run each once to warm up, then `repeats` rounds over all, every other round in reverse order."""
    laps: dict[str, list[Lap]] = {name: [] for name in runners}
    for number in track(range(repeats + 1), "timing"):
        order = list(runners) if number % 2 == 0 else list(reversed(runners))
        for name in order:
            lap = runners[name]()
            if number:
                laps[name].append(lap)
    return laps


def summed(laps: Sequence[Lap]) -> Speed:
    """The spread of both rates."""
    decode = [lap.decode for lap in laps if lap.decode is not None]
    return Speed(prefill=spread([lap.prefill for lap in laps]), decode=spread(decode) if decode else None)


def spread(values: Sequence[float]) -> Spread:
    """(median, lowest, highest)."""
    return statistics.median(values), min(values), max(values)


def torch_lap(model: Model, prompt_tokens: int, new_tokens: int) -> Callable[[], Lap]:
    """A function that reads a random prompt and, where the network generates, writes after it, greedily with a cache.

    A decoder's prefill gives the last position's logits only, as in serving; an encoder's is its whole forward; an
    encoder-decoder's is its encoder and one decoder token."""
    network: Any = model.network
    limit = model.context_length
    if limit and prompt_tokens + new_tokens > limit:
        raise BadInput(
            f"{prompt_tokens} + {new_tokens} tokens do not fit the model's context of {limit}: ask for fewer"
        )
    shape = shape_of(network)
    inputs = token_inputs(network, prompt_tokens)
    accepted = inspect.signature(network.forward).parameters
    last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    if shape == "encoder-decoder":
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :1]

    def lap() -> Lap:
        with _evaluating(network):
            begin = now(network)
            out = network(**inputs) if shape == "encoder" else network(**inputs, **last, use_cache=True)
            middle = now(network)
            prefill = prompt_tokens / (middle - begin)
            if shape == "encoder" or getattr(out, "past_key_values", None) is None:
                return Lap(prefill, None)
            encoded = {"encoder_outputs": (out.encoder_last_hidden_state,)} if shape == "encoder-decoder" else {}
            word = "decoder_input_ids" if shape == "encoder-decoder" else "input_ids"
            for _ in range(new_tokens):
                token = out.logits[:, -1].argmax(-1, keepdim=True)
                out = network(**{word: token}, **encoded, past_key_values=out.past_key_values, use_cache=True)
            return Lap(prefill, new_tokens / (now(network) - middle))

    return lap


def runtime_lap(runtime: Any, prompt_tokens: int, new_tokens: int) -> Callable[[], Lap]:
    """The same work in an exported engine (`intarsia.models.runtime`). Its first token counts as the prefill."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, runtime.vocabulary, (prompt_tokens,), generator=generator).tolist()

    def lap() -> Lap:
        begin = time.perf_counter()
        runtime.generate(ids, 1)
        middle = time.perf_counter()
        written = len(runtime.generate(ids, new_tokens + 1))
        end = time.perf_counter()
        rest = (end - middle) - (middle - begin)
        return Lap(prompt_tokens / (middle - begin), (written - 1) / rest if written > 1 and rest > 0 else None)

    return lap


def speed_figures(speeds: Mapping[str, Speed]) -> list[Figure]:
    """A bar chart for each of prefill and decode, ranges as whiskers."""
    figures = []
    for what in ("prefill", "decode"):
        known = {name: rate for name, speed in speeds.items() if (rate := getattr(speed, what)) is not None}
        if known:
            middle, low, high = (list(column) for column in zip(*known.values(), strict=True))
            series = Series(name=what, x=list(known), y=middle, low=low, high=high)
            figures.append(Figure(title=f"Speed: {what}", kind="bar", y="tokens/s", series=[series]))
    return figures


@contextlib.contextmanager
def _evaluating(network: Any) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(training)


def now(network: Any) -> float:
    """The clock, once all work of the network's device is done."""
    # A GPU works behind the program's back: wait for it before looking at the clock.
    if next(network.parameters()).device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
