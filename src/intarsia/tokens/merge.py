"""`tokens.merge`: a vision-language model that works on fewer and fewer tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.data import ImageText
    from intarsia.models import Model


class MergeConfig(Config):
    """What to merge, by which rule, and how much."""

    keep: float = Field(
        0.5,
        description="Share of the multiply-accumulates to keep, above 0 and at most 1: of the vision blocks; where a "
        "language model reads the merged rows (LLaVA), of tower and picture rows together",
    )
    text_keep: float = Field(
        1.0, description="The same for the text tower of a dual encoder (its padding is dropped in any case)"
    )
    decoder_keep: float = Field(
        1.0, description="In a language model that reads pictures: share of its work on picture rows to keep on top"
    )
    decoder_layer: int = Field(1, ge=0, description="The language model's block in which that further step is taken")
    schedule: Literal["auto", "constant", "decreasing", "front", "sensitivity"] = Field(
        "auto",
        description="How the removed rows spread over the blocks: the same number each, linearly fewer, most at the "
        "front, or by what merging costs in each block, measured on the pictures given; auto: decreasing where others "
        "read the tower's rows (cross-attention, a language model), for it leaves more of them, else constant",
    )
    removed: tuple[int, ...] = Field((), description="Rows to remove in each vision block; replaces keep and schedule")
    every: int = Field(1, ge=1, description="Merge in every n-th block only")
    matcher: Literal["dominance", "complete", "bipartite", "random", "prune"] = Field(
        "dominance",
        description="Which rows are merged: local dominance, CrossGET's complete graph, ToMe's bipartite halves, "
        "random pairs, or none (prune: the least important are dropped)",
    )
    importance: Literal["auto", "none", "attention", "cross", "question"] = Field(
        "auto",
        description="What spares a token: attention of the class token (of the prompt's last token in a language "
        "model), the learned cross token, the question's attention (language model only); auto: cross once trained, "
        "question in a language model, else attention",
    )
    strength: float = Field(0.05, ge=0, description="Weight of importance against similarity when pairs are chosen")
    temperature: float | None = Field(
        None, gt=0, description="Weigh the members of a merged row by exp(importance / temperature); none: by size only"
    )
    ensemble: Literal["convex", "official", "mean"] = Field(
        "convex", description="How members make a row; official: as CrossGET's code does it, for comparison"
    )
    norm: bool = Field(False, description="Give a merged row the largest norm of its members")
    proportional: bool = Field(True, description="Attention weighs a row by the tokens it stands for")
    cross: bool = Field(False, description="Add learnable cross tokens (to be trained with tokens.train)")
    seed: int = Field(0, ge=0, description="Of random pairs")
    compare: bool = Field(
        True, description="Where pictures are given: measure what merging costs and saves, beside the usual baselines"
    )


@technique(
    "tokens.merge",
    kind="change",
    family="token merging",
    source="Shi et al. 2024 (CrossGET), §3; Bolya et al. 2023 (ToMe), §3",
    needs="vision",
    example={"images": "pictures", "keep": 0.5},
    restore="intarsia.tokens.restoring:restore",
)
def merge(
    model: Model, config: MergeConfig, *, images: list[ImageText] | None = None, texts: list[Any] | None = None
) -> Model:
    """A copy of a vision-language model whose towers ensemble tokens, block by block, under cross-modal guidance.

    Works on any network whose vision tower the engine knows: CLIP, SigLIP, ViT, BLIP (its cross-attention reads the
    fewer rows), LLaVA (its language model reads them at their own positions, with a right cache). No training is
    needed; `tokens.train` gets lost accuracy back. The weights stay as they are: the folder it is saved to loads in
    transformers as the dense model, and in Intarsia merged.

    - images: pictures on which the schedule `sensitivity` measures what merging costs in each block, and on which the
      result is compared with the dense model and the usual baselines (`finding` of the model that is returned).
    - texts: what is said or asked about them, as in `tokens.compare`.

    With keep 1 the network's outputs are the same to the bit."""
    from intarsia.tokens.planning import merged

    if not images:
        return merged(model, config)
    from intarsia.tokens.comparing import merged_and_compared

    return merged_and_compared(model, config, images, texts)
