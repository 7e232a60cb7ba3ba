"""Which servers there are: config.toml, the files of other programs, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from squish.config.mcp_server import McpServer
from squish.config.settings import resolve
from squish.errors import ConfigError, InvalidInput
from squish.mcp import sources
from squish.mcp.values import filled
from squish.system.host import HOST


def settings(home: Path, config: str) -> tuple[McpServer, ...]:
    (home / ".squish").mkdir(exist_ok=True)
    (home / ".squish/config.toml").write_text(config)
    resolved = resolve({"HOME": str(home)})
    if resolved.errors:
        raise resolved.errors[0]
    return tuple(server for _, server in resolved.settings.mcp)


def test_a_table_of_config_toml_is_a_server(tmp_path: Path) -> None:
    (server,) = settings(
        tmp_path,
        '[mcp.files]\ncommand = "npx"\nargs = ["-y", "files", "."]\nenv = { KEY = "k" }\ntimeout = "2m"\n'
        'tools = ["read_file"]\n',
    )
    assert server == McpServer("npx", ("-y", "files", "."), {"KEY": "k"}, timeout=120.0, tools=("read_file",))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "time is not a server: it must have either a command or a url."),
        ('command = "a"\nurl = "http://b"', "time is not a server: it must have either a command or a url."),
        ('command = "a"\nargs = "b"', "time is not a server: args must be a list of texts."),
        ('command = "a"\nenv = [1]', "time is not a server: env must be a table of texts."),
        ('command = "a"\ntimeout = "soon"', "time is not a server: timeout must be a time: seconds, or a text like"),
        ('command = "a"\ntimeout = 0', "time is not a server: timeout must be above 0."),
        ('url = "ftp://b"', "time is not a server: url must be an address that begins with https:// or http://."),
        ('comand = "a"', "time is not a server: comand is not a key of a server; there are: command, args, env,"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_with_its_line(table: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as problem:
        settings(tmp_path, f"# a\n[mcp.time]\n{table}\n")
    assert problem.value.message.startswith(f"{tmp_path}/.squish/config.toml, line 2: {said}")


def test_keys_are_never_shown() -> None:
    server = McpServer(
        "run", ("--api-key", "s3cret", "TOKEN=s3cret", "--port", "3"), {"A": "s3cret"}, headers={"B": "s3cret"}
    )
    assert server.address == "run --api-key … TOKEN=… --port 3"
    assert "s3cret" not in repr(server)
    assert McpServer(url="https://me:s3cret@host/mcp?key=s3cret").address == "https://host/mcp"


def test_the_files_of_other_programs_are_read(tmp_path: Path) -> None:
    config = HOST.application_settings(Path())
    project = tmp_path / "project"
    files = {
        "project/.mcp.json": {"mcpServers": {"claude": {"type": "stdio", "command": "a", "args": ["b"]}}},
        "project/.cursor/mcp.json": {"mcpServers": {"cursor": {"url": "https://c/mcp", "headers": {"K": "${env:K}"}}}},
        ".claude.json": {
            "mcpServers": {
                "claude": {"command": "another"},
                "old": {"type": "sse", "url": "http://x"},
                "both": {"command": "all"},
            },
            "projects": {
                str(tmp_path): {"mcpServers": {"local": {"command": "l"}, "both": {"command": "one"}}},
                str(project): {"mcpServers": {}, "allowedTools": []},
                str(tmp_path / "other"): {"mcpServers": {"foreign": {"command": "f"}}},
            },
        },
        f"{config}/Claude/claude_desktop_config.json": {"mcpServers": {"desktop": {"command": "d", "env": {"N": 3}}}},
        ".lmstudio/mcp.json": {"mcpServers": {"studio": {"command": "s", "disabled": True}, "odd": {"command": 3}}},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    code = project / ".vscode/mcp.json"
    code.parent.mkdir()
    code.write_text(
        '{\n  // a comment, "quoted"\n  "servers": {"code": {"command": "x", "args": ["//,]"],},}, /* b */}'
    )
    known = sources.known(resolve({"HOME": str(tmp_path)}).settings, project)
    usable = {each.name: each.server for each in known if not each.problem and not each.shadowed}
    assert usable == {
        "both": McpServer("one"),
        "claude": McpServer("a", ("b",)),
        "code": McpServer("x", ("//,]",)),
        "cursor": McpServer(url="https://c/mcp", headers={"K": "${env:K}"}),
        "desktop": McpServer("d", env={"N": "3"}),
        "local": McpServer("l"),
    }
    assert [each.server.command for each in known if each.shadowed] == ["another"]
    assert {each.name: each.problem.split()[0] for each in known if each.problem} == {
        "old": "it",
        "studio": "it",
        "odd": "command",
    }
    with pytest.raises(InvalidInput, match=r"studio in .* cannot be used: it is switched off there"):
        sources.find(known, "studio")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"mcpServers": 3}', "[" * 100_000, '{"mcpServers": {"a": 1}}', '{"projects": [1]}']
)
def test_a_file_that_cannot_be_read_has_no_servers(content: str, tmp_path: Path) -> None:
    (tmp_path / ".mcp.json").write_text(content)
    assert sources.known(resolve({"HOME": str(tmp_path)}).settings, tmp_path) == []


def test_in_the_home_directory_a_file_is_read_once(tmp_path: Path) -> None:
    settings(tmp_path, "")
    (tmp_path / ".cursor").mkdir()
    (tmp_path / ".cursor/mcp.json").write_text('{"mcpServers": {"fetch": {"command": "fetch"}}}')
    (found,) = sources.known(resolve({"HOME": str(tmp_path)}).settings, tmp_path)
    assert found.name == "fetch" and not found.shadowed


def test_values_come_from_variables_and_files(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k\n")
    env = {"A": "1", "EMPTY": ""}
    assert filled(f"x ${{env:A}} ${{A}} ${{B:-2}} ${{EMPTY:-3}} ${{file:{key}}} $A", "env.X", env) == "x 1 1 2 3 k $A"
    for place in ("${env:B}", "${B}", "${input:secret}", f"${{file:{tmp_path}/none}}", "${env:EMPTY}"):
        with pytest.raises(ConfigError, match=r"^env\.X "):
            filled(place, "env.X", env)
