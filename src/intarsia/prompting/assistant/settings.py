"""What `assistant.yaml` says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from intarsia.errors import BadInput, did_you_mean, first_line

FILE = "assistant.yaml"
Answers = Literal["quote", "write"]


class Settings(BaseModel):
    """Settings of an assistant. Paths start at its folder."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="what the assistant is called")
    about: str = Field(description="what it knows about, as its prompts say it")
    documents: list[str] = Field(description="files, folders, or python-docs")
    graph: str | None = Field(None, description="facts: a knowledge graph, a file of facts, or python; none without")
    model: str = Field("smollm2-135m", description="as open_backend takes it; loaded when it first writes")
    encoder: str | None = Field("minilm", description="what embeds documents and questions; null: words alone")
    answers: Answers = Field(
        "quote", description="quote: the documents' own sentences; write: by the model, checked, else quoted"
    )
    store: str = Field("store", description="the folder of documents, vectors and facts")
    passages: int = Field(5, ge=1, le=50, description="passages that are found for a question")
    hops: int = Field(1, ge=0, le=2, description="facts so far around what a question names; 0: none")
    facts: int = Field(8, ge=0, description="facts that are found for a question")
    prompt_tokens: int = Field(1400, ge=100, description="tokens of a prompt, of the conversation before it too")
    answer_tokens: int = Field(160, ge=16, description="tokens of an answer that is written")
    seconds: float = Field(60.0, gt=0, description="what writing one answer may take")
    least: float = Field(
        0.45, ge=0, le=1, description="how near the nearest passage has to be, else it does not answer"
    )
    support: float = Field(0.7, ge=0, le=1, description="the share of an answer's words that what it cites must hold")
    quote_words: int = Field(5, ge=1, description="words in a row from a passage that are marked as copied")
    relations: dict[str, list[str]] = Field(
        default_factory=dict, description="words by which a question asks for a relation of the graph, beside its name"
    )


def read_settings(folder: Path) -> Settings:
    """The settings of an assistant's folder. Raises `BadInput` that names the key."""
    import yaml

    file = folder / FILE
    try:
        given = yaml.safe_load(file.read_text("utf-8"))
    except OSError:
        raise BadInput(
            f"{folder}: no assistant there; `intarsia new assistant {folder} --documents ...` makes one"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: is no YAML: {first_line(error)}") from None
    if not isinstance(given, dict):
        raise BadInput(f"{file}: must be `key: value` lines")
    for key in given:
        if key not in Settings.model_fields:
            raise BadInput(f"{file}: no setting '{key}'{did_you_mean(str(key), Settings.model_fields)}")
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
