"""Models of the store that lie in a directory elsewhere, as on another disk: how they are known, and how they go.

In the store such a model is a link. Its directory has a hidden file that names the store, so that it is known to be
ours: what is linked without one belongs to somebody else, and is never deleted. While a model moves, or a directory
elsewhere is being deleted, a record in the store's .moving names every directory concerned; whatever of them is not
where the model lies then, goes.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from squish import files
from squish.errors import CorruptModel
from squish.models.layout import Layout, store_errors

MARK = ".squish-store"
_RECORDS, _LARGEST = ".moving", 1 << 20


def directory(layout: Layout, name: str) -> Path | None:
    """Where a model of the store lies elsewhere, in a directory that is ours; None for any other."""
    path = layout.root / name
    if not path.is_symlink():
        return None
    target = path.resolve()
    return target if is_ours(layout, target) else None


def may_be_left(layout: Layout, name: str) -> Path | None:
    """The directory that would be left elsewhere when the link to it goes: one that is ours, or out of reach."""
    path = layout.root / name
    if path.is_symlink() and not path.exists():
        return path.resolve()
    return directory(layout, name)


def is_ours(layout: Layout, path: Path) -> bool:
    """Whether a directory elsewhere belongs to this store."""
    with suppress(OSError, ValueError):
        return files.read_regular(path / MARK, _LARGEST).decode() == str(layout.root.resolve())
    return False


def may_be_taken(layout: Layout, path: Path) -> bool:
    """Whether a directory elsewhere is ours, or one of ours that has no mark yet, or any more."""
    return is_ours(layout, path) or (
        path.is_dir() and all(each.name.startswith(f".{MARK}.") for each in path.iterdir())
    )


def mark(layout: Layout, path: Path) -> None:
    """Say of a directory that it belongs to this store. Raises OSError."""
    files.write_whole(path / MARK, str(layout.root.resolve()))


def require_reachable(path: Path, id: str) -> None:
    """Raises CorruptModel for a model that is a link to something that is not there."""
    if path.is_symlink() and not path.exists():
        raise CorruptModel(
            f"{id} lies in {path.readlink()}, which is not there.",
            hint=f"Connect the disk that it is on. To forget it: squish rm {id}",
            param="model",
        )


def remember(layout: Layout, name: str, *directories: Path) -> None:
    """Write down, durably, which directories elsewhere a model may be in. Raises OSError."""
    folder = layout.root / _RECORDS
    folder.mkdir(exist_ok=True)
    known = {*remembered(layout, name), *directories}
    files.write_whole(folder / name, json.dumps(sorted(str(each) for each in known)))


def remembered(layout: Layout, name: str) -> tuple[Path, ...]:
    """The directories that are written down for a model."""
    try:
        found = json.loads(files.read_regular(layout.root / _RECORDS / name, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(Path(each) for each in found if isinstance(each, str)) if isinstance(found, list) else ()


def unsettled(layout: Layout) -> tuple[str, ...]:
    """The directory names of models that have records: of moves that were cut off, or run just now."""
    folder = layout.root / _RECORDS
    with store_errors(folder):
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return tuple(sorted({each[1:].rpartition(".")[0] if each.startswith(".") else each for each in names}))


def settle(layout: Layout, name: str) -> None:
    """Delete the directories that are written down and in which the model is not. To be called under its locks.

    What cannot be reached, as on a disk that is not there, stays written down. Raises StoreError.
    """
    here = (layout.root / name).resolve()
    with store_errors(layout.root):
        left = [each for each in remembered(layout, name) if each.resolve() != here and not _delete(layout, each)]
        record = layout.root / _RECORDS / name
        for scratch in record.parent.glob(f".{name}.*"):  # of a process that was killed while it wrote
            scratch.unlink()
        if left:
            files.write_whole(record, json.dumps(sorted(map(str, left))))
        else:
            record.unlink(missing_ok=True)


def _delete(layout: Layout, path: Path) -> bool:
    """Delete a directory of ours; whether it is gone for sure."""
    if not path.parent.is_dir():
        return False  # its disk is not there
    if not path.exists():
        return True
    if may_be_taken(layout, path):
        mark_of = path / MARK  # the last to go, so that what is left of a killed process is still known as ours
        for each in path.iterdir():
            if each != mark_of:
                shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
        mark_of.unlink(missing_ok=True)
        path.rmdir()
    return True
