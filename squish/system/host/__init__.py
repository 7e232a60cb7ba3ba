"""What differs between operating systems: one module a system, with the functions that `Host` lists.

Nothing else in Squish asks which system it runs on. It is asked once, here, and everybody calls `HOST`.
"""

from __future__ import annotations

import sys

from squish.system.host.contract import Host, MemoryReading, Pressure, ServiceFile

__all__ = ["HOST", "Host", "MemoryReading", "Pressure", "ServiceFile"]

HOST: Host
if sys.platform == "darwin":
    from squish.system.host import macos as HOST
else:
    from squish.system.host import linux as HOST
