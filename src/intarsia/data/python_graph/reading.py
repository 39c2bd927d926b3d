"""A source file of the standard library, through `ast`, as a `Scope`. Nothing is run."""

from __future__ import annotations

import ast
from pathlib import Path

from intarsia.data.python_graph.bodies import BINDS, dotted, import_targets, read_body
from intarsia.data.python_graph.scopes import Class, Function, Scope, Target

NAMED_TUPLES = ("namedtuple", "collections.namedtuple", "_collections.namedtuple")


def read_source(path: Path, module: str) -> Scope | None:
    """The scope of a file; None when it cannot be read or parsed."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    scope = Scope(module, package=path.name == "__init__.py", doc=ast.get_docstring(tree) or "")
    _Reader(scope).block(tree.body)
    _exports(tree, scope)
    # An import inside a function is one of the module too.
    package = module if scope.package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            scope.imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for _, target in import_targets(node, package):
                scope.imports.add(f"{target.where}.{target.name}" if target.kind == "import" else target.where)
    return scope


class _Reader:
    def __init__(self, scope: Scope):
        self.scope = scope
        self.package = scope.module if scope.package else scope.module.rpartition(".")[0]

    def block(self, body: list[ast.stmt]) -> None:
        """The statements of a module, those in `if`, `try` and `with` too."""
        for node in body:
            match node:
                case ast.ClassDef():
                    self.class_(node, node.name)
                    self.scope.bind(node.name, Target("definition", node.name))
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self.scope.functions.setdefault(node.name, Function()).add(read_function(node, self.package))
                    self.scope.bind(node.name, Target("definition", node.name))
                case ast.Import() | ast.ImportFrom():
                    for name, target in import_targets(node, self.package):
                        if name == "*":
                            self.scope.stars.append(target.where)
                        else:
                            self.scope.bind(name, target)
                case ast.Assign(targets=[ast.Subscript(slice=ast.Name(id="__name__"))], value=ast.Name(id=name)):
                    # `sys.modules[__name__] = other`
                    found = self.scope.bindings.get(name, ())
                    self.scope.stars += [target.where for target in found if target.kind == "module"]
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        if isinstance(target, ast.Name):
                            self.assigned(target.id, value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.assigned(name, value)
                case _:
                    for part in BINDS:
                        self.block(getattr(node, part, []))
                    for handler in getattr(node, "handlers", []):
                        self.block(handler.body)

    def assigned(self, name: str, value: ast.expr) -> None:
        if (fields := _named_tuple(value)) is not None:
            made = Class(["tuple"], named_tuple=True, members={f: Function(data=True) for f in fields})
            self.scope.classes.setdefault(name, Class()).add(made)
            self.scope.bind(name, Target("definition", name))
        elif isinstance(value, ast.Call) and (made_by := dotted(value.func)):
            self.scope.bind(name, Target("instance", made_by))
        elif source := dotted(value):
            self.scope.bind(name, Target("alias", source))

    def class_(self, node: ast.ClassDef, name: str) -> None:
        found = Class(doc=ast.get_docstring(node) or "")
        for base in node.bases:
            if (fields := _named_tuple(base)) is not None:
                found.bases.append("tuple")
                found.named_tuple = True
                found.members |= {f: Function(data=True) for f in fields}
            # Generic[T] and the like: the class behind the brackets.
            elif base_name := dotted(base.value if isinstance(base, ast.Subscript) else base):
                found.bases.append(base_name)
        found.decorators = [d for item in node.decorator_list if (d := _decorator(item))]
        for item in node.decorator_list:  # `@_simple_enum(IntEnum)` puts the base in
            if isinstance(item, ast.Call) and item.args and (_decorator(item) or "").endswith("_simple_enum"):
                found.bases.append(dotted(item.args[0]) or "")
        metas = [dotted(k.value) or "" for k in node.keywords if k.arg == "metaclass"]
        found.abstract = any(meta.endswith("ABCMeta") for meta in metas)
        self.class_body(node.body, name, found)
        self.scope.classes.setdefault(name, Class()).add(found)

    def class_body(self, body: list[ast.stmt], name: str, found: Class) -> None:
        for node in body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    found.members.setdefault(node.name, Function()).add(read_function(node, self.package, method=True))
                case ast.ClassDef():
                    self.class_(node, f"{name}.{node.name}")
                case ast.Assign(targets=[ast.Name(id=alias)], value=ast.Name(id=member)) if member != alias:
                    found.aliases.setdefault(alias, member)
                case ast.Assign(targets=[ast.Name(id=alias)], value=ast.Call(func=ast.Name(id="property"))):
                    found.members.setdefault(alias, Function()).add(Function(data=True))
                case ast.If() | ast.Try():
                    for part in BINDS:
                        self.class_body(getattr(node, part, []), name, found)


def read_function(node: ast.FunctionDef | ast.AsyncFunctionDef, package: str, method: bool = False) -> Function:
    """A function by its definition; `self.x` in a method is kept as the reference `self.x`, whatever `self` is called
    there."""
    decorators = [d for item in node.decorator_list if (d := _decorator(item))]
    arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
    owner = None
    if method and "staticmethod" not in decorators and arguments:
        owner = arguments.pop(0)
    found = Function(
        parameters=[a for a in (*arguments, *(a.arg for a in node.args.kwonlyargs)) if not a.startswith("_")],
        decorators=[d for d in decorators if d.rpartition(".")[2] not in ("setter", "getter", "deleter")],
        coroutine=isinstance(node, ast.AsyncFunctionDef),
        doc=ast.get_docstring(node) or "",
    )
    if len(found.decorators) < len(decorators):
        found.parameters = []  # a setter: nobody calls it by name
    read_body(node, found, owner, package)
    return found


def _decorator(node: ast.expr) -> str | None:
    return dotted(node.func if isinstance(node, ast.Call) else node)


def _named_tuple(node: ast.expr) -> list[str] | None:
    """The fields when the expression makes a named tuple with fields that can be read off."""
    if not (isinstance(node, ast.Call) and dotted(node.func) in NAMED_TUPLES and len(node.args) > 1):
        return None
    try:
        fields = ast.literal_eval(node.args[1])
    except ValueError:
        return None
    return fields.replace(",", " ").split() if isinstance(fields, str) else [str(name) for name in fields]


def _exports(tree: ast.Module, scope: Scope) -> None:
    """`__all__` as far as it is written out; `open_ended` when some of it is computed. One made from `globals()` says
    no more than none."""
    everything = False
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                pass
            case ast.AugAssign(target=ast.Name(id="__all__"), value=value):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Name(id="__all__"), attr="extend"), args=[value]):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Name(id="__all__"), attr="append"), args=[item]):
                value = ast.List([item])
            case _:
                continue
        scope.exported = scope.exported or set()
        parts = [value]
        while parts:
            part = parts.pop()
            if isinstance(part, ast.BinOp):
                parts += [part.left, part.right]
            elif isinstance(part, ast.List | ast.Tuple):
                names = [e.value for e in part.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
                scope.exported.update(names)
                scope.open_ended |= len(names) < len(part.elts)
            else:
                scope.open_ended = True
                everything |= isinstance(part, ast.ListComp) and "globals()" in ast.unparse(part)
    if everything or (not scope.exported and scope.open_ended):
        scope.exported = None  # all of it is computed
