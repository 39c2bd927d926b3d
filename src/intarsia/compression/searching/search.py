"""The steps of `compression.fit`: arithmetic, compositions, halving, verification, choice."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from intarsia.compression.checking import check_plain, check_reads_text
from intarsia.compression.searching.anatomy import anatomy
from intarsia.compression.searching.budgets import SPEEDS, Budget, parse_budget
from intarsia.compression.searching.building import Workshop, can_learn
from intarsia.compression.searching.choosing import front, nearest, taken
from intarsia.compression.searching.composing import Composer, Composition, with_recovery
from intarsia.compression.searching.correcting import Correction
from intarsia.compression.searching.families import FAMILIES
from intarsia.compression.searching.feasibility import Limits, feasible
from intarsia.compression.searching.finding import FitFinding, Point
from intarsia.compression.searching.judging import Judge, texts_of
from intarsia.compression.searching.keeping import Kept
from intarsia.compression.searching.knowing import Evidence
from intarsia.compression.searching.stores import stores_for
from intarsia.compression.searching.technique import NAME
from intarsia.compression.searching.verifying import Verifier
from intarsia.compression.statistics import WINDOW, windows_of
from intarsia.data import Dataset
from intarsia.errors import BadInput, Note, OutOfBudget
from intarsia.measure import provenance, size
from intarsia.measure.energy import check_energy
from intarsia.measure.likelihood import check_causal
from intarsia.models import load
from intarsia.models.cache import cache_dir
from intarsia.models.results import mark
from intarsia.progress import tell

if TYPE_CHECKING:
    from intarsia.compression.searching.technique import FitConfig
    from intarsia.data import Text
    from intarsia.models import Model

LEAST = 64  # tokens of calibration text, and of text to judge by
HELD_OUT = 4  # one part of so many is held out, where no test is given
SLACK = 0.03  # of quality: what a draft may lack and still be built
TAUGHT = 2  # finalists that learn, in a round


def fit(
    model: Model, config: FitConfig, calibration: Sequence[Text] | None, test: Sequence[Text] | None, seed: int
) -> Model:
    """See `intarsia.compression.searching.technique.fit`."""
    began = time.process_time()
    budget = parse_budget(config.budget)
    if budget.of("energy"):
        check_energy()
    _check(model, config)
    stores, refused = stores_for(model, config.engines)
    if budget.of(*SPEEDS) and any(store.name != "torch" for store in stores):
        # Rounded weights make torch no quicker than the base, and weighing its grids takes a pass of its own.
        stores = [store for store in stores if store.name != "torch"]
        refused["torch"] = "the budget bounds speed, and an engine is there"
    families = [name for name in FAMILIES if name in config.families]
    for name in list(families):
        if (why := FAMILIES[name].refuses(model)) is not None:
            refused[name] = why
            families.remove(name)
    learns = "recovery" in config.families and can_learn()
    shape = anatomy(model)
    base = {"bytes": float(size.tensor_bytes(model.network)), "params": float(shape.parameters)}
    data = Dataset({"calibration": list(calibration or []), "test": list(test or [])}).sha256
    texts, held = _split(model, config, calibration, test)
    windows = windows_of(model, [t.text for t in texts], config.tokens)
    kept = Kept(config.keep or cache_dir() / "fits" / mark(model.identity.source, model.identity.sha256, data, seed))
    evidence = Evidence(model, texts, windows, kept, seed)
    limits = _limits(families, evidence, shape)
    said = feasible(budget, shape, stores, limits, base)
    for line in said:
        warnings.warn(line, Note, stacklevel=4)
    check_reads_text(model, windows, NAME)
    _enough(windows, held)
    search = Search(model, config, budget, evidence, Judge(model, held), stores, families, base, learns)
    search.refused, search.said = refused, said
    search.go()
    found = search.finding(seed, data, (time.process_time() - began) / 60)
    search.report(found)
    if not found.taken:
        raise OutOfBudget(_missed(found), found)
    return search.model(found)


def _check(model: Model, config: FitConfig) -> None:
    check_plain(model, NAME, "fit")
    check_causal(model)
    if model.tokenizer is None or not getattr(model.tokenizer, "is_fast", False):
        raise BadInput(f"{NAME} wants a model with a fast tokenizer: wrap(network, tokenizer)")
    limit = model.context_length
    if limit and config.prompt_tokens + config.new_tokens > limit:
        raise BadInput(
            f"prompt_tokens {config.prompt_tokens} and new_tokens {config.new_tokens} do not fit the context of {limit}"
        )


def _split(
    model: Model, config: FitConfig, calibration: Sequence[Text] | None, test: Sequence[Text] | None
) -> tuple[list[Text], list[str]]:
    """Texts to calibrate on, and pieces of other text to judge by."""
    if calibration is None:
        from intarsia.compression.calibration import embedded

        calibration = embedded()
    texts = list(calibration)
    if test is None:
        if len(texts) == 1:  # one long text is cut, many are told apart
            texts = _halves(model, texts[0])
        part = max(1, len(texts) // HELD_OUT)
        texts, held = texts[:-part], texts[-part:]
    else:
        held = list(test)
    if not texts or not held:
        raise BadInput(f"{NAME}: calibration is too small to hold some of it out; give more text, or test as well")
    window = min(WINDOW, model.context_length or WINDOW)
    pieces = windows_of(model, [t.text for t in held], config.quality_tokens + window, window)
    return texts, texts_of(model, pieces)


def _halves(model: Model, text: Text) -> list[Text]:
    """One text as several, cut at ends of lines."""
    from dataclasses import replace

    lines = text.text.splitlines(keepends=True)
    step = max(1, len(lines) // (2 * HELD_OUT))
    return [replace(text, text="".join(lines[i : i + step])) for i in range(0, len(lines), step)]


def _enough(windows: Sequence[Sequence[int]], held: Sequence[str]) -> None:
    if (count := sum(map(len, windows))) < LEAST:
        raise BadInput(f"{NAME}: the calibration text has {count} tokens; give {LEAST} or more, best some thousands")
    if (count := sum(map(len, held))) < LEAST:
        raise BadInput(f"{NAME}: the text to judge by has {count} characters; give more (test, or calibration)")


def _limits(families: Sequence[str], evidence: Evidence, shape: Any) -> Limits:
    values = {name: FAMILIES[name].values(evidence, shape) for name in families}
    return Limits(
        tuple(int(v) for v in values.get("vocabulary", ())), int(min(values.get("table_bits", [8]))),
        int(max(values.get("blocks", [0]), default=0)), max(values.get("neurons", [0.0]), default=0.0),
    )  # fmt: skip


class Search:
    """One search."""

    def __init__(
        self, base: Model, config: FitConfig, budget: Budget, evidence: Evidence, judge: Judge, stores: Sequence[Any],
        families: Sequence[str], facts: dict[str, float], learns: bool,
    ):  # fmt: skip
        self.base, self.config, self.budget, self.evidence, self.judge = base, config, budget, evidence, judge
        self.stores, self.facts, self.learns, self.kept = stores, facts, learns, evidence.kept
        shape = anatomy(base)
        self.composer = Composer(evidence, shape, stores, families, budget, facts)
        self.shop = Workshop(evidence, config.recovery_tokens)
        most = self.composer.most / (1 - 0.003) if math.isfinite(self.composer.most) else math.inf
        self.verifier = Verifier(base, judge, stores, config, most, {b.metric.name for b in budget.bounds})
        self.correction = Correction()
        self.points: dict[str, Point] = {}
        self.compositions: dict[str, Composition] = {}
        self.refused: dict[str, str] = {}
        self.said: list[str] = []
        self.data = [list(judge.texts), [list(w) for w in evidence.windows], evidence.seed]

    def go(self) -> None:
        """Level after level, until a point keeps the budget; all levels at once where the search is exhaustive."""
        levels = self.composer.levels()
        if self.config.exhaustive:
            levels = [[cuts for level in levels for cuts in level]]
        levels.append(self.composer.deepest())
        tried: set[tuple[Any, ...]] = set()
        for number, level in enumerate(levels):
            tell("searching", number, len(levels), level=", ".join(sorted({n for c in level for n, _ in c})) or "bits")
            new = [cuts for cuts in dict.fromkeys(level) if cuts not in tried]
            tried.update(new)
            last = number == len(levels) - 1
            if last and any(p.stage == "verified" for p in self.points.values()) and not self._hopeful():
                break
            if self._round(self.composer.compositions(new), last) or (self.config.exhaustive and self._found()):
                break
        tell("searching", len(levels), len(levels), finished=True)

    def _found(self) -> bool:
        return any(p.stage == "verified" and not p.broken for p in self.points.values())

    def _hopeful(self) -> bool:
        """Whether only bytes or speeds are missed, which deeper cuts mend."""
        return all(
            bound.partition("<")[0].partition(">")[0] not in ("quality", "ppl", "kl", "perplexity")
            for p in self.points.values() for bound in p.broken
        )  # fmt: skip

    def _round(self, compositions: list[Composition], last: bool) -> bool:
        """Drafts, half of them on more text, the best of these built; whether one keeps the budget."""
        some = self._candidates(compositions)
        if not some:
            return False
        looked = self._halved(some)
        finalists = looked[: self.config.finalists]
        if self.learns:
            taught = [one for one in finalists if one.hurt][:TAUGHT]
            finalists = [with_recovery(one) if one in taught else one for one in finalists]
        done = False
        for one in finalists:
            key = self._key(one)
            if key not in self.points:
                self.compositions[key], self.points[key] = one, self._point(one)
            if not (last or self.config.exhaustive or self._promises(one)):
                continue
            self._verify(one)
            if not self.points[key].broken:
                done = True
                if not self.config.exhaustive:
                    break
        return done

    def _candidates(self, compositions: Sequence[Composition]) -> list[Composition]:
        """The most promising, each looked at on a little text: what one is found to be puts right what is expected of
        those that are left."""
        left, some = list(compositions), list[Composition]()
        while left and len(some) < self.config.candidates:
            left = [replace(one, predicted=self.correction(one.parts)) for one in left]
            left.sort(key=self.composer.rank)
            one = left.pop(0)
            key = self._key(one)
            self.compositions[key], self.points[key] = one, self._point(one)
            self._look(one, "first", self.config.first_tokens)
            some.append(one)
        return some

    def _halved(self, some: list[Composition]) -> list[Composition]:
        """The better half of what was looked at, on more text; the best first."""
        some = sorted(some, key=self._rank)[: max(self.config.finalists, -(-len(some) // 2))]
        if len(some) > self.config.finalists:
            for one in some:
                self._look(one, "second", 4 * self.config.first_tokens)
            some = sorted(some, key=self._rank)
        return some

    def _rank(self, one: Composition) -> tuple[float, float]:
        """As `Composer.rank`, of what was measured; a recovered one is taken to be as good as it was."""
        return self.composer.rank(replace(one, predicted=self.points[self._key(one)].harm))

    def _promises(self, one: Composition) -> bool:
        """Whether a draft is good enough to be built: learning may still make good half of what a cut cost."""
        harm = self.points[self._key(one)].harm * (0.5 if one.recovered else 1.0)
        quality = math.exp(-harm) * (1 + SLACK)
        values = {"quality": quality, "ppl": 1 / quality, "kl": max(0.0, -math.log(quality))}
        ppl = self.judge.loss(self.config.first_tokens)
        absolute = {**values, "ppl": math.exp(ppl[0] / ppl[1]) / quality}
        return not self.budget.broken(absolute, values)

    def _look(self, one: Composition, stage: str, tokens: int) -> None:
        """Judge a draft."""
        facts = [one.facts, tokens, self.data]
        tell("judging drafts", 0, None, composition=one.name)

        def measure() -> dict[str, Any]:
            judged = self.judge(self.shop.draft(one), tokens, task="judging a draft")
            return {"kl": judged.kl, "loss": judged.loss, "tokens": judged.tokens}

        found = self.kept.once("draft", facts, measure)
        point = self.points[self._key(one)]
        point.stage, point.harm = stage, found["kl"] + self._finer(one, tokens)
        self.correction.learn(self._key(one), one.parts, point.harm)

    def _finer(self, one: Composition, tokens: int) -> float:
        """Nats a token that a smaller vocabulary costs by itself: texts are cut finer by it."""
        own = tuple(cut for cut in one.cuts if not FAMILIES[cut[0]].hurts)
        if not own:
            return 0.0

        def measure() -> dict[str, Any]:
            return {"loss": self.judge(self.shop.network(own), tokens, task="judging a vocabulary").loss}

        loss = self.kept.once("vocabulary", [list(own), tokens, self.data], measure)["loss"]
        whole, count = self.judge.loss(tokens)
        return max(0.0, (loss - whole) / count)

    def _verify(self, one: Composition) -> None:
        """Build it, run it, and note what it is."""
        facts = self._facts(one)
        folder = self.kept.model(facts)

        def measure() -> dict[str, Any]:
            network = self.shop.network(one.cuts, one.recovered)
            grids = self.shop.grids(one, network)
            built = self.shop.build(one)
            return self.verifier(built, anatomy(network), grids, one.store, folder)

        if not folder.is_dir():
            facts = [*facts, "again"] if self.kept.has("verified", facts) else facts
        found = self.kept.once("verified", facts, measure)
        point = self.points[self._key(one)]
        point.stage, point.engine, point.harm = "verified", found["engine"], found["values"]["kl"]
        point.values, point.ratios, point.notes = found["values"], found["ratios"], found["notes"]
        point.agreement, point.same = found["agreement"], found["same"]
        point.broken = [bound.text for bound, _ in self.budget.broken(point.values, point.ratios)]
        for name in ("prefill", "decode"):
            if name in point.values:
                self.facts.setdefault(name, point.values[name] / point.ratios[name])

    def _facts(self, one: Composition) -> list[Any]:
        config = self.config
        measured = [config.quality_tokens, config.prompt_tokens, config.new_tokens, config.repeats]
        costs = sorted({b.metric.name for b in self.budget.bounds} & {"ram", "energy"})
        engines = [store.name for store in self.stores]
        return [one.facts, one.store, measured, costs, engines, config.recovery_tokens, self.data]

    def _key(self, one: Composition) -> str:
        return mark(one.facts, one.store)

    def _point(self, one: Composition) -> Point:
        return Point(
            name=one.name, made_for=one.store, bits=one.bits, cuts=list(one.cuts), recovered=one.recovered,
            predicted=one.predicted, harm=one.predicted, values={"bytes": one.bytes, "params": one.parameters},
            ratios={"bytes": one.bytes / self.facts["bytes"], "params": one.parameters / self.facts["params"]},
        )  # fmt: skip

    def finding(self, seed: int, data: str, minutes: float) -> FitFinding:
        """What was found, with the point that is taken."""
        metrics = {b.metric.name: b for b in self.budget.bounds}
        points = list(self.points.values())
        front(points, self.budget)
        chosen = taken(points, self.budget)
        loss, count = self.judge.loss(self.config.quality_tokens)
        self.facts["ppl"] = math.exp(loss / count)
        limits = {
            name: bound.limit(self.facts.get(name)) for name, bound in metrics.items()
            if name in ("bytes", "latency", "ram", "energy") and (not bound.relative or name in self.facts)
        }  # fmt: skip
        limits |= {b.metric.name: b.value for b in self.budget.of("quality")}
        found = FitFinding(
            title=f"{self.base.identity.source} within {self.budget.text}", technique=NAME,
            provenance=provenance(settings=self.config.model_dump(mode="json", exclude={"keep"}), data=data, seed=seed),
            budget=self.budget.text, objective=self.budget.objective, base=self.facts, said=self.said,
            points=sorted(points, key=lambda p: (p.stage != "verified", not p.taken, -p.values.get("quality", 0.0))),
            taken=chosen.name if chosen else "", refused=self.refused, folder=str(self.kept.folder), minutes=minutes,
            bounds=limits,
            tokens={"judged": count, "first": self.config.first_tokens, "second": 4 * self.config.first_tokens,
                    "calibration": sum(map(len, self.evidence.windows))},
        )  # fmt: skip
        found.why = _why(found, chosen)
        found.summary = _summary(found, chosen)
        return found

    def report(self, found: FitFinding) -> None:
        """Write what was found beside what was kept."""
        from intarsia.report import render_finding

        found.write(self.kept.folder / "finding.json")
        (self.kept.folder / "report.html").write_text(render_finding(found), "utf-8")

    def model(self, found: FitFinding) -> Model:
        """The model that was taken, with its engine's file."""
        point = found.point()
        assert point is not None
        one = next(self.compositions[key] for key, p in self.points.items() if p is point)
        made = load(str(self.kept.model(self._facts(one))))
        made.identity = self.base.with_network(
            self.base.network, technique=NAME, config=self.config.model_dump(mode="json", exclude={"keep"})
        ).identity
        made.exports = {name: path for name, path in made.exports.items() if name == point.engine}
        made.extras = dict(self.base.extras)
        made.extras[NAME] = {
            "engine": point.engine, "budget": found.budget, "composition": point.name, "cuts": list(point.cuts),
            "values": point.values, "ratios": point.ratios, "agreement": point.agreement,
        }  # fmt: skip
        made.finding = found
        return made


def _why(found: FitFinding, chosen: Point | None) -> str:
    if chosen is None:
        return ""
    keeping = [p for p in found.points if p.stage == "verified" and not p.broken]
    what = {"quality": "the best quality", "bytes": "the fewest bytes", "decode": "the quickest"}[found.objective]
    if len(keeping) == 1:
        return "the only one built that keeps the budget" if len(found.points) > 1 else "the first that was tried"
    return f"{what} of {len(keeping)} that keep the budget"


def _summary(found: FitFinding, chosen: Point | None) -> str:
    if chosen is None:
        return f"Nothing that was measured keeps {found.budget}; {nearest(found.points)}"
    values, ratios = chosen.values, chosen.ratios
    speeds = f", writes {ratios['decode']:.1f} times as fast" if "decode" in ratios else ""
    return (
        f"{chosen.name}: {values['bytes'] / 1e6:.1f} MB of {found.base['bytes'] / 1e6:,.1f}, quality "
        f"{values['quality']:.3f} (KL {values['kl']:.3f}){speeds} in {chosen.engine}; {found.why}. "
        f"{found.minutes:.1f} CPU minutes."
    )


def _missed(found: FitFinding) -> str:
    return f"{found.budget} was not reached: {nearest(found.points)} (all points: {found.folder}/report.html)"
