"""The archive of a cluster's objects: written in the order of restoring, secrets encrypted, and read back without trust.

Reading refuses what does not belong there before anything is looked at: paths that lead elsewhere, links, bombs, objects that the
manifest does not name or that are not what it says. It talks to no cluster and no object store.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.backup.tarcheck import unsafe
from hmsdr.decide.clusterbackup import Object, file_name, objection
from hmsdr.errors import RefusedError

FORMAT = 1
MANIFEST = "manifest.json"
PACKED_LIMIT = 64 << 20
"""Bytes; a larger file is no archive of ours."""
_UNPACKED_LIMIT = 256 << 20
_OBJECT_LIMIT = 4 << 20
_MEMBERS_LIMIT = 20_000
_ENCRYPTED = ".age"
_SECRETS = "secrets"


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds: who made it and when, and the objects by file name, in the order of restoring."""

    region: str
    made: datetime
    objects: dict[str, Object]


def write(
    found: Iterable[tuple[str, Object]], *, region: str, made: datetime, recipients: Sequence[str]
) -> bytes:
    """An archive of cleaned objects, each with its plural; secrets are encrypted for the `recipients`.

    Raises:
        RefusedError: there are secrets and no recipients.
    """
    files: dict[str, bytes] = {}
    for plural, item in found:
        content = (json.dumps(item, indent=1, sort_keys=True) + "\n").encode()
        name = file_name(plural, item)
        if plural == _SECRETS:
            name, content = name + _ENCRYPTED, _encrypt(content, recipients)
        files[name] = content
    listed = [
        {"file": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
    ]
    manifest = {"format": FORMAT, "region": region, "made": made.isoformat(), "objects": listed}
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        _add(archive, MANIFEST, json.dumps(manifest, indent=1).encode(), made)
        for name, content in sorted(files.items()):
            _add(archive, name, content, made)
    return raw.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, made: datetime) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o600, int(made.timestamp())
    archive.addfile(member, io.BytesIO(content))


def read(
    content: bytes, what: str, *, kinds: Collection[str], namespaces: Collection[str], identity: str | None
) -> Contents:
    """Every object of an archive, each checked.

    Args:
        content: the archive.
        what: how it is called in messages.
        kinds: plurals that are accepted.
        namespaces: that are accepted.
        identity: private key (age) for secrets.

    Raises:
        UnfitError: anything at all is not as it must be; then none of it is to be used.
    """
    doing = f"reading {what}"
    if len(content) > PACKED_LIMIT:
        raise UnfitError(
            doing, Kind.ARCHIVE, f"it has {len(content)} bytes; an archive has at most {PACKED_LIMIT}"
        )
    files = _files(doing, content)
    manifest = _manifest(doing, files)
    objects: dict[str, Object] = {}
    for name in sorted(files):
        plain, text = name.removesuffix(_ENCRYPTED), files[name]
        if name.endswith(_ENCRYPTED):
            text = _decrypt(doing, name, text, identity)
        try:
            item: Any = json.loads(text)
        except ValueError as error:
            raise UnfitError(doing, Kind.ARCHIVE, f"{name} is no JSON: {error}") from error
        if words := objection(plain, item, kinds=kinds, namespaces=namespaces):
            raise UnfitError(doing, Kind.ARCHIVE, f"{name}: {words}")
        if _SECRETS in plain.partition("/")[0] and plain == name:
            raise UnfitError(doing, Kind.ARCHIVE, f"{name} is a secret, and is not encrypted")
        objects[plain] = item
    return Contents(str(manifest["region"]), datetime.fromisoformat(manifest["made"]), objects)


def _files(doing: str, content: bytes) -> dict[str, bytes]:
    """The members, bounded in number and size, before anything of them is believed."""
    files: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r|gz") as archive:
            for member in archive:
                total += member.size
                problem = unsafe(member) or ("" if member.isreg() else f"{member.name!r} is no file")
                if member.name in files:
                    problem = f"{member.name!r} is in it twice"
                if member.size > _OBJECT_LIMIT or total > _UNPACKED_LIMIT or len(files) >= _MEMBERS_LIMIT:
                    problem = f"at {member.name!r} it is larger than an archive of a cluster's objects may be"
                if problem:
                    raise UnfitError(doing, Kind.ARCHIVE, problem)
                source = archive.extractfile(member)
                files[member.name] = b"" if source is None else source.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        words = f"it is truncated, or no archive ({error or type(error).__name__})"
        raise UnfitError(doing, Kind.ARCHIVE, words) from error
    return files


def _manifest(doing: str, files: dict[str, bytes]) -> dict[str, Any]:
    """The manifest, taken out of `files`; what it names and what is there must be the same."""
    try:
        manifest: dict[str, Any] = json.loads(files.pop(MANIFEST))
        if manifest["format"] != FORMAT:
            words = f"it has format {manifest['format']}, and this version reads {FORMAT}"
            raise UnfitError(doing, Kind.ARCHIVE, words)
        named = {str(each["file"]): (int(each["size"]), str(each["sha256"])) for each in manifest["objects"]}
        datetime.fromisoformat(manifest["made"])
        str(manifest["region"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnfitError(doing, Kind.ARCHIVE, f"its manifest is missing or unreadable ({error})") from error
    if lost := sorted(named.keys() - files.keys()):
        raise UnfitError(doing, Kind.ARCHIVE, f"{lost[0]} is in its manifest and not in it: it is truncated")
    if strange := sorted(files.keys() - named.keys()):
        raise UnfitError(doing, Kind.ARCHIVE, f"{strange[0]} is in it and not in its manifest")
    for name, content in files.items():
        if named[name] != (len(content), hashlib.sha256(content).hexdigest()):
            raise UnfitError(doing, Kind.ARCHIVE, f"{name} is not what its manifest says: it was changed")
    return manifest


def _encrypt(content: bytes, recipients: Sequence[str]) -> bytes:
    import pyrage  # noqa: PLC0415 - only where secrets are kept

    if not recipients:
        raise RefusedError(
            "keeping secrets",
            "nobody is named for whom they are encrypted",
            "Set backups.kubernetes.recipients",
        )
    sealed: bytes = pyrage.encrypt(content, [pyrage.x25519.Recipient.from_str(each) for each in recipients])
    return sealed


def _decrypt(doing: str, name: str, content: bytes, identity: str | None) -> bytes:
    import pyrage  # noqa: PLC0415

    if identity is None:
        raise UnfitError(doing, Kind.KEY, f"{name} is encrypted, and no private key is named")
    # A file as age-keygen writes it has comments beside the key.
    lines = [line.strip() for line in identity.splitlines() if line.strip().startswith("AGE-SECRET-KEY-")]
    try:
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except pyrage.IdentityError as error:
        raise UnfitError(doing, Kind.KEY, "what is named as private key is none of age's") from error
    if not keys:
        raise UnfitError(doing, Kind.KEY, "what is named as private key is none of age's")
    try:
        opened: bytes = pyrage.decrypt(content, keys)
    except pyrage.DecryptError as error:
        raise UnfitError(doing, Kind.KEY, f"{name} is encrypted for another key, or damaged") from error
    return opened
