"""`Trace`: the experts that every token of a text was sent to, layer by layer, and the file it is kept in.

The file is an `.npz` of arrays that any numpy reads: `expert_ids` [token, layer, choice] by falling weight, `gate` of
the same shape (softmax of the router's logits, before any renormalisation), `token_id`, `seq`, `pos` [token], and
`meta`, a JSON text. It is read in pieces, so that a trace larger than memory can be counted."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from intarsia.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = NDArray[np.integer[Any]]

PIECE = 1 << 16  # tokens read at once


@dataclass(frozen=True)
class TraceFacts:
    """What a trace says about itself.

    - experts: of a layer; k: how many of them a token is sent to; layers: the network's index of each routed layer.
    - model, router_sha256: what recorded it (of the router weights as float32, in layer order); empty: unknown.
    - corpus: a name for the text; checkpoint: of the training run, where there are several."""

    experts: int
    k: int
    layers: tuple[int, ...]
    model: str = ""
    router_sha256: str = ""
    corpus: str = ""
    checkpoint: str = ""

    @property
    def name(self) -> str:
        """Short, for tables."""
        return " ".join(part for part in (self.model, self.checkpoint, self.corpus) if part) or "trace"


@dataclass(frozen=True, eq=False)
class Trace:
    """Routing of `tokens` tokens; `parts` are the files it comes from, or arrays in memory.

    A trace is a view: `split` and `of_sequences` cost nothing, and `pieces` reads one piece after the other."""

    facts: TraceFacts
    sources: tuple[_Source, ...]
    chosen: frozenset[tuple[int, int]] | None = field(default=None, repr=False)

    @staticmethod
    def open(given: str | Path | Sequence[str | Path]) -> Trace:
        """Read one or several trace files of one model (text: separated by commas). Raises `BadInput` for anything
        else, and for traces of different models."""
        names = [given] if isinstance(given, Path) else given.split(",") if isinstance(given, str) else list(given)
        sources = tuple(_File(Path(name).expanduser()) for name in names)
        return Trace(_common([s.facts for s in sources], [str(n) for n in names]), sources)

    @staticmethod
    def of(
        expert_ids: Ids,
        experts: int,
        *,
        seq: Ids | None = None,
        layers: Sequence[int] | None = None,
        gate: NDArray[np.floating[Any]] | None = None,
        **facts: str,
    ) -> Trace:
        """From an array [token, layer] or [token, layer, choice] of ids 0..experts-1. `seq`: [token] the sequence that
        a token is of (default: every 256 tokens are one)."""
        import numpy as np

        ids = np.asarray(expert_ids)
        ids = ids[:, :, None] if ids.ndim == 2 else ids
        if ids.ndim != 3 or not ids.size:
            raise BadInput(f"a trace is [token, layer] or [token, layer, choice], this one has the shape {ids.shape}")
        _in_range(ids, experts, "the trace")
        told = TraceFacts(experts, ids.shape[2], tuple(layers or range(ids.shape[1])), **facts)
        if len(told.layers) != ids.shape[1]:
            raise BadInput(f"a trace of {ids.shape[1]} layers names {len(told.layers)} of them")
        sequences = np.arange(len(ids)) // 256 if seq is None else np.asarray(seq)
        arrays = {"expert_ids": ids, "seq": sequences}
        if gate is not None:
            arrays["gate"] = gate
        return Trace.in_memory(told, arrays)

    @staticmethod
    def in_memory(facts: TraceFacts, arrays: dict[str, NDArray[Any]]) -> Trace:
        """From arrays as they lie in a file, one row a token: `expert_ids` and `seq`, and what there is of the rest."""
        return Trace(facts, (_Memory(facts, arrays),))

    @property
    def sequences(self) -> list[tuple[int, int]]:
        """(part, sequence) of everything that is seen, in order."""
        return [key for key in self._all() if self.chosen is None or key in self.chosen]

    def _all(self) -> list[tuple[int, int]]:
        import numpy as np

        return [(i, int(s)) for i, source in enumerate(self.sources) for s in np.unique(source.whole("seq"))]

    def split(self, share: float = 0.5) -> tuple[Trace, Trace]:
        """(to plan from, to judge by): the first `share` of the sequences of every part, and the others. Raises
        `BadInput` where a part has only one sequence."""
        mine = self.sequences
        first: set[tuple[int, int]] = set()
        for part in range(len(self.sources)):
            keys = [key for key in mine if key[0] == part]
            if len(keys) == 1:
                raise BadInput(
                    "the trace has one sequence: a placement is judged on other text than it is planned from; "
                    "record more texts, or shorter pieces"
                )
            first |= set(keys[: min(max(1, round(len(keys) * share)), len(keys) - 1)])
        return self.of_sequences(first), self.of_sequences(set(mine) - first)

    def of_sequences(self, keys: Iterable[tuple[int, int]]) -> Trace:
        """The same trace with some of its sequences only."""
        return Trace(self.facts, self.sources, frozenset(keys))

    def pieces(self, name: str = "expert_ids") -> Iterator[NDArray[Any]]:
        """The rows of one array, piece by piece (`expert_ids`: [token, layer, choice])."""
        import numpy as np

        for number, source in enumerate(self.sources):
            wanted = None if self.chosen is None else {s for part, s in self.chosen if part == number}
            at = 0
            of = source.whole("seq") if wanted is not None else None
            for piece in source.pieces(name):
                if of is not None and wanted is not None:
                    keep = np.isin(of[at : at + len(piece)], list(wanted))
                    at += len(piece)
                    piece = piece[keep]
                if len(piece):
                    yield piece

    def whole(self, name: str = "expert_ids") -> NDArray[Any]:
        """All rows of one array, in memory."""
        import numpy as np

        pieces = list(self.pieces(name))
        if not pieces:
            raise BadInput("the trace holds no tokens")
        return np.concatenate(pieces)

    @property
    def tokens(self) -> int:
        """How many."""
        if self.chosen is None:
            return sum(len(source.whole("seq")) for source in self.sources)
        return sum(len(piece) for piece in self.pieces("seq"))

    @property
    def sha256(self) -> str:
        """Of the expert ids that are seen, in order: equal routing, equal hash."""
        import numpy as np

        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(np.ascontiguousarray(piece, dtype=np.int16).tobytes())
        return digest.hexdigest()

    def save(self, out: str | Path, *, force: bool = False) -> None:
        """Write one file with all that is seen. Raises `BadInput` when it is there and `force` is not said."""
        import numpy as np

        path = Path(out).expanduser()
        if path.exists() and not force:
            raise BadInput(f"{path} is there already: give another name, or --force to replace it")
        names = [n for n in ARRAYS if all(source.has(n) for source in self.sources)]
        arrays = {name: self.whole(name) for name in names}
        arrays["seq"] = self._numbered()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps(_meta(self.facts))), **arrays)
        part.replace(path)

    def _numbered(self) -> NDArray[np.uint32]:
        """[token] sequences, counted through over all parts."""
        import numpy as np

        number = {key: i for i, key in enumerate(self.sequences)}
        out = []
        for part in range(len(self.sources)):
            of = Trace(self.facts, self.sources, frozenset(k for k in number if k[0] == part)).pieces("seq")
            out += [np.array([number[part, int(s)] for s in piece], dtype=np.uint32) for piece in of]
        return np.concatenate(out)


ARRAYS = ("expert_ids", "gate", "token_id", "seq", "pos")


class _Source(Protocol):
    """Arrays with one row a token."""

    @property
    def facts(self) -> TraceFacts: ...

    def has(self, name: str) -> bool: ...

    def whole(self, name: str) -> NDArray[Any]: ...

    def pieces(self, name: str) -> Iterator[NDArray[Any]]: ...


class _Memory:
    def __init__(self, facts: TraceFacts, arrays: dict[str, NDArray[Any]]):
        self.facts, self.arrays = facts, arrays

    def has(self, name: str) -> bool:
        return name in self.arrays

    def whole(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def pieces(self, name: str) -> Iterator[NDArray[Any]]:
        array = self.arrays[name]
        for start in range(0, len(array), PIECE):
            yield array[start : start + PIECE]


class _File:
    def __init__(self, path: Path):
        import numpy as np

        self.path = path
        try:
            with np.load(path, allow_pickle=False) as arrays:
                self.names = set(arrays.files)
                told = json.loads(str(arrays["meta"]))
                self.seq = arrays["seq"]
            self.facts = TraceFacts(
                told["E"], told["k"], tuple(told["moe_layer_indices"]), told.get("model", ""),
                told.get("router_sha256", ""), told.get("corpus", ""), told.get("checkpoint", ""),
            )  # fmt: skip
            shape = next(iter(self.pieces("expert_ids"))).shape
            if len(self.seq) != self._length("expert_ids"):
                raise ValueError("its sequences are not one a token")
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror or error}); give a trace (.npz)") from None
        except (KeyError, TypeError, ValueError, EOFError, StopIteration, zipfile.BadZipFile) as error:
            raise BadInput(f"{path}: not a routing trace ({error})") from None
        if len(shape) != 3 or shape[1:] != (len(self.facts.layers), self.facts.k):
            raise BadInput(f"{path}: not a routing trace (its ids have the shape {shape})")

    def has(self, name: str) -> bool:
        return name in self.names

    def whole(self, name: str) -> NDArray[Any]:
        import numpy as np

        return self.seq if name == "seq" else np.concatenate(list(self.pieces(name)))

    def pieces(self, name: str) -> Iterator[NDArray[Any]]:
        import numpy as np

        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            shape, dtype = _header(file)
            size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            for start in range(0, shape[0], PIECE):
                count = min(PIECE, shape[0] - start)
                data = file.read(count * size)
                if len(data) < count * size:
                    raise BadInput(f"{self.path}: the file is cut off")
                piece = np.frombuffer(data, dtype).reshape(count, *shape[1:])
                if name == "expert_ids":
                    _in_range(piece, self.facts.experts, self.path)
                yield piece

    def _length(self, name: str) -> int:
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            return _header(file)[0][0]


def _in_range(ids: NDArray[Any], experts: int, where: object) -> None:
    import numpy as np

    if not np.issubdtype(ids.dtype, np.integer):
        raise BadInput(f"{where}: experts are numbers without a fraction, these are {ids.dtype}")
    if ids.min() < 0 or ids.max() >= experts:
        odd = int(ids.min() if ids.min() < 0 else ids.max())
        raise BadInput(f"{where}: names the expert {odd}, there are {experts} (from 0)")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    import numpy as np

    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran and len(shape) > 1:
        raise ValueError("its arrays are in column order")
    return shape, dtype


def _meta(facts: TraceFacts) -> dict[str, Any]:
    told = asdict(facts)
    names = {"experts": "E", "layers": "moe_layer_indices"}
    return {names.get(key, key): value for key, value in told.items()}


def _common(facts: Sequence[TraceFacts], names: Sequence[str]) -> TraceFacts:
    """What traces agree on. Raises `BadInput` where they cannot be of one model."""
    first = facts[0]
    for other, name in zip(facts[1:], names[1:], strict=True):
        same = (first.experts, first.k, first.layers) == (other.experts, other.k, other.layers)
        if not same or (first.router_sha256 and other.router_sha256 and first.router_sha256 != other.router_sha256):
            raise BadInput(f"{name}: recorded with another model than {names[0]}; give traces of one model")
    joined = {
        key: "+".join(dict.fromkeys(v for f in facts if (v := getattr(f, key))))
        for key in ("model", "corpus", "checkpoint")
    }
    return TraceFacts(first.experts, first.k, first.layers, router_sha256=first.router_sha256, **joined)
