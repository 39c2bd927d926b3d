"""`Detector`: the voices, what each counts for, and the banks of people's texts that its answers are judged by.

<folder>/detector.safetensors   weights of the n-grams, numbers of the banks and the machine; in its header plain data
<folder>/siamese/               the encoder that compares with references, where there is one

No text is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.detection.calibration.banks import Bank, Judged
from intarsia.detection.combining import Weights
from intarsia.detection.voices import language_model
from intarsia.detection.voices.cuts import VIEWS, cut, length_of, view_for
from intarsia.detection.voices.ngrams import NGrams, counts
from intarsia.detection.voices.states import Probe
from intarsia.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from scipy import sparse

    from intarsia.detection.siamese import SiameseDetector
    from intarsia.detection.statistics import Kept
    from intarsia.models import Model
    from intarsia.models.saved import Saved

FILE = "detector.safetensors"
SIAMESE = "siamese"
FORMAT = 2
WORDS, POLISHED_WORDS, STATES, POLISHED_STATES = "words", "polished words", "states", "polished states"
REFERENCES = "references"
SPOKEN = (WORDS, POLISHED_WORDS)
"""Voices that need no language model."""
VOICES = (*SPOKEN, STATES, POLISHED_STATES, *language_model.NAMES, REFERENCES)


@dataclass
class Detector:
    """- ngrams: the linear model of words; probe: of the language model's states; polished_ngrams, polished_probe: the
      same, learned from people's texts that a machine polished alone, where training had such. weights: what each
      voice counts for.
    - banks: people's texts, by domain. machine: view -> [text] scores of machines' texts among their domain's bank.
    - scorer: where the language model is loaded from, and `scorer_key` of its weights. tokens: that it scores.
    - facts: what it was trained on, and how well it did on domains it had not seen. siamese: compares a text with
      references of its topic, where there is one: a sum of its own for texts that come with references, among those of
      the bank's that had them."""

    ngrams: NGrams
    probe: Probe
    weights: Weights
    banks: dict[str, Bank] = field(default_factory=dict)
    machine: dict[int, np.ndarray] = field(default_factory=dict)
    scorer: str = "smollm2-135m"
    scorer_key: str = ""
    tokens: int = language_model.TOKENS
    facts: dict[str, Any] = field(default_factory=dict)
    polished_ngrams: NGrams | None = None
    polished_probe: Probe | None = None
    siamese: SiameseDetector | None = field(default=None, compare=False, repr=False)
    folder: Path | None = field(default=None, compare=False)
    _kept: Kept | None = field(default=None, compare=False, repr=False)

    # -- hearing ---------------------------------------------------------------------------------------------------

    def values(
        self, texts: Sequence[str], views: Sequence[int] = VIEWS, *, read: bool = True,
        paired: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """[text, view, voice] of the texts' first words; NaN for the language model's voices where it does not
        `read`, and for voices that were not trained. paired: [text] what the encoder says of them beside their
        references; NaN, as by default: nothing."""
        out = np.full((len(texts), len(views), len(VOICES)), np.nan)
        for column, words in enumerate(views):
            out[:, column, : len(SPOKEN)] = self.spoken(counts([cut(text, words) for text in texts]))
        if read and len(texts):
            found, states = language_model.in_views(self.kept, texts, views, self.tokens)
            out[:, :, len(SPOKEN) : -1] = self.heard(found, states)
        if paired is not None:
            out[:, :, -1] = paired[:, None]
        return out

    def spoken(self, found: sparse.csr_matrix) -> np.ndarray:
        """[text, voice] the voices of words, from counts [text, place]."""
        models = self.ngrams, self.polished_ngrams
        return np.stack([np.full(found.shape[0], np.nan) if m is None else m.of(found) for m in models], -1)

    def heard(self, scores: np.ndarray, states: np.ndarray) -> np.ndarray:
        """[..., voice] the language model's voices, from its scores [..., score] and states [..., 4 width]."""
        probes = self.probe, self.polished_probe
        told = [np.full(states.shape[:-1], np.nan) if p is None else p.scores(states) for p in probes]
        return np.concatenate([np.stack(told, -1), scores], -1)

    def judge(
        self, bank: Bank, texts: Sequence[str], *, read: bool = True, paired: np.ndarray | None = None
    ) -> Judged:  # fmt: skip
        """Texts among a bank's, each in the view that shows it whole; without reading, by the words alone (and what
        the encoder says of them beside their references, `paired` [text])."""
        lengths = np.array([length_of(text) for text in texts])
        views = np.array([view_for(n) for n in lengths])
        each = np.zeros((2, len(texts), len(VOICES)))
        out = Judged(np.zeros(len(texts)), np.ones(len(texts)), *each)
        for view in sorted(set(views)):
            rows = np.flatnonzero(views == view)
            beside = None if paired is None else paired[rows]
            values = self.values([texts[row] for row in rows], (int(view),), read=read, paired=beside)[:, 0]
            found = self.judged(bank, values, np.minimum(lengths[rows], view), int(view), read=read)
            out.score[rows], out.p[rows], out.z[rows], out.counts[rows] = found.score, found.p, found.z, found.counts
        return out

    def judged(self, bank: Bank, values: np.ndarray, words: np.ndarray, view: int, *, read: bool = True) -> Judged:
        """Values [text, voice] of texts with their words [text] in a view, among a bank's. References are heard where
        all of the texts have some, and the bank's as well (see `Bank.heard`)."""
        weights = self.weights.at(words, None if read else SPOKEN)[:, None]
        if not read:
            # Where words alone are heard, they are heard, whatever they count for beside others.
            weights[:, 0, 0] = np.maximum(weights[:, 0, 0], 1e-3)
        if np.isfinite(values[:, -1]).all():
            alone = np.zeros((len(weights), 1, len(VOICES)))
            alone[..., -1] = 1.0
            weights = np.concatenate([weights, alone], 1)
        values = np.nan_to_num(values)
        return bank.judge(values, words, view, weights)

    def bank(self, domain: str) -> Bank:
        """The bank of a domain. Raises `BadInput` with the nearest names."""
        if domain not in self.banks:
            raise BadInput(
                f"no bank for the domain '{domain}'{did_you_mean(domain, self.banks)}; this detector has: "
                f"{', '.join(self.banks) or 'none'}; make one: intarsia detection calibrate DETECTOR --humans FOLDER "
                f"--domain {domain}"
            )
        return self.banks[domain]

    def machine_p(self, scores: np.ndarray, view: int) -> np.ndarray:
        """[text] share of machines' texts that score as low or lower among people's texts of their own domain."""
        known = [v for v in VIEWS if len(self.machine.get(v, ())) > 0]
        if not known:
            return np.ones(len(scores))
        nearest = min(known, key=lambda v: abs(np.log(v / view)))
        ordered = np.sort(self.machine[nearest])
        return (1 + np.searchsorted(ordered, scores, side="right")) / (len(ordered) + 1)

    @property
    def kept(self) -> Kept:
        """Statistics under the scoring model, which is loaded when it is first asked for. Raises `BadInput` when its
        weights are not those the detector was trained with."""
        if self._kept is None:
            from intarsia.models import load

            self.listen_with(load(self.scorer))
        return self._kept  # type: ignore[return-value]

    def listen_with(self, model: Model) -> None:
        """Use a scoring model that is loaded already."""
        from intarsia.detection.statistics import Kept

        self.hold(Kept(model))

    def hold(self, kept: Kept) -> None:
        """Use statistics of a scoring model."""
        from intarsia.models.weights import weights_key

        key = weights_key(kept.model)
        if self.scorer_key and key != self.scorer_key:
            raise BadInput(
                f"{self.scorer}: is another model than the one this detector was trained with; scores would mean "
                "nothing: put that one there, or train again"
            )
        self.scorer_key = key
        self._kept = kept

    # -- keeping ---------------------------------------------------------------------------------------------------

    @staticmethod
    def open(spec: str | Path) -> Detector:
        """From a folder, or by the name of a detector that comes with Intarsia. Raises `BadInput` for anything else."""
        from intarsia.detection.profiles import PROFILES, profile_path
        from intarsia.models.saved import Saved

        path = Path(spec).expanduser()
        if not path.exists() and str(spec) in PROFILES:
            path = profile_path(str(spec))
        file = path / FILE if path.is_dir() else path
        saved = Saved.read(file) if file.is_file() else None
        if saved is None:
            near = [*PROFILES, *(p.name for p in path.parent.iterdir())] if path.parent.is_dir() else [*PROFILES]
            raise BadInput(
                f"{spec}: no detector there{did_you_mean(path.name, near)}; give a folder that `detection train` made, "
                f"or one of: {', '.join(PROFILES)}"
            )
        detector = Detector.of_saved(saved)
        detector.folder = path if path.is_dir() else path.parent
        if (detector.folder / SIAMESE).is_dir():
            from intarsia.detection.siamese import SiameseDetector

            detector.siamese = SiameseDetector.load(detector.folder / SIAMESE)
        return detector

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """To a folder, whole or not at all. Raises `BadInput` when something is there and not `force`."""
        from intarsia.models import cache

        path = Path(path).expanduser().absolute()
        if path.is_file():
            raise BadInput(f"cannot save to {path}: it is a file, a folder is wanted")
        if not force and path.is_dir() and any(path.iterdir()):
            raise BadInput(f"{path} is not empty: give another folder, or force (--force) to replace it")
        saved = self.to_saved()
        with cache.beside(path, replace=force) as part:
            saved.write(part / FILE)
            if self.siamese is not None:
                self.siamese.save(part / SIAMESE)
        self.folder = path
        return path

    def to_saved(self) -> Saved:
        """Tensors, and what JSON holds. Weights of n-grams and the bank's numbers are halved in precision: a score
        changes by less than a hundredth."""
        import torch

        from intarsia.models.saved import Saved

        tensors = {
            "ngrams.rarity": torch.from_numpy(self.ngrams.rarity).half(),
            "ngrams.weight": torch.from_numpy(self.ngrams.weight).half(),
            "probe.weight": torch.from_numpy(self.probe.weight),
            "weights.short": torch.from_numpy(self.weights.short),
            "weights.long": torch.from_numpy(self.weights.long),
        }
        if self.polished_ngrams is not None and self.polished_probe is not None:
            tensors["polished_ngrams.rarity"] = torch.from_numpy(self.polished_ngrams.rarity).half()
            tensors["polished_ngrams.weight"] = torch.from_numpy(self.polished_ngrams.weight).half()
            tensors["polished_probe.weight"] = torch.from_numpy(self.polished_probe.weight)
        for number, bank in enumerate(self.banks.values()):
            tensors[f"lengths.{number}"] = torch.from_numpy(bank.lengths.astype(np.int32))
            for words, values in bank.values.items():
                tensors[f"bank.{number}.{words}"] = torch.from_numpy(values).half()
        for words, scores in self.machine.items():
            tensors[f"machine.{words}"] = torch.from_numpy(np.asarray(scores)).float()
        note = {
            "format": FORMAT, "voices": list(VOICES), "bias": self.ngrams.bias,
            "polished_bias": self.polished_ngrams.bias if self.polished_ngrams is not None else 0.0,
            "scorer": self.scorer, "scorer_key": self.scorer_key, "tokens": self.tokens, "facts": self.facts,
            "banks": [{"domain": b.domain, "language": b.language} for b in self.banks.values()],
        }  # fmt: skip
        return Saved(tensors, note)

    @staticmethod
    def of_saved(saved: Saved) -> Detector:
        """The inverse. Raises `BadInput` for what another version wrote."""
        note, tensors = saved.note, saved.tensors
        try:
            if note["format"] != FORMAT or tuple(note["voices"]) != VOICES:
                raise KeyError(f"format {note['format']}")
            read = {name: tensor.float().numpy() for name, tensor in tensors.items()}
            banks = {}
            for number, about in enumerate(note["banks"]):
                start = f"bank.{number}."
                values = {int(n[len(start) :]): v.astype(float) for n, v in read.items() if n.startswith(start)}
                lengths = read[f"lengths.{number}"].astype(int)
                banks[about["domain"]] = Bank(
                    voices=VOICES, values=values, lengths=lengths, domain=about["domain"], language=about["language"]
                )
            polished = {}
            if "polished_probe.weight" in read:
                words = read["polished_ngrams.rarity"], read["polished_ngrams.weight"]
                polished["polished_ngrams"] = NGrams(*words, note["polished_bias"])
                polished["polished_probe"] = Probe(read["polished_probe.weight"])
            return Detector(
                NGrams(read["ngrams.rarity"], read["ngrams.weight"], note["bias"]),
                Probe(read["probe.weight"]),
                Weights(VOICES, read["weights.short"].astype(float), read["weights.long"].astype(float)),
                banks,
                {int(n.partition(".")[2]): v.astype(float) for n, v in read.items() if n.startswith("machine.")},
                note["scorer"], note["scorer_key"], note["tokens"], note["facts"], **polished,
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise BadInput(f"this detector was made by another version of Intarsia ({error}); train it again") from None
