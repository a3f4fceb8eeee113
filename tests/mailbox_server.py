"""A mail server for tests: SMTP on a real socket, mailboxes in memory, and the ways in which a server can fail."""

from __future__ import annotations

import asyncio
import email
import email.policy
from email.message import EmailMessage
from typing import Self


class Mailboxes:
    """``refuse`` answers each recipient with 550, ``silent`` answers nothing at all."""

    def __init__(self, *, refuse: bool = False, silent: bool = False) -> None:
        self.refuse, self.silent = refuse, silent
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        """Apprise's."""
        return f"mailto://127.0.0.1:{self.port}?from=hms@hms.example&to=ward@hms.example&mode=insecure"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.silent:
            await reader.read()
            writer.close()
            return
        to: list[str] = []
        writer.write(b"220 mail ready\r\n")
        while line := (await reader.readline()).decode().strip():
            word = line.upper()
            answer = "250 ok"
            if word.startswith("RCPT"):
                answer = "550 nobody of that name" if self.refuse else answer
                to.append(line.partition(":")[2].strip("<> "))
            elif word.startswith("DATA"):
                writer.write(b"354 go on\r\n")
                lines = []
                while (data := await reader.readline()) not in (b".\r\n", b""):
                    lines.append(data.removeprefix(b".") if data.startswith(b"..") else data)
                mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                assert isinstance(mail, EmailMessage)
                self.mails.append((to, mail))
                to = []
            elif word.startswith("QUIT"):
                answer = "221 bye"
            writer.write(f"{answer}\r\n".encode())
            await writer.drain()
            if word.startswith("QUIT"):
                break
        writer.close()
