"""The ladder: every rung runs, is opened again as it was left, and stops in time; and which one is taken, and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from intarsia.adaptation import plan, take
from intarsia.adaptation.dialogue.linear import Linear
from intarsia.adaptation.label import LabelConfig
from intarsia.adaptation.routes import PlanConfig
from intarsia.adaptation.routes.bench import Bench
from intarsia.adaptation.routes.choosing import choose
from intarsia.adaptation.routes.examples import examples_of, some_of
from intarsia.adaptation.routes.figures import log_softmax, shift, standard_error, value
from intarsia.adaptation.routes.finding import Step
from intarsia.adaptation.routes.general import general_texts
from intarsia.adaptation.routes.keeping import Kept
from intarsia.adaptation.routes.rung import OutOfTime
from intarsia.adaptation.routes.rungs import RUNGS
from intarsia.adaptation.routes.rungs.distil import fit
from intarsia.adaptation.routes.rungs.pretraining import text_loss, windows
from intarsia.adaptation.routes.rungs.prompts import SoftPrompt, first_ids
from intarsia.adaptation.routes.rungs.tuned import label_loss
from intarsia.adaptation.routes.setting import Setting
from intarsia.adaptation.routes.taking import labeller_of
from intarsia.catalog import find
from intarsia.cli import app
from intarsia.data import LabelledText, Text, Turn
from intarsia.errors import BadInput
from intarsia.measure import score
from intarsia.measure.labelling import label_scores
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import left_padded
from intarsia.models import load
from intarsia.sites import guest_of, put_beside
from intarsia.training.loop import seeded
from intarsia.training.lora import LoraConfig, attach, merge
from tests.tiny import inputs, tiny

WORDS = {"ann": "red pink rose", "anna": "green lime leaf", "bob": "blue navy sky"}


def records(count: int, start: int = 0) -> list[LabelledText]:
    return [
        LabelledText(f"{word} {start + i}", label)
        for i in range(count) for label, words in WORDS.items() for word in words.split()
    ]  # fmt: skip


TRAIN, DEV, TEST = records(2), records(1, 50), records(1, 80)
GENERAL = [Text(f"general text number {i} about nothing") for i in range(6)]
QUICK = dict(
    train=TRAIN, dev=DEV, general=GENERAL, embedder="self", minutes=2.0, general_tokens=64, epochs=2.0,
    learning_rate=5e-3, prompt_length=4, shots=(1, 2), latency_records=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


@pytest.fixture(scope="module")
def keep(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ladder")


@pytest.fixture(scope="module")
def climbed(model, keep):
    return plan(model, test=TEST, rungs=tuple(RUNGS), keep=keep, **QUICK)


def bench_of(model, folder: Path, **settings) -> Bench:
    config = PlanConfig(**{k: v for k, v in QUICK.items() if k not in ("train", "dev", "general")} | settings)
    train, dev = (examples_of(r, 2, "data") for r in (TRAIN, DEV))
    task = LabelTask.from_records(TRAIN, prior=False)
    task.calibration, task.max_tokens = "none", 100
    return Bench(model, task, config, 0, train, dev, general_texts(model, GENERAL, 0), Kept(folder))


def test_every_rung_is_climbed_and_measured(climbed, model):
    assert [step.name for step in climbed.steps] == list(RUNGS)
    assert {step.state for step in climbed.steps} == {"done"}
    for step in climbed.steps:
        answered = np.array(step.answers)
        true = np.array([sorted(WORDS).index(e.label) for e in some_of(examples_of(DEV, 2, "dev"), None, 0)])
        assert step.dev["accuracy"][0] == pytest.approx((answered == true).mean())
        assert step.bytes > 0 and climbed.minutes[step.name] > 0 and climbed.latency[step.name] > 0
        changes = RUNGS[step.name].changes
        assert (step.perplexity is not None) == changes
    assert {s.name for s in climbed.steps if s.perplexity and abs(s.perplexity[0] - climbed.general[0]) > 1e-3} >= {
        "lora", "adapter", "pretrain",
    }  # fmt: skip
    assert climbed.take in RUNGS and climbed.why in climbed.summary and climbed.test_records == len(TEST)
    assert climbed.step("few-shot").facts["tried"] == [1, 2]
    assert climbed.step("lora").facts["epochs"] == 2.0
    assert climbed.step("rslora").facts["parameters"] == 4 * climbed.step("lora").facts["parameters"]


def test_the_table_says_it_all(climbed):
    text = str(climbed)
    for word in ("take this", "white box", "grey box", "perplexity", "On test, once", "always the most frequent label"):
        assert word in text
    figure = climbed.figure()
    assert figure.log_x and figure.series[0].labels == list(RUNGS) and len(figure.series[0].x) == len(RUNGS)
    assert type(climbed).from_json(climbed.to_json()) == climbed


def test_the_given_network_stays_as_it_was(climbed, model):
    assert all(torch.equal(v, tiny("llama").network.state_dict()[k]) for k, v in model.network.state_dict().items())
    assert guest_of(model.network) is None


def test_a_second_climb_learns_nothing(climbed, model, keep, monkeypatch):
    for rung in RUNGS.values():
        monkeypatch.setattr(type(rung), "learn", lambda *_: pytest.fail("learned again"))
    again = plan(model, test=TEST, rungs=tuple(RUNGS), keep=keep, **QUICK)
    assert again == climbed


def test_equal_seeds_give_equal_rungs(climbed, model, tmp_path):
    names = ("few-shot", "instance-prompt", "lora", "pissa", "pretrain", "distil")
    again = plan(tiny("llama"), test=TEST, rungs=names, keep=tmp_path, **QUICK)
    for step in again.steps[:-1]:  # the student's teacher may be another one of fewer
        assert step == climbed.step(step.name)


@pytest.mark.parametrize("name", RUNGS)
def test_a_rung_is_opened_as_it_was_left(name, climbed, model, keep, tmp_path):
    taken = take(model, keep=keep, rung=name)
    dev = some_of(examples_of(DEV, 2, "dev"), None, 0)
    given = [LabelledText(e.text, e.label) for e in dev]
    found = label_scores(taken, given)
    assert found.best.tolist() == climbed.step(name).answers
    assert found.probabilities.sum(1) == pytest.approx(1)
    taken.save(tmp_path / "taken")
    again = load(str(tmp_path / "taken"))
    np.testing.assert_allclose(label_scores(again, given).scores, found.scores, atol=2e-5)
    # Each text by itself: nothing depends on who is labelled with it.
    alone = np.concatenate([label_scores(taken, [record]).scores for record in given[:4]])
    np.testing.assert_allclose(alone, found.scores[:4], atol=2e-5)


def test_what_is_taken_is_plain_where_it_can_be(climbed, model, keep):
    tuned, beside = take(model, keep=keep, rung="lora"), take(model, keep=keep, rung="adapter")
    assert type(tuned.network) is type(model.network) and not tuned.parts and guest_of(tuned.network) is None
    assert any(
        not torch.equal(a, b) for a, b in zip(tuned.network.parameters(), model.network.parameters(), strict=True)
    )
    assert LabelTask.of(tuned).calibration == "none" and LabelTask.of(tuned).bias is not None
    assert beside.network is model.network and set(beside.parts) == {"adaptation.take"}
    assert take(model, keep=keep).extras["adaptation.take"]["rung"] == climbed.take
    assert tuned.identity.changes[-1] == {"technique": "adaptation.take", "rung": "lora"}


def test_taking_what_is_not_there(climbed, model, keep, tmp_path):
    with pytest.raises(BadInput, match="holds no ladder"):
        take(model, keep=tmp_path)
    with pytest.raises(BadInput, match="another model"):
        take(tiny("llama", seed=1), keep=keep)
    (tmp_path / "ladder.json").write_text(json.dumps(json.loads((keep / "ladder.json").read_text()) | {"rungs": {}}))
    with pytest.raises(BadInput, match="no finished rung 'lora'"):
        take(model, keep=tmp_path, rung="lora")
    taken = take(model, keep=keep, rung="adapter")
    taken.parts.clear()
    with pytest.raises(BadInput, match="take it again"):
        labeller_of(taken, taken.extras["adaptation.take"])


# ---- stopping, in time and at the target


def test_it_stops_at_the_target(model, tmp_path):
    found = plan(model, rungs=("zero-shot", "calibrated", "lora"), target=0.0, keep=tmp_path, **QUICK)
    assert [s.name for s in found.steps] == ["zero-shot"] and found.not_climbed == ["calibrated", "lora"]
    assert found.take == "zero-shot" and "the only one to reach" in found.why and found.general is None
    on = plan(model, rungs=("zero-shot", "calibrated"), target=0.0, stop=False, keep=tmp_path, **QUICK)
    assert len(on.steps) == 2 and on.take == min(on.minutes, key=on.minutes.__getitem__)
    never = plan(model, rungs=("calibrated", "zero-shot"), target=1.0, keep=tmp_path, **QUICK)
    assert [s.name for s in never.steps] == ["zero-shot", "calibrated"]  # by cost, whatever order they are named in
    assert (
        never.why.startswith("nothing reaches")
        and never.take == max(never.steps, key=lambda s: s.dev["weighted_f1"][0]).name
    )


def test_minutes_end_a_rung(model, tmp_path):
    found = plan(model, rungs=("few-shot", "lora"), minutes=1e-4, keep=tmp_path, **_without("minutes"))
    few, tuned = found.steps
    assert few.state == "out of time" and "and 0.0 are left" in few.note and few.name not in found.minutes
    assert tuned.facts["steps"] == 1
    assert found.take == "lora"
    with pytest.raises(Exception, match="no rung could be climbed"):
        plan(model, rungs=("few-shot",), minutes=1e-4, keep=tmp_path / "other", **_without("minutes"))


def test_shared_work_counts_for_each_rung(model, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("intarsia.adaptation.routes.bench.time.monotonic", lambda: clock[0])
    bench = bench_of(model, tmp_path)

    def slow(model, texts):
        clock[0] += 30.0
        return np.ones((len(texts), 4), np.float32)

    monkeypatch.setattr("intarsia.adaptation.routes.setting.embed", slow)
    bench.start()
    bench.embedded()
    assert bench.spent() == pytest.approx(1.0)  # once for dev, once for train
    bench.embedded()
    assert bench.spent() == pytest.approx(1.0)
    bench.start()
    assert bench.spent() == 0
    bench.embedded()
    assert bench.spent() == pytest.approx(1.0) and clock[0] == 60
    later = bench_of(model, tmp_path)  # found in the folder
    later.start()
    later.embedded()
    assert later.spent() == pytest.approx(1.0) and clock[0] == 60


def test_no_more_texts_are_embedded_than_there_is_time_for(model, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("intarsia.adaptation.routes.bench.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("intarsia.adaptation.routes.bench.CHUNK", 4)

    def slow(model, texts):
        clock[0] += 20.0
        return np.eye(4, dtype=np.float32)[[len(t) % 4 for t in texts]]

    monkeypatch.setattr("intarsia.adaptation.routes.setting.embed", slow)
    bench = bench_of(model, tmp_path, minutes=3.0)
    bench.start()
    some, mine, held = bench.embedded()
    assert len(some) == len(mine) == 12 and len(held) == len(DEV)  # 20 s for dev, then until a third is gone


def test_a_run_that_was_stopped_goes_on(model, tmp_path, monkeypatch):
    names = ("zero-shot", "calibrated", "norms")
    stopping = RUNGS["norms"]
    with monkeypatch.context() as patched:

        def stop(self, bench):
            raise KeyboardInterrupt

        patched.setattr(type(stopping), "learn", stop)
        with pytest.raises(KeyboardInterrupt):
            plan(model, rungs=names, keep=tmp_path, **QUICK)
    kept = sorted(p.parent.name.rpartition("-")[0] for p in tmp_path.glob("*/result.json"))
    assert kept == ["calibrated", "zero-shot"]
    # What a killed process left of the third: it is not finished without its result.
    bench = bench_of(model, tmp_path)
    (tmp_path / bench.mark("norms", stopping.reads)).mkdir()
    with monkeypatch.context() as patched:
        for name in names[:2]:
            patched.setattr(type(RUNGS[name]), "learn", lambda *_: pytest.fail("learned again"))
        assert [s.name for s in plan(model, rungs=names, keep=tmp_path, **QUICK).steps] == list(names)


def test_other_data_are_another_rung(model, tmp_path):
    def marks(**more) -> set[str]:
        plan(model, rungs=("calibrated",), keep=tmp_path, **QUICK | more)
        return {p.parent.name for p in tmp_path.glob("calibrated-*/result.json")}

    one = marks()
    assert marks() == one == marks(shots=(3,), epochs=7.0)  # settings that it does not read
    two = marks(dev=DEV[:-1])
    assert len(two) == 2 and len(marks(metric="accuracy")) == 3 and len(marks(seed=1)) == 4


# ---- exactness


def test_adapters_begin_as_nothing(model):
    bench_setting = Setting(model, LabelTask.from_records(TRAIN), PlanConfig(), 0)
    given = inputs("llama")
    with torch.no_grad():
        before = model.network(**given).logits
        for name in ("ia3", "lora", "rslora", "dora", "adapter", "norms", "top-blocks"):
            new = model.copy()
            part = RUNGS[name].put(new, bench_setting)
            assert torch.equal(part.forward(**given).logits, before), name
            assert sum(p.requires_grad for p in part.parameters.values()) == len(part.parameters)
            assert not any(p.requires_grad for n, p in part.forward.named_parameters()
                           if all(p is not q for q in part.parameters.values()))  # fmt: skip
        new = model.copy()
        pissa = RUNGS["pissa"].put(new, bench_setting).forward(**given).logits
        torch.testing.assert_close(pissa, before, atol=1e-5, rtol=0)


def test_a_bottleneck_is_added_beside_the_mlp(model):
    new = model.copy()
    RUNGS["adapter"].put(new, Setting(model, LabelTask.from_records(TRAIN), PlanConfig(bottleneck=3), 0))
    guest = guest_of(new.network)
    assert guest.names == ["model.layers.2.mlp", "model.layers.3.mlp"]
    for part in guest.parts:
        torch.nn.init.normal_(part.up.weight)
    mlp, part = new.network.get_submodule(guest.names[0]), guest.parts[0]
    states = torch.randn(2, 3, 32)
    plain = model.network.get_submodule(guest.names[0])(states)
    more = torch.relu(states @ part.down.weight.T + part.down.bias) @ part.up.weight.T + part.up.bias
    torch.testing.assert_close(mlp(states), plain + more, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_soft_prompt_is_that_of_peft(family):
    import peft

    model, plain = tiny(family, dtype=torch.float64), tiny(family, dtype=torch.float64)
    start = torch.randn(5, 32, dtype=torch.float64)
    put_beside(model.network, SoftPrompt(model.network.get_input_embeddings(), start), {})
    theirs = peft.get_peft_model(
        plain.network, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    ).eval()
    theirs.prompt_encoder["default"].embedding.weight.data = start.clone()
    ids = torch.randint(10, 266, (2, 9))
    with torch.no_grad():
        ours = model.network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        expected = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 5:]
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)
    # With padding the two part: ours gives what the row gives alone.
    with torch.no_grad():
        padded = left_padded([ids[0, :4].tolist(), ids[1].tolist()], 0)
        alone = model.network(input_ids=ids[:1, :4], attention_mask=torch.ones(1, 4, dtype=torch.long)).logits[0, -1]
        torch.testing.assert_close(model.network(**padded).logits[0, -1], alone, atol=1e-10, rtol=0)


def test_an_instance_prompt_is_the_tasks_plus_its_shift(model):
    setting = Setting(model, LabelTask.from_records(TRAIN), PlanConfig(prompt_length=3, embedder="self"), 0)
    of_task, of_instance = model.copy(), model.copy()
    with seeded(0):
        RUNGS["soft-prompt"].put(of_task, setting)
    with seeded(0):
        RUNGS["instance-prompt"].put(of_instance, setting)
    guest = guest_of(of_instance.network)
    embedding = model.network.get_input_embeddings().weight
    torch.testing.assert_close(guest.prompt_embeddings.detach(), embedding[first_ids(setting)].detach())
    rows = [[20, 21, 22], [30, 31, 32, 33]]
    vectors = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    guest.know(rows, vectors)
    batch = left_padded(rows, 0)
    with torch.no_grad():
        torch.testing.assert_close(of_instance.network(**batch).logits, of_task.network(**batch).logits)
        torch.nn.init.normal_(guest.shift[-1].weight)
        shifted = of_instance.network(**batch).logits[0, -1]
        moved = guest_of(of_task.network)
        moved.prompt_embeddings += guest.shift(torch.from_numpy(vectors[0])).view(3, 32)
        torch.testing.assert_close(shifted, of_task.network(**batch).logits[0, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa", "ia3"])
def test_variants_begin_as_nothing_and_merge_to_what_they_were(family, variant):
    model, given = tiny(family), inputs(family)
    with torch.no_grad():
        before = model.network(**given).logits
        with seeded(0):
            adapted, parameters = attach(model.copy().network, LoraConfig(variant=variant, rank=4, layers_from=0.5))
        torch.testing.assert_close(adapted(**given).logits, before, atol=1e-5, rtol=0)
        for parameter in parameters:
            parameter += 0.05 * torch.randn_like(parameter)
        tuned = adapted(**given).logits
        assert (tuned - before).abs().max() > 0.01
        merged = merge(adapted)
        torch.testing.assert_close(merged(**given).logits, tuned, atol=1e-4, rtol=0)
    assert type(merged) is type(model.network)


def test_rslora_scales_by_the_root_of_the_rank():
    given, found = inputs("llama"), []
    for settings in (dict(variant="rslora", rank=16, alpha=8), dict(variant="lora", rank=16, alpha=32)):
        with seeded(0):
            adapted, parameters = attach(tiny("llama").network, LoraConfig(**settings))
            with torch.no_grad():
                for parameter in parameters:
                    parameter += 0.01 * torch.randn_like(parameter)
                found.append(adapted(**given).logits)
    torch.testing.assert_close(*found)  # 8 / sqrt(16) is 32 / 16


def test_variants_where_they_do_not_fit():
    with pytest.raises(BadInput, match="is not known"):
        attach(tiny("granite").network, LoraConfig(variant="ia3"))
    attach(tiny("granite").network, LoraConfig(variant="ia3", targets=("k_proj", "v_proj")))
    with pytest.raises(BadInput, match="variant"):
        find("adaptation.continual").function(tiny("llama"), stream=[], variant="dora")


def test_a_variant_tunes_labels():
    from intarsia.adaptation import label

    for variant in ("dora", "ia3"):
        new = label(tiny("llama"), train=TRAIN, variant=variant, epochs=4, learning_rate=1e-2, batch_size=6)
        losses = new.extras["adaptation.label"]["losses"]
        assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_training_starts_from_calibrated_scores(tmp_path):
    model = tiny("llama", dtype=torch.float64)
    bench = bench_of(model, tmp_path)
    bench.task = LabelTask.parse(bench.task.model_dump() | {"verbalisers": {"ann": "a", "anna": "n", "bob": "b"}})
    assert bench.trie.flat
    part = RUNGS["lora"].put(model.copy(), bench)
    rows = list(range(len(bench.train)))
    loss = label_loss(bench, model, part, None)(rows)
    raw = score(model, bench.task, bench.train, calibration="none").raw
    start = bench.log_prior - raw.mean(0)
    np.testing.assert_allclose(bench.head_start(), start, atol=1e-9)
    expected = -log_softmax(raw + start)[rows, bench.y].mean()
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    bench.trie = bench_of(model, tmp_path).trie  # labels that begin alike
    assert not bench.head_start().any()


def test_the_trunk_changes_what_is_learned_by_its_rounding_only(model, tmp_path, monkeypatch):
    with_trunk = bench_of(model, tmp_path / "one", minutes=60.0)
    with_trunk.start()
    one = RUNGS["adapter"].learn(with_trunk)
    assert with_trunk._trunk is not None
    spent = with_trunk.spent()
    with_trunk.start()
    RUNGS["norms"].learn(with_trunk)
    assert with_trunk._borrowed >= with_trunk._trunk_seconds > 0 and spent > 0
    with_trunk.close()
    without = bench_of(model, tmp_path / "two", minutes=60.0)
    monkeypatch.setattr(Bench, "pace", lambda self: 1e6)  # reading takes too long to come back to a row
    without.start()
    other = RUNGS["adapter"].learn(without)
    assert without._trunk is None
    np.testing.assert_allclose(one.dev, other.dev, atol=0.05)


def test_neighbours_are_mixed_in_log_space(model, tmp_path):
    bench = bench_of(model, tmp_path)
    bench.start()
    mixed = RUNGS["neighbours"].learn(bench).labeller
    mixed.share = 0.3
    found = mixed(bench.dev)
    likely = mixed.likelihood(bench.dev)
    near = mixed.memory.scores(bench.said(bench.dev))
    product = np.exp(likely) ** 0.7 * np.exp(near) ** 0.3
    np.testing.assert_allclose(np.exp(found), product / product.sum(1, keepdims=True), atol=1e-6)


def test_neighbours_of_the_own_dialogue_are_not_asked(model, tmp_path):
    train = [LabelledText("red", "ann", "one"), LabelledText("red", "bob", "two"), LabelledText("sky", "anna", "two")]
    found = plan(model, **QUICK | dict(train=train * 2, dev=[LabelledText("red", "ann", "one")] * 2), keep=tmp_path,
                 rungs=("neighbours",))  # fmt: skip
    taken = take(model, keep=tmp_path, rung="neighbours")
    kept = [LabelledText("red", "", "one"), LabelledText("red", "", "two")]
    one, two = label_scores(taken, kept).probabilities
    bob = found.provenance["task"]["labels"].index("bob")
    assert one[bob] > two[bob]  # the first may not ask its own dialogue, which says ann


def test_the_calibrated_bias_is_the_formula(model, tmp_path):
    bench = bench_of(model, tmp_path)
    bench.start()
    learned = RUNGS["calibrated"].learn(bench)
    raw = score(model, bench.task, bench.dev, calibration="none").raw
    tau = learned.facts["tau"]
    np.testing.assert_allclose(learned.dev, log_softmax(raw - raw.mean(0) + tau * bench.log_prior), atol=1e-6)
    np.testing.assert_allclose(learned.labeller(bench.dev), learned.dev, atol=1e-6)


def test_shift_takes_the_least_that_is_best():
    scores = np.log(np.array([[0.6, 0.4], [0.55, 0.45], [0.9, 0.1]]))
    prior = np.log([0.8, 0.2])
    tau, figure = shift("accuracy", scores, np.array([0, 1, 0]), prior, -1.0)
    worth = {t: value("accuracy", scores - t * prior, np.array([0, 1, 0])) for t in (0, 0.25, 0.5, 0.75, 1)}
    assert figure == max(worth.values()) and tau == min(t for t, v in worth.items() if v == figure)


def test_a_student_is_at_the_lowest_point_of_its_loss():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 3, 40)
    taught = log_softmax(rng.normal(size=(25, 3)))
    weight, temperature, strength = 0.6, 2.0, 3.0
    found = fit(x, y, 3, taught, weight=weight, temperature=temperature, strength=strength, steps=300)

    def loss(matrix: np.ndarray, bias: np.ndarray) -> float:
        total = 0.0
        for i in range(40):
            z = ((x[i] - found.mean) / found.spread) @ matrix.T + bias
            hard = -(z - np.log(np.exp(z).sum()))[y[i]]
            if i >= 25:
                total += hard
                continue
            p = np.exp(taught[i] / temperature) / np.exp(taught[i] / temperature).sum()
            q = np.exp(z / temperature) / np.exp(z / temperature).sum()
            total += (1 - weight) * hard + weight * temperature**2 * float((p * np.log(p / q)).sum())
        return total / 40 + (matrix**2).sum() / (2 * strength * 40)

    matrix, bias = found.weight.astype(float), found.bias.astype(float)
    least = loss(matrix, bias)
    for _ in range(20):
        a, b = rng.normal(size=matrix.shape), rng.normal(size=bias.shape)
        assert loss(matrix + 0.01 * a, bias + 0.01 * b) > least
        slope = (loss(matrix + 1e-5 * a, bias + 1e-5 * b) - loss(matrix - 1e-5 * a, bias - 1e-5 * b)) / 2e-5
        assert abs(slope) < 2e-3
    plain = Linear.fit(x, y, 3, strength=strength)
    alike = fit(x, y, 3, taught, weight=0.0, temperature=2.0, strength=strength)
    np.testing.assert_allclose(alike.scores(x), plain.scores(x), atol=2e-2)


def test_texts_are_read_whole_and_their_loss_is_the_mean(model):
    texts = ["ab" * 40, "c" * 30, "d"]
    rows = windows(model, texts)
    ids = [t for text in texts for t in (*model.tokenizer(text)["input_ids"], model.tokenizer.eos_token_id)]
    assert ([t for row in rows for t in row] == ids and max(map(len, rows)) == 128) or len(rows[-1]) > 1
    some = [rows[0][:7], rows[0][7:10]]
    total = 0.0
    with torch.no_grad():
        for row in some:
            log_p = model.network(torch.tensor([row])).logits[0].double().log_softmax(-1)
            total -= sum(float(log_p[i, row[i + 1]]) for i in range(len(row) - 1))
        assert text_loss(model, model.network, some).item() == pytest.approx(total / 8, abs=1e-5)


# ---- which one


def step(name: str, right: list[bool], figure: float | None = None) -> Step:
    share = sum(right) / len(right) if figure is None else figure
    return Step(name=name, what="", access="", answers=[int(not r) for r in right], dev={"accuracy": (share, 0.0, 1.0)})


def test_the_cheapest_that_reaches_the_target():
    true = np.zeros(10, int)
    steps = [step("a", [True] * 6 + [False] * 4), step("b", [True] * 8 + [False] * 2), step("c", [True] * 9 + [False])]
    given = dict(metric="accuracy", true=true, labels=2, groups=[None] * 10, seed=0)
    minutes = {"a": 1.0, "b": 5.0, "c": 3.0}
    assert choose(steps, minutes, target=0.8, **given)[0] == "c"
    assert choose(steps, minutes, target=0.6, **given)[0] == "a"
    name, why = choose(steps, minutes, target=0.95, **given)
    assert name == "c" and "nothing reaches" in why


def test_without_a_target_one_standard_error_counts():
    best = np.arange(400) < 320
    near, far = best.copy(), best.copy()
    near[[0, 1, 2, 3, 398, 399]] ^= True  # four more wrong, two more right
    far[:60] = False
    steps = [step("far", far.tolist()), step("near", near.tolist()), step("best", best.tolist())]
    true, minutes = np.zeros(400, int), {"far": 0.1, "near": 1.0, "best": 9.0}
    given = dict(metric="accuracy", target=None, true=true, labels=2, groups=[None] * 400, seed=0)
    error = standard_error("accuracy", steps[2].answers, steps[1].answers, true, 2, [None] * 400, 0)
    assert error == pytest.approx(np.std(best.astype(float) - near) / 20, rel=0.1) and error > 2 / 400
    name, why = choose(steps, minutes, **given)
    assert name == "near" and "within one standard error of the best" in why
    near[[4, 5, 6, 7]] = False
    steps[1] = step("near", near.tolist())
    assert choose(steps, minutes, **given)[0] == "best"
    # Dialogues are drawn whole: the six texts of one dialogue are one draw.
    near[[4, 5, 6, 7]] = True
    steps[1] = step("near", near.tolist())
    together = ["d" if i in (0, 1, 2, 3, 398, 399) else f"d{i}" for i in range(400)]
    assert standard_error("accuracy", steps[2].answers, steps[1].answers, true, 2, together, 0) < error


# ---- data


def turns() -> list[Turn]:
    said = [("A", "hi", "glad"), ("B", "so", ""), ("", "well", "sad"), ("A", "bye", "glad")]
    return [
        Turn(text, label, "d", speaker=who, number=n) for n, (who, text, label) in zip((0, 1, 2, 5), said, strict=True)
    ]


def test_turns_get_the_lines_before_them():
    found = examples_of(turns(), 2, "train")
    assert [e.text for e in found] == ["A: hi", "well", "A: bye"]
    assert [e.context for e in found] == [(), ("A: hi", "B: so"), ()]  # 3 and 4 are missing: two turns back is not 2
    assert [e.before for e in found] == [(), ("hi", "so"), ()] and [e.said for e in found] == ["hi", "well", "bye"]
    assert [e.context for e in examples_of(turns(), 0, "train")] == [(), (), ()]
    shuffled = [turns()[i] for i in (2, 0, 3, 1)]
    assert examples_of(shuffled, 2, "train")[0].context == ("A: hi", "B: so")
    plain = examples_of([LabelledText("x", "a", context=("y",))], 2, "train")[0]
    assert (plain.text, plain.context, plain.said) == ("x", ("y",), "x")


def test_turns_are_climbed(model, tmp_path):
    some = [Turn(f"{r.text}", r.label, f"d{i // 6}", speaker="A", number=i % 6) for i, r in enumerate(TRAIN)]
    found = plan(model, **QUICK | dict(train=some, dev=some[:6]), rungs=("zero-shot", "linear", "few-shot"), past=1,
                 keep=tmp_path)  # fmt: skip
    assert "{context}" in found.provenance["task"]["template"] and {s.state for s in found.steps} == {"done"}
    taken = take(model, keep=tmp_path, rung="linear")
    order = some_of(examples_of(some[:6], 1, "dev"), None, 0)
    answers = dict(zip((e.text for e in order), found.step("linear").answers, strict=True))
    assert [answers[f"A: {t.text}"] for t in some[:6]] == label_scores(taken, some[:6]).best.tolist()


def test_a_limit_keeps_every_label():
    many = examples_of([LabelledText(str(i), "many") for i in range(60)] + [LabelledText("x", "rare")], 0, "train")
    kept = some_of(many, 5, 0, every_label=True)
    assert (
        len(kept) == 5 and {e.label for e in kept} == {"many", "rare"} and kept == some_of(many, 5, 0, every_label=True)
    )
    with pytest.raises(BadInput, match="there are 2 labels"):
        some_of(many, 1, 0, every_label=True)
    assert len(some_of(many, 5, 0)) == 5 and len(some_of(many, None, 0)) == 61


def test_general_texts_are_divided():
    given = [Text(str(i), f"g{i // 2}") for i in range(8)]
    found = general_texts(tiny("llama"), given, 0)
    assert not {t.group for t in found.measured} & {t.group for t in found.replayed}
    assert {t.text for t in (*found.measured, *found.replayed)} == {t.text for t in given}
    one_group = general_texts(tiny("llama"), [Text(str(i), "g") for i in range(4)], 0)
    assert one_group.measured and one_group.replayed
    reference = general_texts(tiny("llama"), None, 0)
    assert "Python language reference" in reference.name and len(reference.measured) > 50
    with pytest.raises(BadInput, match="two texts or more"):
        general_texts(tiny("llama"), [Text("one")], 0)


def test_without_the_reference_the_model_writes_itself(monkeypatch):
    from intarsia.data import Dataset

    monkeypatch.setattr("intarsia.adaptation.routes.general.load_data", lambda name: Dataset({}))
    found = general_texts(tiny("llama"), None, 0)
    assert (
        found.name == "what the model itself writes"
        and found.measured
        and found == general_texts(tiny("llama"), None, 0)
    )


def _without(*names: str) -> dict:
    return {name: value for name, value in QUICK.items() if name not in names}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"train": []}, "train is empty"),
        ({"dev": []}, "dev is empty"),
        ({"train": [LabelledText("x", "ann")] * 3}, "two labels or more"),
        ({"dev": [LabelledText("x", "carl")]}, "dev has the label 'carl'"),
        ({"test": [LabelledText("x", "carl")]}, "test has the label 'carl'"),
        ({"train": [Text("x")]}, "train holds a Text"),
        ({"general": [Text("x")]}, "two texts or more"),
        ({"general": [1, 2]}, "general holds a int"),
        ({"rungs": ()}, "rungs is empty"),
        ({"rungs": ("distil",)}, "distil needs a teacher"),
        ({"rungs": ("linear", "distil")}, "distil needs a teacher"),
        ({"rungs": ("loar",)}, "rungs"),
        ({"shots": (0, 1)}, "from 1 up"),
        ({"target": 60}, "target"),
        ({"layers_from": 9}, "4 blocks"),
        ({"prompt_length": 125}, "no room for a text"),
        ({"embedder": "./nowhere"}, "no file or folder"),
        ({"train_limit": 2}, "3 labels"),
        ({"label_task": {"verbalisers": {"ann": " a", "bob": " b"}}}, "train has the label 'anna'"),
        ({"template": "no text"}, "exactly once"),
    ],
)
def test_bad_input_before_anything_is_learned(settings, says, model, tmp_path, monkeypatch):
    for rung in RUNGS.values():
        monkeypatch.setattr(type(rung), "learn", lambda *_: pytest.fail("began to learn"))
    with pytest.raises(BadInput, match=says):
        plan(model, **QUICK | settings, keep=tmp_path)


def test_networks_that_cannot_climb(tmp_path):
    with pytest.raises(BadInput, match="causal"):
        plan(tiny("t5"), keep=tmp_path, **QUICK)
    beside = tiny("llama")
    RUNGS["adapter"].put(beside, Setting(beside, LabelTask.from_records(TRAIN), PlanConfig(), 0))
    with pytest.raises(BadInput, match="adapters beside it"):
        plan(beside, keep=tmp_path, **QUICK)


def test_a_rung_that_this_network_cannot_have_is_left_out(tmp_path):
    found = plan(tiny("olmoe"), rungs=("zero-shot", "ia3"), keep=tmp_path, **QUICK)
    assert [s.state for s in found.steps] == ["done", "not possible"] and "not known" in found.steps[1].note
    assert "not possible" in str(found)


def test_a_loss_that_is_no_number_fails_its_rung_alone(model, tmp_path):
    found = plan(model, rungs=("zero-shot", "top-blocks"), keep=tmp_path, **QUICK | {"learning_rate": 1e30})
    assert [s.state for s in found.steps] == ["done", "failed"] and "lower learning_rate" in found.steps[1].note


def test_a_teacher_is_needed_and_asked_in_time(model, tmp_path, monkeypatch):
    bench = bench_of(model, tmp_path)
    bench.start()
    with pytest.raises(OutOfTime):
        RUNGS["distil"].learn(bench)
    asked = []

    def teacher(examples):
        asked.append(len(examples))
        return np.log(np.full((len(examples), 3), 1 / 3))

    bench.teacher = "other", teacher
    monkeypatch.setattr("intarsia.adaptation.routes.rungs.distil.CHUNK", 4)
    monkeypatch.setattr(bench, "left", lambda: 1.0 if len(asked) < 4 else 0.1)
    learned = RUNGS["distil"].learn(bench)
    assert asked == [len(DEV), 4, 4, 4] and learned.facts["taught"] == 12  # dev for the temperature, then train
    assert learned.facts["teacher"] == "other"


def test_the_settings_of_the_loop_are_the_ladders(model):
    setting = Setting(model, LabelTask.from_records(TRAIN), PlanConfig(learning_rate=0.01, epochs=5, batch_size=3), 0)
    config = RUNGS["soft-prompt"].config(setting, 1.5)
    assert isinstance(config, LabelConfig) and config.minutes == 1.5 and config.learning_rate == pytest.approx(0.2)
    assert (config.epochs, config.batch_size) == (5, 3)
    assert RUNGS["lora"].adapter(setting).alpha == 32 and RUNGS["rslora"].adapter(setting).rank == 64


# ---- the command line


def test_the_commands(tmp_path, capsys, monkeypatch):
    tiny("llama").save(tmp_path / "model")
    for name, some in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        lines = (json.dumps({"text": r.text, "label": r.label}) + "\n" for r in some)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    (tmp_path / "general.txt").write_text("\n".join(t.text for t in GENERAL))
    monkeypatch.chdir(tmp_path)
    words = ["--model", "model", "--data", ".", "--general", "general.txt", "--rungs", "calibrated,norms", "--embedder",
             "self", "--epochs", "1", "--general-tokens", "64", "--keep", "kept", "--json"]  # fmt: skip
    assert app.run(["adapt", "plan", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [s["name"] for s in found["steps"]] == ["calibrated", "norms"] and found["test_records"] == len(TEST)
    assert app.run(["adapt", "take", "--model", "model", "--keep", "kept", "--rung", "norms", "--out", "taken"]) == 0
    taken = load("taken")
    assert len(label_scores(taken, TEST).best) == len(TEST)


def test_a_room_by_the_beginning_of_its_name(capsys):
    assert app.run(["adapt", "--help"]) == 0 and "plan" in capsys.readouterr().out
    for word in ("m", "a9", ""):
        assert app.run([word, "plan"]) == 2
    assert app.run(["catalo"]) == 2  # a command's name is not shortened
    assert "catalog" in capsys.readouterr().err
