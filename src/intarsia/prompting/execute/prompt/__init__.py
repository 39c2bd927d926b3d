"""Prompts: files whose rendering is all that is ever sent. Nothing that a model reads is written anywhere else."""

from intarsia.prompting.execute.prompt.describing import described
from intarsia.prompting.execute.prompt.folder import difference, find, prompts_in, shipped
from intarsia.prompting.execute.prompt.header import Header, InputSpec
from intarsia.prompting.execute.prompt.prompt import Prompt
from intarsia.prompting.execute.prompt.rendered import Rendered, hash_of

__all__ = [
    "Header",
    "InputSpec",
    "Prompt",
    "Rendered",
    "described",
    "difference",
    "find",
    "hash_of",
    "prompts_in",
    "shipped",
]
