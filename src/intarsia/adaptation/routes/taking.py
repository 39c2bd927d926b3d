"""A rung as a model: what a climbed ladder kept, put into or beside the network, labelling as it did there.

<folder>/parts/adaptation.take.safetensors   what the rung learned
<folder>/intarsia.json                       under `adaptation.take`: the rung, its task, settings and seed"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia import catalog
from intarsia.adaptation.routes.examples import read_all
from intarsia.adaptation.routes.keeping import Kept, ladder_of
from intarsia.adaptation.routes.rung import Likelihood, biased
from intarsia.adaptation.routes.rungs import RUNGS
from intarsia.adaptation.routes.setting import Setting
from intarsia.adaptation.routes.take import NAME
from intarsia.adaptation.routes.technique import PlanConfig
from intarsia.errors import BadInput, did_you_mean
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import LabelScores
from intarsia.models.weights import weights_key
from intarsia.sites import guest_of

if TYPE_CHECKING:
    from intarsia.adaptation.routes.rung import Labeller
    from intarsia.data import LabelledText
    from intarsia.models import Model


def take(model: Model, keep: Path, rung: str | None) -> Model:
    """See `intarsia.adaptation.routes.take.take`."""
    facts = ladder_of(keep)
    name = rung or facts["take"]
    if name not in facts["rungs"]:
        known = list(facts["rungs"])
        raise BadInput(f"{keep} has no finished rung '{name}'{did_you_mean(name, known)}; finished: {', '.join(known)}")
    if weights_key(model) != facts["weights"] or guest_of(model.network) is not None:
        raise BadInput(f"the ladder in {keep} was climbed with another model: give the one it was climbed with")
    saved = Kept(keep).learned(facts["rungs"][name])
    note = {"rung": name, "task": facts["task"], "config": facts["config"], "seed": facts["seed"], "inside": False}
    labeller = RUNGS[name].open(_setting(model, note), saved)
    out = model
    if isinstance(labeller, Likelihood) and guest_of(labeller.model.network) is None:
        # The weights hold what was learned, and the task its bias: nothing has to be kept beside them.
        note |= {"inside": True, "bias": labeller.task.bias}
        out = labeller.model
    out = out.with_network(out.network, technique=NAME, rung=name)
    if note["inside"]:
        biased(labeller.task, note["bias"]).attach(out)
    else:
        out.parts[NAME] = saved
    out.extras[NAME] = note
    return out


def label(model: Model, note: dict[str, Any], records: Sequence[LabelledText]) -> LabelScores:
    """Scores [record, label] of the model that `take` gave, also after it was saved and loaded again."""
    examples = read_all(records, PlanConfig(**note["config"]).past)
    scores = labeller_of(model, note)(examples)
    labels = tuple(LabelTask.parse(note["task"]).labels)
    return LabelScores(labels, scores, scores, np.exp(scores), np.full(len(examples), np.nan))


def labeller_of(model: Model, note: dict[str, Any]) -> Labeller:
    """Of a model with what `take` left on it."""
    if note["inside"]:
        return Likelihood(model, biased(LabelTask.parse(note["task"]), note["bias"]))
    if NAME not in model.parts:
        raise BadInput(f"{NAME}: what the rung '{note['rung']}' learned is missing: take it again")
    return RUNGS[note["rung"]].open(_setting(model, note), model.parts[NAME])


def _setting(model: Model, note: dict[str, Any]) -> Setting:
    config = catalog.parse(PlanConfig, dict(note["config"]), NAME)
    assert isinstance(config, PlanConfig)
    return Setting(model, LabelTask.parse(note["task"]), config, note["seed"])
