"""The ladder before it is climbed: what is given, checked and made ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from intarsia.adaptation.label import LabelConfig
from intarsia.adaptation.label_tuning import choose_task
from intarsia.adaptation.routes.bench import Bench
from intarsia.adaptation.routes.climbing import Climb
from intarsia.adaptation.routes.examples import Example, examples_of, some_of
from intarsia.adaptation.routes.general import general_texts
from intarsia.adaptation.routes.keeping import Kept, mark
from intarsia.adaptation.routes.rungs import RUNGS
from intarsia.adaptation.routes.setting import Setting
from intarsia.adaptation.routes.technique import NAME, PlanConfig
from intarsia.data import Dataset
from intarsia.errors import BadInput
from intarsia.measure import trie as tries
from intarsia.measure.likelihood import check_causal
from intarsia.models.cache import cache_dir
from intarsia.sites import guest_of
from intarsia.training.lora import first_block

if TYPE_CHECKING:
    from intarsia.adaptation.routes.finding import RouteFinding
    from intarsia.adaptation.routes.rung import Rung
    from intarsia.data import LabelledText, Text
    from intarsia.measure.labels import LabelTask
    from intarsia.models import Model


def climb(
    model: Model,
    config: PlanConfig,
    train: Sequence[LabelledText],
    dev: Sequence[LabelledText],
    test: Sequence[LabelledText] | None,
    general: Sequence[Text] | None,
    label_task: Mapping[str, Any] | None,
    seed: int,
) -> RouteFinding:
    """See `intarsia.adaptation.routes.technique.plan`."""
    rungs = [rung for name, rung in RUNGS.items() if name in config.rungs]
    _check(model, config, rungs)
    splits = {
        name: examples_of(records or [], config.past, name, config.label)
        for name, records in (("train", train), ("dev", dev), ("test", test))
    }
    for name in ("train", "dev"):
        if not splits[name]:
            raise BadInput(f"{NAME}: {name} is empty; wanted labelled texts (text, label) or turns of dialogues")
    learned_from = some_of(splits["train"], config.train_limit, seed, every_label=True)
    judged_by = some_of(splits["dev"], config.dev_limit, seed)
    task = _task(model, config, learned_from, label_task)
    task.index(splits["dev"], "dev")
    task.index(splits["test"], "test")
    setting = Setting(model, task, config, seed)
    for rung in rungs:
        rung.check(setting)
    if any("embedder" in rung.reads for rung in rungs):
        _ = setting.embedder  # a name that cannot be loaded is told now
    texts = general_texts(model, general, seed) if any(rung.changes for rung in rungs) else None
    kept = Kept(config.keep or cache_dir() / "routes" / _home(model, task, splits, seed))
    bench = Bench(model, task, config, seed, learned_from, judged_by, texts, kept)
    try:
        return Climb(bench, rungs, splits["test"]).go()
    finally:
        bench.close()


def _check(model: Model, config: PlanConfig, rungs: Sequence[Rung]) -> None:
    check_causal(model)
    if model.tokenizer is None:
        raise BadInput(f"{NAME} needs text: this model has no tokenizer (wrap(network, tokenizer))")
    if guest_of(model.network) is not None:
        raise BadInput(f"{NAME}: this model has adapters beside it already: merge them, or start from the plain one")
    if not rungs:
        raise BadInput(f"{NAME}: rungs is empty: name some of {', '.join(RUNGS)}")
    if rungs[-1].name == "distil" and not any(rung.teaches for rung in rungs[:-1]):
        raise BadInput("distil needs a teacher: name another rung below it that uses the language model")
    first_block(model.network, config.layers_from)


def _task(
    model: Model, config: PlanConfig, train: Sequence[Example], label_task: Mapping[str, Any] | None
) -> LabelTask:
    """The prompt and the labels' words, without calibration, and with room for a soft prompt in the context."""
    asked = LabelConfig(template=config.template, verbalisers=config.verbalisers, max_tokens=config.max_tokens)
    task = choose_task(model, asked, train, label_task)
    task.calibration, task.prior_weight, task.bias, task.temperature = "none", 0.0, None, 1.0
    if model.context_length is not None:
        room = model.context_length - tries.of_task(task, model.tokenizer).depth - 1 - config.prompt_length
        if room < 8:
            raise BadInput(
                f"prompt_length is {config.prompt_length}, and the network's context {model.context_length}: "
                "there is no room for a text"
            )
        task.max_tokens = min(task.max_tokens or room, room)
    return task


def _home(model: Model, task: LabelTask, splits: Mapping[str, list[Example]], seed: int) -> str:
    """A folder for a model and a data set, whatever the settings: what does not depend on them is found again."""
    data = Dataset({name: list(examples) for name, examples in splits.items()}).sha256
    return mark(model.identity.source, model.identity.sha256, task.model_dump(mode="json"), data, seed)
