"""What the code of an architecture reads of config.json, as mlx-lm's source says, without importing it.

A module of mlx_lm/models takes config.json into dataclasses and silently drops every key that they do not have. Which
keys those are, which have a default, and which are declared but never looked at again, stands in the source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import msgspec

from squish.format import architectures

# What models share. Whether an architecture looks at a key is decided by its own module, not by these.
_SHARED = frozenset({"base", "cache", "rope_utils", "switch_layers", "activations", "mla", "pipeline", "ssm"})
_TEXT = "text_config"


class Arguments(msgspec.Struct, frozen=True):
    """The keys that one dataclass of a module takes from config.json.

    fields: every key, and its default as source; None where the key must be there. used: names that the code looks at.
    prepared: names that only the dataclass itself looks at, while it is made. words: names and strings in the module.
    """

    module: str
    fields: Mapping[str, str | None]
    used: frozenset[str]
    prepared: frozenset[str]
    words: frozenset[str]

    def reads(self, key: str) -> bool:
        """Whether a value under this key can change what the model computes."""
        return key in self.fields and (key in self.used or key in self.prepared)

    @property
    def shared_rope(self) -> bool:
        """Whether rotary embedding is built by mlx-lm's `initialize_rope`, which knows most kinds of scaling."""
        return "initialize_rope" in self.words

    def first(self, *keys: str) -> str | None:
        """The first of these keys that is read."""
        return next((key for key in keys if self.reads(key)), None)


@cache
def of_module(module: str) -> Arguments | None:
    """What `ModelArgs` of a module of mlx_lm/models takes; None where there is no such module."""
    found = _source(module)
    return None if found is None or "ModelArgs" not in found.classes else _arguments(found, "ModelArgs")


@cache
def of_text(module: str, kind: str | None) -> Arguments | None:
    """What a module takes from the nested `text_config`; None where it knows no such thing.

    kind: the nested model_type, for modules that choose the language model by it.
    """
    found = _source(module)
    if found is None:
        return None
    places = [place for each in (found, *found.siblings()) for place in each.nested]
    chosen = next((place for place in places if place[0] == kind), places[-1] if places else None)
    if chosen is not None and (owner := _source(chosen[0])) is not None:
        return _arguments(owner, chosen[1])
    return of_module(module) if _TEXT in found.words else None


# ---- reading the source


class _Source(msgspec.Struct, frozen=True):
    """A module as it is written. classes: by the name it has here, where it is defined and what it is called there.

    modules: other modules by the name they have here. nested: (module, class) of each `….from_dict(….text_config)`.
    """

    name: str
    tree: ast.Module
    classes: Mapping[str, tuple[str, str]]
    modules: Mapping[str, str]
    imports: tuple[str, ...]
    nested: tuple[tuple[str, str], ...]
    words: frozenset[str]

    def siblings(self) -> Iterator[_Source]:
        """The modules of other architectures that this one builds on, each once."""
        seen, waiting = {self.name}, list(self.imports)
        while waiting:
            name = waiting.pop(0)
            if name in seen or (found := _source(name)) is None:
                continue
            seen.add(name)
            waiting += found.imports
            yield found

    def definition(self, name: str) -> ast.ClassDef | None:
        return next((each for each in self.tree.body if isinstance(each, ast.ClassDef) and each.name == name), None)


@cache
def _source(name: str) -> _Source | None:
    root = architectures.models_directory()
    path = None if root is None or Path(name).name != name else root / f"{name}.py"
    if path is None or not path.is_file():
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {each.name: (name, each.name) for each in tree.body if isinstance(each, ast.ClassDef)}
    modules: dict[str, str] = {}
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or node.level != 1:
            continue
        for alias in node.names:
            if node.module is None:
                modules[alias.asname or alias.name] = alias.name
            else:
                classes.setdefault(alias.asname or alias.name, (node.module, alias.name))
    imports = [*modules.values(), *(module for module, _ in classes.values() if module != name)]
    nested = tuple(_nested(tree, name, classes, modules))
    own = tuple(dict.fromkeys(each for each in imports if each not in _SHARED))
    return _Source(name, tree, classes, modules, own, nested, frozenset(_words(tree)))


def _nested(
    tree: ast.Module, name: str, classes: Mapping[str, tuple[str, str]], modules: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_dict"):
            continue
        if not any(isinstance(each, ast.Attribute) and each.attr == _TEXT for each in ast.walk(node)):
            continue
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id in classes:
            yield classes[owner.id]
        elif isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name) and owner.value.id in modules:
            yield modules[owner.value.id], owner.attr


def _arguments(source: _Source, name: str) -> Arguments:
    fields: dict[str, str | None] = {}
    own: list[ast.ClassDef] = []
    _inherit(source, name, fields, own)
    sources = (source, *source.siblings())
    used: set[str] = set()
    for each in sources:
        for node in each.tree.body:
            if not (isinstance(node, ast.ClassDef) and _takes_config(node)):
                used |= _names(node)
    prepared: set[str] = set()
    for node in own:
        for member in node.body:
            if isinstance(member, ast.FunctionDef):
                (prepared if member.name == "__post_init__" else used).update(_names(member))
    words = frozenset[str]().union(*(each.words for each in sources))
    return Arguments(source.name, fields, frozenset(used), frozenset(prepared), words)


def _takes_config(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass of arguments rather than a part of a model."""
    return any(isinstance(each, ast.AnnAssign) for each in node.body) and not any(
        "Module" in ast.unparse(base) for base in node.bases
    )


def _inherit(source: _Source, name: str, fields: dict[str, str | None], own: list[ast.ClassDef]) -> None:
    """Collect the fields of a dataclass, those of its bases first, as dataclasses do."""
    module, original = source.classes.get(name, (source.name, name))
    owner = source if module == source.name else _source(module)
    node = owner.definition(original) if owner is not None else None
    if owner is None or node is None:
        return
    for base in node.bases:
        if isinstance(base, ast.Name):
            _inherit(owner, base.id, fields, own)
        elif isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
            other = _source(owner.modules.get(base.value.id, ""))
            if other is not None:
                _inherit(other, base.attr, fields, own)
    own.append(node)
    for member in node.body:
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            fields[member.target.id] = None if member.value is None else ast.unparse(member.value)


def _names(node: ast.AST) -> set[str]:
    """Attributes that are looked at: `args.rope_theta`, and `getattr(args, "rope_theta")`."""
    found = set[str]()
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Load):
            found.add(each.attr)
        elif isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in ("getattr", "hasattr"):
            found |= {str(arg.value) for arg in each.args[1:2] if isinstance(arg, ast.Constant)}
    return found


def _words(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
