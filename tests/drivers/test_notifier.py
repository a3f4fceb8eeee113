"""Apprise's services against a real mail server: taken, refused, silent, gone; and the URL, a secret, told by no error."""

from __future__ import annotations

import traceback

import pytest

from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.drivers.notifier import Notifier
from mailbox_server import Mailboxes


@pytest.mark.req("CM-3")
async def test_a_mail_comes_as_it_was_written() -> None:
    async with Mailboxes() as server:
        text = "INCIDENT DETAILS:\n- Impact: Ärzte arbeiten <auf> Papier & warten\n.\n- end"
        await Notifier(server.url, "email@wards").send("[SEV-1] HMS", text, deadline=10)
    ((to, mail),) = server.mails
    assert to == ["ward@hms.example"]
    assert mail["Subject"] == "[SEV-1] HMS"
    body = mail.get_body(("plain",))
    assert body is not None
    assert body.get_content().split() == text.split()
    assert body.get_content().strip().splitlines() == text.splitlines()


async def failed(url: str, deadline: float = 10) -> DriverError:
    with pytest.raises(DriverError) as caught:
        await Notifier(url, "email@wards").send("s", "t", deadline=deadline)
    told = "".join(traceback.format_exception(caught.value))
    assert "Geheimnis" not in told
    assert "email@wards" in told
    return caught.value


async def test_who_does_not_take_it_is_tried_again() -> None:
    async with Mailboxes(refuse=True) as server:
        refused = await failed(f"{server.url}&token=Geheimnis")
        assert isinstance(refused, TemporaryError)
        assert server.mails == []
    gone = await failed(f"{server.url}&token=Geheimnis")
    assert isinstance(gone, TemporaryError)


async def test_who_says_nothing_may_have_it() -> None:
    async with Mailboxes(silent=True) as server:
        assert isinstance(await failed(f"{server.url}&cto=3&rto=3", deadline=0.5), OutcomeUnknownError)


@pytest.mark.parametrize("url", ["", "nonsense", "gopher://Geheimnis@x", "slack://"])
async def test_a_url_that_means_nothing_is_wrong_for_good(url: str) -> None:
    assert isinstance(await failed(url), PermanentError)
