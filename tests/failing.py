"""What a test says of bad input: one line that has these parts."""

from __future__ import annotations

import pytest

from intarsia.errors import BadInput


def fails(call, *parts: str, error: type[Exception] = BadInput) -> str:
    """The message of the error that a call raises."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    return message
