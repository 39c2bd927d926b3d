"""What a token is worth: numbers that say which tokens should stay themselves and which may be blended away.

All are [batch, token] with mean 1 over the tokens that may be merged, so that one strength fits all of them."""

from intarsia.tokens.importance.attended import attended
from intarsia.tokens.importance.guided import guided

__all__ = ["attended", "guided"]
