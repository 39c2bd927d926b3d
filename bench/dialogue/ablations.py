"""What each piece of our recipe is worth: trained again without it, on a quarter of the training dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import intarsia as ia
from bench.common import show
from bench.dialogue.contenders import MODEL, OWN, splits
from bench.kept import Kept
from intarsia.adaptation import dialogue
from intarsia.data import Dataset

WITHOUT: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no past": {"past": 0},
    "three turns of past": {"past": 3},
    "no tasks beside": {"next_weight": 0.0, "speaker_weight": 0.0},
    "no speakers": {"speakers": "none"},
    "local speakers": {"speakers": "local"},
    "speaker last": {"speaker_last": True},
    "curriculum": {"curriculum": True},
    "square-root class weights": {"class_weight": 0.5},
    "adapters in all blocks": {"layers_from": 0.0, "trunk_cache": "off"},
    "adapters in the top third": {"layers_from": 0.667},
}


def run(name: str, data: Dataset, kept: Kept, only: Sequence[str] | None, *, quick: bool) -> None:
    """Weighted F1 on dev of the network alone, and of all labellers together."""
    train, dev, _ = splits(data, quick)
    groups = set(list(dict.fromkeys(t.group for t in train))[::4])
    train = [t for t in train if t.group in groups]

    def trained(settings: dict[str, Any]) -> dict[str, Any]:
        import time

        began = time.process_time()
        made = dialogue(ia.load(MODEL), train=train, dev=dev, **{**OWN, **settings})
        facts = made.extras["adaptation.dialogue"]["facts"]
        return {"dev": facts["dev"], "cpu_minutes": (time.process_time() - began) / 60}

    rows = []
    for title, settings in WITHOUT.items():
        if only and title not in only:
            continue
        found = kept(f"ablation {title}", lambda settings=settings: trained(settings))
        network, mix = found["dev"]["network"], found["dev"]["mix"]
        rows.append([
            title, f"{network['weighted_f1']:.1%}", f"{network['macro_f1']:.1%}", f"{mix['weighted_f1']:.1%}",
            f"{mix['macro_f1']:.1%}", f"{found['cpu_minutes']:.1f}",
        ])  # fmt: skip
    columns = ["trained", "network wF1", "macro", "together wF1", "macro", "CPU min"]
    show(f"{name}: {len(train):,} turns to learn from, judged on dev", columns, rows)
