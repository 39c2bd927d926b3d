"""Stylometry: what is counted, and that it tells two ways of writing apart in a domain it has not seen."""

import numpy as np
import pytest

from intarsia.detection.peers.stylometry import NAMES, Stylometry, features
from tests.failing import fails


def of(text: str) -> dict[str, float]:
    found = features(text)
    out = dict(zip(NAMES, found, strict=True))
    return out | {"sentence spread": found[1], "letter spread": found[3]}


def test_what_is_counted():
    found = of("The cat sat. The dog, which I like, ran to me!")
    assert found["words in a sentence"] == pytest.approx((3 + 8) / 2)
    assert found["sentence spread"] == pytest.approx(2.5)
    assert found["letters in a word"] == pytest.approx(np.mean([3, 3, 3, 3, 3, 5, 1, 4, 3, 2, 2]))
    assert found["different words"] == pytest.approx(10 / 11) and found["words said once"] == pytest.approx(9 / 11)
    assert found["','"] == pytest.approx(200 / 11) and found["'!'"] == pytest.approx(100 / 11)
    assert found["the"] == pytest.approx(200 / 11) and found["i"] == pytest.approx(100 / 11)
    assert found["capitals"] == pytest.approx(3 / 46) and found["digits"] == 0
    assert not features("").any() and not features("12 ... 3").any()


def test_variety_does_not_fall_with_length():
    words = [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(200)]
    short, long = of(" ".join(words[:50])), of(" ".join(words))
    assert short["different words"] == long["different words"] == 1


def text(machine: bool, topic: str, seed: int) -> str:
    """Machines write longer sentences with commas; people ask, and say I."""
    draw = np.random.default_rng([seed, machine])
    out = []
    for _ in range(8):
        size = int(draw.integers(10, 18) if machine else draw.integers(3, 12))
        words = [str(draw.choice([topic, "house", "river", "stone", "garden"])) for _ in range(size)]
        if machine:
            words[size // 2] += ","
            out.append(" ".join(words).capitalize() + ".")
        else:
            out.append("I " + " ".join(words) + str(draw.choice([".", "?"])))
    return " ".join(out)


def test_it_carries_over_to_a_domain_that_it_has_not_seen():
    texts = [text(m, topic, i) for topic in ("ships", "plants") for m in (False, True) for i in range(30)]
    kinds = [m for _ in range(2) for m in (False, True) for _ in range(30)]
    made = Stylometry.fit(texts, kinds, ["ships"] * 60 + ["plants"] * 60)
    people = made.scores([text(False, "music", 100 + i) for i in range(30)])
    machine = made.scores([text(True, "music", 100 + i) for i in range(30)])
    assert np.mean(machine[:, None] > people[None]) > 0.95
    assert {"','", "i"} & {name for name, _ in made.evidence()}
    assert made.scores([]).shape == (0,)
    fails(lambda: Stylometry.fit(texts[:30], [False] * 30, ["ships"] * 30), "one of the two")
