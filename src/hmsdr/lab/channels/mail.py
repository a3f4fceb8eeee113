"""The lab's mail server: SMTP as RFC 5321 has it, for the mailboxes of this lab and nobody else. It relays nothing.

A mail is kept once for each recipient, before it is acknowledged. Refused are an unknown mailbox (550), another domain (550, no
relaying), what is too large (552), too many recipients (452), commands out of order (503) and lines without an end (500).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default

from hmsdr.lab.channels.kept import Kept
from hmsdr.lab.overlay import MAIL_DOMAIN

_LARGEST = 1024 * 1024
_MOST_RECIPIENTS = 100
_IDLE_SECONDS = 60.0
_LINE = 2048
_PATH = re.compile(r"(?i)(?:FROM|TO):\s*<([^<>\s]*)>(?:\s.*)?")


@dataclass(slots=True)
class _Envelope:
    sender: str | None = None
    to: list[str] = field(default_factory=list)


class MailServer:
    """Mailboxes behind SMTP.

    Args:
        kept: where mails are kept.
        mailboxes: the part before the ``@`` of each address that exists.
    """

    def __init__(self, kept: Kept, mailboxes: Collection[str]) -> None:
        self._kept = kept
        self._mailboxes = frozenset(mailboxes)

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen there."""
        return await asyncio.start_server(self._connected, host, port, limit=_LINE, reuse_address=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except TimeoutError:
            writer.write(b"421 4.4.2 nothing was heard for too long\r\n")
        except asyncio.LimitOverrunError:
            writer.write(b"500 5.5.2 line too long\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client is gone: what was not acknowledged it sends again
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        envelope = _Envelope()
        writer.write(f"220 {MAIL_DOMAIN} the lab's mail\r\n".encode())
        while True:
            await writer.drain()
            line = await self._line(reader)
            word, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            word = word.upper()
            if word == "QUIT":
                writer.write(b"221 2.0.0 bye\r\n")
                return
            if word == "DATA" and envelope.to:
                writer.write(b"354 end with a dot on its own line\r\n")
                await writer.drain()
                answer = self._keep(envelope, await self._data(reader))
                envelope = _Envelope()
            elif word in ("HELO", "EHLO", "RSET"):
                envelope = _Envelope()
                answer = (
                    f"250-{MAIL_DOMAIN}\r\n250-8BITMIME\r\n250 SIZE {_LARGEST}"
                    if word == "EHLO"
                    else "250 2.0.0 ok"
                )
            else:
                answer = self._command(envelope, word, rest)
            writer.write(f"{answer}\r\n".encode())

    def _command(self, envelope: _Envelope, word: str, rest: str) -> str:
        """Do what needs only the envelope; the answer."""
        if word not in ("MAIL", "RCPT"):
            known = {"NOOP": "250 2.0.0 ok", "DATA": "503 5.5.1 no recipient yet"}
            return known.get(word, "502 5.5.1 not known here")
        found = _PATH.fullmatch(rest)
        if found is None:
            return "501 5.5.4 no address was understood"
        if word == "MAIL":
            envelope.sender, envelope.to = found[1], []
            return "250 2.1.0 ok"
        refusal = self._refusal(envelope, found[1].lower())
        if refusal is None:
            envelope.to.append(found[1].lower())
        return refusal or "250 2.1.5 ok"

    def _refusal(self, envelope: _Envelope, address: str) -> str | None:
        """Why this recipient is not taken."""
        name, _, domain = address.rpartition("@")
        if envelope.sender is None:
            return "503 5.5.1 who sends it comes first"
        if domain != MAIL_DOMAIN:
            return "550 5.7.1 nothing is relayed"
        if name not in self._mailboxes:
            return "550 5.1.1 no such mailbox"
        return "452 4.5.3 too many recipients" if len(envelope.to) == _MOST_RECIPIENTS else None

    def _keep(self, envelope: _Envelope, data: bytes | None) -> str:
        if data is None:
            return "552 5.3.4 too large"
        subject, text = _read(data)
        try:
            for address in dict.fromkeys(envelope.to):
                self._kept.add("email", address, text, subject=subject, sender=envelope.sender, key=None)
        except OSError:
            return "451 4.3.0 it could not be kept: try again"
        return "250 2.0.0 kept"

    async def _data(self, reader: asyncio.StreamReader) -> bytes | None:
        """The mail; None when it is too large (it is read to its end all the same)."""
        lines: list[bytes] = []
        size = 0
        async with asyncio.timeout(_IDLE_SECONDS):
            while (line := await reader.readuntil(b"\r\n")) != b".\r\n":
                size += len(line)
                if size <= _LARGEST:
                    lines.append(line.removeprefix(b"."))
        return b"".join(lines) if size <= _LARGEST else None

    @staticmethod
    async def _line(reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(_IDLE_SECONDS):
            return await reader.readuntil(b"\r\n")


def _read(data: bytes) -> tuple[str, str]:
    """Subject and plain text of a mail, whatever its form is."""
    mail = BytesParser(EmailMessage, policy=default).parsebytes(data)
    subject = str(mail["subject"] or "")
    body = mail.get_body(("plain", "html"))
    try:
        text = str(body.get_content()) if body is not None else ""
    except (LookupError, ValueError):
        text = data.decode("utf-8", "replace")
    return subject, text
