"""The computation behind each attention method: `(explained, settings, seed) -> Scored`."""
