"""What is known of a model's tokenizer once transformers has opened it, and the file in which that is kept.

A file is named after all that it was made from. One that is damaged is removed and made again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from contextlib import suppress
from pathlib import Path

import msgspec
import tokenizers

from squish.files import write_whole

_FORMAT = b"1"
_DIGEST = 32
_KEPT = 32
_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
_PACKING = ("quantization", "quantization_config")
_MAKERS = (("transformers", "__init__.py"), ("mlx_lm", "_version.py"), ("mlx_lm", "tokenizer_utils.py"))


class TokenizerFacts(msgspec.Struct, frozen=True):
    """backend: the tokenizer as JSON of the `tokenizers` library, with all that was added to it.

    direct: whether a DirectTokenizer with these facts does the same as transformers' tokenizer; if not, the rest is
    empty. special_tokens: what templates call bos_token and so on; special_ids: their ids. clean_up: decoding removes
    spaces before punctuation. detokenizer, tool_module: of mlx-lm, by name. eos: ids that end a text.
    """

    direct: bool
    backend: str = ""
    special_tokens: dict[str, str] = {}
    special_ids: dict[str, int] = {}
    chat_template: str | dict[str, str] | None = None
    split_special_tokens: bool = False
    clean_up: bool = False
    detokenizer: str = ""
    trim_space: bool = True
    tool_module: str | None = None
    eos: tuple[int, ...] = ()


class Shelf:
    """The folder where facts are kept, the most recently used of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> TokenizerFacts | None:
        """What is kept under this key; None when nothing is, or when it is damaged."""
        path = self._folder / key
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
                raise ValueError("damaged")
            facts = msgspec.msgpack.decode(data[_DIGEST:], type=TokenizerFacts)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            with suppress(OSError):
                path.unlink()
            return None
        return facts

    def keep(self, key: str, facts: TokenizerFacts) -> None:
        """Write facts down; a disk that takes no files means only that they are found out again."""
        body = msgspec.msgpack.encode(facts)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self._folder / key, hashlib.sha256(body).digest() + body, durable=False)
            by_age = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in by_age[:-_KEPT]:
                path.unlink()
        except OSError:
            pass


def key_of(model: Path, eos: list[int] | None) -> str:
    """Names everything that the facts depend on: the model's small files, and the libraries that read them.

    How weights are packed is not among it: a model that is compressed in two ways has one tokenizer.
    Raises OSError for a file that cannot be read.
    """
    digest = hashlib.sha256(_FORMAT + tokenizers.__version__.encode() + repr(eos).encode())
    for package, name in _MAKERS:
        spec = importlib.util.find_spec(package)
        assert spec and spec.submodule_search_locations
        digest.update((Path(spec.submodule_search_locations[0]) / name).read_bytes())
    folders = [model, *(path for path in sorted(model.iterdir()) if path.is_dir())]
    for path in [path for folder in folders for path in sorted(folder.iterdir())]:
        if path.suffix in _SUFFIXES and path.is_file() and not path.name.endswith(".index.json"):
            content = _without_packing(path) if path.name == "config.json" else path.read_bytes()
            digest.update(f"\0{path.relative_to(model)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:40]


def _without_packing(config: Path) -> bytes:
    """The content of config.json but for what it says of quantization; as it is where it cannot be read."""
    content = config.read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(found, dict):
        return content
    return json.dumps({name: value for name, value in found.items() if name not in _PACKING}).encode()
