"""Continual tuning as a whole, on tiny networks: every method learns in the one loop, goes on after a stop, saves,
loads, grows without old data, forgets, answers, folds; and bad streams are refused before anything is trained."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import intarsia as ia
from intarsia.adaptation import answer, continual, forget, merge
from intarsia.adaptation.continual import learning as _learning
from intarsia.adaptation.continual.blocks.prompts import Prompts
from intarsia.adaptation.continual.methods import METHODS
from intarsia.adaptation.continual.methods.lfpt5 import LFPT5
from intarsia.adaptation.continual.methods.transfer import Transfer
from intarsia.adaptation.continual.routing.closed import Closed
from intarsia.adaptation.continual.rows import Writer
from intarsia.adaptation.continual.skills import skills_of
from intarsia.adaptation.continual.stream import tasks_of
from intarsia.cli import app
from intarsia.data import TaskPair, load_data, read, read_stream
from intarsia.errors import BadInput
from intarsia.report import render_finding
from tests.tiny import tiny

TASKS = {
    "letters": ("Say the letter", "abc"), "numbers": ("Count them", "123"), "answers": ("Is it so", "yn"),
    "late": ("Name the colour", "rgb"),
}  # fmt: skip
QUICK = {"epochs": 1.0, "rank": 2, "batch_size": 4, "learning_rate": 3e-2}


def stream(*names: str, count: int = 24) -> list[TaskPair]:
    out = []
    for name in names:
        instruction, answers = TASKS[name]
        for i in range(count):
            right, given = answers[i % len(answers)], f"{name} {i % 7} {i}"
            split = ("train", "train", "dev", "test")[i % 4]
            out.append(
                TaskPair(
                    f"{instruction}\n\n{given}", right, task=name, instruction=instruction, input=given,
                    targets=(right,), split=split,
                )
            )  # fmt: skip
    return out


THREE = stream("letters", "numbers", "answers")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))


def learned(method: str = "transfer", examples=None, model=None, **given):
    return continual(model or tiny("llama"), stream=examples or THREE, method=method, **{**QUICK, **given})


def logits(model, texts=("Count them\nnumbers 3 9\nOutput:", "Say the letter\nletters 1 1\nOutput:")):
    batch = dict(model.encode(list(texts)))
    batch.pop("token_type_ids", None)
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.zeros(len(texts), 1, dtype=torch.long)
    with torch.no_grad():
        return model.network(**batch).logits


def using(model, task: str):
    own = skills_of(model.network)
    return own.using(task) if task in own.names else contextlib.nullcontext()


def named(method: str) -> bool:
    return method in ("oracle", "progprompt")


# ---- every method


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_the_stream_saves_and_loads(method: str, tmp_path: Path):
    model = tiny("llama")
    before = logits(model)
    out = learned(method, model=model)
    finding = out.finding
    assert [len(row) for row in finding.matrix] == [1, 2, 3] and finding.ap is not None
    assert all(row.steps > 0 for row in finding.tasks) or METHODS[method].joint
    assert torch.equal(logits(model), before), "what was given is as it was"
    assert "<h1" in render_finding(finding) or "<title" in render_finding(finding)
    out.save(tmp_path / "saved")
    back = ia.load(str(tmp_path / "saved"))
    own, again = skills_of(out.network), skills_of(back.network)
    assert own.names == again.names
    for a, b in zip(own.tensors().items(), again.tensors().items(), strict=True):
        assert a[0] == b[0] and torch.equal(a[1], b[1])
    if named(method):
        with pytest.raises(BadInput, match="need the name of the task"):
            logits(back)
        with own.using("numbers"), again.using("numbers"):
            torch.testing.assert_close(logits(back), logits(out))
    else:
        torch.testing.assert_close(logits(back), logits(out))
    import transformers

    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    batch = dict(model.encode(["Count them"]))
    assert torch.equal(plain(batch["input_ids"]).logits, model.network(batch["input_ids"]).logits)


@pytest.mark.parametrize("method", METHODS)
def test_after_a_stop_it_goes_on_as_if_there_had_been_none(method: str, tmp_path: Path, monkeypatch):
    if METHODS[method].joint:
        pytest.skip("all tasks are learned at once: there is nothing between them")
    whole = learned(method, keep=tmp_path / "whole")
    judged = _learning.Course._learn

    def stopped(course, number, task):
        if number == 2:
            raise KeyboardInterrupt
        return judged(course, number, task)

    monkeypatch.setattr(_learning.Course, "_learn", stopped)
    with pytest.raises(KeyboardInterrupt):
        learned(method, keep=tmp_path / "part")
    monkeypatch.setattr(_learning.Course, "_learn", judged)
    with pytest.warns(UserWarning, match="going on after numbers"):
        rest = learned(method, keep=tmp_path / "part")
    assert rest.finding.matrix == whole.finding.matrix
    assert [task.losses for task in rest.finding.tasks] == [task.losses for task in whole.finding.tasks]
    one, other = skills_of(rest.network), skills_of(whole.network)
    torch.testing.assert_close(one.router.save(), other.router.save(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.kept, other.kept, rtol=1e-5, atol=1e-6)
    assert one.memory == other.memory
    for a, b in zip(skills_of(rest.network).tensors().items(), skills_of(whole.network).tensors().items(), strict=True):
        assert a[0] == b[0]
        torch.testing.assert_close(a[1], b[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["transfer", "sapt", "sapt-prompt", "replay", "l2p"])
def test_encoder_decoders_learn_too(method: str, tmp_path: Path):
    out = learned(method, model=tiny("t5"), layers_from=0)
    out.save(tmp_path / "saved")
    torch.testing.assert_close(logits(ia.load(str(tmp_path / "saved"))), logits(out))


def test_the_loss_goes_down_and_answers_are_learned():
    """One letter for everything: a tiny random network can learn that much."""
    examples = [replace(e, target="a" if e.task == "letters" else "b", targets=("a",)) for e in THREE[:48]]
    out = learned("transfer", examples, targets=("all",), layers_from=0.25, rank=8, epochs=40.0, learning_rate=1e-2)
    for task in out.finding.tasks:
        assert task.losses[-1] < task.losses[0]
    assert out.finding.ap == 100 and out.finding.forgetting == 0


# ---- the default


def test_old_prompts_keep_their_answers_while_new_tasks_come():
    """For weights that are what they were, logits are to the bit: nothing that is there changes."""
    first = learned("transfer", stream("letters", "numbers"))
    own = skills_of(first.network)
    second = learned("transfer", stream("answers"), first)
    grown = skills_of(second.network)
    assert grown.names == ["letters", "numbers", "answers"]
    for task in ("letters", "numbers"):
        with own.using(task), grown.using(task):
            torch.testing.assert_close(logits(second), logits(first), rtol=0, atol=1e-6)
    router, before = grown.router, own.router
    assert isinstance(router, Closed) and isinstance(before, Closed)
    assert torch.equal(router.rows[:2, :2], before.rows) and (router.rows[:2, 2] == 0).all()
    assert router.rows[2, 2] >= 0.3 and float(router.rows[2].sum()) == pytest.approx(1)
    assert second.extras["adaptation.continual"]["tasks"].keys() == {"letters", "numbers", "answers"}


@pytest.mark.parametrize("method", [name for name in METHODS if name != "multitask"])
def test_a_sixth_task_needs_no_data_of_the_five(method: str, tmp_path: Path):
    out = learned(method, stream("letters", "numbers", "answers"))
    out.save(tmp_path / "skills")
    grown = continual(ia.load(str(tmp_path / "skills")), stream=stream("late"), method=method, **QUICK)
    if METHODS[method].frozen or method == "sapt":
        assert "late" in skills_of(grown.network).names
    grown.save(tmp_path / "more")
    back = ia.load(str(tmp_path / "more"))
    with using(grown, "late"), using(back, "late"):
        torch.testing.assert_close(logits(back), logits(grown))


def test_a_task_that_comes_again_goes_on_in_its_block():
    first = learned("transfer", stream("letters", "numbers"))
    again = learned("transfer", stream("letters", count=40), first)
    own, before = skills_of(again.network), skills_of(first.network)
    assert own.names == ["letters", "numbers"]
    assert own.router.tasks[0].count == before.router.tasks[0].count + 20
    assert not torch.equal(own.stacks[0].block(0)[1], before.stacks[0].block(0)[1])
    assert torch.equal(own.stacks[0].block(1)[1], before.stacks[0].block(1)[1])


SAME = [*stream("letters"), *[replace(e, task="numbers") for e in stream("letters")]]


def test_a_block_begins_as_a_copy_of_the_one_that_fits_or_afresh():
    out = learned("transfer", SAME, epochs=6.0, targets=("all",), rank=8)
    assert out.finding.tasks[1].facts["start"] == "letters"
    out = learned("transfer", SAME, warm=False)
    assert out.finding.tasks[1].facts["start"] == "fresh"


@pytest.mark.parametrize("best", ["letters", "fresh"])
def test_of_two_starts_the_better_after_a_few_steps_is_gone_on_from(best: str, monkeypatch):
    """To the bit as if it had been the only one, its dropout included; a copied block may have another rank."""
    right = "a" if best == "letters" else "b"  # else what is copied has to be unlearned
    examples = [replace(e, target="a" if e.task == "letters" else right, targets=()) for e in SAME]
    big = {"epochs": 8.0, "targets": ("all",), "layers_from": 0.25, "learning_rate": 1e-2}
    first = learned("transfer", examples[:24], **big, rank=4)
    monkeypatch.setattr(Transfer, "_likeliest", lambda self, lesson: (0, {}))
    big |= {"epochs": 2.0, "dropout": 0.1, "rank": 2}
    both = learned("transfer", examples[24:], first, **big, start_steps=2)
    alone = learned("transfer", examples[24:], first, **big, warm=best == "letters")
    facts, task = both.finding.tasks[0].facts, alone.finding.tasks[0]
    losses = {name: facts[f"loss after 2 steps, {name}"] for name in ("letters", "fresh")}
    assert facts["start"] == task.facts["start"] == best == min(losses, key=losses.__getitem__)
    assert both.finding.tasks[0].losses == task.losses and both.finding.tasks[0].steps == 6
    one, other = skills_of(both.network), skills_of(alone.network)
    assert one.stacks[0].ranks == [4, 4 if best == "letters" else 2]
    assert torch.equal(one.router.rows, other.router.rows) and one.names == other.names == ["letters", "numbers"]
    for a, b in zip(one.tensors().items(), other.tensors().items(), strict=True):
        assert a[0] == b[0] and torch.equal(a[1], b[1])


# ---- SAPT


def test_reflection_holds_the_attention_of_old_tasks():
    kept, free = (learned("sapt", epochs=6.0, reflection=weight).finding for weight in (20.0, 0.0))

    def moved(finding):
        return max(abs(task.attention[task.name] - task.facts["own weight"]) for task in finding.tasks[:2])

    assert moved(kept) < moved(free)


def test_pseudo_samples_are_written_by_a_generator():
    out = learned("sapt", stream("letters", "numbers"), pseudo="generated", pseudo_share=0.3)
    pseudo = skills_of(out.network).kept["pseudo.0"]
    assert pseudo.dim() == 3 and len(pseudo) >= 1


def test_a_key_for_each_layer():
    out = learned("sapt", per_layer=True)
    own = skills_of(out.network)
    assert own.router.keys.shape[:2] == (3, len({stack.layer for stack in own.stacks}))
    assert out.finding.own_weight is not None


# ---- forget, answer, merge


def test_a_forgotten_task_is_gone(tmp_path: Path):
    out = learned("transfer")
    less = forget(out, tasks=("numbers",))
    own = skills_of(less.network)
    assert own.names == ["letters", "answers"] and len(own.router.tasks) == 2
    assert "numbers" not in json.dumps(less.extras["adaptation.continual"]["tasks"])
    less.save(tmp_path / "less")
    assert not (tmp_path / "less" / "skills" / "numbers").exists()
    torch.testing.assert_close(logits(ia.load(str(tmp_path / "less"))), logits(less))
    assert skills_of(out.network).names == ["letters", "numbers", "answers"]
    with skills_of(out.network).given(torch.eye(3)[2:]), own.given(torch.eye(2)[1:]):
        torch.testing.assert_close(logits(out), logits(less))
    grown = learned("transfer", stream("late"), less)
    assert skills_of(grown.network).names == ["letters", "answers", "late"]


def test_sapt_forgets_what_it_reflects_on_too():
    less = forget(learned("sapt"), tasks=("letters",))
    own = skills_of(less.network)
    assert own.names == ["numbers", "answers"]
    assert set(own.kept) == {"target.0", "pseudo.0", "target.1", "pseudo.1"}
    assert own.kept["target.1"].shape == (2,) and float(own.kept["target.1"].sum()) == pytest.approx(1)
    assert learned("sapt", stream("late"), less).finding.ap is not None


def test_answers_say_which_skills_they_used():
    out = learned("transfer")
    found = answer(out, texts=["numbers 3 9", "letters 1 1"], instruction="Count them", max_new_tokens=3)
    assert len(found.answers) == 2 and set(found.answers[0].weights) == {"letters", "numbers", "answers"}
    assert max(found.answers[0].weights, key=found.answers[0].weights.get) == "numbers"
    only = answer(out, texts=["numbers 3 9"], task="letters", max_new_tokens=2)
    assert only.answers[0].weights == {"letters": 1.0, "numbers": 0.0, "answers": 0.0}
    assert found.figures() and "Answers" in render_finding(found)


def test_an_answer_is_what_the_network_generates():
    out = learned("transfer")
    found = answer(out, texts=["numbers 3 9"], instruction="Count them", max_new_tokens=4).answers[0].answer
    batch = out.encode(["Count them\nnumbers 3 9\nOutput:"])
    ids = out.network.generate(**batch, max_new_tokens=4, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert found == out.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_one_task_is_folded_and_all_at_once_only_where_that_is_right():
    out = learned("transfer")
    single = merge(out, task="answers")
    assert skills_of(single.network) is None and "adaptation.continual" not in single.extras
    own = skills_of(out.network)
    with own.given(own.router.rows[own.index("answers")][None]):
        torch.testing.assert_close(logits(single), logits(out), rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInput, match=r"depends on the prompt.*--task"):
        merge(out)
    summed = learned("olora")
    torch.testing.assert_close(logits(merge(summed)), logits(summed), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(merge(summed, task="answers")), logits(summed), rtol=1e-4, atol=1e-5)
    mixed = learned("sapt")
    with skills_of(mixed.network).using("answers"):
        torch.testing.assert_close(logits(merge(mixed, task="answers")), logits(mixed), rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInput, match="soft prompts"):
        merge(learned("epi"), task="answers")


def test_other_looks_work_on_a_model_with_skills():
    from intarsia.interpretation import diff

    model = tiny("llama")
    out = learned("transfer", model=model)
    found = diff(out, against=model, texts=["Count them numbers 1", "Say the letter letters 2"])
    assert found.summary
    acts = ia.read(out, ["Count them\nnumbers 3 9\nOutput:"], at="layers.*.resid_post")
    plain = ia.read(model, ["Count them\nnumbers 3 9\nOutput:"], at="layers.*.resid_post")
    assert torch.equal(acts["layers.0.resid_post"], plain["layers.0.resid_post"])
    assert not torch.equal(acts["layers.3.resid_post"], plain["layers.3.resid_post"])


# ---- streams


def write(folder: Path, name: str, rows: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def rows(count: int = 6, **more) -> list[dict]:
    return [{"instruction": "Do it", "input": f"x {i}", "output": "yes", **more} for i in range(count)]


def test_a_folder_of_files_is_a_stream(tmp_path: Path):
    for task in ("task10_b", "task9_a"):
        write(tmp_path / "tasks", f"{task}.train.jsonl", rows())
        write(tmp_path / "tasks", f"{task}.val.jsonl", rows(2))
        write(tmp_path / "tasks", f"{task}.test.jsonl", rows(3, outputs=["yes", "yeah"]))
    found = read_stream(tmp_path / "tasks")
    assert list(dict.fromkeys(e.task for e in found)) == ["task9_a", "task10_b"]
    assert [e.split for e in found[:11]] == ["dev"] * 2 + ["test"] * 3 + ["train"] * 6
    assert found[2].targets == ("yes", "yeah") and found[0].prompt == "Do it\n\nx 0"
    assert read(tmp_path / "tasks") == found
    assert load_data(tmp_path / "tasks")["stream"] == load_data({"stream": tmp_path / "tasks"})["stream"] == found
    assert [e.task for e in read_stream(tmp_path / "tasks", ["task10_b"])] == ["task10_b"] * 11


def test_a_file_with_a_column_task_and_folders_of_splits_are_streams(tmp_path: Path):
    write(tmp_path, "all.jsonl", [*rows(task="b"), *rows(task="a", split="validation")])
    found = read_stream(tmp_path / "all.jsonl")
    assert [(e.task, e.split) for e in found] == [("b", "")] * 6 + [("a", "dev")] * 6
    assert read(tmp_path / "all.jsonl")[0].task == "b"
    (tmp_path / "tasks").mkdir()
    write(tmp_path / "tasks" / "one", "train.jsonl", rows())
    assert [e.task for e in read_stream(tmp_path / "tasks")] == ["one"] * 6


def test_splits_that_are_missing_are_set_aside():
    examples = [replace(e, split="") for e in stream("letters", count=50)]
    (task,), _ = tasks_of(examples)
    assert (len(task.train), len(task.dev), len(task.test)) == (36, 4, 10)
    assert not {e.input for e in task.train} & {e.input for e in (*task.dev, *task.test)}
    again, _ = tasks_of(examples, seed=0)
    assert again[0].test == task.test


@pytest.mark.parametrize(
    ("examples", "given", "told"),
    [
        ([], {}, "the stream is empty"),
        (stream("letters", count=4), {}, "2 training examples; at least 4"),
        ([replace(e, target="  ") for e in stream("letters")], {}, "no example has an output"),
        ([*stream("letters"), replace(THREE[0], target="")], {}, "1 of 25 examples have no output"),
        ([*stream("letters"), replace(THREE[0], instruction="")], {}, "some examples have an instruction"),
        (THREE, {"order": ("letters", "letters")}, "'letters' stands twice"),
        (THREE, {"order": ("leters",)}, "no task 'leters' (did you mean letters"),
        (THREE, {"order": ("letters",), "unseen": ("letters",)}, "learned and unseen"),
        (THREE, {"template": "{nothing}"}, "template"),
        (THREE, {"template": "same"}, "without {input}"),
        (THREE, {"targets": ("qq",)}, "no linear layer is called 'qq'"),
        (THREE, {"max_tokens": 8}, "the instruction alone takes"),
        ([*THREE, *[replace(e, task="letters!") for e in stream("letters")],
          *[replace(e, task="letters?") for e in stream("letters")]], {}, "would not be its own"),
        (THREE, {"method": "sapt-prompt", "trunk_cache": "float16"}, "works by prompts"),
    ],
)  # fmt: skip
def test_a_bad_stream_is_refused_before_anything_is_trained(examples, given, told, monkeypatch):
    def never(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(_learning, "teach", never)
    with pytest.raises(BadInput) as error:
        continual(tiny("llama"), stream=examples, **{**QUICK, **given})
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a.train.jsonl": [], "b.train.jsonl": rows()}, "a.train.jsonl: the file is empty"),
        ({"a.train.jsonl": rows(), "a.jsonl": rows()}, "the task 'a' is there twice"),
        ({"a.val.jsonl": rows(), "a.dev.jsonl": rows()}, "the task 'a' is there twice"),
        ({"a.train.jsonl": [{"text": "x", "label": "y"}]}, "a.train.jsonl: line 1: no column 'prompt'"),
        ({"a.train.jsonl": [*rows(2), {"messages": []}]}, "line 3"),
        ({"a.train.jsonl": rows(split="later")}, None),
    ],
)
def test_bad_files_of_tasks_are_told_of(files, told, tmp_path: Path):
    for name, content in files.items():
        write(tmp_path / "tasks", name, content)
    if told is None:
        assert read_stream(tmp_path / "tasks")[0].split == "train"  # the file's name says it
        return
    with pytest.raises(BadInput) as error:
        read_stream(tmp_path / "tasks")
    assert told in str(error.value)


def test_models_that_do_not_fit_are_refused(monkeypatch):
    out = learned("transfer")
    with pytest.raises(BadInput, match="tuned by the method transfer"):
        learned("sapt", stream("late"), out)
    with pytest.raises(BadInput, match="another template"):
        learned("transfer", stream("late"), out, template="{instruction}: {input}")
    with pytest.raises(BadInput, match="is there already"):
        learned("sapt", stream("letters"), learned("sapt"))
    with pytest.raises(BadInput, match="has no skills"):
        forget(tiny("llama"), tasks=("letters",))
    with pytest.raises(BadInput, match=r"no task 'leters' \(did you mean letters"):
        forget(out, tasks=("leters",))
    with pytest.raises(BadInput, match="keeps all tasks in one block"):
        forget(learned("sequential"), tasks=("letters",))
    with pytest.raises(BadInput, match="no task 'x'"):
        answer(out, texts=["a"], task="x")


# ---- the command


AFTER = """
import os, sys
from intarsia.adaptation.continual import learning
keep = learning.Course._keep

def kept(course, *given):
    keep(course, *given)
    if len(course.learned) == 2:
        os.kill(os.getpid(), 9)

learning.Course._keep = kept
from intarsia.cli import main
main(sys.argv[1:])
"""
AMID = """
import os, sys
from intarsia.adaptation.continual.methods.lfpt5 import LFPT5
from intarsia.adaptation.continual.methods.transfer import Transfer
aside = Transfer.lay_aside

def laid(method):
    if len(method.skills.names) == 3:
        os.kill(os.getpid(), 9)
    return aside(method)

Transfer._likeliest = lambda self, lesson: (0 if self.skills.names else None, {})
Transfer.lay_aside = laid
from intarsia.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("stop", [AFTER, AMID], ids=["after a task", "between two starts"])
def test_the_command_goes_on_after_kill_9_and_its_model_is_asked(stop: str, tmp_path: Path, monkeypatch, capsys):
    tiny("llama").save(tmp_path / "model")
    for name in ("letters", "numbers", "answers"):
        for split in ("train", "dev", "test"):
            some = [e for e in stream(name) if e.split == split]
            lines = [{"instruction": e.instruction, "input": e.input, "output": e.target} for e in some]
            write(tmp_path / "tasks", f"{name}.{split}.jsonl", lines)
    words = ["adaptation", "continual", "--model", "model", "--stream", "tasks", "--out", "skills", "--epochs", "1"]
    words += ["--rank", "2", "--order", "letters,numbers,answers", "--start-steps", "2"]
    monkeypatch.chdir(tmp_path)
    killed = subprocess.run([sys.executable, "-c", stop, *words], capture_output=True, check=False)
    assert killed.returncode == -9 and not (tmp_path / "skills").exists()

    def command(*given: str) -> str:
        code = app.run([*given])
        out, errors = capsys.readouterr()
        assert code == 0, errors
        return out + errors

    told = command(*words)
    assert "going on after numbers" in told and "AP" in told
    (tmp_path / "texts.txt").write_text("numbers 3 9\n")
    assert "numbers 3 9" in command("adaptation", "answer", "--model", "skills", "--texts", "texts.txt")
    command("adaptation", "forget", "--model", "skills", "--tasks", "numbers", "--out", "less")
    assert {p.name for p in (tmp_path / "less" / "skills").iterdir()} == {"letters", "answers", "state.safetensors"}


@pytest.mark.parametrize("embed", ["keep", "int8"])
def test_a_model_with_skills_is_quantized_with_them(embed: str, tmp_path: Path):
    from intarsia.compression import dequantize, quantize

    out = learned("transfer", epochs=4.0)
    plain = logits(tiny("llama"))
    small = quantize(out, bits=8, embed=embed)
    assert (logits(small) - logits(out)).norm() < (logits(out) - plain).norm() / 4
    small.save(tmp_path / "small")
    torch.testing.assert_close(logits(ia.load(str(tmp_path / "small"))), logits(small), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(logits(dequantize(small)), logits(small), rtol=1e-2, atol=1e-2)


# ---- judging


def test_an_answer_is_exact_when_greedy_decoding_writes_it_and_matches_but_for_case():
    from intarsia.adaptation.continual.reading import same

    examples = [replace(e, target="A" if e.task == "letters" else "b", targets=("A", "c")) for e in THREE[:48]]
    given_ = {"targets": ("all",), "layers_from": 0.25, "rank": 8, "epochs": 40.0, "learning_rate": 1e-2}
    exact = learned("sequential", examples[:24], **given_, judge="exact").finding
    match = learned("sequential", examples[:24], **given_, judge="match").finding
    rouge = learned("sequential", examples[:24], **given_, judge="rouge").finding
    assert exact.ap == match.ap == rouge.ap == 100
    assert same(" The  Answer! ", "the answer") and not same("the answer", "an answer")


def test_tasks_with_sentences_for_answers_are_judged_by_what_is_written():
    long = [replace(e, target="one two three four five six", targets=("one two three four five six",))
            for e in stream("letters")]  # fmt: skip
    finding = learned("sequential", [*long, *stream("numbers")], max_answer=8).finding
    assert [task.judged for task in finding.tasks] == ["rouge", "exact"]


def test_scores_that_cannot_have_changed_are_looked_up(monkeypatch):
    from intarsia.adaptation.continual.reading import Reader

    seen = []
    exact = Reader.exact
    monkeypatch.setattr(Reader, "exact", lambda self, rows, *more: seen.append(len(rows)) or exact(self, rows, *more))
    frozen = learned("oracle").finding
    often = sum(seen)
    seen.clear()
    moving = learned("sequential").finding
    assert often < sum(seen)
    assert frozen.forgetting == 0 and moving.matrix[0] is not None


# ---- other precisions, masks and modes


@pytest.mark.parametrize("method", ["transfer", "sapt", "l2p", "epi"])
def test_a_halved_network_still_tells_tasks_apart(method: str):
    out = learned(method)
    whole = skills_of(out.network).router.save()
    out.network.to(torch.bfloat16)
    own = skills_of(out.network).router
    torch.testing.assert_close(own.save(), whole, rtol=0, atol=0)
    assert logits(out).isfinite().all()
    half = tiny("llama", dtype=torch.bfloat16)
    assert continual(half, stream=THREE, method=method, **QUICK).finding.ap is not None


def test_a_static_cache_weighs_prompts_as_ever():
    out = learned("transfer")
    batch = dict(out.encode(["numbers 3 9", "Say the letter\nletters 12 17\nOutput:"], side="left"))
    own = skills_of(out.network)
    out.network(**batch)
    wanted = own.mixture.weights.clone()
    out.network.generate(**batch, max_new_tokens=3, do_sample=False, cache_implementation="static")
    torch.testing.assert_close(own.mixture.weights, wanted)
    soft = learned("epi")
    with pytest.raises(BadInput, match="leave out cache_implementation"):
        soft.network.generate(**batch, max_new_tokens=3, do_sample=False, cache_implementation="static")


def test_a_network_that_was_training_is_learned_without_its_dropout():
    model = tiny("gpt2")
    model.network.train()
    model.network.gradient_checkpointing_enable()
    one, two = (learned("transfer", model=model, keep=None).finding for _ in range(2))
    assert one.tasks[0].losses == two.tasks[0].losses
    assert model.network.training


def test_states_that_half_precision_cannot_hold_are_kept_whole(monkeypatch):
    from intarsia.errors import IntarsiaError

    model = tiny("llama")
    with torch.no_grad():
        model.network.get_input_embeddings().weight.mul_(1e6)
    assert learned("transfer", model=model).finding.ap is not None
    with pytest.raises(IntarsiaError, match="trunk_cache float32"):
        learned("transfer", model=model, trunk_cache="float16")


# ---- what a second run must not do


def test_a_folder_of_another_run_is_not_gone_on_from(tmp_path: Path):
    learned("transfer", keep=tmp_path)
    for given_ in ({"method": "sapt"}, {"learning_rate": 1e-2}, {"examples": stream("late")}, {"layers_from": 0.25}):
        method, examples = given_.pop("method", "transfer"), given_.pop("examples", None)
        with pytest.raises(BadInput, match="another run"):
            learned(method, examples, keep=tmp_path, **given_)


def test_a_second_run_draws_other_numbers_than_the_first():
    first = learned("olora", stream("letters"), learning_rate=1e-9)
    own = skills_of(learned("olora", stream("late"), first, learning_rate=1e-9).network)
    down = own.stacks[0].down
    assert not torch.allclose(down[:2], down[2:], atol=1e-3)


def test_a_task_that_comes_again_is_judged_again():
    easy = [replace(e, target="a", targets=("a",)) for e in stream("letters")]
    other = [replace(e, target="b", targets=("b",)) for e in stream("letters")]
    big = {"targets": ("all",), "layers_from": 0.25, "rank": 8, "epochs": 40.0, "learning_rate": 1e-2}
    first = learned("transfer", easy, **big)
    assert first.finding.ap == 100
    again = continual(first, stream=other, **{**QUICK, "epochs": 60.0, "learning_rate": 1e-2})
    assert again.finding.tasks[0].before == 0 and again.finding.ap == 100


def test_settings_that_a_bundle_keeps_cannot_be_changed():
    out = learned("transfer")
    for name, value in (("layers_from", 0.1), ("targets", ("q_proj",)), ("prompt_length", 3)):
        with pytest.raises(BadInput, match=f"tuned with {name}"):
            learned("transfer", stream("late"), out, **{name: value})
    with pytest.raises(BadInput, match="would not be its own"):
        learned("transfer", [replace(e, task="letters?") for e in stream("late")],
                learned("transfer", [replace(e, task="letters!") for e in stream("letters")]))  # fmt: skip


# ---- chances


def test_the_temperature_leaves_doubt_about_prompts_of_no_task():
    router = skills_of(learned("transfer").network).router
    assert router.temperature > 1
    from intarsia.adaptation.continual.routing.closed import fitted_temperature

    torch.manual_seed(0)
    scores = torch.randn(200, 3, dtype=torch.float64)
    true = torch.multinomial((scores).softmax(1), 1)[:, 0]
    assert fitted_temperature(7 * scores, true) == pytest.approx(7, rel=0.25)


def test_forward_transfer_is_against_blocks_that_learned_alone():
    finding = learned("transfer", single=True).finding
    assert len(finding.single) == 3 and finding.fwt is not None
    assert finding.single == [row[i] for i, row in enumerate(learned("oracle").finding.matrix)]


# ---- quantized bundles


@pytest.mark.parametrize("method", ["sapt", "l2p", "olora"])
def test_every_router_lives_through_quantizing(method: str, tmp_path: Path):
    from intarsia.compression import quantize

    small = quantize(learned(method), bits=8)
    small.save(tmp_path / "small")
    torch.testing.assert_close(logits(ia.load(str(tmp_path / "small"))), logits(small), rtol=1e-3, atol=1e-3)
    grown = continual(small, stream=stream("late"), method=method, **QUICK)
    assert grown.finding.ap is not None
    if method != "l2p":
        with pytest.raises(BadInput, match="fold before you quantize"):
            merge(small, task="letters")


def test_soft_prompts_load_in_peft(tmp_path: Path):
    peft = pytest.importorskip("peft")
    model = tiny("llama")
    out = learned("epi", model=model)
    out.save(tmp_path / "saved")
    adapted = peft.PeftModel.from_pretrained(
        model.copy().network, str(tmp_path / "saved" / "skills" / "numbers")
    ).eval()
    batch = model.encode(["Count them"])
    with skills_of(out.network).using("numbers"), torch.no_grad():
        found = out.network(**batch).logits
        wanted = adapted(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(wanted[:, -found.shape[1] :], found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["sapt-prompt", "progprompt", "lfpt5"])
def test_prompts_are_saved_with_what_their_mlp_added(method: str, tmp_path: Path, monkeypatch):
    finished = {}
    close = Prompts.close

    def closed(self):
        if self.new is not None:
            inner, _, outer = self.mlp
            assert inner.out_features == 6 and outer.weight.abs().sum() > 0  # it was trained
            finished[self.opened[0]] = (self.new + outer(inner(self.new).relu()))[0].detach().clone()
        close(self)

    monkeypatch.setattr(Prompts, "close", closed)
    out = learned(method, prompt_mlp=6)
    own = skills_of(out.network)
    out.save(tmp_path / "saved")
    back = ia.load(str(tmp_path / "saved"))
    for i, name in enumerate(own.names):
        file = load_file(tmp_path / "saved" / "skills" / name / "adapter_model.safetensors")
        assert file.keys() == {"prompt_embeddings"}
        torch.testing.assert_close(file["prompt_embeddings"], finished[i])
        with own.using(name), skills_of(back.network).using(name):
            torch.testing.assert_close(logits(back), logits(out))
    monkeypatch.setattr(Prompts, "close", close)
    plain = skills_of(learned(method).network).tensors()["prompts"]
    assert not torch.allclose(own.tensors()["prompts"], plain, atol=1e-4)


@pytest.mark.parametrize("method", ["sapt", "lfpt5"])
def test_encoder_decoders_write_samples(method: str, monkeypatch):
    from intarsia.adaptation.continual.reading import Reader

    written = []
    sampled = Reader.sampled

    def seen(self, asked, count, most, **settings):
        written.append(sampled(self, asked, count, most, **settings))
        text = self.model.tokenizer("Count them\nnumbers 1\nOutput: 2", add_special_tokens=False)["input_ids"]
        return [text] * 3  # a random network writes nothing that reads as an example

    rows_, write_ = [], LFPT5._write
    monkeypatch.setattr(LFPT5, "_write", lambda self, lesson: write_(self, lesson) or rows_.extend(self.written))
    monkeypatch.setattr(Reader, "sampled", seen)
    out = learned(method, stream("letters", "numbers"), tiny("t5"), layers_from=0, pseudo="generated")
    assert written and out.finding.ap is not None
    if method == "lfpt5":
        assert out.finding.tasks[1].facts["written"] == len(rows_) == 1
        assert list(rows_[0].answer) == Writer(out, "{input}", None, 50).answer("2")  # as the examples' own are


# ---- odd streams


def test_examples_that_say_less():
    bare = [TaskPair(f"{task} {i}?", "yes", task=task) for task in ("one", "two") for i in range(20)]
    out = learned("transfer", bare, judge="match")
    rows = out.finding.tasks
    assert [task.examples for task in rows] == [15, 15]
    assert learned("sequential", bare, judge="rouge").finding.ap is not None
    writer = Writer(tiny("llama"), "{instruction}\n{input}\nOutput:", None, 4)
    assert out.tokenizer.decode(writer.rows(bare[:1])[0].prompt) == "one 0?\nOutput:"
    with pytest.raises(BadInput, match="a prompt is empty"):
        Writer(tiny("llama"), "{input}", None, 4).prompt("", "")
    (task,), _ = tasks_of([bare[0]] * 12)
    assert len(task.train) + len(task.dev) + len(task.test) == 12 and task.test and task.dev


def test_contexts_that_are_too_short_say_so():
    with pytest.raises(BadInput, match="lower max_answer"):
        learned("transfer", max_answer=200)
    with pytest.raises(BadInput, match="beside 120 positions of soft prompts"):
        learned("sapt-prompt", prompt_length=120)
    long = [replace(e, input=e.input + " and so on" * 20) for e in stream("letters")]
    with pytest.warns(UserWarning, match="were cut"):
        assert learned("progprompt", long, tiny("gpt2"), max_answer=8).finding.ap is not None
