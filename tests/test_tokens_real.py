"""What merging is worth on a trained model: the given CLIP and real drawings, without training."""

from __future__ import annotations

import pytest
import torch

import intarsia as ia
from bench.tokens import given
from intarsia.data import shared_data
from intarsia.tokens import merge

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shared_data("vision_language") is None, reason="INTARSIA_DATA has no vision_language"),
]


@pytest.fixture(scope="module")
def clip():
    return ia.load(str(shared_data("vision_language") / "emoji_clip_256"))


@pytest.fixture(scope="module")
def drawings():
    return given.pictures(shared_data("vision_language"))


def near(clip, drawings, **settings):
    model = merge(clip, removed=given.SCHEDULES["26, 14, 8, 4, 2, 0"], **settings)
    with torch.no_grad():
        found, dense = (m.network.get_image_features(pixel_values=drawings).pooler_output for m in (model, clip))
    return float(torch.nn.functional.cosine_similarity(found, dense).mean())


def test_at_a_third_of_the_work_the_default_is_nearer_than_every_baseline(clip, drawings):
    default = near(clip, drawings)
    assert default > 0.998
    others = {
        "ToMe": dict(matcher="bipartite", importance="none"),
        "CrossGET's rule": dict(matcher="complete", importance="none"),
        "dominance alone": dict(importance="none"),
        "no proportional attention": dict(proportional=False),
        "random": dict(matcher="random"),
        "pruning": dict(matcher="prune"),
    }
    found = {name: near(clip, drawings, **settings) for name, settings in others.items()}
    assert all(value < default for value in found.values()), found
    assert found["random"] < 0.95 and found["pruning"] < 0.95


def test_half_of_the_work_finds_the_same_drawings(clip, drawings):
    dense, half = clip, merge(clip, keep=0.5)
    with torch.no_grad():
        texts = clip.network.get_text_features(
            **{
                k: v
                for k, v in clip.encode(["wolf", "camel", "dove", "spider", "pizza"]).items()
                if k != "token_type_ids"
            }
        ).pooler_output
        said = [m.network.get_image_features(pixel_values=drawings).pooler_output @ texts.T for m in (dense, half)]
    assert (said[0].argmax(1) == said[1].argmax(1)).float().mean() > 0.97
