"""How full the context is: what is counted for it, and what is said where nothing more fits."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot

from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings
from squish.generation import Accepted, ChatPrompt, Message, Prefill, Prompt, Role, TextDelta
from squish.tui.chat.answer_state import AnswerState
from squish.tui.chat.context_meter import ContextUse, advice, newest
from tests.tui.scenes import ask, note, prompt, ready, screen_text, until, write
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


async def test_of_a_chat_that_no_context_holds_only_the_end_is_counted(tmp_path: Path) -> None:
    """To count all of it for each draft would take minutes and gigabytes, and what is sent would wait for that."""
    written = "word " * 100_000
    chats = Chats(tmp_path / "chats.db")
    _, answered = chats.ask(chats.create(SMOL.id), None, "much?", SMOL.id)
    chats.finish(answered, written)
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=tmp_path / "chats.db")
    app.engine.counts = True
    lengths = list[int]()
    count = app.engine.count

    async def counted(name: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        lengths.extend(len(m.content) for each in prompts if isinstance(each, ChatPrompt) for m in each.messages)
        return await count(name, prompts)

    app.engine.count = counted  # type: ignore[method-assign]
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await pilot.press("up")
        await until(pilot, lambda: "too long to send" in screen_text(pilot) and "32.8k+/8.2k" in screen_text(pilot))
        await write(pilot, "more?")
        await pilot.press("enter")
        said = "Not sent: with it, the chat would have at least 32.8k tokens"
        await until(pilot, lambda: any(said in each.message for each in app._notifications))
        assert max(lengths) == 16 * SMOL.context_length < len(written) and not app.engine.generations


def test_what_was_cached_counts_as_well_while_an_answer_is_written() -> None:
    answer = AnswerState(lambda: 0.0)
    answer.apply(Accepted((6000,)))
    answer.apply(Prefill(0, 250, 1000))  # of what is not cached
    assert (answer.prefill_fraction, answer.context_used) == (0.25, 6000)
    answer.apply(TextDelta(0, "a"))
    assert answer.context_used == 6001


def test_the_end_of_a_prompt_begins_with_a_question_and_keeps_the_system_prompt() -> None:
    roles: tuple[Role, ...] = ("system", *("user", "assistant") * 4)
    whole = ChatPrompt(tuple(Message(role, f"{number} " * 10) for number, role in enumerate(roles)))
    assert newest(whole, 180) is whole
    for most in range(21, 180):
        cut = newest(whole, most).messages
        assert (cut[0], cut[1].role, cut[-1].role) == (whole.messages[0], "user", "assistant")
        assert sum(len(each.content) for each in cut) == most
        ends = zip(cut[1:], whole.messages[-len(cut) + 1 :], strict=True)
        assert all(before.content.endswith(each.content) for each, before in ends)


async def enter(pilot: Pilot[None], line: str) -> None:
    prompt(pilot).put(line)
    await pilot.press("enter")


async def test_an_answer_that_filled_the_context_is_continued_only_where_there_is_room() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot)
        await enter(pilot, "/set context 100")
        await ask(pilot, "a long story")
        app.engine.last.say("Once")
        app.engine.last.finish("context", tokens=36)
        await until(pilot, lambda: "context full" in note(pilot))
        await enter(pilot, "/continue")
        said = "The context of 100 tokens is full. To continue, raise the chat's limit (ctrl+o)."
        await until(pilot, lambda: any(each.message == said for each in app._notifications))
        assert len(app.engine.generations) == 1 and "context full" in note(pilot)
        await enter(pilot, "/set context 200")
        await enter(pilot, "/continue")
        await until(pilot, lambda: len(app.engine.generations) == 2)


def test_a_message_that_does_not_fit_is_answered_with_what_can_be_done() -> None:
    use = ContextUse(used=80, draft=12, limit=80)
    assert "raise the chat's context limit (chat.params)" in advice(use, ChatSettings(context=80), str)
    assert "raise" not in advice(use, ChatSettings(), str)
    long = ContextUse(used=0, draft=90, limit=80)
    assert advice(long, ChatSettings(context=80), str).endswith("or raise the chat's context limit (chat.params).")
    assert advice(long, ChatSettings(), str).endswith("or choose a model with a longer context (chat.model).")
