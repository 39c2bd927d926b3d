"""The computation behind each attribution method: `(explained, settings, seed) -> Scored`."""
