"""Facts set aside from a snapshot, to choose the epoch by and to test on."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter


def held_out(connection: sqlite3.Connection, index: int, share: float, seed: int) -> int:
    """Move a share of an open snapshot's training facts to valid and test, half each, and give their number.

    Only facts whose head, tail and relation occur in another training fact, this snapshot's or an earlier one's: what
    is asked must have been learned. Inside a transaction."""
    if connection.execute("SELECT 1 FROM facts WHERE snapshot = ? AND split > 0 LIMIT 1", (index,)).fetchone():
        return 0  # somebody divided them
    rows = connection.execute(
        "SELECT head, relation, tail FROM facts WHERE snapshot = ? AND split = 0 ORDER BY place", (index,)
    ).fetchall()
    uses: Counter[tuple[str, int]] = Counter()
    for head, relation, tail in connection.execute("SELECT head, relation, tail FROM facts WHERE split = 0"):
        uses.update([("e", head), ("e", tail), ("r", relation)])
    chosen: list[tuple[int, int, int]] = []
    wanted = round(share * len(rows))
    for head, relation, tail in random.Random(seed * 1_000_003 + index).sample(rows, len(rows)):
        if len(chosen) >= wanted:
            break
        parts = Counter([("e", head), ("e", tail), ("r", relation)])
        if all(uses[part] > count for part, count in parts.items()):
            uses.subtract(parts)
            chosen.append((head, relation, tail))
    moves = [(1 + i % 2, *fact) for i, fact in enumerate(chosen)]
    connection.executemany("UPDATE facts SET split = ? WHERE head = ? AND relation = ? AND tail = ?", moves)
    return len(moves)
