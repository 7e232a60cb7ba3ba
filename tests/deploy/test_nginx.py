"""Two servers behind a real nginx with the configuration of deploy/: who answers, and what a kill does."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from squish.system import ports
from tests.commands.test_serve import get, serving
from tests.conftest import MODEL, PATIENCE
from tests.deploy.test_files import DEPLOY
from tests.ports import own_port

NGINX = shutil.which("nginx")
MODULE = Path("/usr/share/nginx/modules/ngx_http_js_module.so")
pytestmark = pytest.mark.skipif(
    NGINX is None or not MODULE.exists(), reason="needs nginx and its JavaScript: nginx, libnginx-mod-http-js"
)


@dataclass
class Pair:
    """url: nginx; servers: those behind it."""

    url: str
    servers: tuple[tuple[subprocess.Popen[bytes], str], ...]


@pytest.fixture
def pair(environment: dict[str, str], tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        contexts, servers = [], []  # a context that nobody holds would end its server
        for name in "ab":
            home = tmp_path / name
            shutil.copytree(Path(environment["HOME"]) / ".squish", home / ".squish", symlinks=True)
            contexts.append(serving(environment | {"HOME": str(home)}, tmp_path / f"{name}.log", MODEL))
            servers.append(contexts[-1].__enter__())
        port = own_port()
        config = (DEPLOY / "nginx.conf").read_text().replace("listen 8080", f"listen 127.0.0.1:{port}")
        for name, (_, url) in zip("ab", servers, strict=True):
            config = config.replace(f"squish-{name}:11435", url.removeprefix("http://"))
        config = config.replace("/etc/nginx", str(DEPLOY)).replace("/tmp/squish-nginx.pid", str(tmp_path / "pid"))
        path = tmp_path / "nginx.conf"
        path.write_text(f"daemon off;\nerror_log {tmp_path}/error.log;\n{config}")
        assert NGINX
        nginx = stack.enter_context(subprocess.Popen([NGINX, "-p", "/usr/share/nginx", "-c", str(path)]))
        try:
            while not ports.is_taken("127.0.0.1", port):
                assert nginx.poll() is None, (tmp_path / "error.log").read_text()
            yield Pair(f"http://127.0.0.1:{port}", tuple(servers))
        finally:
            nginx.terminate()
            for process, _ in servers:
                process.kill()
                process.wait()


def ask(url: str, messages: list[dict[str, str]], tokens: int = 4) -> dict[str, Any]:
    body = {"model": MODEL, "messages": messages, "max_tokens": tokens, "temperature": 0}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def answered(url: str) -> int:
    with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE) as response:
        text = response.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("squish_completion_tokens_total")]
    return sum(float(line.split()[-1]) > 0 for line in lines)


def both_answered(pair: Pair) -> bool:
    return all(answered(url) for _, url in pair.servers)


def cached(url: str, numbers: range) -> tuple[int, int]:
    """Prompt tokens of the second turns, and how many of them were known."""
    total = known = 0
    for each in numbers:
        messages = [
            {"role": "user", "content": f"Tell me what you know about the number {each} and about its friends."}
        ]
        said = ask(url, messages)["choices"][0]["message"]["content"]
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Go on."}]
        usage = ask(url, messages)["usage"]
        total += usage["prompt_tokens"]
        known += usage["prompt_tokens_details"]["cached_tokens"]
    return total, known


def test_a_conversation_stays_with_the_server_that_knows_it_and_both_are_used(pair: Pair) -> None:
    behind = cached(pair.url, range(10, 18))
    for each in range(200):  # which server gets a conversation depends on their ports; so many never go all to one
        if both_answered(pair):
            break
        ask(pair.url, [{"role": "user", "content": f"Count to {each}."}])
    assert both_answered(pair)
    alone = cached(pair.servers[0][1], range(20, 28))
    assert behind[1] / behind[0] >= 0.9 * alone[1] / alone[0]


def test_no_request_is_lost_when_a_server_is_killed(pair: Pair) -> None:
    with ThreadPoolExecutor(12) as clients:
        asked: list[Future[dict[str, Any]]] = []
        while (busy := busy_server(pair)) is None:
            while sum(not each.done() for each in asked) < 12:
                messages = [{"role": "user", "content": f"Count to {len(asked)}."}]
                asked.append(clients.submit(ask, pair.url, messages, 40))
        pair.servers[busy][0].kill()
        asked.append(clients.submit(ask, pair.url, [{"role": "user", "content": "Who is there?"}]))
        for each in asked:
            assert each.result()["choices"]
    assert answered(pair.servers[1 - busy][1]) == 1
    assert get(f"{pair.url}/ready") == (200, {"status": "ready"})


def busy_server(pair: Pair) -> int | None:
    """The server that has running requests; which one gets any depends on their ports."""
    return next((number for number, (_, url) in enumerate(pair.servers) if is_running(url)), None)


def is_running(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE) as response:
        lines = response.read().decode().splitlines()
    return any(each.startswith("squish_running_requests") and float(each.split()[-1]) > 0 for each in lines)
