"""Peers: published methods that ask further models, each registered under its name."""
