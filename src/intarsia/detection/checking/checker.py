"""From a document to a verdict: normalise, refuse what cannot be judged, hear the voices, and ask the bank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.calibration import conformal
from intarsia.detection.calibration.banks import FEWEST, Bank
from intarsia.detection.checking.bounds import resampled
from intarsia.detection.checking.passages import Window, share_of_words, windows
from intarsia.detection.checking.verdicts import BankUsed, Checked, Heard, Passage, Verdict
from intarsia.detection.detector import REFERENCES, SPOKEN, VOICES, Detector
from intarsia.detection.languages import language_of
from intarsia.detection.normalising import Normalised, normalise
from intarsia.detection.voices.cuts import LEAST, SHORTEST, VIEWS, cut, length_of, view_for
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.data import Document

UNLIKE = 0.05  # beta: under this share of machines' texts a score is unlike them
SURE = 0.8  # of a language, before a text is refused for it
DOUBT = 0.5  # triage: where so many of people's texts have words as machine-like, the language model is not asked
FALSE_PASSAGES = 0.1  # share of the flagged passages that may be wrong


@dataclass
class Checker:
    """Checks documents by one detector.

    - bank: people's texts they are judged among; None: every bank of their language, and the one under which a document
      looks most like a person's decides; such a verdict is not certified.
    - rate: false-positive budget. read: whether the language model is asked at all; triage: only where words leave
      doubt. passages: windows that are looked at, at most; 0: none."""

    detector: Detector
    bank: Bank | None = None
    rate: float = 0.01
    read: bool = True
    triage: bool = False
    passages: int = 60
    seed: int = 0

    def __call__(self, documents: Sequence[Document], paired: np.ndarray | None = None) -> list[Checked]:
        """- paired: [document] log odds that the detector's encoder gives them beside their references; NaN: none."""
        least = conformal.wanted(self.rate)
        texts = [normalise(document.text) for document in documents]
        checked = [self._begun(d, t) for d, t in zip(documents, texts, strict=True)]
        open_ = [i for i, c in enumerate(checked) if c.verdict == "inconclusive"]
        doubtful = [i for i in open_ if self._doubtful(texts[i].text, checked[i].language)]
        if doubtful and self.read:
            self.detector.kept([texts[i].text for i in doubtful], self.detector.tokens or None)
        for i in track(open_, "judging documents") if len(open_) > 1 else open_:
            read = self.read and i in doubtful
            self._judge(checked[i], texts[i].text, least, read, math.nan if paired is None else float(paired[i]))
            if self.passages:
                self._look(checked[i], documents[i].text, texts[i], read)
        return checked

    # -- steps -----------------------------------------------------------------------------------------------------

    def _begun(self, document: Document, text: Normalised) -> Checked:
        """What can be told without any voice: length and language."""
        out = Checked(name=document.name, verdict="inconclusive", words=length_of(text.text))
        out.findings = [str(finding) for finding in text.findings]
        if not text.text.strip():
            out.verdict = "unreadable"
            return out
        code, sure = language_of(text.text)
        out.language = document.language or code
        if not self._banks(out.language) and (document.language or sure >= SURE or not code):
            out.verdict = "unsupported_language"
            known = sorted({bank.language for bank in self._all()})
            out.warnings.append(f"it reads as '{code or 'no language'}'; there are banks for: {', '.join(known)}")
        elif out.words < SHORTEST:
            out.verdict = "too_short"
            out.warnings.append(f"{out.words} words; {SHORTEST} are needed")
        elif not self._banks(out.language):
            out.language = self._all()[0].language
        return out

    def _all(self) -> list[Bank]:
        return [self.bank] if self.bank is not None else list(self.detector.banks.values())

    def _banks(self, language: str) -> list[Bank]:
        return [bank for bank in self._all() if bank.language == language and bank.texts >= FEWEST]

    def _doubtful(self, text: str, language: str) -> bool:
        """Whether the language model is to be asked: unless under some bank many people write in such words."""
        if not self.triage or not self.read:
            return True
        return all(self.detector.judge(b, [text], read=False).p[0] <= DOUBT for b in self._banks(language))

    def _judge(self, out: Checked, text: str, least: int, read: bool, paired: float) -> None:
        banks = self._banks(out.language)
        # One that is too small to vouch for the budget would flag nobody, whatever the text; one whose texts are all
        # much shorter or longer is no measure.
        for fit in (lambda bank: bank.texts >= least, lambda bank: _of_length(bank, out.words)):
            banks = [bank for bank in banks if fit(bank)] or banks
        if np.isfinite(paired):
            out.siamese = paired
            # Those of the bank that had references: where they vouch for as much, they are the better bank.
            beside = [bank.heard(REFERENCES) for bank in banks]
            if all(b.texts >= max(FEWEST, min(least, bank.texts)) for b, bank in zip(beside, banks, strict=True)):
                banks = beside
            else:
                paired = math.nan
        at = np.array([paired])
        each = [(bank, self.detector.judge(bank, [text], read=read, paired=at)) for bank in banks]
        # Of several banks the one under which it looks most like a person's: whichever is its own, that is no riskier.
        bank, judged = max(each, key=lambda pair: pair[1].p[0])
        out.read, out.bank = read, BankUsed(domain=bank.domain, texts=bank.texts, words=int(np.median(bank.lengths)))
        out.p_human = float(judged.p[0])
        out.certified = self.bank is not None and bank.texts >= least
        out.score = (float(judged.score[0]), *self._interval(text, bank, read, paired))
        view = view_for(out.words)
        out.p_machine = float(self.detector.machine_p(judged.score, view)[0])
        shown = min(out.words, view)
        values = self.detector.values([text], (view,), read=read, paired=at)[0, 0]
        out.voices = [
            Heard(name=name, value=float(v), z=float(z), weight=float(w))
            for name, v, z, w in zip(VOICES, values, judged.z[0], judged.counts[0], strict=True)
            if (read or name in SPOKEN or name == REFERENCES) and np.isfinite(v)
        ]
        out.verdict = self._verdict(out, bank.texts, least)
        if self.bank is None:
            out.warnings.append(
                f"no domain given: judged by '{bank.domain}', among whose texts it looks most like a person's; "
                "give texts of its own kind (--bank, or --domain) for a verdict that keeps the budget"
            )
        elif bank.texts < least:
            out.warnings.append(
                f"the bank has {bank.texts} texts: it can vouch for {conformal.smallest_rate(bank.texts):.1%}, "
                f"not for {self.rate:.1%}"
            )
        if not _of_length(bank, out.words):
            low, high = np.quantile(bank.words(view), [0.02, 0.98])
            out.certified = False
            out.warnings.append(f"the bank's texts have {low:.0f} to {high:.0f} words, this one {shown}")

    def _verdict(self, out: Checked, size: int, least: int) -> Verdict:
        human, machine = out.p_human or 0.0, out.p_machine or 0.0
        # A bank that cannot vouch for the budget flags nobody.
        high = human <= self.rate and size >= least
        if high:
            return "machine_like" if machine > UNLIKE else "unlike_both"
        return "human_like" if machine <= UNLIKE else "inconclusive"

    def _interval(self, text: str, bank: Bank, read: bool, paired: float) -> tuple[float, float]:
        words = length_of(text)
        view = view_for(words)
        some = cut(text, view)
        found = self.detector.kept([text], self.detector.tokens or None)[0].between(0, len(some)) if read else None
        values = resampled(self.detector, some, found, seed=self.seed, paired=paired)
        shown = np.full(len(values), min(words, view))
        scores = self.detector.judged(bank, values, shown, view, read=read).score
        low, high = np.nanquantile(scores, [0.025, 0.975])
        return float(low), float(high)

    def _look(self, out: Checked, given: str, text: Normalised, read: bool) -> None:
        """The passages, by the bank that judged the whole: its texts are cut to the passages' length."""
        if out.bank is None:
            return
        bank = next(b for b in self._all() if b.domain == out.bank.domain)
        total = windows(text.text)
        every = windows(text.text, most=self.passages)
        if len(total) > len(every):
            out.warnings.append(f"{len(every)} of {len(total)} passages were looked at, evenly spread")
        pieces = [text.text[w.start : w.end] for w in every]
        judged = self.detector.judge(bank, pieces, read=read)
        flagged = conformal.benjamini_hochberg(judged.p, max(FALSE_PASSAGES, self.rate))
        # A single window is the document: it is flagged by the same budget.
        flagged = flagged if len(every) > 1 else np.array([out.verdict == "machine_like"])
        for w, piece, score, value, flag in zip(every, pieces, judged.score, judged.p, flagged, strict=True):
            start, end = text.original(w.start, w.end)
            runs = [run for run, _ in self.detector.ngrams.evidence(piece, 6)] if score > 0 else []
            out.passages.append(Passage(
                start=start, end=end, words=w.last - w.first, score=float(score), p=float(value), flagged=bool(flag),
                text=given[start:end], evidence=runs,
            ))  # fmt: skip
        out.flagged_share = self._share(every, flagged)
        if len(every) > 1 and out.verdict in ("human_like", "inconclusive") and flagged.any():
            out.verdict = "inconclusive"  # its beginning is a person's, perhaps, but not all of it
            out.warnings.append(f"{int(flagged.sum())} of {len(every)} passages read like a machine's")

    @staticmethod
    def _share(every: list[Window], flagged: np.ndarray) -> tuple[float, float, float]:
        """Share of words in flagged windows; its interval counts windows that do not overlap."""
        share = share_of_words([w for w, flag in zip(every, flagged, strict=True) if flag], every)
        apart = max(1, math.ceil(len(every) / 2))
        _, low, high = conformal.rate_interval(round(share * apart), apart)
        return share, min(low, share), max(high, share)


def _of_length(bank: Bank, words: int) -> bool:
    """Whether the bank has texts about as long, as far as a view shows them."""
    view = view_for(words)
    low, high = np.quantile(bank.words(view), [0.02, 0.98])
    return bool(low * 0.8 <= min(words, view) <= high * 1.25)


def bank_documents(documents: Sequence[Document]) -> list[Document]:
    """Documents as a bank takes them: normalised, without those said twice and those that are too short."""
    read = (replace(document, text=normalise(document.text).text) for document in documents)
    return [d for d in {d.text: d for d in reversed(list(read))}.values() if length_of(d.text) >= LEAST][::-1]


def bank_of(detector: Detector, documents: Sequence[Document], domain: str, language: str = "") -> Bank:
    """A bank made of people's documents, of those that `bank_documents` leaves."""
    return bank_from(detector, bank_documents(documents), domain, language)


def bank_from(detector: Detector, documents: Sequence[Document], domain: str, language: str = "") -> Bank:
    """A bank made of what `bank_documents` left."""
    texts = [document.text for document in documents]
    codes = [language_of(text)[0] for text in texts]
    spoken = language or (max(set(codes), key=codes.count) if codes else "en")
    lengths = np.array([length_of(text) for text in texts], dtype=int)
    return Bank.of(domain, VOICES, detector.values(texts), lengths, VIEWS, spoken)
