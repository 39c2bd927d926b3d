"""Prompt optimisation: wording and demonstrations that a metric on examples chooses."""

from intarsia.prompting.execute.optimising.examples import Example, examples_of, metric_of, read_examples
from intarsia.prompting.execute.optimising.optimise import optimise
from intarsia.prompting.execute.optimising.optimised import Attempt, Optimised

__all__ = ["Attempt", "Example", "Optimised", "examples_of", "metric_of", "optimise", "read_examples"]
