"""Sets of parameters with names: those that come with the program, and the user's own. It knows no front door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings
from squish.errors import InvalidInput
from squish.text import clean

PRESETS: Mapping[str, ChatSettings] = {
    "balanced": ChatSettings(),
    "precise": ChatSettings(temperature=0.2),
    "creative": ChatSettings(temperature=1.0, top_p=0.95),
    "greedy": ChatSettings(temperature=0.0),
}
"""What comes with the program. A preset leaves a chat's system prompt as it is unless it has one of its own."""


def with_preset(settings: ChatSettings, preset: ChatSettings) -> ChatSettings:
    """A preset in place of the settings; their system prompt stays where it has none."""
    return preset if preset.system else msgspec.structs.replace(preset, system=settings.system)


def preset_of(settings: ChatSettings, presets: Mapping[str, ChatSettings], preferred: Iterable[str] = ()) -> str:
    """The name of the preset that the settings are, or nothing. preferred: which it is where several are alike."""
    alike = [name for name, each in presets.items() if with_preset(settings, each) == settings]
    return next((name for name in (*preferred, *alike) if name in alike), "")


def all_of(chats: Chats) -> dict[str, ChatSettings]:
    """All there are by name. One of the user's replaces ours of the same name. Raises StoreError."""
    return dict(PRESETS) | chats.presets()


def known(home: Path) -> dict[str, ChatSettings]:
    """The same, also where no chat was ever saved. Raises StoreError."""
    saved = home / "chats.db"
    if not saved.exists():
        return dict(PRESETS)
    with closing(Chats(saved)) as chats:
        return all_of(chats)


def named(home: Path, name: str) -> ChatSettings:
    """The preset of that name. Raises InvalidInput with the names there are."""
    presets = known(home)
    if name not in presets:
        raise unknown(name, presets, param="--preset")
    return presets[name]


def unknown(name: str, presets: Iterable[str], param: str | None = None) -> InvalidInput:
    """That there is none of this name, with the names there are."""
    hint = f"Available: {', '.join(clean(each) for each in presets)}. `/preset save NAME` in a chat makes one."
    return InvalidInput(f"No preset is named {name}.", hint=hint, param=param)
