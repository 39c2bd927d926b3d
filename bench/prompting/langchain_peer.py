"""The same tasks as LangChain's documentation has them written, against the same server.

- `agent`: `create_agent(model, tools, response_format=Form)`, as applications are told to begin. For a model that it
  knows nothing of it asks for the form by a tool (`ToolStrategy`), and again where the arguments do not fit.
- `structured`: `model.with_structured_output(Form)`, whose method is `json_schema`, with `with_retry`.
- `functions`: the same with `method="function_calling"`.
- `agent, search first` (questions): the same with a middleware that does what ours is asked for by `first` and
  `conclude`: a search has to be called first (`tool_choice`; the form is left out there, since with it any tool may be
  chosen, the form's own too), and the last call has no tool but the form.
- `chain` (questions): a retriever, a prompt and `with_structured_output`: two steps, no agent.

All ask with the same words, tokens at most and requests at a time as ours; the store is the same."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from bench.prompting.counting import Server
from bench.prompting.tasks import (
    ASK,
    AT_ONCE,
    EXTRACT,
    HITS,
    SAMPLING,
    SEARCH,
    STEPS,
    Asking,
    Cited,
    Entry,
    Extraction,
    Labelling,
    Query,
    conversation,
    numbered,
    with_passages,
)

PACKAGES = ("langchain", "langchain-core", "langchain-openai", "langgraph", "openai")
TRIES = 3  # of `with_retry`, its own default
Run = Callable[[], Awaitable[list[Any]]]


def here(folder: Path | None = None) -> str:
    """Versions, where LangChain can be imported (also from `folder`, which comes last); raises `ImportError`."""
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.import_module("langchain.agents")
    importlib.import_module("langchain_openai")

    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def model(server: Server) -> Any:
    """LangChain's model, with a cache of its own that is empty."""
    from langchain_core.caches import InMemoryCache
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=server.model, base_url=server.url, api_key="none", temperature=0, max_tokens=SAMPLING.max_tokens,
        timeout=600, cache=InMemoryCache(),
    )  # fmt: skip


def label(llm: Any, task: Labelling) -> dict[str, Run]:
    from pydantic import Field, create_model

    form = create_model(
        "Label", __doc__=f"The {task.kind} of a text.", label=(Literal[task.labels], Field(description=task.kind))
    )
    return _structured(llm, form, task.system, task.texts, lambda value: value.label)


def extract(llm: Any, task: Extraction) -> dict[str, Run]:
    return _structured(llm, Entry, EXTRACT, task.texts, lambda value: value)


def answer(llm: Any, task: Asking) -> dict[str, Run]:
    from langchain.agents import create_agent
    from langchain.tools import tool
    from langchain_core.documents import Document
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import RunnablePassthrough

    class Retriever(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [
                Document(hit.text, metadata={"source": hit.source, "anchor": hit.anchor})
                for hit in task.store.search(query, HITS)
            ]

    retriever = Retriever()

    @tool(response_format="content_and_artifact")
    def search_documentation(query: Query) -> tuple[str, Any]:  # (Document is known here only)
        """Search Python's documentation.

        Args:
            query: what to look for.
        """
        found = retriever.invoke(query)
        return numbered([document.page_content for document in found]), found

    def cited(documents: Sequence[Document], value: Cited | None) -> tuple[str, str] | None:
        place = 0 if value is None else int(value.passage)
        if not 0 < place <= len(documents):
            return None
        found = documents[place - 1].metadata
        return found["source"], found["anchor"]

    def of_state(state: Any) -> tuple[str, str] | None:
        results = [message.artifact for message in state["messages"] if getattr(message, "artifact", None)]
        return cited(results[-1] if results else (), state.get("structured_response"))

    prompt = ChatPromptTemplate.from_messages([("system", ASK), ("user", "{said}")])
    chain = (
        RunnablePassthrough.assign(documents=lambda given: retriever.invoke(given["question"]))
        | RunnablePassthrough.assign(
            said=lambda given: with_passages(given["question"], [d.page_content for d in given["documents"]])
        )
        | RunnablePassthrough.assign(value=prompt | _retried(llm.with_structured_output(Cited)))
    )
    by_agent = create_agent(
        llm, [search_documentation], system_prompt=SEARCH, response_format=Cited, middleware=_limit()
    )
    searching = create_agent(
        llm, [search_documentation], system_prompt=SEARCH, response_format=Cited, middleware=[*_limit(), _first()]
    )
    return {
        "agent": lambda: _each(by_agent, [_state(text) for text in task.texts], of_state),
        "agent, search first": lambda: _each(searching, [_state(text) for text in task.texts], of_state),
        "chain": lambda: _each(
            chain, [{"question": text} for text in task.texts], lambda given: cited(given["documents"], given["value"])
        ),
    }


THEIRS: dict[str, Callable[[Any, Any], dict[str, Run]]] = {
    "labelling": label, "extraction": extract, "questions": answer
}  # fmt: skip


def _structured(llm: Any, form: Any, system: str, texts: Sequence[str], value: Callable[[Any], Any]) -> dict[str, Run]:
    from langchain.agents import create_agent

    talks = [[(message.role, message.content) for message in conversation(system, text)] for text in texts]
    by_agent = create_agent(llm, [], system_prompt=system, response_format=form, middleware=_limit())
    direct = _retried(llm.with_structured_output(form))
    functions = _retried(llm.with_structured_output(form, method="function_calling"))

    def of_state(state: Any) -> Any:
        found = state.get("structured_response")
        return None if found is None else value(found)

    def of_form(found: Any) -> Any:
        return None if found is None else value(found)

    return {
        "agent": lambda: _each(by_agent, [_state(text) for text in texts], of_state),
        "structured": lambda: _each(direct, talks, of_form),
        "functions": lambda: _each(functions, talks, of_form),
    }


def _state(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _limit() -> list[Any]:
    from langchain.agents.middleware import ModelCallLimitMiddleware

    return [ModelCallLimitMiddleware(run_limit=STEPS)]


def _first() -> Any:
    from langchain.agents.middleware import AgentMiddleware

    class SearchFirst(AgentMiddleware):
        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            asked = sum(message.type == "ai" for message in request.messages)
            if not any(message.type == "tool" for message in request.messages):
                request = request.override(response_format=None, tool_choice="search_documentation")
            elif asked == STEPS - 1:
                request = request.override(tools=[])
            return await handler(request)

    return SearchFirst()


def _retried(runnable: Any) -> Any:
    return runnable.with_retry(stop_after_attempt=TRIES, wait_exponential_jitter=False)


async def _each(runnable: Any, inputs: Sequence[Any], value: Callable[[Any], Any]) -> list[Any]:
    """None where it gave up."""
    found = await runnable.abatch(list(inputs), config={"max_concurrency": AT_ONCE}, return_exceptions=True)
    return [None if isinstance(one, Exception) else value(one) for one in found]
