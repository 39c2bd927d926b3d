"""Continuations that share a prefix equal prompts that run one by one."""

from __future__ import annotations

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation import continuing, writing
from intarsia.interpretation.in_context.shots import label_choices
from intarsia.measure import LabelTask, score
from tests.tiny import tiny

FAMILIES = ["llama", "gpt2", "gemma3", "neox", "mixtral"]


def alone(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.network(torch.tensor([ids])).logits[0].double()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_after_a_shared_prefix_equal_separate_runs(family: str) -> None:
    model = tiny(family)
    head = list(range(40, 62))  # longer than gemma's window of 8
    rows = [[*head, 100, 101, 102], [*head, 100], head, [*head, *range(200, 215)]]
    keep = [3, 1, 1, 2]
    found = dict(continuing.read_ends(model, rows, keep))
    assert sorted(found) == [0, 1, 2, 3]
    for i, row in enumerate(rows):
        torch.testing.assert_close(found[i], alone(model, row)[-keep[i] :], rtol=1e-4, atol=1e-5)


def test_rows_with_nothing_in_common_and_a_row_that_is_all_wanted() -> None:
    model = tiny("llama")
    rows, keep = [[50, 51, 52], [60, 61]], [3, 1]
    for i, logits in continuing.read_ends(model, rows, keep):
        torch.testing.assert_close(logits, alone(model, rows[i])[-keep[i] :], rtol=1e-4, atol=1e-5)


def test_many_rows_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuing, "ROWS", 2)
    model = tiny("llama")
    rows = [[30, 31, *range(40, 40 + n)] for n in (5, 1, 3, 2, 4)]
    found = dict(continuing.read_ends(model, rows, [1] * 5))
    for i, row in enumerate(rows):
        torch.testing.assert_close(found[i][0], alone(model, row)[-1], rtol=1e-4, atol=1e-5)


def test_label_scores_equal_those_of_measure() -> None:
    model = tiny("llama")
    task = LabelTask(verbalisers={"a": " red", "b": " rot", "c": " blue"}, calibration="none")  # two begin alike
    texts = ["one text", "another one"]
    prompts = [continuing.encode(model, task.render(text)) for text in texts]
    choices = label_choices(task, model)
    found = continuing.choice_log_probs(model, prompts, [choices] * 2)
    expected = score(model, task, texts).raw
    assert torch.stack(found).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert torch.stack(found).exp().sum(1).tolist() == pytest.approx([1, 1])


def test_token_measures_equal_the_formulas() -> None:
    model = tiny("gpt2")
    prompt, tail = list(range(40, 50)), [70, 71, 72]
    ((log_p, entropy, top),) = continuing.token_log_probs(model, [prompt], [tail])
    logits = alone(model, [*prompt, *tail])[9:12]
    p = logits.softmax(-1)
    assert log_p.tolist() == pytest.approx([float(p[i, t].log()) for i, t in enumerate(tail)], rel=1e-4)
    assert entropy.tolist() == pytest.approx([float(-(row * row.log()).sum()) for row in p], rel=1e-4)
    assert top.tolist() == [int(row.argmax()) == t for row, t in zip(logits, tail, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_writing_equals_generate(family: str) -> None:
    model = tiny(family)
    ids = list(range(40, 55))
    written = writing.write(model, ids, samples=3, max_new_tokens=8)[0]
    with torch.no_grad():
        expected = model.network.generate(
            torch.tensor([ids]), max_new_tokens=8, min_new_tokens=1, do_sample=False, pad_token_id=0
        )[0, 15:].tolist()
    assert written.ids == [t for t in expected if t != 2]
    ((log_p, entropy, _),) = continuing.token_log_probs(model, [ids], [written.ids])
    assert written.log_probs == pytest.approx(log_p.tolist(), rel=1e-3, abs=1e-4)
    assert written.entropies == pytest.approx(entropy.tolist(), rel=1e-3, abs=1e-4)


def test_samples_follow_the_seed_and_their_scores_are_the_models_own() -> None:
    model = tiny("llama")
    ids = list(range(40, 50))
    settings = dict(samples=4, max_new_tokens=5, temperature=1.5)
    one, again = (writing.write(model, ids, seed=3, **settings) for _ in range(2))
    other = writing.write(model, ids, seed=4, **settings)
    assert [w.ids for w in one] == [w.ids for w in again] != [w.ids for w in other]
    assert len({tuple(w.ids) for w in one[1:]}) > 1
    for written in one:
        ((log_p, _, _),) = continuing.token_log_probs(model, [ids], [written.ids])
        assert written.log_probs == pytest.approx(log_p.tolist(), rel=1e-3, abs=1e-4)  # at temperature 1


def test_drawn_tokens_follow_the_distribution_and_the_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)).expand(20_000, -1)
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(writing._draw(logits, 1.0, 1.0, generator), minlength=4) / 20_000
    assert counts.tolist() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)
    nucleus = torch.bincount(writing._draw(logits, 1.0, 0.7, generator), minlength=4) / 20_000
    assert nucleus.tolist() == pytest.approx([0.625, 0.375, 0, 0], abs=0.015)


def test_stop_words_end_a_text_and_are_cut_off() -> None:
    model = tiny("llama")
    ids = list(range(40, 50))
    free = writing.write(model, ids, max_new_tokens=8)[0]
    stop = model.tokenizer.decode(free.ids)[3]
    cut = writing.write(model, ids, max_new_tokens=8, stop=(stop,))[0]
    assert stop not in cut.text and free.text.startswith(cut.text) and 1 <= len(cut.ids) < 8
    assert cut.log_probs == pytest.approx(free.log_probs[: len(cut.ids)])


def test_clear_errors() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="130 tokens"):
        list(continuing.read_ends(model, [[50] * 130], [1]))
    with pytest.raises(BadInput, match="context is 128"):
        writing.write(model, [50] * 120, max_new_tokens=9)
    with pytest.raises(BadInput, match="causal"):
        continuing.encode(tiny("bert"), "a")
    model.tokenizer.chat_template = None
    with pytest.raises(BadInput, match="chat template"):
        continuing.asked(model, "a", True)
