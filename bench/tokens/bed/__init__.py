"""The test bed: scenes of small drawings over photographs, and three networks trained on them.

    python -m bench.tokens.bed --train dual|blip|llava|all

- `load(kind)` gives a `Bed`: a dense model (trained at the first call: minutes), its training batches, its task's loss,
  its test set and how to judge a network on it.
- `dual`: a CLIPModel that finds a scene by its caption. `blip`: a BlipForQuestionAnswering, whose words look at the
  picture by cross-attention. `llava`: a LlavaForConditionalGeneration, where the picture's tokens stand among words.
- Scenes (scenes.py): four to six drawings of 12 to 22 pixels, some of the same kind, over four photographs, on 72 x 72
  pixels: 81 patches. Questions (questions.py): how many, what is where, where is what, what is beside, which is
  largest, is there one. Little of this can be said without looking: `blind_accuracy`.
- Splits: `train`; `test`, other scenes over other photographs; `unseen`, as `test` in a style that is never trained on.

Weights lie in `$INTARSIA_BENCH_CACHE` (~/.cache/intarsia/bench/tokens)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.tokens.bed.loading import KINDS, Bed, fidelity, load

__all__ = ["KINDS", "Bed", "fidelity", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bench.tokens.bed' has no attribute '{name}'")
    from bench.tokens.bed import loading

    return getattr(loading, name)
