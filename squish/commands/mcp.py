"""`squish mcp`: which servers with tools there are, what their tools are, and a call of one of them, for scripts."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from squish import console
from squish.commands.exits import Exit
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import InvalidInput
from squish.text import clean

if TYPE_CHECKING:
    from squish.mcp.tools import ServerTool, ToolResult

_ABOUT_WIDTH = 72


@click.group("mcp")
def mcp() -> None:
    """List MCP servers and their tools, and call a tool.

    \b
    squish mcp list
    squish mcp tools time
    squish mcp call time get_current_time '{"timezone": "Europe/Berlin"}'

    Servers come from config.toml and from the files of Claude, VS Code, Cursor and LM Studio, which are only read.
    """


@mcp.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_servers(as_json: bool) -> None:
    """List the known servers, without starting any.

    \b
    squish mcp list
    """
    from squish.mcp import sources

    found = sources.known(Settings.from_environment())
    if as_json:
        rows: list[dict[str, object]] = [
            {
                "name": each.name,
                "address": each.server.address,
                "source": each.source,
                "problem": each.problem or ("another server has this name" if each.shadowed else None),
            }
            for each in found
        ]
        console.out_json(rows)
        return
    if not found:
        console.note("No MCP server is set up. Add [mcp.NAME] to config.toml; see docs/mcp.md.")
        return
    console.table(
        ("NAME", "RUNS OR IS AT", "FROM"),
        [(clean(each.name), clean(each.server.address) or "—", clean(each.source)) for each in found],
    )
    for each in found:
        if each.problem:
            console.note(f"{each.name} in {each.source} cannot be used: {each.problem}.")
        elif each.shadowed:
            console.note(f"{each.name} in {each.source} is left out: another server has this name.")


@mcp.command("tools")
@click.argument("server")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, with the schemas of the arguments.")
def list_tools(server: str, as_json: bool) -> None:
    """Start a server, or reach it, and list its tools.

    \b
    squish mcp tools time
    """
    tools = resolver.run(_tools(Settings.from_environment(), server))
    if as_json:
        console.out_json(
            [
                {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.schema)}
                for tool in tools
            ]
        )
        return
    if not tools:
        console.note(f"{server} has no tools.")
        return
    rows = [(tool.name, " ".join(tool.description.split())[:_ABOUT_WIDTH]) for tool in tools]
    console.table(("TOOL", "ABOUT"), rows)


@mcp.command("allowed")
@click.argument("tools", nargs=-1)
@click.option("--forget", is_flag=True, help="Ask for TOOLS again, or for all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_allowed(tools: tuple[str, ...], forget: bool, as_json: bool) -> None:
    """List the tools that are always allowed, as SERVER/TOOL, or take permissions back.

    \b
    squish mcp allowed
    squish mcp allowed --forget
    """
    from squish.mcp import permissions

    home = Settings.from_environment().home
    names = permissions.allowed(home)
    for name in tools:
        if name not in names:
            raise InvalidInput(f"{clean(name)} is not always allowed.", hint="Run: squish mcp allowed", param="tools")
    names = [name for name in names if not tools or name in tools]
    if forget:
        permissions.forget(home, names)
        console.note(f"Squish asks again for: {clean(', '.join(names)) or 'nothing, since nothing was allowed'}.")
    elif as_json:
        console.out_json(names)
    elif names:
        console.table(("ALWAYS ALLOWED",), [(clean(name),) for name in names])
    else:
        console.note("No tool is always allowed; Squish asks before every call.")


@mcp.command()
@click.argument("server")
@click.argument("tool")
@click.argument("arguments", default="{}")
def call(server: str, tool: str, arguments: str) -> int:
    """Call a tool with ARGUMENTS, a JSON object, and print its result; - reads them from stdin.

    \b
    squish mcp call time get_current_time '{"timezone": "Europe/Berlin"}'
    """
    if arguments == "-":
        arguments = sys.stdin.buffer.read().decode("utf-8", errors="replace")
    try:
        is_object = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise InvalidInput("The arguments are not a JSON object.", hint="""Write them as '{"name": "value"}'.""")
    outcome = resolver.run(_call(Settings.from_environment(), server, tool, arguments))
    if outcome.failed:
        console.note(f"{server}/{tool} failed.")
    console.out(outcome.text)
    return Exit.FAILED if outcome.failed else Exit.DONE


async def _tools(settings: Settings, server: str) -> list[ServerTool]:
    from squish.mcp.toolbox import Toolbox

    toolbox = Toolbox(settings)
    try:
        return await toolbox.tools(server)
    finally:
        await toolbox.close()


async def _call(settings: Settings, server: str, name: str, arguments: str) -> ToolResult:
    from squish.mcp.toolbox import Toolbox

    toolbox, status = Toolbox(settings), console.Status()
    try:
        tools = {tool.name: tool for tool in await toolbox.tools(server)}
        if name not in tools:
            raise InvalidInput(f"{server} has no tool {name}.", hint=f"Available: {', '.join(tools) or 'none'}.")
        return await toolbox.call(tools[name], arguments, lambda text: status.wait(f"{name} {text}…"))
    finally:
        status.clear()
        await toolbox.close()
