"""How faithful attribution methods are on one tuned classifier, with random orders as the floor, and what they cost.

    python -m bench.attribution [--quick] [--json FILE] [--tuned DIR]

The model is SmolLM2-135M tuned to tell the chapter of Python's library reference a docstring belongs to (12 labels).
It is tuned at the first run and kept in the user's cache. Each method scores the same short texts of the test split,
whose modules the model never saw. Its scores are judged by how the probability of the model's own choice falls when the
top 1, 5, 10, 20 and 50 % of tokens are removed (comprehensiveness) or alone are kept (sufficiency), set between the
best and the worst order of tokens that is found for that text. A method counts as above random when the 95 %
interval of its paired difference from random orders, bootstrapped over the texts' modules, is above zero.

The second table is the one case where the truth is known: a model tuned on texts of which each holds one of two made-up
words that decide the label. Precision@k is the share of a method's top k tokens that belong to that word (of k)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import intarsia
from bench.common import parser, show, start, write
from intarsia.adaptation import label
from intarsia.data import Dataset, load_data
from intarsia.interpretation.attribution.methods import METHODS
from intarsia.interpretation.evaluation import Plausibility, compare, plant, plausibility
from intarsia.models import Model
from intarsia.models.cache import cache_dir

# Methods at a cost of at most some hundred forwards for a text of a dozen tokens.
SETTINGS = {
    "integrated_gradients.steps": "16",
    "smooth_grad.samples": "16",
    "lime.samples": "48",
    "kernel_shap.samples": "48",
    "partition_shap.evaluations": "48",
    "shapley_sampling.orders": "5",
}
# The floor; and a method that wants hundreds of backwards for each text.
LEFT_OUT = ("random", "attention_attribution")


# Made-up words, and the label that each decides.
SHORTCUTS = {"zorblat": "first", "quixnel": "second"}
SHORTCUT_TASK = {"template": "{text}\nLabel:", "verbalisers": {"first": " first", "second": " second"}}


def tuned_model(folder: Path, **inputs: Any) -> Model:
    """The classifier in `folder`, tuned and saved there if it is not yet."""
    if not folder.exists():
        print(f"tuning a classifier, once; it is kept in {folder}")
        begin = time.perf_counter()
        tuned = label(
            intarsia.load("smollm2-135m"),
            batch_size=16,
            layers_from=0.5,
            max_tokens=48,
            trunk_cache="float32",
            targets=("q_proj", "v_proj", "o_proj", "down_proj"),
            seed=0,
            **inputs,
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        tuned.save(folder)
        print(f"tuned in {time.perf_counter() - begin:.0f} s")
    return intarsia.load(str(folder))


def short_texts(model: Model, records: list[Any], low: int, high: int) -> list[Any]:
    """Records of `low` to `high` tokens."""

    def length(text: str) -> int:
        return len(model.tokenizer(text)["input_ids"])  # type: ignore[misc]

    return [r for r in records if low <= length(r.text) <= high]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--tuned", type=Path, help="folder for the tuned classifiers (made when not there)")
    arguments.add_argument("--texts", type=int, help="how many texts (default: 40, quick: 10)")
    arguments.add_argument("--no-shortcut", action="store_true", help="leave out the planted words")
    arguments.add_argument("--methods", nargs="+", help="only these methods")
    options = arguments.parse_args()
    start(options)
    data = load_data("python-docs")
    folder = options.tuned or cache_dir() / "bench"
    task = data.facts["label_task"]
    model = tuned_model(
        folder / "python-docs-label", max_records=1000, train=data["train"], dev=data["dev"], label_task=task
    )
    texts = short_texts(model, data["test"], 8, 12)
    methods = options.methods or [name for name in METHODS if name not in LEFT_OUT]
    known = {k: v for k, v in SETTINGS.items() if k.partition(".")[0] in methods}
    found = compare(
        model,
        methods=methods,
        settings=known,
        max_texts=options.texts or (10 if options.quick else 40),
        beam=1,
        floors=5,
        texts=texts,
    )
    print(f"{found.texts} of {len(texts)} test texts of 8 to 12 tokens")
    print(found.summary)
    rows = [
        [
            r.method, "{:.3f} ({:.3f} to {:.3f})".format(*r.quality), "{:+.3f} ({:+.3f} to {:+.3f})".format(*r.gain),
            f"{r.comprehensiveness[0]:.3f}", f"{r.sufficiency[0]:.3f}", f"{r.forwards:.0f}", f"{r.backwards:.0f}",
            f"{found.seconds[r.method]:.2f}",
        ]
        for r in found.ranks
    ]  # fmt: skip
    rows.append(["random (floor)", "{:.3f} ({:.3f} to {:.3f})".format(*found.floor), *[""] * 6])
    columns = ("", "normalised AOPC", "over random", "comp", "suff", "forwards", "backwards", "s/text")
    show("Faithfulness of attribution methods", columns, rows)
    figures: dict[str, float] = {"methods_above_random": len(found.above), "methods": len(found.ranks)}
    figures |= {"texts": found.texts, "random_normalised_aopc": found.floor[0]}
    for r in found.ranks:
        figures[f"{r.method}_normalised_aopc"], figures[f"{r.method}_over_random"] = r.quality[0], r.gain[0]
        figures[f"{r.method}_comprehensiveness"] = r.comprehensiveness[0]
        figures[f"{r.method}_sufficiency"] = r.sufficiency[0]
        figures[f"{r.method}_seconds"] = found.seconds[r.method]
    if not options.no_shortcut:
        known_truth = shortcut(folder / "shortcut", data, methods, known, 8 if options.quick else 20)
        rows = [[r.method, "{:.3f} ({:.3f} to {:.3f})".format(*r.token_f1)] for r in known_truth.rows]
        print(f"{known_truth.right} of {known_truth.texts} texts get the label of their made-up word")
        show("The known reason: a planted word", ("", "precision@k"), rows)
        figures |= {f"{r.method}_shortcut_precision": r.token_f1[0] for r in known_truth.rows}
        figures["shortcut_accuracy"] = known_truth.right / known_truth.texts
    write(figures, options.json)


def shortcut(folder: Path, data: Dataset, methods: list[str], settings: dict[str, str], count: int) -> Plausibility:
    """How well methods find the word that decides, in texts with modules that were not tuned on."""
    base = intarsia.load("smollm2-135m")
    train = plant(short_texts(base, data["train"], 8, 24)[:240], SHORTCUTS, seed=0)
    test = plant(short_texts(base, data["test"], 8, 12), SHORTCUTS, seed=1)
    model = tuned_model(folder, train=train, label_task=SHORTCUT_TASK)
    # As many tokens are chosen as the word has: precision@k, recall@k and F1 are the same figure.
    return plausibility(model, texts=test, methods=methods, settings=settings, max_texts=count)


if __name__ == "__main__":
    main()
