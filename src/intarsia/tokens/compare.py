"""`tokens.compare`: every way of working on fewer tokens in one table, on one's own model and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model

Method = Literal[
    "dominance",
    "dominance-unguided",
    "complete",
    "complete-unguided",
    "bipartite",
    "random",
    "prune",
    "llm-dominance",
    "llm-prune",
]
METHODS: tuple[str, ...] = get_args(Method)
Spread = tuple[float, float, float]

WORDS = {
    "dense": "all tokens",
    "dominance": "local dominance, guided by attention",
    "dominance-unguided": "local dominance by similarity alone",
    "complete": "CrossGET's complete graph, guided by attention",
    "complete-unguided": "CrossGET's complete graph by similarity alone",
    "bipartite": "ToMe's bipartite halves",
    "random": "random pairs",
    "prune": "the least attended are dropped (class token's attention)",
    "llm-dominance": "local dominance in the language model, guided by the question",
    "llm-prune": "as FastV: dropped in the language model by the last token's attention",
    "this": "this model",
}


class CompareConfig(Config):
    """What is compared, how much is kept, and on how many pictures."""

    methods: tuple[Method, ...] = Field(
        (), description="Which methods, beside the dense model; none named: all that the model has a place for"
    )
    keeps: tuple[float, ...] = Field(
        (0.7, 0.5, 0.35), description="Shares of the multiply-accumulates to keep, each above 0 and at most 1"
    )
    schedule: Literal["auto", "constant", "decreasing", "front", "sensitivity"] = Field(
        "auto", description="How the removed rows spread over the blocks, as in tokens.merge"
    )
    every: int = Field(1, ge=1, description="Merge in every n-th block only")
    strength: float = Field(0.05, ge=0, description="Weight of importance against similarity in the guided methods")
    decoder_layer: int = Field(1, ge=0, description="The language model's block in which the llm- methods work")
    max_pictures: int = Field(64, ge=1, description="Pictures used; of more, so many are drawn by the seed")
    batch_size: int = Field(16, ge=1, description="Pictures in one forward pass, and in one that is timed")
    rounds: int = Field(5, ge=0, description="Timed rounds of each method in turns with the dense model; 0: none")
    new_tokens: int = Field(8, ge=1, description="Tokens of an answer, in models that write")
    template: str = Field("", description="Prompt with {question} and <image>; none: the model's chat template")


class Compared(pydantic.BaseModel):
    """One method at one setting, against the dense model.

    - keep: the share asked for; gmacs: counted, of one picture (of a picture, a question and the first token of the
      answer, in models that write); share: of the dense model's.
    - fidelity: mean cosine of the pictures' embeddings to the dense model's; worst: the lowest.
    - kl: mean KL in nats from the dense model's distribution over texts, classes or first tokens; agreement: share of
      rows whose first choice is the dense model's.
    - accuracy: share that is known to be right, by what is asked (`image→text R@1`, `answers right`...).
    - speed: pictures (questions) a second, as a ratio to the dense model's: median and range of the rounds.
    - note: where the share asked for cannot be had."""

    method: str
    keep: float
    gmacs: float
    share: float
    fidelity: float | None = None
    worst: float | None = None
    kl: float | None = None
    agreement: float | None = None
    accuracy: dict[str, float] = Field(default_factory=dict)
    note: str = ""


class TokenComparison(Finding):
    """The dense model (first row) and every method at every share."""

    volatile: ClassVar[frozenset[str]] = frozenset({"speeds", "rate"})

    rows: list[Compared] = Field(default_factory=list)
    speeds: dict[str, Spread] = Field(default_factory=dict)
    rate: float | None = None
    kind: str = "dual"
    count: int = 0
    asked: int = 0
    unread: int = 0
    unused: int = 0
    notes: list[str] = Field(default_factory=list)

    @property
    def unit(self) -> str:
        return "question" if self.kind == "answer" else "picture"

    def speed_of(self, row: Compared) -> Spread | None:
        return self.speeds.get(f"{row.method} {row.keep:g}")

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        """Of the one setting, where there is only one."""
        others = [row for row in self.rows if row.method == "this"]
        if not others:
            return {}
        row, out = others[0], {}
        out["gmacs_share"] = (row.share, Column(name="GMACs kept", format=".1%", better="lower"))
        if row.fidelity is not None:
            out["fidelity"] = (row.fidelity, Column(name="fidelity", format=".4f", better="higher"))
        if row.agreement is not None:
            out["agreement"] = (row.agreement, Column(name="agrees with dense", format=".1%", better="higher"))
        return out

    def tables(self) -> list[Table]:
        names = list(dict.fromkeys(name for row in self.rows for name in row.accuracy))
        columns = [
            Column(name="method"),
            Column(name="asked to keep", format=".0%"),
            Column(name="GMACs", unit=f"a {self.unit}", format=".4g", better="lower", help="counted as it ran"),
            Column(name="of dense", format=".1%", better="lower"),
        ]
        cells: list[tuple[Column, list[Any]]] = [
            (
                Column(name="fidelity", format=".5f", better="higher", help="mean cosine of the embeddings to dense"),
                [row.fidelity for row in self.rows],
            ),
            (
                Column(name="worst picture", format=".4f", better="higher", help="the lowest of these cosines"),
                [row.worst for row in self.rows],
            ),
            (
                Column(name="KL", unit="nats", format=".2g", better="lower", help="from the dense distribution"),
                [row.kl for row in self.rows],
            ),
            (
                Column(name="agrees", format=".1%", better="higher", help="first choice is the dense model's"),
                [row.agreement for row in self.rows],
            ),
            *(
                (Column(name=name, format=".1%", better="higher"), [row.accuracy.get(name) for row in self.rows])
                for name in names
            ),
            (
                Column(name="speed", unit="x dense", format=".2f", better="higher", help="median and range of rounds"),
                [self.speed_of(row) for row in self.rows],
            ),
        ]
        cells = [(column, values) for column, values in cells if any(value is not None for value in values)]
        rows = [
            [row.method, row.keep, row.gmacs, row.share, *(values[i] for _, values in cells)]
            for i, row in enumerate(self.rows)
        ]
        about = [f"On {self.count} pictures" + (f", {self.asked} questions" if self.asked else "") + "."]
        about += [f"Pictures that could not be read: {self.unread}."] if self.unread else []
        about += [f"Pictures beyond max_pictures: {self.unused}."] if self.unused else []
        about += [f"The dense model does {self.rate:,.3g} {self.unit}s a second here."] if self.rate else []
        what = dict.fromkeys(row.method for row in self.rows)
        legend = [
            Table(
                title="What the methods do",
                columns=[Column(name="method"), Column(name="what it does")],
                rows=[[name, WORDS.get(name, name)] for name in what],
            )
        ]
        title = "Fewer tokens: what they cost and what they save"
        notes = " ".join([*about, *self.notes])
        return [Table(title=title, columns=[*columns, *(c for c, _ in cells)], rows=rows, note=notes), *legend]

    def figures(self) -> list[Figure]:
        others: dict[str, list[Compared]] = {}
        for row in self.rows[1:]:
            others.setdefault(row.method, []).append(row)
        if max(map(len, others.values()), default=0) < 2:
            return []
        figures = []
        if any(row.fidelity is not None for row in self.rows[1:]):
            figures.append(self._curve(others, "What is lost of the embeddings", "1 − cosine to dense", _lost))
        if any(row.kl is not None for row in self.rows[1:]):
            figures.append(self._curve(others, "How far the answers move", "KL from dense, nats", lambda row: row.kl))
        return figures

    def _curve(self, others: dict[str, list[Compared]], title: str, y: str, value: Any) -> Figure:
        series = []
        for name, rows in others.items():
            ordered = sorted((row for row in rows if value(row)), key=lambda row: row.share)
            if ordered:
                x = [100 * row.share for row in ordered]
                series.append(Series(name=name, x=x, y=[value(row) for row in ordered]))
        marks = [Mark(axis="x", value=50.0, text="half")]
        return Figure(
            title=title,
            kind="line",
            x="% of the dense GMACs",
            y=y,
            series=series,
            format=".2g",
            log_y=True,
            marks=marks,
        )

    def blocks(self) -> list[Block]:
        first, *rest = self.tables()
        return [first, *self.figures(), *rest]


def _lost(row: Compared) -> float | None:
    return None if row.fidelity is None else max(1 - row.fidelity, 0.0)


@technique(
    "tokens.compare",
    kind="look",
    family="token merging",
    source="Shi et al. 2024 (CrossGET); Bolya et al. 2023 (ToMe); Chen et al. 2024 (FastV)",
    needs="vision",
    extra="vision",
    example={"images": "pictures", "keeps": (0.5,), "rounds": 1, "max_pictures": 8},
)
def compare(
    model: Model, config: CompareConfig, *, images: list[Any], texts: list[Any] | None = None, seed: int = 0
) -> TokenComparison:
    """Dense and every method of merging or pruning at several shares of the work, in one table on your own pictures.

    Each method is put on a copy of the model, without training. What is measured: multiply-accumulates, counted as they
    run; how near the results stay to the dense model's (cosine of embeddings; KL and agreement of answers); accuracy
    where texts, labels or answers say what is right; and speed, each method in turns with the dense model.

    - images: records with `image`, paths, or a folder; a folder of folders gives each picture a label.
    - texts: for dual encoders captions (with an `image`, or one each in order) or candidates such as class names; for
      models that answer, questions. Without answers known, agreement with the dense model is what tells methods apart.

    Raises `BadInput` for a model without a vision tower, one that is merged already, a share outside (0, 1], and
    pictures of which none can be read."""
    from intarsia.tokens.comparing import look

    return look(model, config, images, texts, seed)
