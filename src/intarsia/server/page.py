"""The page at `/`: a chat to try the models with."""

from __future__ import annotations

import html

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from intarsia.server.application import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def add(api: FastAPI, title: str) -> None:
    """Add the route."""
    filled = PAGE.replace("{{title}}", html.escape(title)).replace("{{style}}", STYLE)

    @api.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(filled, headers={"content-security-policy": POLICY, "x-frame-options": "DENY"})


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{title}}</title>
<style>{{style}}select,input{font:inherit;padding:.3rem;margin-right:.6rem;background:transparent;color:inherit;
border:1px solid var(--line);border-radius:.4rem}#said{margin:1rem 0}.turn{white-space:pre-wrap;padding:.5rem .7rem;
border-left:.2rem solid var(--line);margin:.6rem 0}.turn.user{border-color:var(--bar)}summary{cursor:pointer}</style>
<h1>{{title}}</h1>
<label>Model <select id="model"></select></label>
<details class="soft"><summary>Settings</summary>
<label>Key <input id="key" type="password" autocomplete="off" placeholder="where the server asks for one"></label>
<label>Temperature <input id="heat" type="number" value="0.7" min="0" max="2" step="0.1"></label>
<label>Tokens <input id="most" type="number" value="256" min="1" max="4096"></label></details>
<div id="said" aria-live="polite"></div>
<textarea id="text" rows="3" aria-label="Message" placeholder="Enter sends, Shift+Enter is a new line"></textarea>
<button id="go">Send</button> <button id="new">New chat</button> <span id="note" class="soft" role="status"></span>
<p class="soft">The same over HTTP: any OpenAI client with <code>base_url</code> <code id="base"></code>;
<a href="/docs">all routes</a>.</p>
<script>
const get=id=>document.getElementById(id);let turns=[],stop=null;
get('base').textContent=location.origin+'/v1';
const headers=()=>{const h={'content-type':'application/json'};
 if(get('key').value)h.authorization='Bearer '+get('key').value;return h};
const show=(role,text)=>{const d=document.createElement('div');d.className='turn '+role;d.textContent=text;
 get('said').append(d);return d};
async function models(){
 try{
  const r=await fetch('/v1/models',{headers:headers()}),d=await r.json();
  if(!r.ok){get('note').textContent=d.error.message;return}
  get('model').replaceChildren(...d.data.map(m=>new Option(m.id,m.id)));get('note').textContent='';
 }catch(e){get('note').textContent='the server does not answer'}
}
async function send(){
 const text=get('text').value.trim();if(!text||stop)return;
 turns.push({role:'user',content:text});show('user',text);get('text').value='';
 const place=show('assistant',''),begun=performance.now();let said='',count=0;
 stop=new AbortController();get('go').textContent='Stop';get('note').textContent='...';
 try{
  const body={model:get('model').value,messages:turns,stream:true,stream_options:{include_usage:true},
   temperature:+get('heat').value,max_tokens:+get('most').value};
  const r=await fetch('/v1/chat/completions',{method:'POST',headers:headers(),body:JSON.stringify(body),
   signal:stop.signal});
  if(!r.ok){get('note').textContent=(await r.json()).error.message;turns.pop();place.remove();return}
  const reader=r.body.pipeThrough(new TextDecoderStream()).getReader();let rest='';
  for(;;){
   const {value,done}=await reader.read();if(done)break;
   const events=(rest+value).split('\\n\\n');rest=events.pop();
   for(const e of events){
    const data=e.replace(/^data: /,'');if(data==='[DONE]')continue;
    const d=JSON.parse(data);
    if(d.error){get('note').textContent=d.error.message;continue}
    said+=d.choices[0]?.delta?.content||'';place.textContent=said;
    if(d.usage)count=d.usage.completion_tokens;
   }
  }
  const s=(performance.now()-begun)/1000;
  if(count)get('note').textContent=count+' tokens, '+s.toFixed(1)+' s, '+(count/s).toFixed(1)+' a second';
 }catch(e){get('note').textContent=e.name==='AbortError'?'stopped':'the server does not answer'}
 finally{if(said)turns.push({role:'assistant',content:said});stop=null;get('go').textContent='Send'}
}
get('go').onclick=()=>stop?stop.abort():send();
get('new').onclick=()=>{turns=[];get('said').replaceChildren();get('note').textContent=''};
get('text').onkeydown=e=>{if(e.key==='Enter'&&!e.shiftKey){e.preventDefault();send()}};
get('key').onchange=models;models();
</script></html>"""
