"""Distillation: a small network learns to do as a large one does.

- `technique`: settings and declaration. `losses`: of next-token (or label) distributions. `states`, `relations`: of
  hidden states, and of attention. `chunks`: logits a few tokens at a time. `lessons`: rows to learn from, also those
  that the student writes. `keeping`: a teacher's answers on disk. `objective`, `training`: how it goes together."""
