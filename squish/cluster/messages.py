"""What `squish serve --hosts` and the agent on another machine say to each other: Structs, and nothing else.

Each ToAgent is answered in its turn by one message of the kind that it names, or by Failed(None); Working and RankEnded
come in between.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from squish.ipc.frames import Failed
from squish.ipc.group import Rank
from squish.memory.fit import Machine
from squish.models.manifest import Manifest, StoredFile

PROTOCOL = 1
CHUNK = 1 << 20  # bytes of a file in one message


# ---- to the agent


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """Answered by Beaten. number: comes back."""

    number: int


class Look(msgspec.Struct, frozen=True, tag="look"):
    """Whether a model is there with these files, every one with its hash. Answered by ModelThere; Working meanwhile."""

    id: str
    files: tuple[StoredFile, ...]


class Receive(msgspec.Struct, frozen=True, tag="receive"):
    """The files of a model will follow. Answered by Have: how much of each is there from an earlier attempt."""

    manifest: Manifest


class Chunk(msgspec.Struct, frozen=True, tag="chunk"):
    """Bytes of the file with this number in the manifest. Answered by Written."""

    file: int
    offset: int
    data: bytes


class FileEnd(msgspec.Struct, frozen=True, tag="file_end"):
    """All of a file was sent. Answered by FileWhole; one that is not what it should be is gone then."""

    file: int


class Install(msgspec.Struct, frozen=True, tag="install"):
    """All files were sent: they become the model. Answered by ModelThere."""


class Fetch(msgspec.Struct, frozen=True, tag="fetch"):
    """Pull a model from the Hub, there. Answered by ModelThere as for Look; Working meanwhile."""

    name: str
    id: str
    files: tuple[StoredFile, ...]


class OpenLink(msgspec.Struct, frozen=True, tag="open_link"):
    """Wait for one measurement at an address of this host. Answered by LinkOpen."""

    address: str
    port: int
    token: str


class MeasureLink(msgspec.Struct, frozen=True, tag="measure_link"):
    """Measure the way to a host that waits at this address. Answered by LinkMeasured."""

    address: str
    port: int
    token: str


class StartRank(msgspec.Struct, frozen=True, tag="start_rank"):
    """Start a rank with an installed model; its `model` and `cache_dir` are filled in here. Answered by RankStarted."""

    rank: Rank
    id: str


class StopRank(msgspec.Struct, frozen=True, tag="stop_rank"):
    """End the rank that runs, if one does. Answered by RankStopped."""


class Farewell(msgspec.Struct, frozen=True, tag="farewell"):
    """The server ends, and nobody is to come back. Not answered."""


ToAgent = (
    Beat | Look | Receive | Chunk | FileEnd | Install | Fetch | OpenLink | MeasureLink | StartRank | StopRank | Farewell
)

# ---- from the agent


class Facts(msgspec.Struct, frozen=True, tag="facts"):
    """The first word of an agent: what runs there and what it has.

    versions: of Squish, MLX, mlx-lm, Python; None where one is not installed. addresses: IPv4, of its own networks.
    disk_free: bytes where models are kept. clock: Unix seconds.
    """

    rank: int
    versions: dict[str, str | None]
    machine: Machine
    addresses: tuple[str, ...]
    disk_free: int
    clock: float
    backend: str = ""
    protocol: int = PROTOCOL


class Beaten(msgspec.Struct, frozen=True, tag="beaten"):
    number: int
    clock: float


class ModelThere(msgspec.Struct, frozen=True, tag="model_there"):
    """state: same, absent, other (another model has that id), or changed (`file` is not what was installed).

    partial: bytes that are there of an earlier attempt.
    """

    state: Literal["same", "absent", "other", "changed"]
    file: str = ""
    partial: int = 0


class Have(msgspec.Struct, frozen=True, tag="have"):
    """Bytes of each file, in the order of the manifest."""

    sizes: tuple[int, ...]


class Written(msgspec.Struct, frozen=True, tag="written"):
    size: int


class FileWhole(msgspec.Struct, frozen=True, tag="file_whole"):
    whole: bool


class LinkOpen(msgspec.Struct, frozen=True, tag="link_open"):
    pass


class LinkMeasured(msgspec.Struct, frozen=True, tag="link_measured"):
    """round_trip in seconds, the least of several; bandwidth in bytes per second."""

    round_trip: float
    bandwidth: float


class RankStarted(msgspec.Struct, frozen=True, tag="rank_started"):
    pid: int


class RankStopped(msgspec.Struct, frozen=True, tag="rank_stopped"):
    pass


class RankEnded(msgspec.Struct, frozen=True, tag="rank_ended"):
    """The rank's process has ended by itself; what it said last, or ""."""

    said: str


class Working(msgspec.Struct, frozen=True, tag="working"):
    """How far something long has come. what: `check` or a phase of a pull; done and total in bytes."""

    what: str
    done: int
    total: int


ToFront = (
    Beaten | ModelThere | Have | Written | FileWhole | LinkOpen | LinkMeasured | RankStarted | RankStopped | Failed
)
FromAgent = Facts | Working | RankEnded | ToFront
