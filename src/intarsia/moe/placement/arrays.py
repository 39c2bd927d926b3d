"""What a placement is as an array. Apart, so that `Placement` can be named without loading numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Devices = NDArray[np.int64]
"""[layer, expert] the device that holds each expert."""
