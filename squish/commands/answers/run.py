"""`squish run`: its options, which conversation it continues, and whether it is one prompt or many."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from squish import console
from squish.commands.answers import short_memory
from squish.commands.completion import complete_model
from squish.commands.models.pull import install
from squish.commands.serving.connect import connect_options, require_sensible
from squish.commands.serving.draft import installed_id, suggestion, with_draft
from squish.commands.serving.ranks import here, ranks_option
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import InvalidInput, ModelNotFound

if TYPE_CHECKING:
    from squish.chats.messages import Attachment, Chat, ChatSettings
    from squish.commands.answers.run_templates import Filling
    from squish.commands.answers.run_tools import RunTools
    from squish.format.embedding import ModelKind
    from squish.ipc.group import Ranks
    from squish.runtime import Runtime
    from squish.sessions.backend import Backend


@click.command(context_settings={"allow_extra_args": True})
@click.argument("model", shell_complete=complete_model, required=False)
@click.option("-p", "--prompt", help="Ask once and print only the answer; text piped in is appended.")
@click.option("--system", help="System prompt.")
@click.option(
    "--preset",
    metavar="NAME",
    help="Parameters under a name: balanced, precise, creative, greedy, or your own (`/preset save` in a chat).",
)
@click.option(
    "--template",
    metavar="NAME",
    help="A prompt template (`/template save` in a chat, or a file); its {{input}} is --prompt or what is piped in.",
)
@click.option(
    "--var", "values", multiple=True, metavar="NAME=VALUE", help="A value for {{NAME}} in the template or the preset."
)
@click.option("--temperature", type=float, default=0.7, show_default=True, help="0 is greedy; at most 2.")
@click.option("--top-p", type=float, default=0.9, show_default=True, help="Nucleus sampling; 1 is off.")
@click.option("--top-k", type=int, default=0, help="Draw from the k most probable tokens; 0 is off.")
@click.option("--min-p", type=float, default=0.0, help="Leave out tokens below this share of the best; 0 is off.")
@click.option(
    "--repetition-penalty", type=float, default=1.0, help="Above 1 makes repeated words less likely; 1 is off."
)
@click.option(
    "--max-tokens",
    type=int,
    default=None,
    help="Maximum length of the answer, in tokens.  [default: 512, in a conversation 2048]",
)
@click.option(
    "--context", type=int, help="Tokens that the conversation may have, answer included.  [default: the model's]"
)
@click.option("--kv-bits", type=click.Choice(("32", "16", "8")), help="On a CPU, bits per value of the KV cache.")
@click.option("--seed", type=int, help="The same seed gives the same answer; -1 picks one at random.")
@click.option("--stop", multiple=True, help="End the answer before this text; up to 64 times.")
@click.option(
    "--format",
    "response_format",
    metavar="FORMAT",
    help="Constrain the answer to json, to regex:…, or to the JSON schema in a file (FILE.schema.json).",
)
@click.option(
    "--file",
    "paths",
    multiple=True,
    metavar="PATH",
    help="Send a text file, PDF, Word document, HTML page or folder along; repeatable.",
)
@click.option("--url", "urls", multiple=True, metavar="URL", help="Send the text of a web page along; repeatable.")
@click.option("--draft", metavar="MODEL", help="A smaller installed model that drafts tokens for this one.")
@ranks_option
@connect_options
@click.option("--json", "as_json", is_flag=True, help="Print one object with text, usage and timings.")
@click.option("--save", is_flag=True, help="Keep the conversation: `squish chats` and the full-screen chat show it.")
@click.option("-c", "--continue", "go_on", is_flag=True, help="Continue the most recent conversation.")
@click.option("--chat", type=int, metavar="ID", help="Continue this conversation.")
@click.option("--mcp", "servers", multiple=True, metavar="NAME", help="Let the model use this MCP server's tools.")
@click.option(
    "--mcp-allow",
    "allowed",
    multiple=True,
    metavar="TOOL",
    help="Call this tool without asking; `all`: every one.",
)
def run(
    model: str | None,
    prompt: str | None,
    paths: tuple[str, ...],
    urls: tuple[str, ...],
    as_json: bool,
    save: bool,
    go_on: bool,
    chat: int | None,
    servers: tuple[str, ...],
    allowed: tuple[str, ...],
    **params: Any,
) -> None:
    """Chat with a model line by line, or with --prompt ask it once. With --connect the model is a server's.

    \b
    squish run smollm2:135m
    squish run smollm2:135m --prompt "What is the capital of Germany?"
    git diff | squish run qwen3:8b --prompt "Write a commit message for this:"
    squish run qwen3:8b --template translate --var language=Dutch --prompt "Good morning"
    squish run qwen3:8b --file report.pdf --prompt "What are the three main points?"
    squish run -c --prompt "And of Spain?"
    squish run qwen3:8b --mcp time --mcp-allow get_current_time --prompt "What time is it?"
    squish run --connect mac.local:11435 qwen3:8b --prompt "Hi"

    A conversation that is continued keeps its model and parameters; a new one begins with the defaults of its model.
    Options that are given win, also over --preset.
    """
    from squish.chats import recorder
    from squish.commands.answers import repl

    _refuse_more(model)
    where, optional = _where(params), params["template"] is not None
    settings = Settings.from_environment()
    continued = recorder.chosen(settings.home, chat) if go_on or chat is not None else None
    model = _model(model, continued, needed=where.url is None)
    filling = _filling(settings, model, params)
    text = filling.prompt(_text(prompt, as_json, optional))
    asked = _asked(settings, (model, continued), filling.preset(), params, talks=text is None)
    _check_tools(servers, allowed)
    with resolver.runner() as runner:
        files = runner.run(_files(settings, paths, urls)) if paths or urls else ()
        backend, model = runner.run(_open(settings, model, where, talks=text is None))
        keeping = recorder.ChatRecorder(backend.chats, model, asked, continued) if save or continued else None
        try:
            tools = runner.run(_prepared(backend, servers, allowed)) if servers else None
            conversation = repl.Repl(backend, model, asked, keeping, tools, files)
            conversation.run(runner) if text is None else runner.run(conversation.once(text, as_json=as_json))
        finally:
            runner.run(backend.close())


@dataclass(frozen=True, slots=True)
class _Where:
    """Where the model runs: at a server's address, whose key is in a variable; or here, loaded in such a way."""

    url: str | None
    key_env: str | None
    draft: str | None
    ranks: int


def _where(params: dict[str, Any]) -> _Where:
    """Take its options out of all. Raises UsageError where they contradict each other."""
    where = _Where(*(params.pop(name) for name in ("connect", "key_env", "draft", "ranks")))
    require_sensible(where.url, where.key_env, where.draft, where.ranks)
    return where


async def _open(settings: Settings, model: str, where: _Where, talks: bool) -> tuple[Backend, str]:
    """The models, and the id of the one that is asked. talks: line by line."""
    if where.url is None:
        settings = with_draft(settings, [model], where.draft)
        runtime = await open_model(settings, model, ranks=here(where.ranks))
        if talks and sys.stdin.isatty() and (advice := suggestion(settings, runtime.store, model)):
            console.dim(advice)
        return runtime, model
    from squish.commands.answers.run_connected import open_there

    return await open_there(settings, where.url, where.key_env, model)


def _refuse_more(model: str | None) -> None:
    if more := click.get_current_context().args:
        prompt = shlex.quote(" ".join(more))
        raise click.UsageError(f"A prompt is given with --prompt: squish run {model} --prompt {prompt}")


def _model(given: str | None, continued: Chat | None, *, needed: bool) -> str:
    """Its name; empty where a server with a single model needs none."""
    model = given or (continued.model if continued else "")
    if needed and not model:
        raise click.UsageError("Missing argument 'MODEL'.")
    return model


def _filling(settings: Settings, model: str, params: dict[str, Any]) -> Filling:
    """The preset and the template, which are no parameters and leave params. Raises InvalidInput."""
    from squish.commands.answers.run_templates import Filling

    preset, template, values = (params.pop(each) for each in ("preset", "template", "values"))
    return Filling(settings.home, model, preset, template, values)


def _asked(
    settings: Settings,
    whom: tuple[str, Chat | None],
    preset: ChatSettings | None,
    params: dict[str, Any],
    talks: bool,
) -> ChatSettings:
    """How the conversation is asked. whom: the model, and the chat that goes on. talks: line by line.

    Raises InvalidInput and ConfigError.
    """
    from squish.chats import defaults, presets, recorder
    from squish.chats.messages import ChatSettings
    from squish.models.store import Store

    (model, continued), base = whom, ChatSettings(max_tokens=2048 if talks else 512)
    if continued is None and model:
        id = installed_id(Store(settings.cache_dir), model)
        found = defaults.of_model(settings, id, lambda: presets.known(settings.home), base)
        base = found.settings
        if found.sources and talks and sys.stdin.isatty():
            console.dim(defaults.described(found))
    return recorder.settings_of(continued, _given(params), base, preset)


def _given(params: dict[str, Any]) -> dict[str, Any]:
    """Those that stand on the command line. Raises InvalidInput for a format that cannot be used."""
    source = click.get_current_context().get_parameter_source
    given = {name: value for name, value in params.items() if source(name) is ParameterSource.COMMANDLINE}
    if "kv_bits" in given:
        given["kv_bits"] = int(given["kv_bits"])
    if "response_format" in given:
        from squish.chats.answer_format import from_command_line

        given["response_format"] = from_command_line(given["response_format"])
    return given


def _text(prompt: str | None, as_json: bool, optional: bool) -> str | None:
    """The one prompt; None for a conversation. Raises InvalidInput where there is neither, unless it is optional."""
    from squish.commands.answers import repl

    text = repl.with_stdin(prompt) if prompt is not None or not sys.stdin.isatty() else None
    if optional:
        return text
    if text is None and (prompt is not None or as_json or not sys.stdin.isatty()):
        raise InvalidInput("No prompt was given.", hint="Give --prompt some text, or pipe some in.", param="--prompt")
    return text


def _check_tools(servers: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises InvalidInput where calls would have to be asked for and nobody is there, before anything is started."""
    if allowed and not servers:
        raise InvalidInput("--mcp-allow needs a server: --mcp NAME.", param="--mcp-allow")
    if servers and not allowed:
        from squish.commands.answers.run_tools import asker

        if asker() is None:
            hint = "Name the tools with --mcp-allow TOOL, or allow every one with --mcp-allow all."
            raise InvalidInput(
                "Tool calls need confirmation, and no terminal is available.", hint=hint, param="--mcp-allow"
            )


async def _files(settings: Settings, paths: Sequence[str], urls: Sequence[str]) -> tuple[Attachment, ...]:
    from squish.commands.answers import run_files

    return await run_files.read(settings, paths, urls)


async def _prepared(backend: Backend, servers: Sequence[str], allowed: Sequence[str]) -> RunTools:
    from squish.commands.answers.run_tools import RunTools, asker

    tools = RunTools(backend, servers, allowed, asker())
    await tools.prepare()
    return tools


async def open_model(settings: Settings, model: str, kind: ModelKind = "chat", ranks: Ranks | None = None) -> Runtime:
    """A runtime in which this model is installed: one that is missing is pulled first. Raises InvalidInput where it
    is of another kind, and MemoryShort where too little memory is free and the user does not want to load it."""
    from squish.runtime import Runtime

    runtime = Runtime(settings, ranks)
    try:
        runtime.store.find(model)
    except ModelNotFound:
        await install(settings, model)
    found = runtime.store.find(model).manifest
    found.require_chat() if kind == "chat" else found.require(kind)
    try:
        await runtime.sessions.start_worker()
        await short_memory.agree(runtime.sessions, model)
    except BaseException:  # also Ctrl-C: the worker that is being started must not stay behind
        await runtime.close()
        raise
    return runtime
