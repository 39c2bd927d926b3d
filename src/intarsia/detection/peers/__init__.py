"""Peers: published methods that ask further models, each registered under its name."""

from intarsia.detection.peers import detectgpt, dna_gpt

__all__ = ["detectgpt", "dna_gpt"]
