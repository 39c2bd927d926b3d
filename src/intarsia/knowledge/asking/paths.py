"""Ways from one entity to another over learned facts, each with how well its rule holds in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from intarsia.errors import MissingExtra
from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.explain import Path

Array = np.ndarray[Any, Any]
MOST_NEIGHBOURS = 300  # of an entity that a path goes on from
MOST_PATHS = 2000
MOST_RULES = 40
SAMPLE = 500  # entities from which a rule is tried


def paths_between(asker: Asker, head: int, row: int, tail: int, longest: int) -> list[Path]:
    """Paths of at most `longest` steps, without the fact in question; those of the best rules first.

    A rule's figure is the share of the pairs it joins that the relation joins as well (Galárraga et al. 2013, standard
    confidence), counted from a sample of the entities it starts from; the pair in question is left out of it."""
    near, far = _edges(asker, head), _edges(asker, tail)
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for r, end in near:
        if end == tail and r != row:
            found.append(((r,), ()))
    back: dict[int, list[int]] = {}
    for r, end in far:
        back.setdefault(end, []).append(r ^ 1)  # walked the other way
    if longest > 1:
        found += [((r, s), (middle,)) for r, middle in near if middle not in (head, tail) for s in back.get(middle, ())]
    if longest > 2:
        found += _of_three(asker, head, tail, near, back, MOST_PATHS - len(found))
    by_rule: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for rule, middles in found:
        by_rule.setdefault(rule, []).append(middles)
    # Rules with many paths between the two first: the sample is for the likeliest ones.
    rules = sorted(by_rule, key=lambda rule: (-len(by_rule[rule]), len(rule)))[:MOST_RULES]
    out = []
    for rule, (holds, pairs) in zip(rules, _figures(asker, rules, row, head, tail), strict=True):
        for middles in by_rule[rule][:3]:
            out.append(_path(asker, head, tail, rule, middles, holds, pairs))
    return sorted(out, key=lambda path: (-path.holds, -path.pairs, len(path.steps)))


def _edges(asker: Asker, entity: int) -> list[tuple[int, int]]:
    """(row, other end) of learned facts of an entity, not more than a few hundred."""
    learned = asker.learned
    low, high = np.searchsorted(learned.keys, [entity * learned.stride, (entity + 1) * learned.stride])
    high = min(high, low + MOST_NEIGHBOURS)
    rows = learned.keys[low:high] - entity * learned.stride
    return list(zip(rows.tolist(), learned.tails[low:high].tolist(), strict=True))


def _of_three(
    asker: Asker, head: int, tail: int, near: list[tuple[int, int]], back: dict[int, list[int]], most: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    out: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for r, first in near:
        if first in (head, tail):
            continue
        for s, second in _edges(asker, first):
            if second in (head, tail, first):
                continue
            for last in back.get(second, ()):
                out.append(((r, s, last), (first, second)))
                if len(out) >= most:
                    return out
    return out


def _figures(asker: Asker, rules: list[tuple[int, ...]], row: int, head: int, tail: int) -> list[tuple[float, int]]:
    """(share, pairs) of each rule."""
    if not rules:
        return []
    try:
        from scipy import sparse
    except ImportError:
        raise MissingExtra("paths", "knowledge") from None
    learned, size = asker.learned, len(asker.entities)
    rows = learned.keys % learned.stride
    heads = learned.keys // learned.stride
    cache: dict[int, Any] = {}

    def matrix(relation: int) -> Any:
        if relation not in cache:
            use = (rows == relation) & (heads != learned.tails)
            places = (heads[use], learned.tails[use])
            cache[relation] = sparse.csr_array((np.ones(use.sum()), places), shape=(size, size))
        return cache[relation]

    random = np.random.default_rng(0)
    out = []
    for rule in rules:
        first = matrix(rule[0])
        starts = np.flatnonzero(np.diff(first.indptr))
        starts = starts[starts != head]
        if len(starts) > SAMPLE:
            starts = np.sort(random.choice(starts, SAMPLE, replace=False))
        joined = _joined([first[starts], *map(matrix, rule[1:])], [matrix(r ^ 1) for r in rule], starts)
        pairs = joined.nnz
        both = joined.multiply(matrix(row)[starts]).nnz if pairs else 0
        out.append((both / pairs if pairs else 0.0, int(pairs)))
    return out


def _joined(steps: list[Any], back: list[Any], starts: Array) -> Any:
    """How many ways lead from each start to each other entity without coming to one twice: [start, entity].

    - steps: a matrix for each step, the first one of the starts alone; back: those of the inverse relations, of all."""
    from scipy import sparse

    if len(steps) < 3:
        out = steps[0] @ steps[1] if len(steps) == 2 else steps[0]
    else:
        one, two, three = steps
        returning = one.multiply(back[1][starts])  # to the start again in the second step
        away = two.multiply(back[2]).sum(1)  # from the end and to it again, in the last two steps
        on = three[starts]
        out = one @ two @ three - sparse.diags_array(returning.sum(1)) @ on - one @ sparse.diags_array(away)
        out = out + returning.multiply(on)
    out = out.tocoo()
    use = (out.data > 0) & (out.col != starts[out.row])
    return sparse.csr_array((out.data[use], (out.row[use], out.col[use])), shape=out.shape)


def _path(
    asker: Asker, head: int, tail: int, rule: tuple[int, ...], middles: tuple[int, ...], holds: float, pairs: int
) -> Path:
    names, ends = asker.graph.entities, (head, *middles, tail)
    steps = []
    for r, a, b in zip(rule, ends, ends[1:], strict=False):
        one, two = (b, a) if r % 2 else (a, b)
        steps.append(f"{names[one]} {asker.graph.relations[r // 2]} {names[two]}")
    return Path(steps=steps, rule=" · ".join(asker.row_name(r) for r in rule), holds=holds, pairs=pairs)
