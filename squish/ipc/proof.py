"""How two ends of a connection show each other that they know a token, which never travels: the arithmetic of it.

Each end answers what the other has made up for this connection. Who reads and writes, and how, is for its callers.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

CHALLENGE = 32
PROOF = hashlib.sha256().digest_size


def challenge() -> bytes:
    """What one end makes up: CHALLENGE random bytes."""
    return secrets.token_bytes(CHALLENGE)


def proof(token: str, purpose: str, first: bytes, second: bytes) -> bytes:
    """PROOF bytes that only who has the token can make. purpose: of one line, whose end it is and what for.

    first, second: both challenges, in an order that both ends agree on.
    """
    about = b"\n".join((purpose.encode(), first.hex().encode(), second.hex().encode()))
    return hmac.digest(token.encode(), about, "sha256")


def holds(given: bytes, wanted: bytes) -> bool:
    """Whether a proof is the one that was wanted; the time it takes says nothing of it."""
    return hmac.compare_digest(given, wanted)
