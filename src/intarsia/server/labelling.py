"""Labels over HTTP: turns of a dialogue or texts in, a distribution over the labels for each out.

`app(model, name)` is a FastAPI application: `POST /v1/label`, `GET /v1/models`, `GET /health`, and a page at `/` to try
it. It serves any model that labels: one that `adaptation.dialogue` or `adaptation.label` made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from intarsia.data import LabelledText, Turn
from intarsia.errors import BadInput
from intarsia.measure.labelling import label_scores, own_way
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import LabelScores, score
from intarsia.server.application import STYLE, application

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
    """The application, with a page. Raises `BadInput` for a model that has no labels."""
    check_labels(model, name)
    api = application(name)
    add(api, lambda: model, name)

    @api.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "intarsia"}]}

    @api.get("/", response_class=HTMLResponse)
    def page() -> str:
        import html

        return PAGE.replace("{{name}}", html.escape(name)).replace("{{style}}", STYLE)

    return api


def check_labels(model: Model, name: str) -> None:
    """Raise `BadInput` for a model that has no labels."""
    if own_way(model) is None and LabelTask.of(model) is None:
        raise BadInput(f"{name} has no labels: tune a model with `intarsia adaptation dialogue` or `adaptation label`")


def add(api: FastAPI, opened: Callable[[], Model], name: str) -> None:
    """Add the route. Requests are answered one after the other: each uses all cores. opened: gives the model, once it
    is there."""
    one_at_a_time = threading.Lock()

    @api.post("/v1/label")
    def label(request: LabelRequest) -> dict[str, Any]:
        with one_at_a_time:
            found = scores_of(opened(), request)
        places = [len(found.best) - 1] if request.last else range(len(found.best))
        rows = [
            {
                "label": found.labels[found.best[i]],
                "probabilities": dict(zip(found.labels, map(float, found.probabilities[i]), strict=True)),
            }
            for i in places
        ]
        return {"model": name, "labels": list(found.labels), "turns" if request.turns is not None else "texts": rows}


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{name}}</title>
<style>{{style}}</style>
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
