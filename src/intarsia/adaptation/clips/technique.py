"""`adaptation.describe`: what is to be seen in video clips, in words, as side knowledge for the turns of dialogues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.adaptation.clips.finding import Descriptions
    from intarsia.models import Model


class DescribeConfig(Config):
    """Settings of describing clips."""

    frames: int = Field(6, ge=1, le=32, description="frames of a clip that are shown, at the middles of its scenes")
    side: int = Field(768, ge=16, description="longest side of a frame in pixels; larger ones are made smaller")
    prompt: str | None = Field(
        None, description="what the model is asked; default: to describe people, actions and place in plain words"
    )
    together: bool = Field(
        True, description="show a chat model all frames of a clip in one turn; off: one at a time, as captioners are"
    )
    max_new_tokens: int = Field(80, ge=1, description="longest text for one look, in tokens")
    batch_size: int = Field(24, ge=1, description="frames in one batch")
    without: tuple[str, ...] = Field(
        (), description="words to take out of the texts, with their inflections, besides the labels of the records"
    )
    keep_labels: bool = Field(False, description="leave words of the records' labels in the texts")
    cache: bool = Field(True, description="use what the same model said of a clip before, and keep what it says now")


@technique(
    "adaptation.describe",
    kind="learn",
    family="side knowledge as text",
    source="Zhang et al. 2023, DialogueLLM, arXiv 2310.11374, §3 (video descriptions); scene cuts, choice of frames "
    "and blindness to the label of our own",
    needs="captions",
    gives="Descriptions",
    extra="video",
    example={"clips": "clips", "frames": 4},
)
def describe(model: Model, config: DescribeConfig, *, clips: list[Any]) -> Descriptions:
    """Say in words what is to be seen in video clips, with any model that puts pictures into words.

    Each clip is cut into its scenes, a few frames at their middles go to the model, and what it writes is one
    description. A chat model sees all frames of a clip in one turn; a captioner sees one at a time, and what it says is
    joined without repeats. The texts are blind to the label: no label is in the question, and words of the labels are
    taken out. Sound is left alone. What was said of a clip is kept by its content, the model and the settings, so that
    a run that was stopped goes on where it was. The file (`.jsonl`) has a line a clip; `intarsia.data.described` puts
    the texts into turns, as `about`.

    - clips: a folder of clips, or turns whose `clip` names a file. Where several turns name one file, each is shown the
      stretch from its `start` to its `end`.

    Clips that cannot be read get no description, and a note names them. Raises `BadInput` for a model that writes no
    words or takes no pictures, for records without clips, and when not one clip can be read."""
    from intarsia.adaptation.clips.describing import describe_all

    return describe_all(model, config, clips)
