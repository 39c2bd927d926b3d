"""Whose text is it? Verdicts over HTTP.

`app(detector, name)` is a FastAPI application:

- `POST /v1/detect` (one text), `POST /v1/detect/batch` (many, answered as JSON lines as they come).
- `POST /v1/report`: the verdict as a page. `GET /v1/report/ID`: that of a text sent to `/v1/detect` with `retain`;
  `DELETE` forgets it.
- `POST /v1/calibrate`: a bank of people's texts. `POST /v1/references`: what a machine writes on a topic.
- `GET /v1/profiles`: the banks. `GET /health`; `GET /`: a page to try it.

Texts are not kept but where `retain` asks for it, and then in memory alone: what the answer says of their words is sent
back and forgotten; the language model's numbers are kept under a hash of the text."""

from __future__ import annotations

import html
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pydantic
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, StreamingResponse

from intarsia.data import Document
from intarsia.detection import Detector
from intarsia.detection.calibration import calibrating
from intarsia.detection.checking.checker import Checker
from intarsia.detection.checking.references import check_beside
from intarsia.detection.checking.verdicts import STATEMENT, Checked, Verdicts
from intarsia.detection.profiles import PROFILES_FOLDER
from intarsia.detection.writing.local import LocalWriter
from intarsia.detection.writing.references import make_references
from intarsia.detection.writing.writer import Writer, open_writer
from intarsia.errors import BadInput
from intarsia.report import render_finding
from intarsia.server.application import STYLE, application, error_of

MOST = 500  # texts of one request
RETAINED = 200  # reports in memory; of more, the oldest are forgotten
LONGEST = 1_000_000  # characters of a text


SomeText = Annotated[str, pydantic.Field(max_length=LONGEST)]


class Asked(pydantic.BaseModel):
    """How to judge. domain: a bank of the detector; alpha: the false-positive budget; triage: see `detection.check`."""

    model_config = pydantic.ConfigDict(extra="forbid")
    domain: str | None = None
    language: str = ""
    alpha: float = pydantic.Field(0.01, gt=0, lt=1)
    triage: bool = False
    passages: int = pydantic.Field(20, ge=0, le=200)


class DetectRequest(Asked):
    """One text, and what machines wrote on its topic. retain: keep the report, so that its page can be had later."""

    text: SomeText
    references: list[SomeText] = pydantic.Field(default_factory=list, max_length=20)
    retain: bool = False


class BatchRequest(Asked):
    """Texts, judged one after the other."""

    texts: list[SomeText] = pydantic.Field(min_length=1, max_length=MOST)


class CalibrateRequest(pydantic.BaseModel):
    """Texts that people wrote in a domain; see `detection.calibrate`. writers: of each text its group of writers."""

    model_config = pydantic.ConfigDict(extra="forbid")
    domain: str = pydantic.Field(min_length=1, max_length=200)
    texts: list[SomeText] = pydantic.Field(min_length=1, max_length=10 * MOST)
    writers: list[str] | None = None
    language: str = ""
    replace: bool = False
    accept_group_risk: bool = False

    @pydantic.model_validator(mode="after")
    def one_each(self) -> CalibrateRequest:
        if self.writers is not None and len(self.writers) != len(self.texts):
            raise ValueError(f"writers: one for each text is wanted ({len(self.writers)} for {len(self.texts)})")
        return self


class ReferencesRequest(pydantic.BaseModel):
    """A topic; see `detection.references`."""

    model_config = pydantic.ConfigDict(extra="forbid")
    task: SomeText = pydantic.Field(min_length=1)
    count: int = pydantic.Field(3, ge=1, le=20)
    words: int = pydantic.Field(200, ge=50, le=1000)
    seed: int = pydantic.Field(0, ge=0)


def app(detector: Detector, name: str, embedder: str = "minilm", writer: str | Writer | None = None) -> FastAPI:
    """The application; settings as for `add`, and a page."""
    api = application(name)
    add(api, lambda: detector, name, embedder, writer)

    @api.get("/", response_class=HTMLResponse)
    def page() -> str:
        choices = "".join(f"<option>{html.escape(domain)}</option>" for domain in detector.banks)
        filled = PAGE.replace("{{name}}", html.escape(name)).replace("{{style}}", STYLE)
        return filled.replace("{{domains}}", choices).replace("{{statement}}", html.escape(STATEMENT))

    return api


def add(
    api: FastAPI, opened: Callable[[], Detector], name: str, embedder: str = "minilm",
    writer: str | Writer | None = None,
) -> None:  # fmt: skip
    """Add the routes. Requests are answered one after the other: each uses all cores.

    - opened: gives the detector, once it is there. embedder: compares texts with references.
    - writer: writes references, as in `detection.references`; default: the detector's own language model."""
    one_at_a_time = threading.Lock()
    reports: OrderedDict[str, Verdicts] = OrderedDict()
    writers: list[Writer] = []

    def judged(request: Asked, text: str, references: list[str]) -> Checked:
        bank = opened().bank(request.domain) if request.domain is not None else None
        checker = Checker(opened(), bank, request.alpha, triage=request.triage, passages=request.passages)
        document = Document(text, name="text", language=request.language)
        others = [Document(r, "machine", name=f"reference {i}") for i, r in enumerate(references, 1)]
        with one_at_a_time:
            (found,) = check_beside(checker, [document], others, embedder)
        return found

    @api.post("/v1/detect")
    def detect(request: DetectRequest) -> dict[str, Any]:
        found = judged(request, request.text, request.references)
        kept = {}
        if request.retain:
            kept["id"] = secrets.token_urlsafe(12)
            reports[kept["id"]] = page_of(found, request.alpha)
            while len(reports) > RETAINED:
                reports.popitem(last=False)
        return {
            **kept,
            "model": name,
            "alpha": request.alpha,
            "statement": STATEMENT,
            **found.model_dump(exclude={"name"}),
        }

    @api.post("/v1/detect/batch")
    def batch(request: BatchRequest) -> StreamingResponse:
        if request.domain is not None:
            opened().bank(request.domain)  # refused before the first line is sent

        def lines() -> Iterator[str]:
            for number, text in enumerate(request.texts):
                found = judged(request, text, []).model_copy(update={"name": str(number)})
                yield found.model_dump_json() + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @api.get("/v1/profiles")
    def profiles() -> dict[str, Any]:
        banks = [
            {
                "domain": bank.domain,
                "language": bank.language,
                "texts": bank.texts,
                "smallest_alpha": 1 / (bank.texts + 1),
            }
            for bank in opened().banks.values()
        ]
        return {"model": name, "scorer": opened().scorer, "banks": banks, "trained_on": opened().facts}

    def page_of(found: Checked, alpha: float) -> Verdicts:
        return Verdicts(title="Whose text?", documents=[found], rate=alpha, detector=name)

    @api.post("/v1/report", response_class=HTMLResponse)
    def report(request: DetectRequest) -> str:
        found = judged(request, request.text, request.references)
        if found.verdict == "unreadable":
            raise BadInput("there is no text")
        return render_finding(page_of(found, request.alpha))

    @api.get("/v1/report/{number}", response_class=HTMLResponse)
    def retained(number: str) -> Any:
        found = reports.get(number)
        return render_finding(found) if found is not None else error_of(f"no report '{number}'", 404)

    @api.delete("/v1/report/{number}")
    def forget(number: str) -> Any:
        gone = reports.pop(number, None) is not None
        return {"id": number, "deleted": True} if gone else error_of(f"no report '{number}'", 404)

    @api.post("/v1/calibrate")
    def calibrate(request: CalibrateRequest) -> dict[str, Any]:
        groups = request.writers or [""] * len(request.texts)
        documents = [Document(t, "human", writers=w) for t, w in zip(request.texts, groups, strict=True)]
        lasting = opened().folder is not None and not opened().folder.absolute().is_relative_to(PROFILES_FOLDER)
        with one_at_a_time:
            found = calibrating.add(
                opened(), documents, request.domain, language=request.language, replace=request.replace,
                accept_group_risk=request.accept_group_risk,
            )  # fmt: skip
            if lasting:
                opened().save(opened().folder, force=True)  # type: ignore[arg-type]
        # A detector that comes along stays as it is on the disk: there the bank is gone with the server.
        return {**found.model_dump(include=set(BANK)), "lasting": lasting}

    @api.post("/v1/references")
    def references(request: ReferencesRequest) -> dict[str, Any]:
        with one_at_a_time:
            if not writers:
                chosen = LocalWriter(opened().kept.model) if writer is None else writer
                writers.append(open_writer(chosen) if isinstance(chosen, str) else chosen)
            made = make_references(
                request.task, writers[0], k=request.count, words=request.words, seed=request.seed
            )  # fmt: skip
        return {"references": [{"text": d.text, "generator": d.generator, "prompt": d.prompt} for d in made]}


BANK = ("domain", "texts", "language", "words", "reach", "groups", "budget")


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{name}}</title>
<style>{{style}}select,input{font:inherit;padding:.3rem;margin-right:.6rem}#out{white-space:pre-wrap;margin-top:1rem}
mark{background:none;border-radius:.2rem}.verdict{font-weight:600}</style>
<h1>Whose text is it?</h1>
<textarea id="text" rows="12" aria-label="Text" placeholder="50 words or more"></textarea>
<label>Kind of text <select id="domain"><option value="">not known</option>{{domains}}</select></label>
<label>Budget <input id="alpha" type="number" value="0.01" min="0.001" max="0.5" step="0.001"></label>
<button id="go">Check</button> <span id="note" class="soft" role="status"></span>
<p id="verdict" class="verdict"></p><p id="told" class="soft"></p><div id="out"></div>
<p class="soft">{{statement}}</p>
<script>
const get=id=>document.getElementById(id);
get('go').onclick=async()=>{
 const text=get('text').value,body={text,alpha:+get('alpha').value};
 if(get('domain').value)body.domain=get('domain').value;
 get('note').textContent='...';get('out').replaceChildren();get('verdict').textContent=get('told').textContent='';
 try{
  const headers={'content-type':'application/json'};
  const r=await fetch('/v1/detect',{method:'POST',headers,body:JSON.stringify(body)});
  const d=await r.json();
  get('note').textContent='';
  if(!r.ok){get('note').textContent=d.error.message;return}
  const score=d.score?': score '+d.score[0].toFixed(2)+' ('+d.score[1].toFixed(2)+' to '+d.score[2].toFixed(2)+'), '+
   (100*d.p_human).toFixed(1)+' % of people\'s texts score as high':'';
  get('verdict').textContent=d.verdict.replaceAll('_',' ')+score;
  get('told').textContent=[...d.warnings,...d.findings].join('; ');
  const edges=[...new Set(d.passages.flatMap(p=>[p.start,p.end]))].sort((a,b)=>a-b);
  edges.slice(0,-1).forEach((start,i)=>{
   const end=edges[i+1],over=d.passages.filter(p=>p.start<=start&&p.end>=end),piece=document.createElement('mark');
   const score=over.reduce((s,p)=>s+p.score,0)/Math.max(1,over.length);
   piece.textContent=[...text].slice(start,end).join('');
   piece.style.background='rgba(214,120,40,'+Math.max(0,Math.min(.6,score/6))+')';
   piece.title='score '+score.toFixed(2)+(over.some(p=>p.flagged)?', flagged':'');
   get('out').append(piece);
  });
 }catch(e){get('note').textContent='the server does not answer'}
};
</script></html>"""
