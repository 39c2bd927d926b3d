"""The EQ test (`adaptation.eq`): how near a model's reading of feelings in stories comes to people's.

- technique: the settings and the protocol. items: the file. scoring: the formulas. testing: the model at it. finding:
  how it reads."""

from intarsia.adaptation.eq.technique import EqConfig, eq

__all__ = ["EqConfig", "eq"]
