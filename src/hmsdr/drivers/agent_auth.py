"""How an agent and whoever orders it know each other: one shared key, which never travels. Pure.

An order is signed over its method, path, a number used once, the life of the agent that it is meant for, and its body; the
answer is signed over that number. So neither can be forged without the key, and neither a recorded order nor a recorded
answer is worth anything later: an agent refuses a number that it has seen, and an order to an earlier life of itself.
People with `curl` may show the key itself instead (``Bearer``), over TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import deque

NONCE = "X-Hmsdr-Nonce"
"""Header of a request: the number used once."""
LIFE = "X-Hmsdr-Life"
"""Header of an order, and of every answer: the life (incarnation) of the agent that is meant, or speaks."""
SIGNATURE = "X-Hmsdr-Signature"
"""Header of an answer."""
SCHEME = "HMAC "
OTHER_LIFE = 412
"""Status for an order that was meant for an earlier life: nothing was done; look at the header, and order again."""
_REMEMBERED = 20_000


def new_nonce() -> str:
    """A number that nobody used before."""
    return secrets.token_hex(16)


def sign_request(key: str, method: str, path: str, nonce: str, life: str, body: bytes) -> str:
    """The signature of a request, in hex; `life` is empty for a question."""
    return _sign(key, "request", method, path, nonce, life, body=body)


def sign_answer(key: str, nonce: str, life: str, status: int, body: bytes) -> str:
    """The signature of an answer, in hex."""
    return _sign(key, "answer", nonce, life, str(status), body=body)


def same(expected: str, given: str) -> bool:
    """Whether both are the same, in constant time."""
    return hmac.compare_digest(expected.encode(), given.encode())


class Seen:
    """The numbers of the orders that one life of an agent was given; questions change nothing and are not remembered."""

    def __init__(self) -> None:
        self._order: deque[str] = deque()
        self._seen: set[str] = set()

    def first_time(self, nonce: str) -> bool:
        """Whether `nonce` is new; from now on it is not."""
        if not nonce or nonce in self._seen:
            return False
        self._seen.add(nonce)
        self._order.append(nonce)
        if len(self._order) > _REMEMBERED:
            self._seen.discard(self._order.popleft())
        return True


def _sign(key: str, *parts: str, body: bytes) -> str:
    # Lengths first: no part can be moved into its neighbour.
    text = "".join(f"{len(part)}:{part}" for part in parts).encode() + body
    return hmac.new(key.encode(), text, hashlib.sha256).hexdigest()
