"""`Step`: what one reduction did to the rows of a stream."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """The rows after a reduction, and where the old ones went.

    - rows: [batch, new, width], the stream that goes on.
    - keep: [batch, new] int64, the old index of each row that goes on, ascending; -1 for a padded row, where a sample
      has fewer rows than its batch mates (padded rows come last).
    - into: [batch, old] int64, the new row that each old row is now part of; -1 for a row that was dropped."""

    rows: Tensor
    keep: Tensor
    into: Tensor

    def sizes(self, old: Tensor) -> Tensor:
        """[batch, new] what the new rows stand for, from what the old ones did [batch, old]: sizes add up."""
        gone = self.into < 0
        return old.new_zeros(self.keep.shape).scatter_add(1, self.into.clamp(min=0), old.masked_fill(gone, 0.0))
