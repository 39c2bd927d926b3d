"""The benchmark of compression beside its peers: processes answer as the network does, and fronts are counted right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import intarsia as ia
from bench.common import Timing
from bench.compression import peers
from bench.compression.contenders import Contender, Source, contenders
from bench.compression.engines import ENGINES
from bench.compression.quality import Judge
from intarsia.compression import quantize
from intarsia.compression.exporting.gguf import export_gguf
from tests.test_compression_gguf import small


def row(
    kl: float, size: float, speed: float, ours: bool = False, bits: int = 4, also: float | None = None
) -> dict:  # fmt: skip
    texts = {"a": {"kl": kl}, "b": {"kl": kl / 2 if also is None else also}}
    return {"texts": texts, "bytes": size, "decode_a_cpu_second": speed, "ours": ours, "bits": bits}


OURS = {"a": row(0.1, 100, 50, True), "4.1 bits in the mean": row(0.01, 150, 40, True)}


@pytest.mark.parametrize(
    ("theirs", "counted"),
    [
        (row(0.1, 100, 50), False),  # equal
        (row(0.2, 120, 45), False),  # worse in everything
        (row(0.2, 90, 30), True),  # smaller than all of ours
        (row(0.05, 120, 30), True),  # between ours: no point of ours is as good in both
        (row(0.2, 100, 52), False),  # quicker, within the noise
        (row(0.2, 100, 60), True),
        (row(0.009, 150, 40), True),
        (row(0.01, 150, 40), False),
        (row(0.01, 150, 40, also=0.004), True),  # better on the second text
        (row(0.0099, 150, 40), False),  # better, within the noise
    ],
)
def test_a_point_is_beyond_our_front_where_none_of_ours_is_as_good(theirs, counted):
    assert peers.beyond({"theirs": theirs}, OURS) == ["theirs"] * counted


def test_figures_are_of_the_quickest_and_the_best():
    theirs = {"c": row(0.3, 100, 25), "d": row(0.2, 110, 20), "e": row(0.001, 500, 5, bits=32)}
    seconds = {"a": 1.0, "4.1 bits in the mean": 1.25, "c": 2.0, "d": 2.5, "e": 10.0}
    decode = {name: Timing((s, 3 * s)) for name, s in seconds.items()}
    assert peers.figures({**OURS, **theirs}, decode) == {
        "kl_int4_mixed": 0.01, "kl_int4_best_peer": 0.2, "decode_over_fastest_peer": 2.0, "peer_points_beyond_front": 1,
    }  # fmt: skip
    assert "kl_int4_mixed" not in peers.figures(theirs, decode)


def test_contenders_have_names_of_their_own_and_engines_there_are():
    every = contenders()
    assert len({c.name for c in every}) == len(every) and {c.engine for c in every} <= set(ENGINES)
    assert {c.ours for c in every} == {True, False}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    return Source(small(tied=True), tmp_path_factory.mktemp("peers"), [])


@pytest.fixture
def windows() -> list[list[int]]:
    return [list(range(20, 60)), list(range(70, 110))]


def test_points_are_measured_in_processes_and_what_fails_is_left_out(source, windows, monkeypatch, capsys):
    pytest.importorskip("ik_llama_cpp", reason="the extra 'llama' is not installed")
    monkeypatch.setattr(peers, "PREFILL", 16)
    monkeypatch.setattr(peers, "DECODE", 4)

    def missing(source, out):
        raise ImportError("nobody is not installed")

    given = [
        Contender("ours: plain", "gguf", "gguf", lambda s, out: export_gguf(s.dense, out / "model.gguf"), True, 32),
        Contender("absent", "nobody", "gguf", missing),
        Contender("broken", "gguf", "gguf", lambda s, out: (out / "model.gguf").write_bytes(b"no")),
        Contender("rounded", "gguf", "gguf",
                  lambda s, out: export_gguf(s.dense, out / "model.gguf", {"*": "Q4_0"}, check_again=False), bits=4),
    ]  # fmt: skip
    judges = {"one": Judge(source.dense, windows), "two": Judge(source.dense, windows[:1])}
    found, decode = peers.measured(given, source, judges, rounds=2)
    said = capsys.readouterr().out
    assert "left out: absent: nobody is not installed" in said and "left out: broken: " in said
    assert list(found) == list(decode) == ["ours: plain", "rounded"] and len(decode["rounded"].seconds) == 2
    kept, lost = (found[name]["texts"] for name in found)
    assert abs(kept["one"]["kl"]) < 1e-3 < lost["one"]["kl"]
    assert lost["one"]["tokens"] == 78 and lost["two"]["tokens"] == 39
    assert found["rounded"]["bytes"] < found["ours: plain"]["bytes"] and found["rounded"]["peak"] > 1e6
    assert all(len(line) == len(peers.columns(judges)) for line in peers.table(found))
    assert set(peers.figures(found, decode)) == {
        "kl_int4_best_peer", "decode_over_fastest_peer", "peer_points_beyond_front",
    }  # fmt: skip
    # What was made stands, and is not made again; what failed left nothing that counts.
    assert peers.made(given[0], source).is_dir() and not (source.folder / "absent").exists()


@pytest.mark.parametrize("engine", ["torch", "torch-dense", "torch-ao", "gguf"])
def test_an_engine_gives_the_network_s_logits_and_its_tokens(engine, source, windows, tmp_path):
    ids = windows[0]
    model = source.dense
    if engine == "gguf":
        pytest.importorskip("ik_llama_cpp", reason="the extra 'llama' is not installed")
        export_gguf(model, tmp_path / "model.gguf")
    elif engine == "torch":
        model = quantize(model, bits=8)
        model.save(tmp_path / "model")
    else:
        (tmp_path / "model").symlink_to(source.hf, target_is_directory=True)
    opened = ENGINES[engine](tmp_path, 1)
    wanted = ia.run(model, torch.tensor([ids])).logits[0]
    found = opened.logits(ids)
    assert found.shape == tuple(wanted.shape) and found.dtype == np.float32 and opened.bytes > 1000
    # torch.ao rounds activations too, with one range for all of them: it need only be the same network.
    share = 0.2 if engine == "torch-ao" else 0.05
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=float(wanted.abs().max()) * share)
    # Decoding step by step is reading the text that it makes.
    made = list(opened.tokens(ids[:10], 5))
    again = opened.logits(ids[:10] + made[:-1])
    assert len(made) == 5 and made[0] == int(opened.logits(ids[:10])[-1].argmax())
    assert engine == "torch-ao" or made[-1] == int(again[-1].argmax())


def test_rounded_models_are_kept_by_their_settings(source):
    first = source.rounded({"bits": 4, "group_size": 32})
    (folder,) = source.folder.glob("rounded-*")
    stamp = folder.stat().st_mtime_ns
    ids = torch.tensor([[20, 21]])
    again = source.rounded({"group_size": 32, "bits": 4})
    assert torch.equal(ia.run(first, ids).logits, ia.run(again, ids).logits) and folder.stat().st_mtime_ns == stamp
    # By keys and values: 4 bits and 4 bits in the mean are two models.
    assert folder.name == "rounded-bits=4-group_size=32"
