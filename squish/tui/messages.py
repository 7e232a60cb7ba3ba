"""Messages from background work to the screens. Workers only post these; the handlers own the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:  # what a message carries is known to who sends it
    from squish.chats.messages import ChatSettings
    from squish.errors import SquishError
    from squish.hub.search import Found
    from squish.mcp.events import AnswerPart
    from squish.memory.fit import Machine
    from squish.tui.chat.answer_tasks import Decision
    from squish.tui.chat.conversation import Conversation, Turn
    from squish.tui.downloads import Transfer
    from squish.tui.hub.gguf_variants import Variant


class AnswerEvent(Message):
    """The engine, or a tool, said something about a turn."""

    def __init__(self, turn: Turn, event: AnswerPart) -> None:
        super().__init__()
        self.turn = turn
        self.event = event


class AnswerEnded(Message):
    """No more will come for a turn; error is why, when it is not complete."""

    def __init__(self, turn: Turn, error: SquishError | None = None) -> None:
        super().__init__()
        self.turn = turn
        self.error = error


class TitleWritten(Message):
    """A model named a chat; the title is empty where what it wrote was not one."""

    def __init__(self, conversation: Conversation, title: str) -> None:
        super().__init__()
        self.conversation = conversation
        self.title = title


class ModelLoaded(Message):
    """A model that was loaded ahead of the first question is ready, or error says why not."""

    def __init__(self, model: str, error: SquishError | None = None) -> None:
        super().__init__()
        self.model = model
        self.error = error


class QuestionSent(Message):
    """The user pressed enter in the prompt. typed: without what was pasted in bulk; files are looked for in it."""

    def __init__(self, text: str, typed: str) -> None:
        super().__init__()
        self.text = text
        self.typed = typed


class DraftChanged(Message):
    """The text in the prompt is another one. Of several that wait only one is handled."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, DraftChanged)


class Typed(Message):
    """Text was written where no text is taken: it is meant for the prompt."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class ChatChanged(Message):
    """The chat that is shown is another one, or stands differently. Of several that wait only one is handled."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, ChatChanged)


class FollowingChanged(Message):
    """The transcript follows the newest text, or was scrolled away from it."""

    def __init__(self, following: bool) -> None:
        super().__init__()
        self.following = following


class OpenChat(Message):
    """The user wants to see a conversation."""

    def __init__(self, id: int) -> None:
        super().__init__()
        self.id = id


class ContinueLast(Message):
    """The user wants the chat that was used last."""


class CallDecided(Message):
    """The user allows or refuses the call that is asked about."""

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self.decision = decision


class SettingsChanged(Message):
    """The parameters of the chat that is shown are others. preset: the one that was chosen for that, if any."""

    def __init__(self, settings: ChatSettings, preset: str = "") -> None:
        super().__init__()
        self.settings, self.preset = settings, preset


class UseModel(Message):
    """The user wants to chat with an installed model."""

    def __init__(self, id: str) -> None:
        super().__init__()
        self.id = id


class DownloadModel(Message):
    """The user wants a model of the hub."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class CancelDownload(Message):
    """The user wants a download off the list."""

    def __init__(self, transfer: Transfer) -> None:
        super().__init__()
        self.transfer = transfer


class HubAnswered(Message):
    """The Hub's answer to the search of this number, or error says why there is none."""

    def __init__(self, number: int, found: tuple[Found, ...], error: SquishError | None = None) -> None:
        super().__init__()
        self.number = number
        self.found = found
        self.error = error


class CardRead(Message):
    """What a repository's README says, and its GGUF files; error is why there is none of it."""

    def __init__(self, text: str, variants: tuple[Variant, ...], error: SquishError | None = None) -> None:
        super().__init__()
        self.text = text
        self.variants = variants
        self.error = error


class MachineRead(Message):
    """What models may take of this machine now."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
