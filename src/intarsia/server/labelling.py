"""Labels over HTTP: turns of a dialogue or texts in, a distribution over the labels for each out.

`app(model, name)` is a FastAPI application: `POST /v1/label`, `GET /v1/models`, `GET /health`, and a page at `/` to try
it. It serves any model that labels: one that `adaptation.dialogue` or `adaptation.label` made."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from intarsia.data import LabelledText, Turn
from intarsia.errors import BadInput, IntarsiaError
from intarsia.measure.labelling import label_scores, own_way
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import LabelScores, score

if TYPE_CHECKING:
    from intarsia.models import Model

MOST = 2000  # turns or texts of one request


SomeText = Annotated[str, pydantic.Field(min_length=1, max_length=20_000)]


class Said(pydantic.BaseModel):
    """A turn. number: its place, where turns are missing; about: what is to be seen, in words."""

    model_config = pydantic.ConfigDict(extra="forbid")
    text: SomeText
    speaker: str = ""
    number: int | None = None
    about: str = ""


class LabelRequest(pydantic.BaseModel):
    """One dialogue (`turns`, in order), or texts that have nothing to do with each other (`texts`)."""

    model_config = pydantic.ConfigDict(extra="forbid")
    turns: list[Said] | None = pydantic.Field(None, min_length=1, max_length=MOST)
    texts: list[SomeText] | None = pydantic.Field(None, min_length=1, max_length=MOST)
    last: bool = pydantic.Field(False, description="only the last turn is wanted: the rest is context")

    @pydantic.model_validator(mode="after")
    def _one(self) -> LabelRequest:
        if (self.turns is None) == (self.texts is None):
            raise ValueError("give either turns (one dialogue) or texts")
        return self


def scores_of(model: Model, request: LabelRequest) -> LabelScores:
    """Scores of what is asked for, in order."""
    if request.turns is not None:
        turns = [
            Turn(t.text, "", "dialogue", speaker=t.speaker, number=i if t.number is None else t.number, about=t.about)
            for i, t in enumerate(request.turns)
        ]
    else:
        turns = [Turn(text, "", f"text {i}") for i, text in enumerate(request.texts or [])]
    if own_way(model):
        return label_scores(model, turns)
    task = LabelTask.of(model)
    if task is None:
        raise BadInput("this model has no labels: tune one with `intarsia adaptation dialogue` or `adaptation label`")
    said = [f"{t.speaker}: {t.text}" if t.speaker else t.text for t in turns]
    records = [
        LabelledText(text, "", context=tuple(said[:i]) if request.turns is not None else ())
        for i, text in enumerate(said)
    ]
    return score(model, task, records, calibration="none")


def app(model: Model, name: str) -> FastAPI:
    """The application. Requests are answered one after the other: each uses all cores. Raises `BadInput` for a model
    that has no labels."""
    if own_way(model) is None and LabelTask.of(model) is None:
        raise BadInput(f"{name} has no labels: tune a model with `intarsia adaptation dialogue` or `adaptation label`")
    api = FastAPI(title=f"Intarsia: {name}", docs_url="/docs", redoc_url=None)
    one_at_a_time = threading.Lock()

    @api.exception_handler(IntarsiaError)
    def refused(request: Request, error: IntarsiaError) -> JSONResponse:
        return _error(str(error), 400 if isinstance(error, BadInput) else 500)

    @api.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        said = first["msg"].removeprefix("Value error, ")
        return _error(f"{where}: {said}" if where else said, 422)

    @api.post("/v1/label")
    def label(request: LabelRequest) -> dict[str, Any]:
        with one_at_a_time:
            found = scores_of(model, request)
        places = [len(found.best) - 1] if request.last else range(len(found.best))
        rows = [
            {
                "label": found.labels[found.best[i]],
                "probabilities": dict(zip(found.labels, map(float, found.probabilities[i]), strict=True)),
            }
            for i in places
        ]
        return {"model": name, "labels": list(found.labels), "turns" if request.turns is not None else "texts": rows}

    @api.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "intarsia"}]}

    @api.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/", response_class=HTMLResponse)
    def page() -> str:
        import html

        return PAGE.replace("{{name}}", html.escape(name))

    return api


def _error(message: str, code: int) -> JSONResponse:
    return JSONResponse(
        {"error": {"message": message, "type": "invalid_request_error" if code < 500 else "error"}}, code
    )


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{name}}</title>
<style>
:root{color-scheme:light dark;--ink:#1d2430;--soft:#667;--line:#d5d9e0;--bar:#3b6ea8;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa3b2;--line:#39414f;--bar:#7aa7dc;--paper:#161a21}}
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.2rem}textarea{width:100%;box-sizing:border-box;font:inherit;padding:.6rem;border:1px solid var(--line);
border-radius:.4rem;background:transparent;color:inherit}
button{font:inherit;padding:.4rem 1.2rem;margin:.6rem 0;border:0;border-radius:.4rem;background:var(--bar);color:#fff}
table{border-collapse:collapse;width:100%}td{padding:.35rem .5rem;border-top:1px solid var(--line);vertical-align:top}
td.label{white-space:nowrap;font-weight:600}td.bar{width:9rem}
.meter{height:.55rem;margin-top:.5rem;background:var(--line);border-radius:.3rem}
.meter div{height:100%;background:var(--bar);border-radius:.3rem}.soft{color:var(--soft)}
</style>
<h1>{{name}}</h1>
<p class="soft">A dialogue, a line each: <code>Speaker: text</code>. Hover a label for all probabilities.</p>
<textarea id="text" rows="8" aria-label="Dialogue">Ann: I got the job!
Ben: You did? That is wonderful.
Ann: But I have to move, and leave all of you.</textarea>
<button id="go">Label</button> <span id="note" class="soft" role="status"></span>
<table id="out"></table>
<script>
const out=document.getElementById('out'),note=document.getElementById('note');
document.getElementById('go').onclick=async()=>{
 const lines=document.getElementById('text').value.split('\\n').filter(l=>l.trim());
 const turns=lines.map(l=>{
  const m=l.match(/^([^:]{1,40}):\\s*(.+)$/);
  return m?{speaker:m[1].trim(),text:m[2]}:{text:l};
 });
 out.replaceChildren();note.textContent='...';
 try{
  const headers={'content-type':'application/json'};
  const r=await fetch('/v1/label',{method:'POST',headers,body:JSON.stringify({turns})});
  const d=await r.json();
  if(!r.ok){note.textContent=d.error.message;return}
  note.textContent='';
  d.turns.forEach((t,i)=>{
   const row=out.insertRow(),p=t.probabilities[t.label];
   row.insertCell().textContent=lines[i];
   const cell=row.insertCell();cell.className='label';cell.textContent=t.label;
   const all=Object.entries(t.probabilities).sort((a,b)=>b[1]-a[1]);
   cell.title=all.map(([k,v])=>k+' '+(100*v).toFixed(0)+' %').join('\\n');
   const bar=row.insertCell();bar.className='bar';bar.innerHTML='<div class="meter"><div></div></div>';
   bar.querySelector('.meter div').style.width=(100*p)+'%';
   bar.title=(100*p).toFixed(0)+' %';
  });
 }catch(e){note.textContent='the server does not answer'}
};
</script></html>"""
