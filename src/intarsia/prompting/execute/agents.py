"""`agent`: a model that observes, decides and acts by calling tools, until it answers.

Source: Yao et al. 2023, "ReAct: Synergizing Reasoning and Acting in Language Models" (calls and what comes of them in
one conversation)."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.calling import malformed_in
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import BudgetExceeded, InvalidOutput, PromptingError, ToolError
from intarsia.prompting.base.messages import Call, Input, Message
from intarsia.prompting.base.replies import Reply, Sampling, Usage
from intarsia.prompting.base.wrapping import runs_here
from intarsia.prompting.execute.asking import asked_for, read, run_now, within
from intarsia.prompting.execute.shape import Shape
from intarsia.prompting.execute.tools import Tool
from intarsia.prompting.execute.trust import Untrusted, fenced, is_untrusted, may_call, plain, taint
from intarsia.prompting.tracing import step

if TYPE_CHECKING:
    from intarsia.prompting.base.budget import Budget
    from intarsia.prompting.execute.trust import Confirm

ERROR = "error: "  # what the result of a call that failed begins with
Why = Literal["answer", "steps", "budget", "repeated", "errors", "checker"]


@dataclass(frozen=True)
class Done:
    """A call and what came of it. failed: the result is an error's text."""

    call: Call
    result: str
    failed: bool = False


Checker = Callable[[Sequence[Message], Sequence[Done]], Any]
"""Looks at the conversation and at what was just done. None: go on; anything else ends it, and is the answer."""


@dataclass(frozen=True)
class Finished:
    """What came of an agent.

    - answer: of the shape's type; a text where none was asked for; None where it was stopped before it answered.
    - text: the answer as it was written. messages: the whole conversation: given to `agent` again, it goes on there.
    - calls: every call that was made here, with its result. usage: of all requests. reply: the model's last.
    - why_stopped: `answer`; `steps` or `budget`: they were used up; `repeated`: nothing new came of its calls any more;
      `errors`: they failed again after it was told; `checker`: that said so."""

    answer: Any
    text: str
    messages: tuple[Message, ...]
    calls: tuple[Done, ...]
    usage: Usage
    why_stopped: Why
    reply: Reply


async def agent(
    backend: Backend,
    tools: Sequence[Tool],
    prompt: Input | Any,
    *,
    shape: Any = None,
    sampling: Sampling | None = None,
    budget: Budget | None = None,
    steps: int = 8,
    confirm: Confirm | None = None,
    parallel: bool = True,
    check: Checker | None = None,
    errors: int = 1,
    guarded: Sequence[str] = ("writes",),
    fence: bool = True,
    first: str | bool = False,
    conclude: bool = False,
    strict: bool = False,
) -> Finished:
    """Let a model call tools until it answers.

    - prompt: what `Prompt.render` gave, messages (also those of an agent that was stopped: calls that have no result
      yet are done first), or a text, which is then a user's message.
    - shape: of the answer. A model that runs here is held to valid calls, and to the shape where it does not call;
      other models are asked again, held to the shape and without tools, where their answer has not that form.
    - budget: of all requests together; its seconds hold for tools too. steps: requests at most.
    - confirm: who is asked before a tool with `confirm` is called, and before one of those that are `guarded` is called
      when text from outside had a say: the results of tools are such text (see `may_call`). Nobody: it is not called.
    - parallel: whether calls may be made several at a time; tools that write are called one after the other anyhow.
    - fence: whether results from outside stand between marks that nothing in them can end, hidden characters taken out
      (`trust.fenced`); a template may put results between plain words, which a result could write as well.
    - check: looks after each round whether to stop: the goal is reached, say.
    - errors: rounds in a row that may fail altogether: what went wrong goes back to the model.
    - first: a tool that has to be called, and not to fail, before there is an answer: its name, or `True` for any. The
      model is held to such a call; a server is asked for one (`tool_choice`). What answers out of its memory, or names
      what it never looked up, is made to look.
    - conclude: no tool is offered in the last of its steps, nor after calls that bring nothing new or fail again and
      again, and the model is held to the shape: it ends with an answer.
    - strict: raise where it stops without an answer.

    Every request and every call is a step of the trace that is open, if one is. Raises as `Backend.generate`, with
    `BudgetExceeded` where `strict`; `InvalidOutput` for an answer without the form."""
    by_name = {tool.name: tool for tool in tools}
    if len(by_name) < len(tools):
        raise BadInput(f"two tools have the same name: {', '.join(tool.name for tool in tools)}")
    if steps < 1:
        raise BadInput(f"steps is {steps}: give at least 1")
    if isinstance(first, str) and first not in by_name:
        raise BadInput(f"first: there is no tool '{first}'{did_you_mean(first, by_name)}")
    if first and (not tools or (conclude and steps < 2)):
        raise BadInput("a tool that has to be called first wants tools, and a step of its own before the answer")
    wanted, sampling = asked_for(prompt, shape, sampling)
    messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    if not all(isinstance(message, Message) for message in messages):
        raise BadInput("an agent needs messages or a text, not token ids")
    form = wanted.constraint if wanted is not None else None
    given = {"messages": messages, "tools": sorted(by_name), "steps": steps, "shape": form, "sampling": sampling}
    given |= {name: value for name, value in (("first", first), ("conclude", conclude)) if value}
    with step("flow", "agent", given, code=backend.fingerprint) as event:
        if event.replayed:
            return event.output
        work = _Agent(
            within(backend, budget), by_name, wanted, sampling, budget, confirm, parallel, check, errors, guarded,
            fence, first, conclude,
        )  # fmt: skip
        event.output = done = await work.run(messages, steps, strict)
        event.facts["why_stopped"] = done.why_stopped
        return done


def agent_now(backend: Backend, tools: Sequence[Tool], prompt: Input | Any, **options: Any) -> Finished:
    """`agent`, for where no event loop runs."""
    return run_now(agent(backend, tools, prompt, **options), "agent_now", "agent")


class _Agent:
    def __init__(
        self, backend: Backend, tools: dict[str, Tool], shape: Shape | None, sampling: Sampling, budget: Any,
        confirm: Any, parallel: bool, check: Checker | None, errors: int, guarded: Sequence[str],
        fence: bool, first: str | bool, conclude: bool,
    ):  # fmt: skip
        self.backend, self.tools, self.shape, self.sampling, self.budget = backend, tools, shape, sampling, budget
        self.confirm, self.parallel, self.check, self.errors, self.guarded = confirm, parallel, check, errors, guarded
        self.fence, self.first, self.conclude = fence, first, conclude
        self.specs = tuple(tool.spec for tool in tools.values())
        self.messages: list[Message] = []
        self.done: list[Done] = []
        self.usage = Usage(calls=0)
        self.reply = Reply("")
        self.seen: set[tuple[str, str, str]] = set()
        self.worked: set[str] = set()  # tools that were called and did not fail
        self.stale = self.failed = 0

    async def run(self, messages: list[Message], steps: int, strict: bool) -> Finished:
        self.messages = messages
        self._remember()
        try:
            if (open_ := self._unanswered()) and (stop := await self._act(open_)):
                return self._finished(*stop, strict=strict)
            enough = False  # calls that bring nothing more
            for turn in range(steps):
                last = self.conclude and (enough or turn == steps - 1)
                must = "" if last else self._must()
                self.reply = reply = await self._ask(must, last)
                if not reply.calls or last:
                    free = not last or self.shape is None
                    if free and (bad := malformed_in(reply.text)):
                        stop = await self._told_malformed(reply, bad[0].why)
                    elif must:
                        stop = await self._told_malformed(reply, "a tool has to be called before the answer")
                    else:
                        return await self._answered(reply, last)
                else:
                    calls = [call if call.id else replace(call, id=self._id(i)) for i, call in enumerate(reply.calls)]
                    self.messages.append(Message("assistant", self._said(reply.text), calls=tuple(calls)))
                    stop = await self._act(calls)
                enough = self.conclude and bool(stop) and stop[0] in ("repeated", "errors") and not self._must()
                if stop and (not enough or turn == steps - 1):
                    return self._finished(*stop, strict=strict)
        except BudgetExceeded:
            if strict:
                raise
            return self._finished("budget")
        return self._finished("steps", strict=strict)

    def _finished(self, why: Why, answer: Any = None, text: str = "", strict: bool = False) -> Finished:
        if strict and why not in ("answer", "checker"):
            reasons = {
                "steps": "all its steps are used up",
                "repeated": "its calls bring nothing new",
                "errors": f"its calls fail: {self.done[-1].result if self.done else ''}"[:300],
            }
            raise PromptingError(f"the agent gave no answer: {reasons.get(why, why)}")
        return Finished(answer, text, tuple(self.messages), tuple(self.done), self.usage, why, self.reply)

    def _must(self) -> str:
        """The tool that has to be called now; `required` for any, empty for none."""
        if not self.first or (self.worked if self.first is True else self.first in self.worked):
            return ""
        return "required" if self.first is True else str(self.first)

    async def _ask(self, must: str, last: bool) -> Reply:
        if last:
            form, tools = (None if self.shape is None else self.shape.constraint), ()
        else:
            form, tools = self._form(must), self.specs
        try:
            reply = await self.backend.generate(tuple(self.messages), self.sampling, constraint=form, tools=tools)
        except InvalidOutput as error:
            if not must:
                raise
            reply = Reply(error.raw)  # a server that does not hold the model to a call: it is told, and may try again
        self.usage += reply.usage
        return reply

    def _form(self, must: str) -> Constraint | None:
        """What a model that runs here is held to: valid calls, or an answer. A server is asked for a call that must be
        made, and after it for the answer's form: it lets the model call or answer, or holds it to the answer."""
        form = None if self.shape is None else self.shape.constraint
        if not self.specs:
            return form
        if self.backend.tokenizer is None or not runs_here(self.backend):
            if must:
                return Constraint("call", must, "call")
            return form if self.first and not runs_here(self.backend) else None
        from intarsia.prompting.base.call_forms import calls_constraint

        if form is not None and form.kind == "grammar":
            form = None
        return calls_constraint(
            self.specs, must or "auto", tokenizer=self.backend.tokenizer, parallel=self.parallel, answer=form
        )

    async def _answered(self, reply: Reply, last: bool) -> Finished:
        try:
            value = read(self.shape, reply)
        except InvalidOutput:
            if not self.specs or self.shape is None or last:
                raise
            # It has the form that a template gives an answer, and not the wanted one: once more, held to it.
            self.reply = reply = await self.backend.generate(
                tuple(self.messages), self.sampling, constraint=self.shape.constraint
            )
            self.usage += reply.usage
            value = read(self.shape, reply)
        text = self._said(reply.text)
        if isinstance(text, Untrusted) and (self.shape is None or self.shape.kind != "choice"):
            value = taint(value)
        self.messages.append(Message("assistant", text))
        return self._finished("answer", value, text)

    def _said(self, text: str) -> str:
        """What a model wrote is from outside when something from outside was read before it."""
        return Untrusted(text) if any(map(is_untrusted, self.messages)) else text

    async def _told_malformed(self, reply: Reply, why: str) -> tuple[Why] | None:
        self.messages.append(Message("assistant", self._said(reply.text)))
        self.messages.append(Message("tool", f"{ERROR}{why}"))
        return self._count_failure(True)

    async def _act(self, calls: Sequence[Call]) -> tuple[Why, Any] | tuple[Why] | None:
        """Do the calls of a round. Gives why to stop, if there is a reason."""
        before = tuple(self.messages)
        allowed = [await self._decide(call, before) for call in calls]
        work = [self._call(call, refused) for call, refused in zip(calls, allowed, strict=True)]
        writes = any(call.name in self.tools and self.tools[call.name].writes for call in calls)
        if self.parallel and not writes:
            ended = await asyncio.gather(*work, return_exceptions=True)  # all of them, before an error goes on
            if wrong := next((one for one in ended if isinstance(one, BaseException)), None):
                raise wrong
            round_ = [one for one in ended if isinstance(one, Done)]
        else:
            round_ = [await one for one in work]
        new = False
        for done in round_:
            told = fenced(done.result)[0] if self.fence else done.result
            key = (done.call.name, json.dumps(done.call.arguments, sort_keys=True, default=str), str(told))
            again = key in self.seen
            new |= not again
            self.seen.add(key)
            if not done.failed:
                self.worked.add(done.call.name)
            if again:
                told += "\n[the same call gave the same result before]"
            self.messages.append(Message("tool", told, call=done.call.id, name=done.call.name))
        self.done += round_
        if self.check is not None:
            found = self.check(tuple(self.messages), tuple(round_))
            found = await found if inspect.isawaitable(found) else found
            if found is not None:
                return "checker", found
        self.stale = 0 if new else self.stale + 1
        if self.stale >= 2:
            return ("repeated",)
        return self._count_failure(all(done.failed for done in round_))

    def _count_failure(self, failed: bool) -> tuple[Why] | None:
        self.failed = self.failed + 1 if failed else 0
        return ("errors",) if self.failed > self.errors else None

    async def _decide(self, call: Call, before: Sequence[Message]) -> str:
        """Why a call is not made; empty where it is."""
        if (tool := self.tools.get(call.name)) is None:
            return f"there is no tool '{call.name}'{did_you_mean(call.name, self.tools)}"
        decided = await may_call(tool, call.arguments, before, self.confirm, name=call.name, guarded=self.guarded)
        return "" if decided.allowed else f"not allowed: {'; '.join(decided.reasons)}"

    async def _call(self, call: Call, refused: str) -> Done:
        with step("tool", call.name, call.arguments) as event:
            if event.replayed:
                result, failed = event.output["result"], event.output["failed"]
                return Done(call, result, failed)
            if refused:
                result, failed = f"{ERROR}{refused}", True
            else:
                try:
                    result, failed = await self._in_time(self.tools[call.name], call), False
                except ToolError as error:
                    # What went wrong is told in words that may come from anywhere.
                    said = f"{ERROR}{str(error).removeprefix(call.name + ': ')}"
                    result, failed = said if self.tools[call.name].trusted else Untrusted(said), True
            event.output = {"result": result, "failed": failed}
            return Done(call, result, failed)

    async def _in_time(self, tool: Tool, call: Call) -> str:
        seconds = self.budget.left.seconds if self.budget is not None else None
        timer = asyncio.timeout(seconds)
        try:
            async with timer:
                return await tool.run(call.arguments)
        except TimeoutError:
            if not timer.expired():
                raise
            raise BudgetExceeded("seconds", *self.budget.time()) from None

    def _id(self, number: int) -> str:
        """Nine letters and digits, which every template takes."""
        return f"c{len(self.messages):05d}{number:03d}"

    def _unanswered(self) -> list[Call]:
        """Calls at the end of the conversation that have no result yet."""
        answered: set[str] = set()
        for message in reversed(self.messages):
            if message.role == "tool":
                answered.add(message.call)
            elif message.role == "assistant":
                return [call for call in message.calls if call.id not in answered]
            else:
                break
        return []

    def _remember(self) -> None:
        """What earlier calls in the conversation gave."""
        calls = {call.id: call for message in self.messages for call in message.calls}
        for message in self.messages:
            if message.role == "tool" and (call := calls.get(message.call)) is not None:
                arguments = json.dumps(call.arguments, sort_keys=True, default=str)
                self.seen.add((call.name, arguments, str(message.content)))
                said = plain(message.content)
                if not (said.partition(">")[2].lstrip() if is_untrusted(message.content) else said).startswith(ERROR):
                    self.worked.add(call.name)
