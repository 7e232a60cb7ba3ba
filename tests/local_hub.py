"""A Hub on this machine: as much of the Hub's HTTP as Squish needs, in a way that huggingface_hub understands too.

Two servers: the Hub itself, and the CDN to which it redirects for large files. Every request is logged with the bytes
that were sent. Faults are put in a queue per file and used up one by one.

    with LocalHub() as hub:
        hub.add_repo("org/repo", {"config.json": b"{}", "model.safetensors": weights})
        hub.fault("model.safetensors", Fault(cut_after=1000))
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import socket
import struct
import threading
import zlib
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

MIB = 1024 * 1024
GOOD_TOKEN = "hf_good"
_LFS = (".safetensors", ".gguf")
_LFS_SIZE = 100_000


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one response that would carry a file's bytes, at the server that has them.

    cut_after: the connection is reset after so many bytes. hold_after: so many bytes, then silence until `release`.
    status, retry_after: an error instead. corrupt: other bytes of the same length. extra: bytes more than announced.
    ignore_range: the whole file for a ranged request. at_hub: the Hub itself answers so, before any redirect.
    drip: a byte now and then until `release`, of the "body" or of the "head". endless: a body that never ends, "plain"
    or "packed" with gzip.
    """

    cut_after: int | None = None
    hold_after: int | None = None
    status: int | None = None
    retry_after: str | None = None
    corrupt: bool = False
    extra: bytes = b""
    ignore_range: bool = False
    at_hub: bool = False
    drip: Literal["body", "head"] | None = None
    endless: Literal["plain", "packed"] | None = None


@dataclass(slots=True)
class Request:
    """One request and what became of it. sent: bytes of the body; whoever has read them finds them counted."""

    server: str
    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0

    @property
    def file(self) -> str:
        return unquote(self.path.partition("?")[0].rpartition("/")[2])


@dataclass(slots=True)
class Repo:
    files: dict[str, bytes]
    gated: bool = False
    license: str = "apache-2.0"
    wrong_hashes: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ("mlx",)
    listed: dict[str, object] = field(default_factory=dict)
    answer: bytes | None = None  # what the API says of it, and of every search
    _hashed: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # of what a file was when it was asked for

    @property
    def commit(self) -> str:
        names = "".join(f"{name}\0{self.etag(name)}\n" for name in sorted(self.files))
        return hashlib.sha1(names.encode(), usedforsecurity=False).hexdigest()

    def is_lfs(self, name: str) -> bool:
        return name.endswith(_LFS) or len(self.files[name]) > _LFS_SIZE

    def etag(self, name: str) -> str:
        content, (hashed, etag) = self.files[name], self._hashed.get(name, (None, ""))
        if hashed is not content:
            if self.is_lfs(name):
                etag = hashlib.sha256(content).hexdigest()
            else:
                etag = hashlib.sha1(b"blob %d\x00" % len(content) + content, usedforsecurity=False).hexdigest()
            self._hashed[name] = content, etag
        return etag

    def sibling(self, name: str) -> dict[str, object]:
        content, entry = self.files[name], {"rfilename": name}
        announced = self.wrong_hashes.get(name, self.etag(name))
        described: dict[str, object] = {**entry, "size": len(content), "blobId": announced}
        if self.is_lfs(name):
            described["lfs"] = {"sha256": announced, "size": len(content), "pointerSize": 134}
        return described


class LocalHub:
    """The two servers. `url` is what HF_ENDPOINT is set to."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}  # names that repositories had, and those that they have
        self.requests: list[Request] = []
        self.lengths: dict[str, int] = {}  # what a dripping response announces, by file
        self.released = threading.Event()
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._hub = _Server(self, "hub")
        self._cdn = _Server(self, "cdn")

    @property
    def url(self) -> str:
        return self._hub.url

    @property
    def cdn_url(self) -> str:
        return self._cdn.url

    def __enter__(self) -> Self:
        for server in (self._hub, self._cdn):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.released.set()
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def add_repo(self, repo_id: str, files: dict[str, bytes], gated: bool = False) -> Repo:
        """Add a repository, or replace it, which makes another commit."""
        self.repos[repo_id] = Repo(dict(files), gated)
        return self.repos[repo_id]

    def fault(self, file: str, *faults: Fault) -> None:
        """The next responses for a file name, or for "api", go wrong in these ways, one each."""
        with self._lock:
            self._faults[file].extend(faults)

    def release(self) -> None:
        """Let held responses end."""
        self.released.set()

    def sent(self, file: str) -> int:
        """Bytes sent of a file so far, by both servers."""
        return sum(request.sent for request in self.requests if request.file == file and "/api/" not in request.path)

    def reads(self, file: str) -> list[Request]:
        """The requests that the server with a file's bytes answered."""
        return [request for request in self.requests if request.file == file and request.status in (200, 206)]

    def take_fault(self, file: str, server: str) -> Fault:
        with self._lock:
            waiting = self._faults[file]
            if waiting and waiting[0].at_hub == (server == "hub"):
                return waiting.popleft()
        return Fault()

    def log(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: LocalHub, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.name = hub, name

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.hub = self.server.hub
        self.request_log = Request(
            self.server.name, self.command, self.path, {k.lower(): v for k, v in self.headers.items()}
        )
        self.hub.log(self.request_log)
        path = urlsplit(self.path).path
        renamed = next((each for each in self.hub.renamed if f"/{each}/" in f"{path}/"), None)
        if renamed is not None:
            self._head(307, 0, {"Location": self.path.replace(renamed, self.hub.renamed[renamed])})
        elif self.server.name == "cdn":
            _, repo_id, name = re.fullmatch(r"/(cdn)/([^/]+/[^/]+)/(.+)", unquote(path)).groups()  # type: ignore[union-attr]
            self._file(self.hub.repos[repo_id], name)
        elif path.startswith("/api/") and (fault := self.hub.take_fault("api", "api")) != Fault():
            self._api_fault(fault)
        elif path == "/api/models":
            self._search()
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._model(found[1], found[2], found[3])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], unquote(found[3]))
        else:
            self._error(404, "EntryNotFound")

    do_HEAD = do_GET

    def _api_fault(self, fault: Fault) -> None:
        """An answer of the API that goes wrong: an error, or silence until `release`."""
        if self._misbehave(fault):
            return
        if fault.status is not None:
            self._error(fault.status, None, fault.retry_after)
            return
        self.hub.released.wait()
        self.close_connection = True

    def _misbehave(self, fault: Fault) -> bool:
        """Drip, or send without end; whether the fault is one of these."""
        self.close_connection = bool(fault.drip or fault.endless)
        if fault.drip == "head":
            self.request_log.status = 200
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        elif fault.drip:
            self._head(200, self.hub.lengths.get(self.request_log.file, 10**9), {})
        while fault.drip and not self.hub.released.wait(0.02):
            self._send(b"1")
        if fault.endless:
            self._head(
                200, None, {"Connection": "close"} | ({"Content-Encoding": "gzip"} if fault.endless == "packed" else {})
            )
            packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
            while True:
                piece = (
                    bytes(MIB)
                    if fault.endless == "plain"
                    else packer.compress(bytes(MIB)) + packer.flush(zlib.Z_SYNC_FLUSH)
                )
                self._send(piece)
        return self.close_connection

    def _search(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        words, limit = query.get("search", [""])[0].lower().split(), int(query.get("limit", ["100"])[0])
        wanted = {tag for each in query.get("filter", []) for tag in each.split(",")}
        found = [
            {"id": name, "modelId": name, "downloads": 10, "likes": 1, "gated": False, **repo.listed}
            | {"tags": repo.tags}
            for name, repo in self.hub.repos.items()
            if all(word in name.lower() for word in words) and wanted <= {*repo.tags}
        ]
        found.sort(key=lambda each: -each["downloads"] if isinstance(each["downloads"], int) else 0)
        self._json(found[:limit])

    def _model(self, repo_id: str, kind: str | None, revision: str | None) -> None:
        repo = self._repo(repo_id, revision)
        if repo is None:
            return
        siblings = [repo.sibling(name) for name in repo.files]
        if kind == "tree":
            self._json(
                [{"type": "file", "path": each["rfilename"], "oid": each["blobId"], **each} for each in siblings]
            )
            return
        card = {"license": repo.license}
        info = {"id": repo_id, "sha": repo.commit, "siblings": siblings, "tags": ["mlx"], "cardData": card}
        self._json(info | {"gated": "manual" if repo.gated else False, "private": False, "downloads": 1, "likes": 0})

    def _resolve(self, repo_id: str, revision: str, name: str) -> None:
        repo = self._repo(repo_id, revision)
        if repo is None:
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repo.gated and token != GOOD_TOKEN:
            self._error(403 if token else 401, "GatedRepo")
        elif name not in repo.files:
            self._error(404, "EntryNotFound")
        elif repo.is_lfs(name):
            fault = self.hub.take_fault(name, "hub")
            if self._misbehave(fault):
                return
            if fault.status is not None:
                self._error(fault.status, None, fault.retry_after)
                return
            etag = repo.etag(name)
            headers = {
                "X-Repo-Commit": repo.commit,
                "X-Linked-Etag": f'"{etag}"',
                "X-Linked-Size": str(len(repo.files[name])),
            }
            self._head(302, 0, headers | {"Location": f"{self.hub.cdn_url}/cdn/{repo_id}/{name}?signature=x"})
        else:
            self._file(repo, name)

    def _file(self, repo: Repo, name: str) -> None:
        content, etag = repo.files[name], f'"{repo.etag(name)}"'
        fault = self.hub.take_fault(name, self.server.name)
        if self._misbehave(fault):
            return
        if fault.status is not None:
            self._error(fault.status, None, fault.retry_after)
            return
        if fault.corrupt:
            content = content.translate(bytes(range(255, -1, -1)))
        start, wanted = 0, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        end = len(content)
        ranged = bool(wanted and not fault.ignore_range and self.headers.get("If-Range", etag) == etag)
        if wanted and ranged:
            start, end = int(wanted[1]), min(end, int(wanted[2] or end) + 1)
        headers = {"ETag": etag, "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if start >= len(content) > 0:
            self._head(416, 0, headers | {"Content-Range": f"bytes */{len(content)}"})
            return
        partial = ranged and (start, end) != (0, len(content))
        if partial:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        body = content[start:end] + fault.extra
        if fault.extra:
            headers["Connection"] = "close"
        self._head(206 if partial else 200, None if fault.extra else len(body), headers)
        if self.command == "GET":
            self._body(body, fault)

    def _body(self, body: bytes, fault: Fault) -> None:
        """Send in pieces, so that what is counted was taken by the client's side of the connection."""
        stop = min(len(body), *(each for each in (fault.cut_after, fault.hold_after, len(body)) if each is not None))
        for at in range(0, stop, 16384):
            self._send(body[at : min(at + 16384, stop)])
        if fault.hold_after is not None:
            self.hub.released.wait()
            self.close_connection = True
        elif stop < len(body):
            self.wfile.flush()
            # A reset would throw away what the client has not read yet; an early end does not.
            self.connection.shutdown(socket.SHUT_WR)
            self.close_connection = True
        elif fault.extra:
            self.close_connection = True

    def _send(self, piece: bytes) -> None:
        """Count a piece, then send it: the client may be done with it before this thread has its next turn."""
        self.request_log.sent += len(piece)
        try:
            self.wfile.write(piece)
        except OSError:
            self.request_log.sent -= len(piece)
            raise

    def _repo(self, repo_id: str, revision: str | None) -> Repo | None:
        repo = self.hub.repos.get(repo_id)
        if repo is None:
            self._error(404, "RepoNotFound")
        elif revision not in (None, "main", repo.commit):
            self._error(404, "RevisionNotFound")
            return None
        return repo

    def _json(self, value: object) -> None:
        odd = next((repo.answer for repo in self.hub.repos.values() if repo.answer is not None), None)
        body = json.dumps(value).encode() if odd is None else odd
        self._head(200, len(body), {"Content-Type": "application/json"})
        self.wfile.write(body)

    def _error(self, status: int, code: str | None, retry_after: str | None = None) -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._head(status, 0, headers | ({"Retry-After": retry_after} if retry_after else {}))

    def _head(self, status: int, length: int | None, headers: dict[str, str]) -> None:
        self.request_log.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on standard error."""


TOKENIZER = b'{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}'


def tiny_model(weights: int = 1024) -> dict[str, bytes]:
    """The files of a repository with a llama model that loads, with so many bytes of random weights."""
    width, count = 4, weights // 4
    shapes = {
        f"model.layers.0.{name}.weight": [width] * axes
        for axes, names in (
            (1, ("input_layernorm", "post_attention_layernorm")),
            (
                2,
                (
                    *(f"self_attn.{each}_proj" for each in "qkvo"),
                    *(f"mlp.{each}_proj" for each in ("gate", "up", "down")),
                ),
            ),
        )
        for name in names
    } | {"model.norm.weight": [width]}
    vocabulary = (count - sum(math.prod(shape) for shape in shapes.values())) // width
    entries, end = {}, 0
    for name, shape in {**shapes, "model.embed_tokens.weight": [vocabulary, width]}.items():
        start, end = end, end + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": 1,
        "intermediate_size": width,
        "num_attention_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
    }
    data = random.Random(0).randbytes(end)
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": b"{}",
        "model.safetensors": struct.pack("<Q", len(header)) + header + data,
        "README.md": b"# A model\n",
        "modeling_tiny.py": b"raise SystemExit\n",
        "pytorch_model.bin": b"pickle",
        ".gitattributes": b"",
    }
