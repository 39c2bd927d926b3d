"""One method applied to texts: the computation behind every attribution technique."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.attribution.finding import AttributedText, Attribution, Piece
from intarsia.interpretation.attribution.registry import Method, Scored
from intarsia.interpretation.attribution.settings import AttributionConfig
from intarsia.interpretation.attribution.units import pieces
from intarsia.interpretation.explained import Explained, explain_text
from intarsia.interpretation.wording import one_line, percent
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model


def attribute(
    model: Model, method: Method, config: AttributionConfig, records: Sequence[Any] | None, seed: int
) -> Attribution:
    """Explain the texts (or `config.prompt` in their place) by one method."""
    what = f"interpretation.{method.name}"
    states.check_readable(model, what)
    if config.prompt is not None:
        records = [config.prompt]
    if not records:
        raise BadInput(f"{what}: no text was given: give texts, or one as prompt")
    chosen = states.choose(records, config.max_texts, seed, what)
    texts = []
    for record in track(chosen, f"{method.name.replace('_', ' ')}: explaining texts"):
        explained = explain_text(
            model, record, target=config.target, new_tokens=config.new_tokens, removal=config.removal
        )
        texts.append(_attributed(explained, method.scored(explained, config, seed), config, record))
    finding = Attribution(
        title=f"What speaks for what {model.identity.source} says: {method.name.replace('_', ' ')}",
        technique=what,
        method=method.name,
        unit=config.unit,
        signed=method.signed,
        texts=texts,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(texts)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def _attributed(explained: Explained, scored: Scored, config: AttributionConfig, record: Any) -> AttributedText:
    log_prob = float(explained.value()[0])
    parts = []
    for group in pieces(explained, config.unit):
        text = "".join(explained.tokens[i] for i in group)
        parts.append(Piece(text=text, score=float(scored.values[group].sum())))
    if not all(math.isfinite(part.score) for part in parts):
        raise BadInput("the scores are not finite numbers: does the model overflow in its dtype? Load it as float32")
    return AttributedText(
        text=states.text_of(record),
        explained=explained.name,
        log_prob=log_prob,
        probability=math.exp(log_prob),
        pieces=parts,
        label=getattr(record, "label", None) or None,
        total=scored.total,
        gap=scored.gap,
        facts=scored.facts,
    )


def summarise(finding: Attribution) -> str:
    """What speaks most for the choice, and how far the scores may be trusted."""
    first = finding.texts[0]
    ranked = first.ranked()
    best = one_line(ranked[0].text).strip()
    said = f"'{one_line(first.explained)}' (probability {first.probability:.2g})"
    verb = "speaks most for" if finding.signed else "matters most to"
    where = "" if len(finding.texts) == 1 else " in the first text"
    text = f"'{best}' {verb} {said}{where}"
    if finding.signed and ranked[-1].score < 0:
        text += f", '{one_line(ranked[-1].text).strip()}' most against it"
    text += "."
    gaps = [t.gap for t in finding.texts if t.gap is not None]
    if finding.method == "random":
        text += " These scores are drawn at random: a floor to compare with, no explanation."
    elif gaps:
        typical = statistics.median(gaps)
        text += f" The scores add up to what they should (off by {percent(typical)})"
        text += "." if typical < 0.05 else ": too far off to be trusted in detail."
    else:
        text += " Nothing forces these scores to be right: check them by taking the words away."
    return text
