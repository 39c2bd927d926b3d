"""A recipe is checked wholly before any work starts, and every complaint says the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intarsia.errors import BadInput, IntarsiaError, MissingExtra
from intarsia.recipes import Recipe, marks, shipped
from tests import run_techniques

GOOD = run_techniques.RECIPE.replace("PAUSE", "0")


def parse(text: str, tmp_path, settings: tuple[str, ...] = ()) -> Recipe:
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text("a\nb\n", encoding="utf-8")
    return Recipe.parse(text, name="r", base=tmp_path, label="r.yaml", settings=settings)


def test_reads_steps_states_and_defaults(tmp_path):
    recipe = parse(GOOD, tmp_path)
    assert recipe.name == "tiny" and recipe.seed == 3
    assert [step.technique.name for step in recipe.steps] == ["test.sum", "test.perturb"] + ["test.perturb"] + [
        "test.sum"
    ] * 2
    assert [step.on for step in recipe.steps][:3] == [("base",), ("base",), ("tuned",)]
    assert recipe.steps[3].on == ("base", "tuned", "small")
    assert recipe.steps[4].models == {"against": "base"}
    assert recipe.steps[2].config.scale == 0.01  # 1e-2 is a number here, which YAML 1.1 takes for a word


def test_states_get_default_names(tmp_path):
    steps = "steps: [test.perturb, test.perturb: {on: base}, test.sum: {against: perturb-2, on: perturb}]"
    recipe = parse(f"model: m\ndata: {{test: test.txt}}\n{steps}", tmp_path)
    assert [step.state for step in recipe.steps] == ["perturb", "perturb-2", None]
    assert recipe.steps[1].on == ("base",)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("seed: 3", "sede: 3", 4, "unknown key 'sede' (did you mean seed"),
        ("seed: 3", "seed: three", 4, "seed: a whole number"),
        ("seed: 3", "seed: true", 4, "seed: a whole number"),
        ("seed: 3", "seed: 3\nseed: 4", 5, "second time"),
        ("seed: 3", "threads: 0", 4, "threads"),
        ("name: tiny", "name: a/b", 1, "name:"),
        ("model: model", "model: ./nowhere", 2, "nowhere"),
        ("model: model", "model: [a]", 2, "model:"),
        ("model: model\n", "", None, "the recipe needs 'model:'"),
        ("test: test.txt", "test: tset.txt", 3, "did you mean test.txt"),
        ("{train: train.txt, test: test.txt}", "[a]", 3, "data:"),
        ("  - test.sum: {on: base}", "  - test.sun: {on: base}", 6, "no technique 'test.sun' (did you mean test.sum"),
        ("  - test.sum: {on: base}", "  - 3", 6, "a step is"),
        ("  - test.sum: {on: base}", "  - {as: x}", 6, "needs a technique"),
        ("  - test.sum: {on: base}", "  - test.sum: {on: base}\n    as: x", 7, "changes nothing"),
        ("  - test.sum: {on: base}", "  - test.sum: {on: base}\n    if: x", 7, "unknown key 'if'"),
        ("  - test.sum: {on: base}", "  - test.sum: {on: bsae}", 6, "no state 'bsae' so far (did you mean base"),
        ("  - test.sum: {on: base}", "  - test.sum: {on: tuned}", 6, "no state 'tuned' so far"),
        ("  - test.sum: {on: base}", "  - test.sum: {on: []}", 6, "at least one"),
        ("  - test.sum: {on: base}", "  - test.sum: {on: [base, base]}", 6, "twice"),
        ("  - test.sum: {on: base}", "  - test.sum:\n      on: base\n      pwoer: 2", 8, "did you mean power"),
        ("  - test.sum: {on: base}", "  - test.sum:\n      on: base\n      power: two", 8, "power"),
        ("  - test.sum: {on: base}", "  - test.sum: {texts: tset}", 6, "no split 'tset' (did you mean test"),
        ("  - test.sum: {on: base}", "  - test.sum: 3", 6, "settings are wanted"),
        ("  - test.sum: {on: base}", "  - test.needy: {rate: 1}", 6, "needs a split 'pairs'"),
        ("  - test.sum: {on: base}", "  - test.needy: {}", 6, "rate"),
        ("scale: 0.05", "scale: -1", 7, "scale"),
        ("    as: small", "    as: tuned", 10, "there is a state 'tuned' already"),
        ("    as: small", "    as: base", 10, "there is a state 'base' already"),
        ("    as: small", "    as: a b", 10, "as:"),
        ("against: base", "against: bas", 12, "no state 'bas'"),
        ("seed: 3", "seed: [3", 5, "not YAML"),
        ("seed: 3", "seed: *x", 4, "not YAML"),
        ("seed: 3", "seed: !!python/object:os.system x", 4, "not YAML"),
    ],
)  # fmt: skip
def test_complaints_say_the_line(tmp_path, old, new, line, words):
    assert old in GOOD
    with pytest.raises(BadInput) as error:
        parse(GOOD.replace(old, new, 1), tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"r.yaml:{line}:" if line else "r.yaml:")
    assert error.value.exit_code == 2


def test_a_recipe_without_data_says_so(tmp_path):
    with pytest.raises(BadInput, match=r"r.yaml:2: test.sum needs a split 'texts'; the recipe names no 'data:'"):
        parse("model: m\nsteps: [test.sum]", tmp_path)


def test_missing_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("intarsia.recipes.steps.lacking", lambda extra: ["codecarbon"])
    text = GOOD.replace("  - test.sum: {on: base}", "  - test.needy: {rate: 1, pairs: train}")
    with pytest.raises(
        MissingExtra, match=r"r.yaml:6: test.needy \(codecarbon\) needs the extra 'energy': pip install"
    ):
        parse(text, tmp_path)


@pytest.mark.parametrize("text", ["", "- a", "word", "3", "steps: []", "model: m", "model: m\nsteps: 3", "? [a]\n: b"])
def test_what_is_no_recipe_is_refused(tmp_path, text):
    with pytest.raises(BadInput, match=r"r.yaml"):
        parse(text, tmp_path)


def test_aliases_work_and_loops_do_not(tmp_path):
    recipe = parse("model: m\ndata: {test: test.txt}\nsteps: [test.sum: &s {power: 2}, test.sum: *s]", tmp_path)
    assert [step.config.power for step in recipe.steps] == [2, 2]
    with pytest.raises(BadInput, match="alias"):
        parse("model: &m [*m]\nsteps: [test.sum]", tmp_path)


def test_overrides(tmp_path):
    settings = ("seed=9", "test.perturb.rounds=2", "steps.1.power=3", "test.sum.names=[q, k]")
    recipe = parse(GOOD, tmp_path, settings)
    assert recipe.seed == 9
    assert [step.config.rounds for step in recipe.steps if step.state] == [2, 2]
    assert recipe.steps[0].config.power == 3 and recipe.steps[3].config.power == 1
    assert recipe.steps[3].config.names == ["q", "k"]
    again = parse(recipe.to_yaml(), tmp_path)
    assert [step.config for step in again.steps] == [step.config for step in recipe.steps]


@pytest.mark.parametrize(
    "setting", ["seed", "=3", "sead=3", "steps.9.power=2", "test.perturb.scael=1", "test.perturb.scale=-1", "seed=[1"]
)
def test_bad_overrides(tmp_path, setting):
    with pytest.raises(BadInput):
        parse(GOOD, tmp_path, (setting,))


def test_to_yaml_runs_from_anywhere(tmp_path):
    (tmp_path / "model").mkdir()
    document = marks.parse(parse(GOOD, tmp_path).to_yaml()).value
    assert document["model"] == str(tmp_path / "model")
    assert document["data"]["train"] == str(tmp_path / "train.txt")


def test_read_finds_files_and_shipped(tmp_path):
    assert "python-docs" in shipped()
    with pytest.raises(BadInput, match="did you mean python-docs"):
        Recipe.read("python-dosc")
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"model: \xff\n")
    with pytest.raises(BadInput, match="not UTF-8"):
        Recipe.read(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab:-# {}[]*&!", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "model", "data", "seed", "steps", "test.sum", "as", "on", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(values)
def test_any_document_is_read_or_refused_in_one_line(document):
    import yaml

    text = yaml.safe_dump(document)
    try:
        Recipe.parse(text, label="r.yaml")
    except IntarsiaError as error:
        assert "\n" not in str(error)


@given(st.text("model: steps-\n&*!|>[]{}'\"#%@,?\t", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        Recipe.parse(text, label="r.yaml")
    except IntarsiaError as error:
        assert str(error).startswith("r.yaml")
