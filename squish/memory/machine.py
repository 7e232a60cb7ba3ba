"""Reads how much memory this machine has for models: unified memory on a Mac, VRAM with CUDA, else RAM.

It decides nothing: fit.py does.
"""

from __future__ import annotations

import shutil
import subprocess

from squish.memory.fit import Machine
from squish.system.accelerator import RESERVE, has_cuda
from squish.system.host import HOST


def read() -> Machine:
    """The memory of this machine now. Without a GPU that MLX can use, that is RAM, and numbers are float32."""
    memory = HOST.memory()
    if most := memory.gpu:
        return Machine("unified memory", most, min(most, memory.available), float32=False, elastic=True)
    if has_cuda() and (found := _video_memory()) is not None:
        return Machine("VRAM", found[0], found[1], float32=False)
    packed = any(map(shutil.which, ("g++", "clang++", "c++")))  # what worker/cpu/build.py compiles its kernels with
    return Machine("RAM", memory.total - RESERVE, max(0, memory.available - RESERVE), float32=True, packed=packed)


def _video_memory() -> tuple[int, int] | None:
    """Total and free bytes of the first GPU, as its driver says."""
    command = ["nvidia-smi", "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        total, free = (int(part) << 20 for part in said.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return total, free
