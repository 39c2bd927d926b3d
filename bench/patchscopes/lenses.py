"""How early each lens finds the final prediction (Ghandeharioun et al. 2024, section 4.1) on dialogues.

Text: dialogues of MELD as "Speaker: utterance" lines, cut at 64 tokens; 500 positions of 50 test dialogues, never the
first of a dialogue; maps are fitted on train dialogues. The tuned lens trains for minutes: with the environment
variable `LENSES_KEEP` its maps are kept in that folder, also half done, and taken up from there."""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path

from bench.patchscopes import Figures, Table

METHODS = ("logit", "affine", "tuned", "identity", "sink", "ensemble")


def run_lenses(options: argparse.Namespace) -> tuple[Figures, list[Table]]:
    """Compare the lenses; the picture of the curves goes to `docs/interpretation/lenses.svg` from a full run."""
    import intarsia
    from intarsia.data import Text
    from intarsia.interpretation import compare_lenses

    model = intarsia.load("smollm2-135m")
    train, test = ([Text(t, group=t) for t in dialogues(split)] for split in ("train", "test"))
    found = compare_lenses(
        model,
        methods=METHODS,
        maps=(tuned_maps(model, train, options.quick),),
        max_train=60 if options.quick else 150,
        max_texts=50,
        positions=500,
        train=train,
        test=test,
    )
    names = {"sink": "default_lens", "identity": "paper_identity"}
    figures: Figures = {"lens_positions": found.positions}
    for method in METHODS:
        curve, name = found[method], names.get(method, f"{method}_lens")
        figures[f"{name}_mean_p1"] = curve.mean_agreement[0]
        figures[f"{name}_surprisal"] = curve.mean_surprisal[0]
        figures[f"{name}_kl"] = curve.mean_kl[0]
    figures["identity_minus_logit_lens_mid"] = found["identity"].mid() - found["logit"].mid()
    if not options.quick:
        draw(found, Path("docs/interpretation/lenses.svg"))
    title = f"Lenses on {found.positions} positions of {found.texts} dialogues, means over {len(found.layers)} layers"
    rows = [
        [m.method, interval(m.mean_agreement), f"{m.mid():.3f}", interval(m.mean_surprisal, 2), interval(m.mean_kl, 2)]
        for m in found.methods
    ]
    some = [*range(0, len(found.layers), 5), len(found.layers) - 2]
    deep = [[m.method, *(f"{m.agreement[i]:.2f}" for i in some)] for m in found.methods]
    return figures, [
        (title, ("lens", "precision@1", "middle third", "surprisal", "KL"), rows),
        ("Precision@1 by layer", ("lens", *map(str, some)), deep),
    ]


def dialogues(split: str) -> list[str]:
    """The dialogues of a split of MELD as text, an utterance a line."""
    from intarsia.data import shared_data

    folder = shared_data("dialogue/meld")
    assert folder is not None, "the dialogues of MELD are not there: put them into ../shared/data/dialogue/meld"
    lines: dict[str, list[str]] = {}
    with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            lines.setdefault(row["dialogue_id"], []).append(f"{row['speaker']}: {row['utterance']}")
    return ["\n".join(part) for part in lines.values()]


def tuned_maps(model, train: list, quick: bool) -> Path:
    """The folder of tuned maps: kept ones, or trained now."""
    from intarsia.interpretation import fit_lens

    keep = Path(os.environ.get("LENSES_KEEP") or tempfile.mkdtemp(prefix="lenses-")) / ("quick" if quick else "full")
    if not (keep / "tuned").exists():
        settings = {"max_texts": 60, "steps": 10} if quick else {}
        maps = fit_lens(model, method="tuned", train=train, checkpoint=keep / "training", **settings)
        maps.save(keep / "tuned")
    return keep / "tuned"


def interval(value: tuple[float, float, float], digits: int = 3) -> str:
    """A value with its 95 % interval."""
    middle, low, high = (f"{v:.{digits}f}" for v in value)
    return f"{middle} ({low} - {high})"


def draw(found, path: Path) -> None:
    """The precision@1 curves as a picture that stands alone: the report's drawing with its colours and a legend."""
    import re
    from importlib import resources

    from intarsia.report.charts import draw as chart
    from intarsia.report.charts import legend

    figure = found.figures()[0]
    css = resources.files("intarsia.report").joinpath("assets", "style.css").read_text(encoding="utf-8")
    # Light colours whatever the reader's page looks like: the picture brings its own paper.
    root = re.search(r":root \{.*?\}", css, re.DOTALL)[0]  # type: ignore[index]
    rules = [line for line in css.splitlines() if re.match(r"\.(chart|grid|axis|curve|bar|c\d)\b", line)]
    drawing = chart(figure)
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing).groups())  # type: ignore[union-attr]
    keys, room = [], width / len(figure.series)
    for i, (sample, name) in enumerate(legend(figure)):
        inner = sample.partition(">")[2].removesuffix("</svg>")
        keys.append(f'<g transform="translate({8 + i * room:.0f} 10)">{inner}<text x="28" y="11">{name}</text></g>')
    body = drawing.partition(">")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    box = f"-6 -34 {width + 12:.0f} {height + 34:.0f}"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" viewBox="{box}">'
        f"<style>{root} {' '.join(rules)}</style>"
        f'<rect x="-6" y="-34" width="{width + 12:.0f}" height="{height + 34:.0f}" fill="#fff"/>'
        f'<g transform="translate(0 -34)">{"".join(keys)}</g>{body}\n',
        encoding="utf-8",
    )
