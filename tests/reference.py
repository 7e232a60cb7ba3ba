"""`python -m tests.reference` makes the pages in docs/reference from the program itself; a test compares."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from squish import errors
from squish.api import openapi
from squish.api.errors import to_failure
from squish.cli import cli
from squish.commands.exits import Exit, of
from squish.config.keys import ELSEWHERE, KEYS, TABLES, sample
from squish.errors import SquishError
from squish.tui import actions

ROOT = Path(__file__).parent.parent
DIRECTORY = ROOT / "docs" / "reference"


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and the words that call it."""
    for name, command in sorted(group.commands.items()):
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


def _contexts(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Those of a command and of all below it, each inside its group's, from which it takes the names of `--help`."""
    command._help_option = None  # what it keeps may be of a test that called it outside its group
    context = click.Context(command, parent, info_name=name, terminal_width=100, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for each, below in sorted(command.commands.items()):
            yield from _contexts(below, each, context)


def cli_page() -> str:
    lines = ["# Commands", "", "Made by `make docs` from the program.", ""]
    for context in _contexts(cli, "squish"):
        lines += [f"## {context.command_path}", "", "```text", context.get_help().rstrip(), "```", ""]
    codes = [f"| {int(code)} | {code.meaning} |" for code in Exit]
    lines += ["## Exit codes", "", "| code | meaning |", "| --- | --- |", *codes]
    return "\n".join(lines) + "\n"


def config_page() -> str:
    rows = [
        f"| {f'`{key.name}`' if key.in_file else ''} | `{key.variable}` | {key.shown_default} | {key.about} |"
        for key in KEYS
    ]
    rows += [f"| | `{name}` | {default} | {about} |" for name, default, about in ELSEWHERE]
    rows += [f"| `[{table.name}]` | | none | {table.about} |" for table in TABLES]
    head = [
        "# Settings",
        "",
        "Made by `make docs` from the program. Flags override variables, and variables override the file.",
        "",
    ]
    table = ["| in config.toml | variable | default | meaning |", "| --- | --- | --- | --- |", *rows]
    return "\n".join([*head, *table, "", "## `squish config init`", "", "```toml", sample().rstrip(), "```"]) + "\n"


def errors_page() -> str:
    about = dict(_tree())
    pending: list[type[SquishError]] = [SquishError]
    rows = []
    while pending:
        cls = pending.pop(0)
        pending += [each for each in cls.__subclasses__() if each.__module__ == cls.__module__]
        error = cls("x")
        rows.append(f"| `{cls.code}` | {to_failure(error).status} | {int(of(error))} | {about.get(cls.__name__, '')} |")
    head = ["# Errors", "", "Made by `make docs` from the program.", ""]
    return "\n".join([*head, "| code | HTTP | exit | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"


def keys_page() -> str:
    lines = ["# Keys and commands of the full-screen chat", "", "Made by `make docs` from the program.", ""]
    lines += ["A key is changed under `[keys]` in config.toml by its id.", ""]
    for scope, title in actions.SCOPE_TITLES:
        lines += [f"## {title}", "", "| keys | slash command | id | what it does |", "| --- | --- | --- | --- |"]
        for action in actions.ACTIONS:
            if action.scope == scope:
                keys = ", ".join(f"`{key}`" for key in actions.display_keys(action.keys)) if action.keys else ""
                slash = f"`/{f'{action.slash} {action.argument}'.rstrip()}`" if action.slash else ""
                lines.append(f"| {keys} | {slash} | `{action.id}` | {action.about} |")
        lines.append("")
    return "\n".join(lines)


def gguf_page() -> str:
    """What the GGUF import takes, from the tables that it works by."""
    from squish.worker.gguf.blocks import PACKED
    from squish.worker.gguf.families.every import FAMILIES, VARIANTS
    from squish.worker.gguf.families.refused import REFUSED as ARCHITECTURES
    from squish.worker.gguf.formats import FORMATS, REFUSED
    from squish.worker.gguf.splitting import SPLITTINGS
    from squish.worker.gguf.tokenizer_kinds import KINDS
    from squish.worker.model.k_quants import BITS

    lines = ["# GGUF", "", "Made by `make docs` from the tables of the import. Any family may come in any format,"]
    lines += ["several of them mixed, and with any tokenizer.", "", "## Families", ""]
    lines += ["| architecture in GGUF | of mlx-lm |", "| --- | --- |"]
    for name, family in sorted(FAMILIES.items()):
        kinds = [family.model_type, *(other.model_type for _, other in VARIANTS.get(name, ()))]
        lines.append(f"| `{name}` | {', '.join(f'`{each}`' for each in kinds)} |")
    lines += ["", "Files of `rwkv7` have the tokenizer `rwkv`, which is not imported yet."]
    lines += ["", "Not imported, though GGUF has a name for it:", "", "| architecture in GGUF | why |", "| --- | --- |"]
    lines += [f"| `{name}` | {reason} |" for name, reason in ARCHITECTURES.items()]
    lines += ["", "## Block formats", "", "| format | bits a weight | kept as |", "| --- | --- | --- |"]
    for kind in FORMATS.values():
        packing, size = PACKED.get(kind.name), 8 * kind.size / kind.weights
        kept = "itself"
        if packing is not None:
            how = f"{packing.bits} bits in groups of 32" if packing.mode == "affine" else packing.mode
            kept = f"{how}, {'the same weights' if packing.exact else 'quantized again'}"
            kept += "; on a CPU itself" if kind.name in BITS else ""
        lines.append(f"| `{kind.name}` | {size:.4g} | {kept} |")
    lines += ["", f"Not imported: {', '.join(f'`{name}`' for name in REFUSED.values())}.", "", "## Tokenizers", ""]
    lines += [f"`tokenizer.ggml.model`: {', '.join(f'`{name}`' for name in sorted(KINDS))}.", ""]
    lines += [f"`tokenizer.ggml.pre` of `gpt2`: {', '.join(f'`{name}`' for name in sorted([*SPLITTINGS, 'gemma4']))}."]
    return "\n".join(lines) + "\n"


def modules_page() -> str:
    """Every package and module with the first sentence of its docstring."""
    lines = ["# Modules", "", "Made by `make docs` from the first lines of the modules themselves.", ""]
    for package in sorted(path.parent for path in (ROOT / "squish").rglob("__init__.py")):
        lines += [f"## {package.relative_to(ROOT)}/", "", _about(package / "__init__.py"), ""]
        files = [path for path in sorted(package.glob("*.py")) if path.stem not in ("__init__", "__main__")]
        if files:
            lines += ["| module | what it owns |", "| --- | --- |"]
            lines += [f"| `{path.stem}` | {_about(path)} |" for path in files]
            lines.append("")
    return "\n".join(lines)


def _about(path: Path) -> str:
    """The first line of a module's docstring."""
    paragraph = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def _tree() -> Iterator[tuple[str, str]]:
    """Name and meaning of each error, from the tree in the module's docstring."""
    for line in (errors.__doc__ or "").splitlines():
        if "── " in line:
            name, _, meaning = line.partition("── ")[2].partition(" ")
            yield name, meaning.strip().replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "config.md": config_page,
    "errors.md": errors_page,
    "gguf.md": gguf_page,
    "keys.md": keys_page,
    "modules.md": modules_page,
    "openapi.yaml": openapi.document,
}
"""What makes each page, by its file name."""


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DIRECTORY / name).write_text(page(), encoding="utf-8")
