"""The computation behind `interpretation.explain_neuron`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.evaluation.correlation import pearson
from intarsia.interpretation.neurons.explain_neuron import Control, ExplainNeuron, ExplainNeuronConfig, Simulated
from intarsia.interpretation.neurons.neurons import Excerpt, NeuronsConfig
from intarsia.interpretation.neurons.simulator import Simulator
from intarsia.interpretation.neurons.watching import counted_tokens, excerpts_of, parse, watch
from intarsia.interpretation.wording import one_line
from intarsia.measure.intervals import with_interval
from intarsia.measure.likelihood import check_causal
from intarsia.progress import track
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.explain_neuron"
UNRELATED = ("numbers and dates", "names of places", "the ends of sentences")
FIRES = 0.5  # of the strongest activation: what is put in brackets


def look(
    model: Model, config: ExplainNeuronConfig, records: Sequence[Any], explainer: Model | None, seed: int
) -> ExplainNeuron:
    """Find the top texts, have them explained, simulate, score; see `interpretation.explain_neuron`."""
    states.check_readable(model, WHAT)
    layer, neuron = parse(config.neuron, model, WHAT)
    reader = explainer or model
    check_causal(reader)
    simulator = Simulator(reader, WHAT)
    chosen = states.choose(records, config.max_texts, seed, WHAT)
    texts = [states.text_of(record) for record in chosen]
    tops = max(1, config.held_out // 2)
    if len(texts) < 3:
        raise BadInput(f"{WHAT}: {len(texts)} texts were given: wants three or more, to show some and hold some out")
    shown_count = min(config.examples, len(texts) - 2)
    tops = min(tops, len(texts) - shown_count - 1)
    # Every layer but this one is left alone.
    settings = NeuronsConfig(
        top=shown_count + tops, context=config.context, max_tokens=config.max_tokens, batch_size=config.batch_size
    )
    running, best, _ = watch(model, texts, [layer], settings)
    if neuron >= len(running[layer].mean):
        raise BadInput(f"{WHAT}: neuron {config.neuron} does not exist: layer {layer} has 0 to "
                       f"{len(running[layer].mean) - 1}")  # fmt: skip
    excerpts = excerpts_of(model, texts, [(layer, neuron)], best, settings)[0]
    shown, held = excerpts[:shown_count], excerpts[shown_count:]
    rest = [i for i in range(len(texts)) if i not in {e.text for e in excerpts}]
    some = random.Random(seed).sample(rest, min(len(rest), config.held_out - len(held)))
    drawn = random_excerpts(model, [texts[i] for i in some], layer, neuron, config, seed)
    strongest = max(v for e in shown for v in e.values)
    lines = [bracketed(e, FIRES * strongest) for e in shown]
    explanation = config.explanation or simulator.explain(lines, config.max_new_tokens)

    tests = [(e, True) for e in held] + [(e, False) for e in drawn]
    found = []
    for e, top in track(tests, "simulating"):
        found.append(Simulated(tokens=e.tokens, values=e.values, top=top,
                               simulated=simulator.simulate(explanation, e.tokens)))  # fmt: skip
    controls = [
        Control(explanation=words, score=score([(s.values, simulator.simulate(words, s.tokens)) for s in found]))
        for words in track(UNRELATED, "simulating controls")
    ]
    finding = ExplainNeuron(
        title=f"Neuron {config.neuron} of {model.identity.source} in words",
        technique=WHAT,
        neuron=config.neuron,
        explanation=explanation,
        written_by="you" if config.explanation else reader.identity.source,
        score=interval([(s.values, s.simulated) for s in found], seed),
        top_score=_known(score([(s.values, s.simulated) for s in found if s.top])),
        random_score=_known(score([(s.values, s.simulated) for s in found if not s.top])),
        controls=[c.model_copy(update={"score": float(np.nan_to_num(c.score))}) for c in controls],
        shown=lines,
        held_out=found,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(texts)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def random_excerpts(
    model: Model, texts: Sequence[str], layer: int, neuron: int, config: ExplainNeuronConfig, seed: int
) -> list[Excerpt]:
    """A stretch around a random token of each text."""
    if not texts:
        return []
    site = states.site_name(model.sites, layer, "mlp_act")
    vocabulary, draw, out = states.Vocabulary(model), random.Random(seed + 1), []
    for batch in states.batches(model, texts, config.max_tokens, config.batch_size):
        acts = read(model, {"input_ids": batch.ids, "attention_mask": batch.mask.long()}, site)[site]
        counted = counted_tokens(batch.mask)
        for row in range(len(batch.ids)):
            ids = batch.ids[row][batch.mask[row]].tolist()
            at = draw.choice(counted[row].nonzero()[:, 0].tolist())
            begin, end = max(0, at - config.context), min(len(ids), at + config.context + 1)
            values = acts[row, begin:end, neuron].float().cpu().tolist()
            out.append(Excerpt(text=batch.first + row, tokens=[vocabulary(t) for t in ids[begin:end]], values=values,
                               peak=at - begin))  # fmt: skip
    return out


def bracketed(excerpt: Excerpt, least: float) -> str:
    """The stretch as a line, tokens with an activation of at least `least` in double brackets."""
    parts = []
    for token, value in zip(excerpt.tokens, excerpt.values, strict=True):
        space = token[: len(token) - len(token.lstrip())]
        inside = value >= least and token.strip()
        parts.append(f"{space}[[{token.strip()}]]" if inside else token)
    return one_line("".join(parts)).strip()


def score(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Pearson correlation of real and simulated activations over all tokens of all stretches; NaN where one is flat."""
    if not pairs:
        return float("nan")
    return pearson([v for real, _ in pairs for v in real], [v for _, simulated in pairs for v in simulated])


def interval(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int) -> tuple[float, float, float]:
    """`score` with its 95 % interval over stretches; 0 where one side is flat."""
    sums = []
    for real, simulated in pairs:
        x, y = np.array(real), np.array(simulated)
        sums.append([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])

    def statistic(s: np.ndarray) -> np.ndarray:
        n, x, y, xx, yy, xy = np.moveaxis(s, -1, 0)
        n = np.maximum(n, 1)
        spread = np.sqrt(np.maximum(xx / n - (x / n) ** 2, 0) * np.maximum(yy / n - (y / n) ** 2, 0))
        return np.where(spread > 1e-12, (xy / n - x * y / n**2) / np.maximum(spread, 1e-12), 0.0)

    value, low, high = with_interval(np.array(sums), statistic, [None] * len(sums), seed=seed, draws=1000)
    return value, low, high


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def summarise(finding: ExplainNeuron) -> str:
    """The words, how well they predict, and how far to trust that."""
    value, low, high = finding.score
    text = (
        f"'{finding.explanation}' (written by {finding.written_by}) predicts neuron {finding.neuron} with a correlation"
    )
    text += f" of {value:.2f} (95 % interval {low:.2f} to {high:.2f}) over {len(finding.held_out)} held-out stretches;"
    text += f" unrelated words get {finding.control:.2f}."
    best = max(c.score for c in finding.controls)
    if value <= best:
        return text + " No better than they: these words say nothing about the neuron, or the simulator is too weak."
    return text + (" The interval reaches down to theirs." if low <= best else "")
