"""`LabelTask`, the prefix trie and the cutting of prompts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.data import LabelledText
from intarsia.errors import BadInput
from intarsia.measure import trie as tries
from intarsia.measure.labels import LabelTask
from intarsia.measure.prompts import encode_prompts
from tests.tiny import tiny


def task(*words: str, **settings) -> LabelTask:
    return LabelTask(verbalisers={word: " " + word for word in words}, **settings)


def records(*labels: str) -> list[LabelledText]:
    return [LabelledText(f"text {i}", label) for i, label in enumerate(labels)]


def test_defaults_from_records():
    made = LabelTask.from_records(records("Data_Types", "math", "math"))
    assert made.verbalisers == {"Data_Types": " data types", "math": " math"}
    assert made.prior == pytest.approx([2 / 5, 3 / 5])
    assert made.template.count("{text}") == 1 and "{context}" not in made.template


def test_context_in_the_default_template():
    made = LabelTask.from_records([LabelledText("b", "x", context=("a",)), LabelledText("c", "y")])
    assert made.render("b", ("a1", "a2")).startswith("a1\na2\nb")


def test_clashing_labels_keep_their_spelling():
    with pytest.warns(UserWarning, match="same word"):
        made = LabelTask.from_records(records("a-b", "a_b", "c"))
    assert made.verbalisers == {"a-b": " a-b", "a_b": " a_b", "c": " c"}


@pytest.mark.parametrize("given_labels", [(), ("one",), ("one", "one")])
def test_too_few_labels(given_labels):
    with pytest.raises(BadInput, match="label"):
        LabelTask.from_records(records(*given_labels))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"template": "no place"}, "{text}"),
        ({"template": "{text} {text}"}, "{text}"),
        ({"template": "{text}: "}, "space"),
        ({"verbalisers": {"a": " a"}}, "two labels"),
        ({"verbalisers": {"a": " a", "b": " "}}, "empty"),
        ({"prior": [1.0]}, "prior"),
        ({"prior": [1.0, 0.0]}, "above zero"),
        ({"labels": ["a", "c"]}, "differ"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_a_bad_task_says_what_is_wrong(change, says):
    with pytest.raises(BadInput, match=says):
        LabelTask.parse({"verbalisers": {"a": " a", "b": " b"}} | change)


def test_travels_in_extras():
    model = tiny("llama")
    assert LabelTask.of(model) is None
    made = task("a", "b", prior=[0.25, 0.75], temperature=2.0)
    made.attach(model)
    assert LabelTask.of(model) == made


def test_an_unknown_label_is_named():
    with pytest.raises(BadInput, match=r"'jey'.*did you mean joy"):
        task("joy", "anger").index(records("joy", "jey"), "test")


@given(st.text(max_size=30))
def test_braces_in_texts_are_left_alone(text):
    made = task("a", "b", template="[{context}] {text}\n:")
    assert made.render(text + "{context}", ("{text}",)) == "[{text}] " + text + "{context}\n:"


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=2, max_size=7, unique_by=tuple))
def test_every_leaf_is_reached_by_its_own_steps(sequences):
    begun = any(a != b and b[: len(a)] == a for a in sequences for b in sequences)
    if begun:
        with pytest.raises(BadInput, match="told apart"):
            tries.build(sequences)
        return
    trie = tries.build(sequences)
    taken = [[(n.path, n.branches[b]) for n, b in trie.steps(y)] for y in range(len(sequences))]
    assert len({tuple(t) for t in taken}) == len(sequences)
    for sequence, steps in zip(sequences, taken, strict=True):
        for path, token in steps:
            assert tuple(sequence[: len(path) + 1]) == (*path, token)
    # Nodes are exactly the prefixes where at least two next tokens occur.
    prefixes = {tuple(s[:i]) for s in sequences for i in range(len(s))}
    parting = {
        p for p in prefixes if len({s[len(p)] for s in sequences if tuple(s[: len(p)]) == p and len(s) > len(p)}) > 1
    }
    assert {n.path for n in trie.nodes} == parting


def test_one_forward_when_first_tokens_differ():
    tokenizer = tiny("llama").tokenizer
    alike = tries.of_task(LabelTask(verbalisers={"joy": "joy", "anger": "anger"}), tokenizer)
    assert alike.flat and alike.depth == 0
    # Byte tokens: the leading space is shared, so paths part one token in.
    spaced = tries.of_task(task("joy", "anger"), tokenizer)
    assert [n.path for n in spaced.nodes] == [tuple(tokenizer(" ", add_special_tokens=False)["input_ids"])]


def test_a_word_that_begins_another_is_closed():
    tokenizer = tiny("llama").tokenizer
    trie = tries.of_task(task("new", "new york"), tokenizer)
    assert tokenizer.decode(trie.sequences[0]) == " new\n"
    assert tokenizer.decode(trie.sequences[1]) == " new york"


def test_the_same_word_twice_is_refused():
    with pytest.raises(BadInput, match="'a' and 'b' cannot be told apart"):
        tries.of_task(LabelTask(verbalisers={"a": " x", "b": " x"}), tiny("llama").tokenizer)


@pytest.mark.parametrize("bos", [False, True])
def test_long_texts_are_cut_in_the_text_never_in_the_cue(bos):
    model = tiny("llama", bos=bos)
    made = task("a", "b", template="<<{context}|{text}\nLabel:")
    long = LabelledText("word " * 60, "a", context=("first turn", "second turn"))
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to fit 127 tokens"):
        prompts = encode_prompts(model, made, [long, LabelledText("short", "b", context=("x",))])
    cut, short = (model.tokenizer.decode(row, skip_special_tokens=True) for row in prompts.ids)
    assert prompts.cut == 1 and len(prompts.ids[0]) <= 127 and prompts.limit == 127
    assert cut.startswith("<<|word word") and cut.endswith("\nLabel:")
    assert len(prompts.ids[0]) > 115  # no more is cut than must be
    assert short == "<<x|short\nLabel:"


def test_old_turns_go_before_the_text():
    model = tiny("llama")
    made = task("a", "b", template="{context}|{text}\n:", max_tokens=40)
    with pytest.warns(UserWarning, match="cut"):
        prompts = encode_prompts(model, made, [LabelledText("the text", "a", context=("old " * 20, "new turn"))])
    assert model.tokenizer.decode(prompts.ids[0]) == "new turn|the text\n:"


def test_a_template_that_is_too_long_is_refused():
    made = task("a", "b", template="x" * 30 + "{text}:", max_tokens=20)
    with pytest.raises(BadInput, match="template alone takes 31 tokens"):
        encode_prompts(tiny("llama"), made, records("a"))
