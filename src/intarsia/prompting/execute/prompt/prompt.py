"""`Prompt`: a template with a typed header, whose rendering is all that is ever sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import meta, nodes

from intarsia.errors import BadInput, did_you_mean, first_line
from intarsia.prompting.base import Message, Sampling, ToolSpec
from intarsia.prompting.execute.prompt.blocks import Conversation, loose_text, saying, trimmed
from intarsia.prompting.execute.prompt.describing import described
from intarsia.prompting.execute.prompt.header import InputSpec, split
from intarsia.prompting.execute.prompt.rendered import Rendered
from intarsia.prompting.execute.prompt.types import ANY, checked
from intarsia.prompting.execute.trust import Fence, fence_for, fenced, plain

if TYPE_CHECKING:
    from jinja2 import Template

GIVEN = ("shape", "fence")  # what a template may use beside its inputs


class Prompt:
    """A Jinja template of a conversation, with a header of YAML that declares its inputs.

        ---
        description: The emotion of a turn
        inputs:
          turn: untrusted
          shots: {type: list[LabelledText], default: []}
        sampling: {max_tokens: 5}
        ---
        {% system %}Name the emotion of what stands between {{ fence.open }} and {{ fence.close }}.{% endsystem %}
        {% user %}{{ turn }}{% enduser %}

    Without a message's tag the whole text is one message of the user. Strict: a name nobody declared, an input that is
    missing, unknown or of another type is an error. Sandboxed. Templates may use `shape` (the wanted form in words,
    empty without one) and `fence` (the marks that stand around text from outside), and include files of their own
    folder by name.

    - source: the file's text; body: what is below its header. name: what errors call it.
    - folder: where it includes from.
    - version: 12 digits of the sha256 of the source and of all that it includes.

    Raises `BadInput` for a header or a template that cannot be read, with the line."""

    def __init__(self, source: str, *, name: str = "prompt", folder: Path | None = None):
        from intarsia.prompting.execute.prompt.environment import PromptEnvironment

        self.source, self.name, self.folder = source, name, folder
        self.header, self.body = split(source, name)
        self._environment = PromptEnvironment(folder)
        trees = self._trees()
        self._template: Template = self._compiled(trees)
        self._used = self._names(trees)
        parts = [source, *(f"\0{name}\0{text}" for name, (text, _) in sorted(trees.items()) if name)]
        self.version = hashlib.sha256("".join(parts).encode(errors="surrogatepass")).hexdigest()[:12]
        known = self.header.inputs
        if known is None:
            known = {name: InputSpec(ANY) for name in self._used}
        self.inputs: dict[str, InputSpec] = known
        for used, place in self._used.items():
            if used not in known:
                raise BadInput(
                    f"{place}: uses '{used}', which the header does not declare{did_you_mean(used, [*known, *GIVEN])}"
                )

    @classmethod
    def load(cls, path: str | Path) -> Prompt:
        """Read a prompt's file. Raises `BadInput` where there is none, or it is no prompt."""
        path = Path(path).expanduser()
        try:
            source = path.read_text("utf-8")
        except OSError as error:
            raise BadInput(f"{path}: no prompt there ({error.strerror}); give a file like emotion.md.j2") from None
        except UnicodeDecodeError:
            raise BadInput(f"{path}: is no text in UTF-8") from None
        return cls(source, name=path.name, folder=path.parent)

    @property
    def description(self) -> str:
        """What the header says it is for."""
        return self.header.description

    @property
    def shape(self) -> Any:
        """The form of the answer that the header names: a list of choices or a JSON schema."""
        return self.header.shape

    @property
    def sampling(self) -> Sampling:
        """How its answers are drawn, by the header."""
        return self.header.sampling

    def __repr__(self) -> str:
        takes = ", ".join(f"{name}: {spec.type}" for name, spec in self.inputs.items())
        return f"Prompt({self.name} {self.version}: {takes})"

    def check(self, **inputs: Any) -> dict[str, Any]:
        """The inputs as the template gets them: checked, defaults filled in, what is declared untrusted marked.

        Raises `BadInput` that names the input and the line where it is used."""
        for name in inputs:
            if name not in self.inputs:
                takes = ", ".join(self.inputs) or "none"
                raise BadInput(f"{self.name}: has no input '{name}'{did_you_mean(name, self.inputs)}; it takes {takes}")
        out = {}
        for name, spec in self.inputs.items():
            used = f" (used in {self._used[name].partition(', ')[2]})" if name in self._used else ""
            if name not in inputs:
                if spec.required:
                    raise BadInput(f"{self.name}: input '{name}' is missing, it wants {spec.type}{used}")
                out[name] = spec.default
                continue
            out[name] = checked(inputs[name], spec.type, f"{self.name}: input '{name}'{used}")
        return out

    def render(
        self, *, tokenizer: Any = None, shape: Any = None, tools: Sequence[ToolSpec] = (), seed: str | None = None,
        **inputs: Any,
    ) -> Rendered:  # fmt: skip
        """Make the conversation. Nothing is sent, nothing is changed; the same inputs give the same text.

        - tokenizer: of the model, for the exact text and its token ids. tools: those that its template is to name.
        - shape: the wanted form, for `{{ shape }}`; default: the header's.
        - seed: of the marks around text from outside; default: the open trace's, or this process' (`fence_for`)."""
        values = self.check(**inputs)
        fence = fence_for(_leaves(values), about=self.version, seed=seed)
        return self._rendered(values, fence, shape, tokenizer, tools)

    def render_many(
        self, rows: Sequence[Mapping[str, Any]], *, shape: Any = None, seed: str | None = None
    ) -> list[Rendered]:  # fmt: skip
        """Conversations of many inputs, with the same marks around text from outside in all: what they do not differ in
        by their inputs is the same, so that they can be asked together (`ask_many`). Arguments: as of `render`."""
        values = [self.check(**row) for row in rows]
        fence = fence_for((leaf for each in values for leaf in _leaves(each)), about=self.version, seed=seed)
        return [self._rendered(each, fence, shape) for each in values]

    def _rendered(
        self, values: dict[str, Any], fence: Fence, shape: Any, tokenizer: Any = None, tools: Sequence[ToolSpec] = ()
    ) -> Rendered:  # fmt: skip
        shape = self.header.shape if shape is None else shape
        told = {"open": fence.open, "close": fence.close}
        said = self._said({**values, "shape": described(shape), "fence": told})
        messages, spans = [], []
        for number, message in enumerate(said):
            content, found = fenced(message.content, fence, message=number)
            messages.append(replace(message, content=content))
            spans += found
        text, ids = _exact(tokenizer, messages, tools)
        return Rendered(
            tuple(messages), self.name, self.version, values, tuple(spans), text, ids, self.header.sampling, shape,
            fence.open[1:-1] if spans else "",
        )  # fmt: skip

    def _said(self, values: Mapping[str, Any]) -> list[Message]:
        conversation = Conversation()
        token = saying.set(conversation)
        try:
            context = self._template.new_context(dict(values))
            loose = self._environment.concat(self._template.root_render_func(context))
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise BadInput(f"{self._place_of(error)}: {first_line(error)}") from None
        finally:
            saying.reset(token)
        if not conversation.said:
            return [Message("user", trimmed(loose))]
        if loose.strip():
            raise BadInput(f"{self.name}: text outside of all messages: '{plain(loose).strip()[:40]}'")
        return conversation.said

    def _trees(self) -> dict[str, tuple[str, nodes.Template]]:
        """Text and syntax tree of the template ('') and of all it includes, by name."""
        found: dict[str, tuple[str, nodes.Template]] = {}
        todo = [("", self.body)]
        while todo:
            name, text = todo.pop()
            try:
                tree = self._environment.parse(text)
                if loose := loose_text(tree):
                    raise jinja2.TemplateSyntaxError(f"text outside of all messages: '{loose[1]}'", loose[0])
                if escaping := tree.find(nodes.EvalContextModifier):  # HTML's, and it would lose what is from outside
                    raise jinja2.TemplateSyntaxError("a prompt has no `autoescape`", escaping.lineno)
            except jinja2.TemplateSyntaxError as error:
                raise BadInput(f"{self._place(name, error.lineno)}: {first_line(error)}") from None
            found[name] = text, tree
            for other in meta.find_referenced_templates(tree):
                if other is None:
                    raise BadInput(f"{name or self.name}: what is included has to be named, not computed")
                if other not in found and other not in (waiting for waiting, _ in todo):
                    try:
                        source = self._environment.loader.get_source(self._environment, other)[0]  # type: ignore[union-attr]
                    except jinja2.TemplateNotFound as error:
                        raise BadInput(f"{name or self.name}: {first_line(error)}") from None
                    todo.append((other, source))
        return found

    def _compiled(self, trees: Mapping[str, Any]) -> Template:
        name = ""
        try:
            for name in trees:
                if name:
                    self._environment.get_template(name)
            name = ""
            return self._environment.from_string(self.body)
        except jinja2.TemplateSyntaxError as error:
            raise BadInput(f"{self._place(name, error.lineno)}: {first_line(error)}") from None

    def _names(self, trees: Mapping[str, tuple[str, nodes.Template]]) -> dict[str, str]:
        """Names that the template takes from outside, and where each is used first."""
        out: dict[str, str] = {}
        known = {*self._environment.globals, *GIVEN}
        for name, (_, tree) in trees.items():
            free = meta.find_undeclared_variables(tree) - known
            for node in tree.find_all(nodes.Name):
                if node.name in free and node.name not in out:
                    out[node.name] = self._place(name, node.lineno)
        return out

    def _place(self, name: str, line: int) -> str:
        return f"{name}, line {line}" if name else f"{self.name}, line {line + self.header.lines}"

    def _place_of(self, error: BaseException) -> str:
        """The last place in a template that an error passed through."""
        place, trace = self.name, error.__traceback__
        while trace is not None:
            template = trace.tb_frame.f_globals.get("__jinja_template__")
            if template is not None:
                place = self._place(template.name or "", template.get_corresponding_lineno(trace.tb_lineno))
            trace = trace.tb_next
        return place


def _leaves(value: Any) -> Iterator[str]:
    """All texts in a value; what holds none as it is written out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(key)
            yield from _leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _exact(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[ToolSpec]
) -> tuple[str | None, tuple[int, ...] | None]:
    if tokenizer is None:
        return None, None
    from intarsia.prompting.base.chat import chat

    made = chat(tokenizer, messages, tools)
    return made.text, tuple(made.ids)
