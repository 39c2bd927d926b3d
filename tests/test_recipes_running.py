"""A run is resumable at any moment, never half-writes, and ends with the same bundle however often it was disturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from intarsia.errors import BadInput, IntarsiaError
from intarsia.progress import Event
from intarsia.recipes import Bundle, Recipe, fingerprint, run, status, tidy
from intarsia.recipes.folder import RunFolder
from tests import run_techniques

SCRIPT = """
import sys
from tests import run_techniques
from intarsia.recipes import run
run(sys.argv[1], sys.argv[2])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    run_techniques.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(place) -> Bundle:
    return run(place / "recipe.yaml", place / "undisturbed")


def start(recipe: Path, folder: Path) -> subprocess.Popen:
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", SCRIPT, str(recipe), str(folder)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def test_the_bundle(place, undisturbed):
    root = undisturbed.path
    assert sorted(p.name for p in root.iterdir()) == sorted(
        ["model", "findings", "clock.json", "manifest.json", "recipe.yaml", "report.html"]
    )
    assert [f.technique for f in undisturbed.findings] == ["test.sum"] * 5
    assert [e.on for e in undisturbed.entries] == ["base", "base", "tuned", "small", "small"]
    manifest = undisturbed.manifest
    assert manifest["states"] == ["base", "tuned", "small"] and manifest["final"] == "small"
    assert manifest["data"]["splits"]["train"]["records"] == 3
    assert manifest["model"]["sha256"] and manifest["seed"] == 3 and manifest["threads"] >= 1
    assert "torch" in manifest["versions"] and manifest["command"].startswith("intarsia run")
    # What the clock says stands in clock.json alone.
    for file in (root / "findings").iterdir():
        assert not {"seconds", "process"} & set(json.loads(file.read_text()))
    assert all(f.seconds > 0 and f.process == os.getpid() for f in undisturbed.findings)
    model = undisturbed.model()
    assert [c["technique"] for c in model.identity.changes] == ["test.perturb"] * 2
    assert sum(float(v.double().sum()) for v in model.network.state_dict().values()) == undisturbed.findings[3].total


def test_weights_are_not_kept_twice(undisturbed):
    weights = next(undisturbed.path.joinpath("model").glob("*.safetensors"))
    assert weights.stat().st_nlink == 2


def test_findings_carry_their_provenance(undisturbed):
    last = undisturbed.findings[-1]
    assert last.provenance["state"] == "small" and last.provenance["against"] == "base"
    assert last.provenance["changes"] == ["test.perturb"] * 2
    assert last.texts == 2  # `texts` takes the test split


def test_looks_share_a_seed_and_changes_do_not(undisturbed):
    seeds = [step["seed"] for step in undisturbed.manifest["steps"]]
    assert len({seeds[i] for i in (0, 3, 4, 5, 6)}) == 1
    assert seeds[1] != seeds[2]
    assert len({f.draw for f in undisturbed.findings}) == 1  # the global generator is seeded before each


def test_headline(undisturbed):
    table = undisturbed.headline()
    assert [c.name for c in table.columns] == ["model", "total", "distance"]
    names = [row[0] for row in table.rows]
    assert names == ["base", "base (twice)", "tuned", "tuned (twice)", "small", "small (twice)"]
    base, twice = table.rows[0], table.rows[1]
    assert twice[1] == 2 * base[1] and base[2] is None and table.rows[4][2] > 0


def test_a_figure_given_twice_says_against_what(place):
    from intarsia.recipes.headline import Entry, headline
    from tests.run_techniques import Sum

    def entry(number: int, against: str, distance: float) -> Entry:
        finding = Sum(total=0, texts=0, seconds=0, process=0, distance=distance)
        return Entry(number, "test.sum", "small", (against,), "f", finding)

    table = headline([entry(1, "base", 2.0), entry(2, "tuned", 1.0)])
    assert [c.name for c in table.columns] == ["model", "distance vs base", "distance vs tuned", "total"]
    assert table.rows[0] == ["small", 2.0, 1.0, None]


def test_two_runs_agree_byte_for_byte(place, undisturbed):
    again = run(place / "recipe.yaml", place / "again")
    assert fingerprint(again) == fingerprint(undisturbed)
    assert "clock.json" not in fingerprint(again) and "model/model.safetensors" in fingerprint(again)


def test_a_finished_run_is_left_alone(place, undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.path.rglob("*")}
    run(place / "recipe.yaml", place / "undisturbed")
    assert {p: p.stat().st_mtime_ns for p in undisturbed.path.rglob("*")} == before


def steps_of(folder: Path) -> dict[str, int]:
    return {p.name: (p / "step.json").stat().st_mtime_ns for p in (folder / "steps").iterdir()}


def test_only_what_is_missing_runs_again(place, undisturbed):
    folder = place / "partly"
    shutil.copytree(place / "undisturbed", folder)
    shutil.rmtree(folder / "bundle")
    before = steps_of(folder)
    gone = next(name for name in before if name.startswith("03-"))
    shutil.rmtree(folder / "steps" / gone)
    beats: list[Event] = []
    again = run(place / "recipe.yaml", folder, progress=beats.append)
    after = steps_of(folder)
    assert {n for n in after if after[n] != before.get(n)} == {gone}
    assert any(b.task == "perturbing" and b.done == b.total for b in beats)
    assert fingerprint(again) == fingerprint(undisturbed)


def test_a_changed_setting_runs_that_step_and_those_above_it(place):
    folder = place / "changed"
    run(place / "recipe.yaml", folder)
    before = steps_of(folder)
    bundle = run(Recipe.read(place / "recipe.yaml", ("steps.3.scale=0.5",)), folder)
    new = sorted(set(steps_of(folder)) - set(before))
    assert [name[:2] for name in new] == ["03", "04", "05"]  # of step 4, the looks at base and tuned stay
    assert set(before) <= set(steps_of(folder))  # the other version's steps are kept...
    assert bundle.manifest["steps"][2]["settings"]["scale"] == 0.5
    assert run(place / "recipe.yaml", folder).manifest["steps"][2]["settings"]["scale"] == 0.01
    assert set(steps_of(folder)) == set(before) | set(new)  # ...so that going back costs nothing
    assert tidy(folder) > 0 and set(steps_of(folder)) == set(before)


def test_a_look_put_in_between_leaves_the_rest_finished(place):
    folder = place / "between"
    run(place / "recipe.yaml", folder)
    before = steps_of(folder)
    text = (place / "recipe.yaml").read_text().replace("  - test.sum: {on: base}", "  - test.sum: {on: base, power: 2}")
    text = text.replace("steps:\n", "steps:\n  - test.sum: {on: base}\n")
    run(Recipe.parse(text, name="between", base=place), folder)
    assert len(set(steps_of(folder)) - set(before)) == 1


def test_changed_data_runs_what_reads_it(place):
    folder = place / "data"
    shutil.copytree(place / "model", folder / "model")
    (folder / "recipe.yaml").write_text((place / "recipe.yaml").read_text())
    (folder / "train.txt").write_text("a\nb\n")
    (folder / "test.txt").write_text("c\nd\n")
    run(folder / "recipe.yaml", folder / "run")
    before = steps_of(folder / "run")
    (folder / "test.txt").write_text("c\ne\n")
    run(folder / "recipe.yaml", folder / "run")
    new = set(steps_of(folder / "run")) - set(before)
    assert len(new) == 4 and all("test.sum" in name for name in new)


def test_force_starts_afresh(place):
    folder = place / "force"
    one = run(place / "recipe.yaml", folder)
    before, mark = steps_of(folder), fingerprint(one)
    two = run(place / "recipe.yaml", folder, force=True)
    after = steps_of(folder)
    assert set(after) == set(before) and all(after[n] != before[n] for n in after)
    assert fingerprint(two) == mark


def test_what_was_given_is_never_touched(place, undisturbed):
    from intarsia.models import load
    from intarsia.recipes.plan import weights_hash

    assert weights_hash(load(place / "model")) == undisturbed.manifest["model"]["sha256"]


def test_a_foreign_folder_is_refused(place, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BadInput, match="holds other things"):
        run(place / "recipe.yaml", tmp_path)
    with pytest.raises(BadInput, match="is a file"):
        run(place / "recipe.yaml", tmp_path / "thesis.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_runs_in_one_folder_are_refused(place):
    folder = RunFolder(place / "locked")
    with folder.owned():
        with pytest.raises(BadInput, match=f"in use by process {os.getpid()}"):
            run(place / "recipe.yaml", folder.path)
    run(place / "recipe.yaml", folder.path)


def test_the_lock_of_a_dead_process_does_not_block(place, tmp_path):
    slow = run_techniques.prepare(tmp_path / "slow", pause=5)
    process = start(slow, tmp_path / "run")
    wait_for(lambda: list((tmp_path / "run" / "steps").glob("02-*.tmp*")), process)
    with pytest.raises(BadInput, match=f"in use by process {process.pid}"):
        run(slow, tmp_path / "run")
    process.kill()
    process.wait()
    assert list((tmp_path / "run" / "steps").glob("*.tmp*"))
    with RunFolder(tmp_path / "run").owned():
        assert not list((tmp_path / "run" / "steps").glob("*.tmp*"))


def wait_for(what, process: subprocess.Popen, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not what():
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.stderr.read().decode()}")
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_six_times_at_random_ends_the_same(tmp_path):
    recipe = run_techniques.prepare(tmp_path, pause=0.02)
    seed = random.randrange(10**6)
    print(f"seed of the delays: {seed}")
    delays = random.Random(seed)
    expected = run(recipe, tmp_path / "whole", progress=None)
    folder = tmp_path / "killed"
    kills = 0
    while kills < 6:
        process = start(recipe, folder)
        # The clock starts when the process owns the folder, or importing torch would get most of the kills.
        wait_for(lambda: (folder / ".owner").exists(), process)
        time.sleep(delays.uniform(0.0, 0.9))
        process.kill()
        process.wait()
        kills += 1
        (folder / ".owner").unlink(missing_ok=True)
        if kills in (3, 5):  # otherwise the later kills would meet a finished run
            for step in list((folder / "steps").glob("0[3-5]*")):
                shutil.rmtree(step)
            shutil.rmtree(folder / "bundle", ignore_errors=True)
        for step in (folder / "steps").iterdir():
            assert ".tmp" in step.name or (step / "step.json").is_file()
        assert not (folder / "bundle").exists() or Bundle.open(folder / "bundle").report.is_file()
    again = run(recipe, folder)
    left, right = fingerprint(again), fingerprint(expected)
    assert left == right, {k for k in left.keys() | right.keys() if left.get(k) != right.get(k)}
    assert not [p for p in folder.rglob("*") if ".tmp" in p.name]


def test_interrupt_keeps_finished_steps_and_says_how_to_go_on(place):
    text = (place / "recipe.yaml").read_text() + "  - test.fail: {how: interrupt}\n"
    with pytest.raises(KeyboardInterrupt, match="7 steps are finished and kept: give the same command again"):
        run(Recipe.parse(text, name="x", base=place), place / "interrupted")
    assert len(steps_of(place / "interrupted")) == 6  # the two looks at base are one piece of work

    assert not [p for p in (place / "interrupted").rglob("*") if ".tmp" in p.name]
    assert not (place / "interrupted" / "bundle").exists()
    state = status(place / "interrupted")
    assert [done for _, done in state.units] == [True] * 7 + [False] and len(state.entries) == 5
    assert state.headline().rows[0][0] == "base"
    with pytest.raises(BadInput, match="not finished"):
        Bundle.open(place / "interrupted")


@pytest.mark.parametrize("how", ["disk", "wrapped disk"])
def test_a_full_disk_in_a_step(place, how):
    folder = place / f"full-{how[:2]}"
    text = (place / "recipe.yaml").read_text() + f"  - test.fail: {{how: {how}}}\n"
    with pytest.raises(IntarsiaError, match=r"the disk is full: .* finished steps are kept"):
        run(Recipe.parse(text, name="x", base=place), folder)
    assert len(steps_of(folder)) == 6 and not [p for p in folder.rglob("*") if ".tmp" in p.name]


def test_a_full_disk_while_saving_and_while_bundling(place, undisturbed, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = place / "filling"
    with monkeypatch.context() as patch:
        patch.setattr("intarsia.models.saving.save", full)
        with pytest.raises(IntarsiaError, match="the disk is full"):
            run(place / "recipe.yaml", folder)
    assert len(steps_of(folder)) == 1
    with monkeypatch.context() as patch:
        patch.setattr("os.link", full)
        with pytest.raises(IntarsiaError, match="the disk is full"):
            run(place / "recipe.yaml", folder)
    assert len(steps_of(folder)) == 6 and not (folder / "bundle").exists()
    assert not [p for p in folder.rglob("*") if ".tmp" in p.name]
    assert fingerprint(run(place / "recipe.yaml", folder)) == fingerprint(undisturbed)


def test_without_hard_links_the_weights_are_copied(place, undisturbed, monkeypatch):
    import errno

    def no_links(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    assert fingerprint(run(place / "recipe.yaml", place / "copied")) == fingerprint(undisturbed)


@pytest.mark.parametrize(
    ("how", "words"),
    [("bug", r"step 1 \(test.fail on base → fail\): ZeroDivisionError: a bug"), ("wrong", "gave a str")],
)
def test_a_failing_step_is_named(place, how, words):
    recipe = Recipe.parse(f"model: model\nsteps: [test.fail: {{how: {how}}}]", name="x", base=place)
    with pytest.raises(IntarsiaError, match=words) as error:
        run(recipe, place / f"failing-{how}")
    assert error.value.exit_code == 1


def test_a_missing_model_names_the_line(place):
    recipe = Recipe.parse("model: nosuch\nsteps: [test.perturb]", name="x", base=place, label="x.yaml")
    with pytest.raises(BadInput, match=r"x.yaml:1: no model 'nosuch'"):
        run(recipe, place / "missing")


def test_an_empty_split_is_refused_before_work(place):
    (place / "empty.txt").write_text("")
    text = "model: model\ndata: {test: empty.txt}\nsteps:\n - test.sum"
    with pytest.raises(BadInput, match="empty"):
        run(Recipe.parse(text, name="x", base=place), place / "empty")


def test_randomness_of_the_caller_is_left_as_it_was(place):
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(place / "recipe.yaml", place / "caller")
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_without_changes_has_no_model_folder(place):
    recipe = Recipe.parse("model: model\ndata: {test: test.txt}\nsteps: [test.sum]", name="x", base=place)
    bundle = run(recipe, place / "look")
    assert not (bundle.path / "model").exists()
    assert bundle.model().identity.source == "tiny-llama" and bundle.manifest["final"] == "base"


def test_reading_while_running(place):
    slow = Recipe.parse((place / "recipe.yaml").read_text().replace("pause: 0.0", "pause: 0.1"), name="x", base=place)
    thread = threading.Thread(target=run, args=(slow, place / "going"))
    thread.start()
    seen = set()
    while thread.is_alive():
        if (place / "going" / "run.json").exists():
            seen.add(sum(done for _, done in status(place / "going").units))
        time.sleep(0.02)
    thread.join()
    assert len(seen) > 1 and status(place / "going").bundle is not None


def test_the_story_tells_figures_and_how_they_moved():
    from intarsia.recipes.headline import story
    from intarsia.report import Column, Table

    columns = [
        Column(name="model"),
        Column(name="F1", format=".1%", better="higher"),
        Column(name="bytes", format="bytes", better="lower"),
    ]
    rows = [["base", (0.4, 0.2, 0.6), 400], ["tuned", (0.5, 0.3, 0.7), None], ["small", (0.39, 0.2, 0.6), 100]]
    told = story(Table(columns=columns, rows=rows, changes=[{}, {1: (0.1, 0.05, 0.15)}, {1: (-0.01, -0.1, 0.1)}]))
    assert "tuned: F1 50.0% (+10.0 points (+5.0 to +15.0))." in told
    assert "within error" in told.split("small:")[1] and "100 B" in told
    assert story(Table(columns=[], rows=[])) == ""
