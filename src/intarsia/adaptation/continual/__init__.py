"""Continual tuning: one model takes on task after task, forgets nothing, and picks what it needs by itself.

- `technique.py`: `adaptation.continual`. `learning.py`: the one loop. `methods/`: ways to learn in it.
- `answer.py`, `forget.py`, `merge.py` with `serving.py`: what is done with what was learned.
- `skills.py`, `blocks/`: all tasks' adapters beside a frozen network, in one pass. `routing/`: which of them a prompt
  gets.
- `bundle.py`: on disk, in PEFT's layout. `metrics.py`, `finding.py`: how it went."""

from intarsia.adaptation.continual.answer import AnswerConfig, Answers, answer
from intarsia.adaptation.continual.finding import StreamFinding
from intarsia.adaptation.continual.forget import ForgetConfig, forget
from intarsia.adaptation.continual.merge import MergeConfig, merge
from intarsia.adaptation.continual.technique import ContinualConfig, continual

__all__ = [
    "AnswerConfig",
    "Answers",
    "ContinualConfig",
    "ForgetConfig",
    "MergeConfig",
    "StreamFinding",
    "answer",
    "continual",
    "forget",
    "merge",
]
