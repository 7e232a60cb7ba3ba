"""Fields that a dialect knows, cannot do and refuses by name, with what to write instead. Pure.

Who sends one expects it to work, whether it stands beside `model` or deeper. A field that is in no list is ignored, but
for the objects that are nothing but a list of options: there every unknown name is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from squish.errors import InvalidInput

OFF = (b"null", b"false", b'""', b"[]", b"{}", b"0", b"0.0")
"""What changes nothing in most fields."""


@dataclass(frozen=True, slots=True)
class Level:
    """Names at one level of a body. instead: what to do in place of each that is refused. known: if given, all others
    are refused too, with what `unknown` says. inside: the levels below. harmless: names, here and below, whose values
    that change nothing are others than OFF."""

    instead: Mapping[str, str] = field(default_factory=dict)
    inside: Mapping[str, Level] = field(default_factory=dict)
    known: frozenset[str] | None = None
    unknown: str = "Leave it out."
    harmless: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)

    def refusal(self, name: str) -> str | None:
        """What to do instead of this field; None when it may stay, whatever its value."""
        unknown = self.unknown if self.known is not None and name not in self.known else None
        return self.instead.get(name, unknown)


def refuse(body: bytes, level: Level) -> None:
    """Raise InvalidInput for a field of this level, or below, in a body that is a JSON object."""
    _refuse(msgspec.Raw(body.strip()), level, "", level.harmless)


def _refuse(raw: msgspec.Raw, level: Level, at: str, harmless: Mapping[str, tuple[bytes, ...]]) -> None:
    match bytes(memoryview(raw)[:1]):
        case b"{":
            for name, value in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).items():
                path = f"{at}.{name}" if at else name
                hint = level.refusal(name)
                if hint is not None and bytes(value) not in harmless.get(name, OFF):
                    raise InvalidInput(f"{path[:200]} is not supported by this server.", hint=hint, param=path[:200])
                if name in level.inside:
                    _refuse(value, level.inside[name], path, harmless)
        case b"[":
            for i, item in enumerate(msgspec.json.decode(raw, type=list[msgspec.Raw])):
                _refuse(item, level, f"{at}[{i}]", harmless)
