"""Clips in words: what is to be seen in the video of a turn, as text that a language model reads."""

from intarsia.adaptation.clips.technique import DescribeConfig, describe

__all__ = ["DescribeConfig", "describe"]
