"""The panel of a chat's parameters: a field that is empty is at the program's default, which stands in it in grey."""

from __future__ import annotations

from collections.abc import Mapping

from textual import on
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantBlur, DescendantFocus
from textual.widget import AwaitMount, Widget
from textual.widgets import Input, Static, TextArea

from squish.chats.defaults import Defaults
from squish.chats.messages import ChatSettings
from squish.chats.presets import PRESETS, preset_of, with_preset
from squish.errors import InvalidInput
from squish.text import clean
from squish.tui import actions
from squish.tui.chat.parameters import PARAMETERS, Parameter, parameter, with_value, written
from squish.tui.key_hints import key
from squish.tui.messages import SettingsChanged
from squish.tui.scheduling import after_refresh
from squish.tui.widgets.chat.preset_field import PresetField
from squish.tui.widgets.shown_text import show_text

_FIELDS = tuple(each for each in PARAMETERS if each.name != "system")
_SYSTEM = parameter("system")


class ParamsPanel(VerticalScroll, can_focus=False):
    """Posts SettingsChanged with every value that can be used; says of others what they must be.

    without: parameters that cannot be set here, and why.
    """

    BINDINGS = actions.bindings("params")

    def __init__(self, without: Mapping[str, str]) -> None:
        super().__init__(id="params")
        self._without = without
        self.border_title = "Parameters"
        self._settings = ChatSettings()
        self._made: AwaitMount | None = None
        self._complete = False
        self._unusable: set[str] = set()
        self._defaults = Defaults()
        self._presets: dict[str, ChatSettings] = dict(PRESETS)
        self._preset = ""

    async def open(self) -> None:
        """Make the fields when they are first wanted: the panel is hidden at the start."""
        if self._made:
            await self._made
            return
        self._show_key()
        fields: list[Widget] = [PresetField()]
        for each in _FIELDS:
            shown, off = self._without.get(each.name, each.default), each.name in self._without
            fields.append(
                Input(placeholder=shown, compact=True, id=f"field-{each.name}", select_on_focus=False, disabled=off)
            )
        # One widget for all labels: one each, and a row around it, is most of what the panel takes to open.
        self._made = self.mount(
            Horizontal(Static(id="labels", markup=False), Vertical(*fields), id="fields"),
            Static(id="label-system", markup=False),
            TextArea(id="field-system", compact=True, placeholder="none", highlight_cursor_line=False),
            Static(id="about", markup=False),
        )
        await self._made
        self._complete = True

    @on(DescendantFocus)
    @on(DescendantBlur)
    def _show_key(self) -> None:
        """What its key does now: it closes the panel only from there."""
        self.border_subtitle = Content(
            f"{key(self.app, 'chat.params')} {'closes' if self.has_focus_within else 'edits'}"
        )

    def show(
        self, settings: ChatSettings, presets: Mapping[str, ChatSettings], defaults: Defaults, preset: str = ""
    ) -> None:
        """Show a chat's settings and all presets by name; a panel that is hidden only takes them in.

        defaults: of the model that is asked. preset: the one that was used last.
        """
        self._settings, self._presets, self._defaults, self._preset = settings, dict(presets), defaults, preset
        if self._complete and self.screen.has_class("-params"):
            self._fill()

    def focus_first(self) -> None:
        self.screen.set_focus(self.query_one("#field-temperature", Input))

    def _fill(self) -> None:
        self._unusable.clear()
        with self.prevent(Input.Changed, TextArea.Changed):
            for each in _FIELDS:
                self.query_one(f"#field-{each.name}", Input).value = written(self._settings, each.name)
            self.query_one(TextArea).text = self._settings.system
        self._label()
        self.on_descendant_focus()

    def _label(self) -> None:
        """Mark what is not as for every new chat with the model (•), what is set for it (◦), and what is wrong (✕)."""
        labels = [Content("  preset"), *map(self._label_of, _FIELDS)]
        show_text(self.query_one("#labels", Static), Content("\n").join(labels))
        show_text(self.query_one("#label-system", Static), self._label_of(_SYSTEM), layout=False)
        preferred = self._preset, self._defaults.preset
        self.query_one(PresetField).name_preset(preset_of(self._settings, self._presets, preferred))

    def _label_of(self, this: Parameter) -> Content:
        if this.name in self._unusable:
            return Content.styled(f"✕ {this.label}", "bold $text-error")
        if self._is_changed(this.name):
            return Content.styled(f"• {this.label}", "bold $text-accent")
        if this.name in self._defaults.sources:
            return Content.styled(f"◦ {this.label}", "$text-accent")
        return Content(f"  {this.label}")

    def _is_changed(self, name: str) -> bool:
        return bool(getattr(self._settings, name) != getattr(self._defaults.settings, name))

    def _about(self, this: Parameter) -> str:
        """What it may be, under its whole name, which the label has no room for; and where its value comes from."""
        source = "set in this chat" if self._is_changed(this.name) else self._defaults.sources.get(this.name, "")
        return "\n".join(filter(None, (f"{this.name}: {this.about}", source)))

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._take((event.input.id or "").removeprefix("field-"), event.value)

    @on(TextArea.Changed)
    def _system_typed(self, event: TextArea.Changed) -> None:
        event.stop()
        self._take("system", event.text_area.text)

    def _take(self, name: str, text: str) -> None:
        try:
            settings = with_value(self._settings, name, text)
        except InvalidInput as error:
            self._unusable.add(name)
            self._label()
            self._say(clean(error.message), "$text-error")
            return
        self._unusable.discard(name)
        if settings != self._settings:
            self._settings = settings
            self.post_message(SettingsChanged(settings))
        self._say(self._about(parameter(name)))
        self._label()

    async def take_preset(self, name: str, preset: ChatSettings) -> None:
        """Set what a preset does; values that its variables need are asked for."""
        from squish.chats.templates import has_variables

        if has_variables(preset.system):
            await self.run_action(f"screen.preset({name!r})")
        else:
            self._preset = name
            self._replace(with_preset(self._settings, preset), name)

    def action_reset(self) -> None:
        """All values as in a new chat with this model."""
        self._replace(self._defaults.settings)

    def _replace(self, settings: ChatSettings, preset: str = "") -> None:
        if settings != self._settings or preset:
            self._settings = settings
            self.post_message(SettingsChanged(settings, preset))
        self._fill()

    def on_descendant_focus(self) -> None:
        self._frame()
        focused = self.screen.focused
        name = (focused.id or "").removeprefix("field-") if focused else ""
        known = next((each for each in PARAMETERS if each.name == name), None)
        self._say(self._about(known) if known else "")

    def on_descendant_blur(self) -> None:
        self._frame()

    def _frame(self) -> None:
        """Show by the border whether keys go here. Styled alone: `:focus-within` styles every field anew."""
        if self.has_focus_within != self.has_class("-focused"):
            self.set_class(self.has_focus_within, "-focused", update=False)
            self.app.stylesheet.update_nodes((self,))

    def _say(self, text: str, style: str = "$foreground-muted") -> None:
        show_text(self.query_one("#about", Static), Content.styled(text, style))
        after_refresh(self, self._keep_in_sight)

    def _keep_in_sight(self) -> None:
        """The field that is written in, whatever room the words below it take."""
        if (focused := self.screen.focused) and self in focused.ancestors:
            self.scroll_to_widget(focused, animate=False)
