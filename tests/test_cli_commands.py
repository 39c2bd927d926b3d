"""The command line: what it prints, how it ends, and that nothing is lost on bad input."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import intarsia
from intarsia import catalog
from intarsia.cli import app
from intarsia.recipes import fingerprint
from tests import run_techniques

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    run_techniques.prepare(folder)
    return folder


@pytest.fixture
def cli(place, monkeypatch, capsys):
    """Run the command line in `place`; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(place)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run([str(a) for a in arguments])
        out, errors = capsys.readouterr()
        return code, out, errors

    return call


def names() -> list[str]:
    return [name for name, t in catalog.load().items() if t.kind != "learn" or t.subject is not None]


def test_help_lists_commands_and_rooms(cli):
    code, out, _ = cli("--help")
    assert code == 0
    for word in ("run", "show", "recipes", "catalog", "models", "doctor", "compression", "test", "Example:"):
        assert word in out


@pytest.mark.parametrize("arguments", [[], ["recipe"], ["compression"]])
def test_a_group_alone_shows_its_help(cli, arguments):
    code, out, errors = cli(*arguments)
    assert (code, errors) == (0, "") and out.startswith("Usage: intarsia") and "Example:" in out


def test_help_imports_no_torch():
    code = (
        "import sys; from intarsia.cli import app; app.run(['--help']); app.run(['catalog']);"
        "app.run(['compression', '--help']);"
        "assert not {'torch', 'transformers', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", names())
def test_every_technique_has_help_with_its_settings_and_an_example(cli, name):
    room, _, verb = name.partition(".")
    code, out, errors = cli(room, verb, "--help")
    assert code == 0 and not errors
    technique = catalog.find(name)
    for field in technique.config.model_fields:
        assert field.replace("_", "-") in out
    subject = "--model" if technique.subject is None else shlex.quote(technique.example["subject"])
    assert f"intarsia {room} {verb} {subject}" in out.split("Example:")[1]


@pytest.mark.parametrize("name", names())
def test_every_example_is_a_command_line_that_is_understood(name):
    from intarsia.cli import examples, techniques

    technique = catalog.find(name)
    for line in examples.example(technique).splitlines():
        words = shlex.split(line)
        if words[0] == "intarsia":
            made = techniques.command(catalog.find(f"{words[1]}.{words[2]}"))
            made.make_context(made.name, words[3:])


def test_words_of_a_command_may_be_joined_by_hyphens(cli):
    code, out, _ = cli("interpretation", "leave-one-out", "--help")
    assert code == 0 and "Leave one out" in out


@pytest.mark.parametrize("command", [*app.COMMANDS])
def test_every_command_has_help_with_an_example(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0 and "Example:" in out and f"intarsia {command}" in out


def test_version_and_module(cli):
    assert cli("--version")[1].strip() == f"intarsia {intarsia.__version__}"
    done = subprocess.run([sys.executable, "-m", "intarsia", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"intarsia {intarsia.__version__}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], "no command 'rnu' (did you mean run"),
        (["test", "prturb"], "no command 'prturb' (did you mean perturb"),
        (["test", "xyz"], "no command 'xyz'; there are: "),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "nosuch"], "no recipe 'nosuch'"),
        (["run", "recipe.yaml", "--oot", "x"], "No such option"),
        (["run", "recipe.yaml", "--set", "sead=1"], "did you mean seed"),
        (["recipe", "check", "bad.yaml"], "bad.yaml:2: unknown key 'stepz' (did you mean steps"),
        (["show", "nowhere"], "no bundle and no run there"),
        (["catalog", "tset"], "no room 'tset'"),
        (["test", "sum"], "Missing option '--model'"),
        (["test", "sum", "--model", "model"], "test.sum needs 'texts': give --texts FILE or --data SPEC"),
        (["test", "sum", "--model", "model", "--power", "two"], "power"),
        (["test", "sum", "--model", "nosuch", "--texts", "test.txt"], "no model 'nosuch'"),
        (["test", "sum", "--model", "model", "--texts", "nosuch.txt"], "nosuch.txt"),
        (["test", "perturb", "--model", "model", "--out", "x", "--kind", "nromal"], "normal"),
        (["test", "perturb", "--model", "model", "--out", "x", "--scale", "-1"], "scale"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(cli, place, arguments, words):
    (place / "bad.yaml").write_text("model: model\nstepz: []\n")
    code, out, errors = cli(*arguments)
    assert (code, out) == (2, "")
    assert errors.startswith("intarsia: ") and words in errors
    assert errors.strip().count("\n") <= 1 and "Traceback" not in errors
    assert not (place / "x").exists()


def test_where_nothing_is_said_of_it_a_change_is_saved_under_its_own_name_and_never_over_another(cli, place):
    try:
        code, out, errors = cli("test", "perturb", "--model", "model")
        assert code == 0 and "perturb-model" in out + errors and (place / "perturb-model" / "config.json").is_file()
        code, _, errors = cli("test", "perturb", "--model", "model")
        assert code == 2 and "perturb-model is there already: give another --out" in errors
    finally:
        shutil.rmtree(place / "perturb-model", ignore_errors=True)


def test_a_technique_may_name_the_model_to_begin_with(cli):
    for verb in ("dialogue", "label"):
        words = " ".join(cli("adaptation", verb, "--help")[1].split()).replace("- ", "-")
        assert "[default: smollm2-135m]" in words and f"[default: {verb}-model]" in words


def test_failures_are_exit_code_1_and_debug_shows_where(cli, place):
    code, _, errors = cli("test", "fail", "--model", "model", "--out", "never")
    assert code == 1 and errors.strip().endswith("intarsia: ZeroDivisionError: a bug (--debug shows where)")
    code, _, errors = cli("test", "fail", "--model", "model", "--out", "never", "--debug")
    assert code == 1 and "Traceback" in errors and "run_techniques" in errors
    assert not (place / "never").exists()


def test_catalog(cli):
    code, out, _ = cli("catalog", "test")
    assert code == 0 and "test.perturb" in out and "Add seeded noise to every weight." in out
    rows = json.loads(cli("catalog", "--json")[1])
    row = next(r for r in rows if r["name"] == "test.sum")
    assert row["inputs"]["texts"]["required"] and row["config"]["properties"]["power"]["default"] == 1


def test_models(cli):
    assert "smollm2-135m" in cli("models")[1]
    assert any(row["name"] == "minilm" for row in json.loads(cli("models", "--json")[1]))


def test_a_listing_that_is_piped_has_a_line_a_row_and_nothing_cut_off(cli):
    from intarsia.models.names import known_models

    lines = cli("models")[1].splitlines()
    assert len(lines) == 1 + len(known_models())
    for line, (name, model) in zip(lines[1:], known_models().items(), strict=True):
        assert line.startswith(name) and line.endswith(model.hub)


def test_notes_are_said_once_and_other_libraries_stay_silent(cli, place, monkeypatch):
    import warnings

    from intarsia.errors import Note

    def noisy(seconds):
        warnings.simplefilter("always")  # as some libraries do when they are imported
        warnings.warn("three texts\nwere cut", Note, stacklevel=1)
        warnings.warn("this will be removed in v9", FutureWarning, stacklevel=1)

    monkeypatch.setattr(run_techniques, "time", SimpleNamespace(sleep=noisy))
    before = warnings.showwarning, list(warnings.filters)
    for extra, expected in ([], "intarsia: note: three texts were cut\nsaved: noisy\n"), (["--quiet"], ""):
        arguments = ["test", "perturb", "--model", "model", "--out", "noisy", "--force", *extra]
        assert cli(*arguments) == (0, "", expected)
    with pytest.warns(FutureWarning, match="removed in v9"):
        errors = cli("test", "perturb", "--model", "model", "--out", "noisy", "--force", "--debug")[2]
    assert errors.count("three texts were cut") == 1
    assert (warnings.showwarning, list(warnings.filters)) == before


def test_recipes(cli):
    assert "python-docs" in cli("recipes")[1]
    assert "python-docs" in json.loads(cli("--json", "recipes")[1])


def test_doctor(cli, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = cli("doctor", "--json", "--quiet")
    checks = {row["name"]: row for row in json.loads(out)}
    assert code == 0, checks
    assert checks["engine"]["state"] == "ok" and "exactly" in checks["engine"]["found"]
    assert {"intarsia", "torch", "processor", "memory", "disk", "cache", "model hub", "catalog"} <= set(checks)
    assert any(name.startswith("extra ") for name in checks)


def test_doctor_reports_what_is_broken(cli, monkeypatch):
    from intarsia.cli import doctor

    def broken():
        raise RuntimeError("no luck")

    monkeypatch.setattr(doctor, "CHECKS", {"engine": broken})
    code, out, _ = cli("doctor")
    assert code == 1 and "broken" in out and "RuntimeError: no luck" in out


def test_a_look(cli, place):
    code, out, errors = cli(
        "test", "sum", "--model", "model", "--texts", "test.txt", "--names", "q_proj,k_proj", "--quiet"
    )
    assert code == 0 and errors == "" and "Sum of weights" in out
    code, out, _ = cli("test", "sum", "--model", "model", "--data", "test.txt", "--json", "--most", "1", "--no-fast")
    assert json.loads(out)["texts"] == 1
    code, out, _ = cli("test", "sum", "--model", "model", "--against", "model", "--texts", "test.txt", "--json")
    assert json.loads(out)["distance"] == 0


def test_a_look_writes_a_page_and_overwrites_none(cli, place):
    arguments = ["test", "sum", "--model", "model", "--texts", "test.txt", "--html", "page.html"]
    assert cli(*arguments)[0] == 0
    assert "Sum of weights" in (place / "page.html").read_text()
    (place / "page.html").write_text("mine")
    assert cli(*arguments)[0] == 2 and (place / "page.html").read_text() == "mine"
    assert cli(*arguments, "--force")[0] == 0 and (place / "page.html").read_text() != "mine"


def test_a_change_saves_and_overwrites_nothing(cli, place):
    arguments = ["test", "perturb", "--model", "model", "--out", "changed", "--scale", "0.1", "--seed", "4"]
    code, out, errors = cli(*arguments)
    assert (code, out) == (0, "") and "saved: changed" in errors
    weights = (place / "changed" / "model.safetensors").read_bytes()
    (place / "changed" / "mine.txt").write_text("mine")
    code, _, errors = cli(*arguments, "--kind", "uniform")
    assert code == 2 and "--force" in errors and (place / "changed" / "model.safetensors").read_bytes() == weights
    code, out, _ = cli(*arguments, "--kind", "uniform", "--force", "--json")
    assert code == 0 and json.loads(out)["changes"][-1]["kind"] == "uniform"
    assert (place / "changed" / "model.safetensors").read_bytes() != weights


def test_run_show_and_json(cli, place):
    code, out, errors = cli("run", "recipe.yaml", "--out", "runs/one", "--dry-run")
    assert code == 0 and "4. test.sum on base, tuned, small" in out and not (place / "runs").exists()
    code, out, errors = cli("run", "recipe.yaml", "--out", "runs/one")
    assert code == 0, errors
    assert "small (twice)" in out and out.strip().endswith("report.html")
    assert "recipe 0/7" in errors  # plain lines where there is no terminal
    code, out, errors = cli("run", "recipe.yaml", "--out", "runs/one", "--json")
    assert json.loads(out)["headline"]["rows"][0][0] == "base" and errors == ""
    code, out, _ = cli("show", "one")
    assert code == 0 and "test.sum on small against base" in out and "The weights were summed." in out
    assert json.loads(cli("show", "runs/one", "--json")[1])["finished"] is True
    code, out, _ = cli("show", "runs/one/bundle", "--full")
    assert code == 0 and "Sum" in out


def test_show_finds_a_run_beside_another_folder_of_its_name(cli, place):
    assert cli("run", "recipe.yaml", "--out", "runs/twin", "--quiet")[0] == 0
    (place / "twin").mkdir()
    assert cli("show", "twin")[0] == 0
    code, _, errors = cli("show", "twim")
    assert code == 2 and "did you mean twin" in errors


def test_tidy_removes_steps_of_another_version(cli, place):
    assert cli("run", "recipe.yaml", "--out", "runs/tidy", "--quiet")[0] == 0
    assert cli("recipe", "tidy", "runs/tidy")[1] == "0.0 MB freed\n"
    assert cli("run", "recipe.yaml", "--out", "runs/tidy", "--set", "steps.3.scale=2", "--quiet")[0] == 0
    assert json.loads(cli("recipe", "tidy", "runs/tidy", "--json")[1])["freed"] > 0
    assert cli("recipe", "tidy", "nowhere")[0] == 2


def test_run_with_overrides_records_them(cli, place):
    assert cli("run", "recipe.yaml", "--out", "runs/set", "--set", "test.perturb.scale=0.5", "--quiet")[0] == 0
    text = (place / "runs" / "set" / "bundle" / "recipe.yaml").read_text()
    assert text.count("scale: 0.5") == 2
    # The bundle's own recipe repeats the run.
    assert cli("run", place / "runs/set/bundle/recipe.yaml", "--out", "runs/set2", "--quiet")[0] == 0
    assert fingerprint(place / "runs/set") == fingerprint(place / "runs/set2")


def test_ctrl_c_says_how_to_go_on_and_ends_with_130(tmp_path):
    recipe = run_techniques.prepare(tmp_path, pause=5)
    command = [sys.executable, "-m", "tests.run_techniques", "run", str(recipe), "--out", str(tmp_path / "run")]
    # An environment where SIGINT is ignored (a background job of a shell) would be inherited.
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), env={**os.environ},
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list((tmp_path / "run" / "steps").glob("02-*.tmp*")) if (tmp_path / "run").exists() else True:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    last = errors.strip().splitlines()[-1]
    assert last == "intarsia: stopped; 1 step is finished and kept: give the same command again to go on"
    assert "Traceback" not in errors
    assert [p.name[:2] for p in (tmp_path / "run" / "steps").iterdir()] == ["01"]
