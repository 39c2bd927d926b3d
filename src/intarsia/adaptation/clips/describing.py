"""How `adaptation.describe` goes about it: clip after clip from the cache or through the model, a batch at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.adaptation.clips.finding import DescribedFinding, Descriptions, Seen
from intarsia.adaptation.clips.kept import Kept, Said
from intarsia.adaptation.clips.technique import DescribeConfig
from intarsia.adaptation.clips.wording import without, words_of
from intarsia.adaptation.clips.writers import Writer, writer_of
from intarsia.data import Turn, read
from intarsia.data.clips import Clip, open_clip
from intarsia.data.descriptions import Description, View, listed, views
from intarsia.data.pictures import Unreadable
from intarsia.errors import BadInput, Note
from intarsia.measure import provenance
from intarsia.models.cache import sha256_of
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model


def describe_all(model: Model, config: DescribeConfig, clips: Any) -> Descriptions:
    """See `intarsia.adaptation.clips.technique.describe`."""
    records = _records(clips)
    wanted = list(dict.fromkeys(view for view in views(records) if view is not None))
    if not wanted:
        raise BadInput(
            f"none of {len(records)} records names a clip: give a folder of clips, or turns with a column 'clip'"
        )
    labels = _labels(config, records)
    writer = writer_of(
        model, prompt=config.prompt, together=config.together, max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
    )  # fmt: skip
    words = words_of(labels)
    _warn_of_prompt(writer.prompt, words)
    work = _Work(model, config, writer)
    for view in track(wanted, "describing clips", facts=work.facts):
        work.look(view)
    work.flush()
    out, told = [], _common(wanted)
    finding = DescribedFinding(
        title="Clips in words", technique="adaptation.describe", prompt=writer.prompt, labels=labels,
        cached=work.cached,
        provenance=provenance(model=model.identity.source, settings=config.model_dump(mode="json")),
    )  # fmt: skip
    for view in wanted:
        if view in work.left_out:
            finding.left_out[told(view)] = work.left_out[view]
            out.append(Description(view.clip, view.start, view.end, trouble=work.left_out[view]))
            continue
        said, digest = work.said[view]
        text, removed = without(said.text, words)
        nothing = "nothing is left without the words of the labels" if removed else "the model wrote nothing"
        trouble = said.trouble if text else nothing
        finding.silent += said.sound
        finding.clips.append(
            Seen(
                clip=told(view), seconds=said.seconds, scenes=said.scenes, times=list(said.times), text=text,
                removed=removed, trouble=trouble,
            )
        )  # fmt: skip
        out.append(
            Description(
                view.clip, view.start, view.end, text, digest, said.seconds, said.scenes, said.times, removed,
                trouble,
            )
        )  # fmt: skip
    _tell(finding, work.left_out)
    return Descriptions(out, finding)


def _records(clips: Any) -> list[Any]:
    if isinstance(clips, str | Path):
        clips = read(clips)
    records = [Turn("", "", clip=str(one)) if isinstance(one, str | Path) else one for one in clips]
    if not records:
        raise BadInput("no clips given: give a folder of clips, or turns with a column 'clip'")
    return records


def _labels(config: DescribeConfig, records: Sequence[Any]) -> list[str]:
    own = () if config.keep_labels else sorted({label for r in records if (label := getattr(r, "label", ""))})
    return list(dict.fromkeys([*own, *config.without]))


def _warn_of_prompt(prompt: str, words: frozenset[str]) -> None:
    named = without(prompt, words)[1]
    if named:
        warnings.warn(
            "the prompt names words of the labels, so that the texts may answer to them: ask for what can be seen",
            Note,
            stacklevel=5,
        )


class _Work:
    """Views to texts. `said`: by view, with the clip's sha256; `left_out`: why there is none; `facts`: for progress."""

    def __init__(self, model: Model, config: DescribeConfig, writer: Writer):
        shown = {"frames", "side", "together", "max_new_tokens"}
        self.config, self.writer = config, writer
        self.kept = Kept(model, {**config.model_dump(mode="json", include=shown), "prompt": writer.prompt})
        self.said: dict[View, tuple[Said, str]] = {}
        self.left_out: dict[View, str] = {}
        self.facts: dict[str, float | str] = {}
        self.cached = 0
        self._waiting: dict[Path, tuple[Clip, list[tuple[View, str]]]] = {}
        self._done: dict[Path, Said] = {}

    def look(self, view: View) -> None:
        """Describe it now or with the next batch."""
        file = Path(view.clip)
        try:
            digest = sha256_of(file) if file.is_file() else ""
            key = self.kept.path(digest, view.start, view.end)
            if key in self._waiting:  # another file with the same film in it
                self._waiting[key][1].append((view, digest))
                return
            said = self._done.get(key)
            if said is None and digest and self.config.cache and (said := self.kept.get(key)) is not None:
                self.cached += 1
                self.facts["from the cache"] = self.cached
                self._done[key] = said
            if said is not None:
                self.said[view] = said, digest
                return
            c = self.config
            clip = open_clip(file, frames=c.frames, side=c.side, start=view.start, end=view.end)
        except Unreadable as error:
            self.left_out[view] = str(error).removeprefix(f"{file}: ")
            return
        except OSError as error:
            self.left_out[view] = f"cannot be read: {error.strerror or error}"
            return
        self._waiting[key] = clip, [(view, digest)]
        if sum(len(clip.pictures) for clip, _ in self._waiting.values()) >= self.config.batch_size:
            self.flush()

    def flush(self) -> None:
        """Describe what waits, and keep it."""
        if not self._waiting:
            return
        texts = self.writer.write([clip.pictures for clip, _ in self._waiting.values()])
        for (key, (clip, of)), text in zip(self._waiting.items(), texts, strict=True):
            said = Said(text, clip.seconds, len(clip.scenes), tuple(clip.times), clip.sound, clip.trouble)
            if self.config.cache:
                self.kept.put(key, said)
            self._done[key] = said
            for view, digest in of:
                self.said[view] = said, digest
        self._waiting = {}


def _common(wanted: Sequence[View]) -> Any:
    """How a view is called: its path without what all have in common, and its stretch."""
    parents = {str(Path(view.clip).absolute().parent) for view in wanted}
    root = Path(os.path.commonpath(parents))

    def told(view: View) -> str:
        name = Path(view.clip).absolute().relative_to(root).as_posix()
        return name if view.start is None else f"{name} {view.start:g}-{view.end:g} s"

    return told


def _tell(finding: DescribedFinding, left_out: dict[View, str]) -> None:
    first = next(iter(left_out), None)
    total = len(finding.clips) + len(left_out)
    if first is not None and not finding.clips:
        raise BadInput(f"none of {total} clips can be read; the first: {first.clip}: {left_out[first]}")
    if first is not None:
        warnings.warn(
            f"{len(left_out)} of {total} clips cannot be read and have no description: "
            f"{listed(list(finding.left_out))} (the first: {left_out[first]})",
            Note,
            stacklevel=5,
        )
    text = f"{len(finding.clips):,} clips in words"
    text += f", {finding.cached:,} of them from the cache" if finding.cached else ""
    text += f"; {finding.removed:,} words of the labels were removed" if finding.labels else ""
    text += f"; {len(left_out):,} clips could not be read" if left_out else ""
    finding.summary = text + "."
