"""Downloads of the app: they outlive every screen, and what an earlier run of the program left is found again.

Plain objects on the event loop; screens look at `transfers` when they draw. What pulls say of their progress is taken
in by `read` alone, so that whatever is drawn between two of its calls shows the same figures. Knows no widget.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from squish.config.settings import Settings
from squish.errors import SquishError
from squish.models import unfinished
from squish.models.store import Store
from squish.names import local_path
from squish.tui.background import Background
from squish.tui.faults import fault

if TYPE_CHECKING:
    from squish.pull.events import Phase, Progress, PullEvent

AT_ONCE = 2

State = Literal["waiting", "running", "paused", "failed", "done"]


class Transfer(msgspec.Struct, eq=False):
    """One model on its way. name: as it was asked for; id: as it will be installed.

    done and total in bytes, total 0 where it is not known; speed in bytes per second, eta in seconds;
    since: when its phase began; in_phase: the seconds since then, 0 when it does not run. latest: what `read` takes in.
    """

    name: str
    id: str
    state: State
    phase: Phase = "resolve"
    done: int = 0
    total: int = 0
    speed: float | None = None
    eta: float | None = None
    notice: str = ""
    error: SquishError | None = None
    fresh: bool = True
    since: float = 0.0
    in_phase: float = 0.0
    latest: Progress | None = None
    task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "running")

    @property
    def is_import(self) -> bool:
        """Whether it comes from this machine: nobody is asked for it."""
        return local_path(self.name) is not None

    @property
    def fraction(self) -> float | None:
        """0 to 1, or None where the total is not known."""
        return min(self.done / self.total, 1.0) if self.total else None

    def apply(self, event: PullEvent) -> None:
        """Take in what the pull says; of its progress at the next `read`."""
        from squish.pull.events import Notice, Progress, Pulled, PullStarted

        match event:
            case PullStarted(id=id):
                self.id = id
            case Progress(phase=phase):
                if phase != (self.latest or self).phase or not self.since:
                    self.since = time.monotonic()
                self.latest = event
            case Notice(text=text):
                self.notice = text
            case Pulled(installed=installed, fresh=fresh):
                self.id, self.fresh, self.latest = installed.manifest.id, fresh, None
                self.done = self.total = installed.manifest.size

    def read(self) -> None:
        """Show from now on what the pull has said last, and how long its phase has taken."""
        if event := self.latest:
            self.phase, self.speed, self.eta, self.latest = event.phase, event.speed, event.eta, None
            if event.total or event.phase != "resolve":  # a resumed download keeps its figures until it has new ones
                self.done, self.total = event.done, event.total
        self.in_phase = time.monotonic() - self.since if self.since and self.state == "running" else 0.0


class Downloads:
    """Starts, pauses and ends pulls, a few at a time. ended: called when one is done or has failed, not when paused."""

    def __init__(self, settings: Settings, store: Store, ended: Callable[[Transfer], None]) -> None:
        self._settings = settings
        self._store = store
        self._ended = ended
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._transfers: list[Transfer] = []

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """The oldest first."""
        return tuple(self._transfers)

    @property
    def active(self) -> tuple[Transfer, ...]:
        return tuple(each for each in self._transfers if each.active)

    def one_line(self) -> Background:
        """What the status strip says."""
        if not self._transfers:
            return Background()
        from squish.tui.download_words import one_line

        return one_line(self._transfers)

    def read(self) -> None:
        """Take in how far all of them are."""
        for each in self._transfers:
            each.read()

    def find(self, name: str) -> Transfer | None:
        """The transfer of a name or an id."""
        return next((each for each in self._transfers if name in (each.name, each.id)), None)

    def find_file(self, repo: str) -> Transfer | None:
        """The latest transfer of one file of a repository that is not done: `org/repo:Q4_K_M` of `org/repo`."""
        files = [each for each in self._transfers if each.name.startswith(f"{repo}:") and each.state != "done"]
        return files[-1] if files else None

    def start(self, name: str) -> Transfer:
        """Begin a download, or go on with one that was paused or has failed; one that runs is left alone."""
        transfer = self.find(name)
        if transfer is None:
            transfer = Transfer(name, name, "waiting")
            self._transfers.append(transfer)
        if not transfer.active:
            transfer.error, transfer.notice, transfer.speed, transfer.eta = None, "", None, None
            transfer.since = transfer.in_phase = 0.0
            if transfer.state == "done" or transfer.phase not in ("resolve", "download"):  # not bytes that arrived
                transfer.done = transfer.total = 0
            transfer.phase = "resolve"
        if transfer.task is None or transfer.task.done():
            transfer.state = "waiting"
            transfer.task = asyncio.create_task(self._run(transfer), name=f"download {name}")
        return transfer

    async def pause(self, transfer: Transfer) -> None:
        """Stop; what has arrived stays on disk."""
        await self._stop(transfer)
        if transfer.active:  # and not done in the meantime
            transfer.state = "paused"
            transfer.read()
            transfer.speed = transfer.eta = None

    async def cancel(self, transfer: Transfer) -> int:
        """Stop and delete what has arrived; the bytes freed. Of a download that is done only the row goes.

        Raises ModelInUse while another process downloads the same model, StoreError.
        """
        await self._stop(transfer)
        freed = 0 if transfer.state == "done" else await asyncio.to_thread(unfinished.discard, self._store, transfer.id)
        if transfer in self._transfers:
            self._transfers.remove(transfer)
        return freed

    async def look(self) -> None:
        """Find what an earlier run of the program left. Raises StoreError."""
        for left in await asyncio.to_thread(unfinished.find, self._store):
            if not left.busy and self.find(left.id) is None:
                self._transfers.append(Transfer(left.id, left.id, "paused", "download", left.bytes))

    async def close(self) -> None:
        """Pause everything that runs, all at the same time."""
        await asyncio.gather(*map(self._stop, self.active))

    async def _stop(self, transfer: Transfer) -> None:
        if transfer.task:
            transfer.task.cancel()
            await asyncio.wait({transfer.task})
            transfer.task = None

    async def _run(self, transfer: Transfer) -> None:
        from squish.pull.pull import pull  # not before something is downloaded

        try:
            async with self._gate:
                transfer.state = "running"
                async with pull(transfer.name, settings=self._settings, store=self._store) as events:
                    async for event in events:
                        transfer.apply(event)
            transfer.state = "done"
        except SquishError as error:
            transfer.state, transfer.error = "failed", error
        except Exception as error:  # noqa: BLE001  a fault of ours must not take the app down
            transfer.state = "failed"
            transfer.error = fault(error)
        transfer.read()
        transfer.speed = transfer.eta = None
        self._ended(transfer)
