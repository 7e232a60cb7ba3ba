"""A server for the tests: a program with nothing but the standard library, which misbehaves where it is asked to.

`python server.py [FAULT]...`: faults are named in the tests that want them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FAULTS = set(sys.argv[1:])
TOOLS: list[dict[str, Any]] = [
    {
        "name": "echo",
        "description": "Say it again.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
    {"name": "environment", "description": "Names of the variables.", "inputSchema": {"type": "object"}},
    {"name": "fail", "description": "It fails.", "inputSchema": {"type": "object"}},
    {"name": "huge", "description": "A long text.", "inputSchema": {"type": "object"}},
    {"name": "hang", "description": "Never ends.", "inputSchema": {"type": "object"}},
    {"name": "freeze", "description": "Answers nothing any more.", "inputSchema": {"type": "object"}},
    {"name": "die", "description": "Ends the server.", "inputSchema": {"type": "object"}},
    {
        "name": "weather",
        "description": "The weather of a city.",
        "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
    {"name": "get_current_time", "description": "What time it is.", "inputSchema": {"type": "object"}},
    {"name": "seen", "description": "Methods that came.", "inputSchema": {"type": "object"}},
]
SEEN: list[str] = []


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(value: str, *, failed: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}], "isError": failed}


def initialize(params: dict[str, Any]) -> dict[str, Any]:
    if "garbage" in FAULTS:
        sys.stdout.write("hello, I am no JSON\n[1, 2\n\n{}\n")
    if "flood" in FAULTS:
        while True:
            send({"method": "notifications/message", "params": {"level": "info", "data": "again"}})
    if "huge-line" in FAULTS:
        while True:
            sys.stdout.write("x" * 1_000_000)
    version = "1999-01-01" if "old" in FAULTS else params["protocolVersion"]
    return {
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": "test", "version": "1"},
    }


def list_tools(params: dict[str, Any]) -> dict[str, Any]:
    if "pages" in FAULTS:
        at = int(params.get("cursor", 0))
        return {"tools": TOOLS[at : at + 1], "nextCursor": str(at + 1) if at + 1 < len(TOOLS) else None}
    if "endless" in FAULTS:
        return {"tools": TOOLS[:1], "nextCursor": "the same"}
    if "odd-tools" in FAULTS:
        return {"tools": [3, {"name": 4}, {"name": "\u001b[31mred"}, {"name": "ok", "description": "a\u001b[31mb"}]}
    return {"tools": TOOLS}


def call(name: str, arguments: dict[str, Any], params: dict[str, Any]) -> dict[str, Any] | None:
    match name:
        case "echo":
            if token := params.get("_meta", {}).get("progressToken"):
                progress = {"progressToken": token, "progress": 1, "total": 2, "message": "half"}
                send({"method": "notifications/progress", "params": progress})
            return text(arguments["text"])
        case "environment":
            return text(" ".join(sorted(os.environ)))
        case "fail":
            return text("it went wrong", failed=True)
        case "huge":
            return text("y" * 2_000_000)
        case "weather":
            return text(f"rain in {arguments['city']}")
        case "get_current_time":
            return text(datetime.now(UTC).isoformat())
        case "seen":
            return text(" ".join(SEEN))
        case "freeze":
            FAULTS.add("mute")
        case "die":
            print("I cannot go on", file=sys.stderr, flush=True)
            sys.exit(7)
    return None


def answer(message: dict[str, Any]) -> None:
    method, params = message.get("method", ""), message.get("params") or {}
    SEEN.append(method)
    if method == "notifications/initialized" and "changes" in FAULTS:
        TOOLS.append({"name": "new", "inputSchema": {"type": "object"}})
        send({"method": "notifications/tools/list_changed"})
    if "id" not in message or method not in ("initialize", "tools/list", "tools/call", "server/discover", "ping"):
        return
    if "stateless" in FAULTS and "io.modelcontextprotocol/protocolVersion" not in params.get("_meta", {}):
        send({"id": message["id"], "error": {"code": -32022, "message": "Unsupported protocol version"}})
        return
    result: dict[str, Any] | None
    match method:
        case "initialize":
            result = initialize(params)
        case "server/discover":
            result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
        case "tools/list":
            result = list_tools(params)
        case "tools/call":
            result = call(params["name"], params["arguments"], params)
        case _:
            result = {}
    if result is not None:
        send({"id": message["id"], "result": result})


def main() -> None:
    if "chatter" in FAULTS:
        print("reading the configuration\n" * 300, file=sys.stderr)
    if "daemon" in FAULTS:  # in a group of its own, with our stderr
        daemon = subprocess.Popen(
            ["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        Path(sys.argv[-1]).write_text(str(daemon.pid), encoding="utf-8")
    if "die-at-once" in FAULTS:
        sys.exit("no configuration found")
    if "killed" in FAULTS:
        os.kill(os.getpid(), signal.SIGUSR1)
    if "closed" in FAULTS:
        os.close(int(sys.argv[-1]))
        signal.pause()
    if "child" in FAULTS:
        child = subprocess.Popen(["sleep", "1000"])
        print(f"child {child.pid}", file=sys.stderr, flush=True)
    if "stubborn" in FAULTS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "asks" in FAULTS:
        send({"id": "a", "method": "ping"})
        send({"id": "b", "method": "sampling/createMessage", "params": {}})
    while True:
        for line in sys.stdin:
            if "mute" not in FAULTS:
                message = json.loads(line)
                if "method" not in message:
                    SEEN.append("refused" if "error" in message else "answered")
                answer(message)
        if "stubborn" not in FAULTS:
            return
        signal.pause()


if __name__ == "__main__":
    main()
