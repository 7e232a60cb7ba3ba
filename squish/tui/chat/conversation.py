"""A chat as it grows: the branch that is shown, turn by turn, and the requests that ask for the next answer.

Plain objects, changed only by the screen's handlers, and saved as they change. Knows no widget and no session manager.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from squish.chats.chats import Chats
from squish.chats.messages import (
    Attachment,
    ChatSettings,
    ChatTools,
    Saved,
    Tree,
    Unread,
    as_sent,
    title_of,
    with_files,
)
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, GenerationRequest, Message, Tool
from squish.text import clean
from squish.tui.chat.answer_state import AnswerState
from squish.tui.chat.parameters import usable

SAVE_INTERVAL = 0.25


class Versions(msgspec.Struct, frozen=True):
    """The ids of a message's versions, and which of them is shown, from 0."""

    ids: tuple[int, ...]
    at: int

    @property
    def label(self) -> str:
        """`‹2/3›`, or nothing when there is only one."""
        return f"‹{self.at + 1}/{len(self.ids)}›" if len(self.ids) > 1 else ""


ONLY = Versions((0,), 0)


class Question(msgspec.Struct, frozen=True):
    """What is to be asked. typed: without what was pasted in bulk; files are looked for in it."""

    text: str = ""
    typed: str = ""


class Turn(msgspec.Struct, eq=False):
    """A question and its answer, with the model that gave it. The ids are those of the messages as they are saved."""

    conversation: Conversation
    question: str
    model: str
    answer: AnswerState
    attachments: tuple[Attachment, ...] = ()
    parent: int | None = None
    question_id: int = 0
    answer_id: int = 0
    questions: Versions = ONLY
    answers: Versions = ONLY
    unsaved: bool = False
    saved_at: float = -1.0

    @property
    def asked(self) -> Message:
        return Message("user", with_files(self.question, self.attachments))


class Conversation(msgspec.Struct, eq=False):
    """One chat. model is asked next; earlier turns may be another model's. id is None until something was asked.

    offered: the tools that the latest answer was asked with, which are part of every prompt while there are any.
    queued: what is to be asked when the answer is complete. unread: how an answer ended while another chat was shown.
    fetches: hosts from which pages may be fetched without asking, while the program runs.
    preset: which was used last: where several are alike, the settings are that one.
    """

    chats: Chats
    model: str
    clock: Callable[[], float]
    id: int | None = None
    title: str = ""
    settings: ChatSettings = msgspec.field(default_factory=ChatSettings)
    tools: ChatTools = msgspec.field(default_factory=ChatTools)
    draft: str = ""
    turns: list[Turn] = msgspec.field(default_factory=list)
    queued: Question = Question()
    unread: Unread = ""
    live: Turn | None = None
    offered: tuple[Tool, ...] = ()
    fetches: set[str] = msgspec.field(default_factory=set)
    preset: str = ""

    @classmethod
    def open(cls, chats: Chats, id: int, clock: Callable[[], float]) -> Conversation:
        """A chat as it was saved. Raises StoreError, and InvalidInput when it is gone."""
        chat = chats.get(id)
        opened = cls(chats, chat.model, clock, id, clean(chat.title), chat.settings, chat.tools, clean(chat.draft))
        opened.preset, opened.unread = chat.preset, chat.unread
        opened.reload()
        return opened

    @property
    def running(self) -> Turn | None:
        """The turn whose answer is not complete, on whatever branch it is."""
        return self.live if self.live and self.live.answer.running else None

    @property
    def context_used(self) -> int:
        """Tokens of the latest answer and all that came before it, as the engine reported them; 0 before it does."""
        return self.turns[-1].answer.usage.total_tokens if self.turns else 0

    def turn_with(self, message: int) -> Turn | None:
        """The turn on the branch that is shown to which a message belongs."""
        return next((each for each in self.turns if message in (each.question_id, each.answer_id)), None)

    def queue(self, question: Question) -> None:
        """Ask this when the answer is complete."""
        waiting = self.queued
        both = Question(f"{waiting.text}\n\n{question.text}", f"{waiting.typed}\n\n{question.typed}")
        self.queued = both if waiting.text else question

    def give_back(self, text: str) -> None:
        """A message that was not sent becomes the draft again, in front of what was written since."""
        self.draft = f"{text}\n\n{self.draft}" if self.draft else text

    def aside(self, model: str, settings: ChatSettings) -> Conversation:
        """The same chat as another model, or one with other parameters, is asked in it; without tools."""
        return Conversation(self.chats, model, self.clock, self.id, self.title, settings, turns=list(self.turns))

    # ---- turns

    def create(self, question: str) -> None:
        """Let the chat be saved, if it is not yet, with its first question for a title. Raises StoreError."""
        if self.id is None:
            self.title = title_of(question)
            self.id = self.chats.create(self.model, self.settings, question, self.preset)
            self.chats.use_tools(self.id, self.tools)

    def ask(self, question: str, attachments: tuple[Attachment, ...] = (), instead_of: Turn | None = None) -> Turn:
        """Begin a turn at the end, or as another version of a turn's question. To be called when none is running.

        Raises StoreError.
        """
        self._save_latest()
        kept = self.turns[: self.turns.index(instead_of)] if instead_of else self.turns
        parent = kept[-1].answer_id if kept else None
        self.create(question)
        assert self.id is not None
        asked, answered = self.chats.ask(self.id, parent, question, self.model, attachments)
        turn = Turn(self, question, self.model, AnswerState(self.clock), attachments, parent, asked, answered)
        turn.answers = Versions((answered,), 0)
        others = instead_of.questions.ids if instead_of else ()
        turn.questions = Versions((*others, asked), len(others))
        self.turns = [*kept, turn]
        self.live = turn
        return turn

    def answer_again(self, turn: Turn) -> Turn:
        """Begin another version of a turn's answer, by the model that is asked next. Raises StoreError."""
        assert self.id is not None
        self._save_latest()
        answered = self.chats.answer_again(self.id, turn.question_id, self.model)
        again = Turn(
            self, turn.question, self.model, AnswerState(self.clock), turn.attachments,
            turn.parent, turn.question_id, answered, turn.questions,
            Versions((*turn.answers.ids, answered), len(turn.answers.ids)),
        )  # fmt: skip
        self.turns = [*self.turns[: self.turns.index(turn)], again]
        self.live = again
        return again

    def go_on(self, turn: Turn) -> None:
        """Let an answer be written on. What was said after it stays on its own branch only if there was something."""
        turn.answer.go_on()
        self.live = turn

    def show_version(self, message: int) -> None:
        """Show the branch through another version of a message. Raises StoreError."""
        assert self.id is not None
        self.chats.show(self.id, message)
        self.reload()

    def reload(self) -> None:
        """Take the branch from what is saved; the answer that is being written stays the one it is."""
        assert self.id is not None
        tree, self.turns = self.chats.tree(self.id), []
        questions = [each for each in tree.branch if each.role == "user"]
        answers = {each.parent: each for each in tree.branch if each.role == "assistant"}
        for question in questions:
            if question.id in answers:
                self.turns.append(self._turn(tree, question, answers[question.id]))

    def _turn(self, tree: Tree, question: Saved, answer: Saved) -> Turn:
        if self.live and self.live.answer_id == answer.id:
            turn = self.live
        else:
            turn = Turn(
                self, question.text, answer.model, AnswerState.restored(answer, self.clock), question.attachments,
                question.parent, question.id, answer.id,
            )  # fmt: skip
        turn.questions, turn.answers = _versions(tree, question.id), _versions(tree, answer.id)
        return turn

    # ---- saving

    def save(self, turn: Turn, now: bool = False) -> None:
        """Save an answer: at its end, and while it grows when the last time is long enough ago. Raises StoreError."""
        answer, turn.unsaved = turn.answer, True  # also where it cannot be saved now
        if answer.running:
            if now or self.clock() - turn.saved_at >= SAVE_INTERVAL or turn.saved_at < 0:
                turn.saved_at = self.clock()
                self.chats.grow(turn.answer_id, answer.text, answer.reasoning, answer.steps)
                turn.unsaved = False
            return
        self.chats.finish(turn.answer_id, answer.text, answer.reasoning, answer.state, answer.figures, answer.steps)
        if self.unread and self.id is not None:
            self.chats.mark(self.id, self.unread)
        turn.unsaved = False

    def _save_latest(self) -> None:
        """The end of an answer that could not be saved when it came, before another one begins. Raises StoreError."""
        if self.live and self.live.unsaved and not self.live.answer.running:
            self.save(self.live)

    def configure(self, model: str | None = None, settings: ChatSettings | None = None, preset: str = "") -> None:
        """Set which model is asked next, and how. preset: the one that was used for it. Raises StoreError."""
        self.model, self.settings = model or self.model, settings or self.settings
        self.preset = preset or self.preset
        if self.id is not None:
            self.chats.configure(self.id, self.model, self.settings, self.preset)

    def see(self) -> None:
        """The user has seen how the answers ended. Raises StoreError."""
        unread, self.unread = self.unread, ""
        if unread and self.id is not None:
            self.chats.mark(self.id, "")

    def use_tools(self, tools: ChatTools) -> None:
        """Set which tools this chat may use. Raises StoreError."""
        self.tools = tools
        if self.id is not None:
            self.chats.use_tools(self.id, tools)

    # ---- requests

    def request(self, turn: Turn, fixed: Mapping[str, str] = MappingProxyType({})) -> GenerationRequest:
        """What to ask the engine for a turn's answer, or for the rest of it. Raises InvalidInput.

        fixed: parameters that it takes from nobody, which are left out.
        """
        messages = (*self._before(turn), turn.asked, *as_sent(turn.answer.steps))
        goes_on = bool(turn.answer.text)
        if goes_on:
            messages += (Message("assistant", turn.answer.text),)
        prompt = ChatPrompt(messages, continue_last=goes_on, thinking=self.settings.thinking)
        settings = usable(self.settings, fixed)
        sampling = settings.sampling()
        if goes_on and sampling.response_format:
            message = "response_format is for a whole answer, and this one has begun already."
            hint = "Ask for another version (r), or set the format to text first: /set format text."
            raise InvalidInput(message, hint=hint, param="response_format")
        return GenerationRequest(turn.model, (prompt,), sampling, kv_bits=settings.kv_bits)

    def with_draft(
        self, draft: str, attachments: tuple[Attachment, ...] = (), instead_of: Turn | None = None
    ) -> ChatPrompt | None:
        """The prompt that a draft would make, for counting; None when nothing was said."""
        messages = self._before(instead_of if instead_of in self.turns else None)
        if draft or attachments:
            messages += (Message("user", with_files(draft, attachments)),)
        if not any(each.role == "user" for each in messages):
            return None
        offered = self.offered if self.tools.servers else ()
        return ChatPrompt(messages, thinking=self.settings.thinking, tools=offered)

    def _before(self, turn: Turn | None) -> tuple[Message, ...]:
        """What comes before a turn, or all.

        A turn without a word of answer is left out: many chat templates refuse two user messages in a row.
        """
        messages = [Message("system", self.settings.system)] if self.settings.system else []
        for each in self.turns[: self.turns.index(turn)] if turn else self.turns:
            if each.answer.text:
                messages += [each.asked, *as_sent(each.answer.steps, each.answer.text)]
        return tuple(messages)


def _versions(tree: Tree, message: int) -> Versions:
    ids = tuple(tree.versions(message))
    return Versions(ids, ids.index(message))
