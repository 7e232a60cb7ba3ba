"""MCP servers of other people, whose tools Squish calls: over standard streams, and over HTTP."""

from __future__ import annotations

import json

from tests.clients.checks import Check
from tests.clients.engine import SAID


def tools_of(
    name: str,
    server: dict[str, object],
    tool: str,
    arguments: str,
    expects: str,
    before: str = "",
    **source: tuple[str, ...],
) -> Check:
    """A server from the file of another program, and a call of one of its tools. before: shell commands."""
    file = json.dumps({"mcpServers": {"it": server}}).replace("{", "{{").replace("}", "}}")
    script = (
        f"{before} cat > .mcp.json <<END\n{file}\nEND\n"
        f"squish mcp tools it >&2; squish mcp call it {tool} - <<END\n{arguments}\nEND\n"
    )
    return Check(name, ("sh", "-ec", script), expects=expects, **source)  # type: ignore[arg-type]


SERVERS = (
    tools_of(
        "mcp-server-time", {"command": "mcp-server-time"}, "convert_time",
        '{{"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}}', "time_difference",
        pip=("mcp-server-time",),
    ),
    tools_of(
        "mcp-server-fetch", {"command": "mcp-server-fetch", "args": ["--ignore-robots-txt", "--allow-private-ips"]},
        "fetch", '{{"url": "{url}/health", "raw": true}}', '"status"',
        pip=("mcp-server-fetch",),
    ),
    tools_of(
        "server-filesystem (npm)", {"command": "mcp-server-filesystem", "args": ["$PWD"]},
        "read_text_file", '{{"path": "$PWD/note.txt"}}', SAID, before=f"echo '{SAID}' > note.txt;",
        npm=("@modelcontextprotocol/server-filesystem",),
    ),
    tools_of(
        "server-everything (npm)", {"url": "http://127.0.0.1:$PORT/mcp"}, "echo", f'{{{{"message": "{SAID}"}}}}', SAID,
        before="export PORT=$((20000 + $$ % 20000)); mcp-server-everything streamableHttp >&2 & trap \"kill $!\" EXIT; "
        "until curl -s -o /dev/null http://127.0.0.1:$PORT/mcp; do sleep 0.2; done;",
        npm=("@modelcontextprotocol/server-everything",),
    ),
)  # fmt: skip
