"""Types of names that other systems gave rules to: hosts, URLs, DNS and Kubernetes names, buckets, paths.

Pure text checks: nothing is resolved, opened or asked. What is said is what is allowed; `hint` is the nearest text
that would be. A value is what a reference resolved to, so an error never repeats it: the caller shows what is written.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBERS_AND_DOTS = re.compile(r"[0-9.]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/-]{0,62}")
_PATH_SIGNS = re.compile(r"/([!$&-;=?-Z_a-z~%-]*)")
_CHANNEL = re.compile(r"[a-z][a-z0-9-]*:\S.*")
_PHONE = re.compile(r"\+?[0-9][0-9 ()./-]+(ext\.? ?[0-9]+)?")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PORTS = range(1, 65536)
_LONGEST_NAME = 253
_LONGEST_IDENTIFIER = 63
"""Bytes of PostgreSQL's names (NAMEDATALEN - 1)."""


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing: no character, or only spaces and characters that take no ink."""
    return not any(sign.isprintable() and not sign.isspace() for sign in text)


def split_url(text: str) -> SplitResult | None:
    """A web URL's parts; None when it is none, or its host could be no host."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and (parts.port is None or parts.port in _PORTS)
        host = parts.hostname
    except ValueError:
        return None
    return parts if usable and host and is_host(host) and not any(sign.isspace() for sign in text) else None


def is_address(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    """Whether a connection could be made to this: an address, or a DNS name (RFC 1123; no internationalised form)."""
    if is_address(text):
        return True
    return is_dns_name(text) and not _NUMBERS_AND_DOTS.fullmatch(text)


def is_dns_name(text: str) -> bool:
    """Whether Route 53 could hold this name; underscores are for records such as ``_epoch.api``."""
    name = text.removesuffix(".")
    return len(name) <= _LONGEST_NAME and all(_DNS_LABEL.fullmatch(label) for label in name.split("."))


def _is_label(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None


def _is_subdomain(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and all(map(_is_label, text.split(".")))


def _is_bucket(text: str) -> bool:
    return _BUCKET.fullmatch(text) is not None and ".." not in text and not is_address(text)


def _is_absolute(text: str) -> bool:
    return text.startswith("/") and text.strip("/") != "" and text.isprintable()


def _is_url_path(text: str) -> bool:
    return _PATH_SIGNS.fullmatch(text) is not None and not text.startswith("//")


def _is_identifier(text: str) -> bool:
    return not is_blank(text) and text.isprintable() and len(text.encode()) <= _LONGEST_IDENTIFIER


def _is_table(text: str) -> bool:
    return text.count(".") <= 1 and all(map(_is_identifier, text.split(".")))


def _is_resolver(text: str) -> bool:
    if is_address(text):
        return True
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    ours = is_address(bare) and (bare != host or ":" not in host)
    return ours and port.isascii() and port.isdecimal() and int(port) in _PORTS


def _is_reach(text: str) -> bool:
    return any(form.fullmatch(text) for form in (_PHONE, _EMAIL)) or split_url(text) is not None


def _kube_hint(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")


def _host_hint(text: str) -> str:
    try:
        return urlsplit(text).hostname or "" if "://" in text else re.sub(r"[\s_]+", "-", text.strip())
    except ValueError:
        return ""


def _checked(
    kind: str, usable: Callable[[str], bool], allowed: str, hint: Callable[[str], str] = lambda _: ""
) -> AfterValidator:
    def check(text: str) -> str:
        if usable(text):
            return text
        near = hint(text)
        raise PydanticCustomError(kind, allowed, {"hint": near if near and usable(near) else ""})

    return AfterValidator(check)


Host = Annotated[
    str, _checked("host", is_host, "a host name such as db-1.example.org, or an IP address", _host_hint)
]
"""What a connection is made to."""
HttpUrl = Annotated[
    str,
    _checked(
        "url",
        lambda text: split_url(text) is not None,
        "a URL such as https://name or http://address:port",
        lambda text: text if "://" in text else f"https://{text.strip('/')}" if "." in text else "",
    ),
]
"""A URL with scheme and host."""
DnsName = Annotated[str, _checked("dns_name", is_dns_name, "a DNS name such as api.example.org", _host_hint)]
"""The name of a zone or record, with or without the final dot."""
Resolver = Annotated[
    str, _checked("resolver", _is_resolver, "an IP address, or address:port with a port from 1 to 65535")
]
"""A DNS server."""
Namespace = Annotated[
    str,
    _checked(
        "namespace",
        _is_label,
        "a Kubernetes namespace (RFC 1123 label): up to 63 of a-z, 0-9 and -, with a letter or digit at both ends",
        _kube_hint,
    ),
]
"""A Kubernetes namespace."""
Workload = Annotated[
    str,
    _checked(
        "workload",
        _is_subdomain,
        "a Kubernetes name (RFC 1123): a-z, 0-9, - and ., with a letter or digit at both ends",
        _kube_hint,
    ),
]
"""The name of a Deployment or StatefulSet."""
Bucket = Annotated[
    str,
    _checked(
        "bucket",
        _is_bucket,
        "a bucket name of S3: 3 to 63 of a-z, 0-9, - and ., with a letter or digit at both ends",
        lambda text: re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-."),
    ),
]
"""The name of an S3 bucket."""
AbsolutePath = Annotated[
    str, _checked("absolute_path", _is_absolute, "an absolute path such as /var/lib/postgresql/data")
]
"""A path inside a pod: there is nothing that it could be relative to."""
UrlPath = Annotated[
    str,
    _checked(
        "url_path",
        _is_url_path,
        "a path that starts with one /, without spaces, such as /patient-service/health",
        lambda text: f"/{text.strip('/ ')}",
    ),
]
"""The path of a URL."""
Identifier = Annotated[
    str, _checked("identifier", _is_identifier, "a name of PostgreSQL: printable, at most 63 bytes")
]
"""A database or user of PostgreSQL."""
Table = Annotated[
    str, _checked("table", _is_table, "a table of PostgreSQL: name or schema.name, at most 63 bytes each")
]
"""A table, with or without its schema."""
Instance = Annotated[
    str,
    _checked(
        "instance",
        lambda text: _INSTANCE.fullmatch(text) is not None,
        "up to 63 letters, digits and . _ @ : / -, beginning with a letter or digit (a cluster_name of PostgreSQL)",
        lambda text: re.sub(r"[^A-Za-z0-9._@:/-]+", "-", text.strip()).lstrip("._@:/-"),
    ),
]
"""A database instance's name in the write authority."""
Channel = Annotated[
    str,
    _checked(
        "channel", lambda text: _CHANNEL.fullmatch(text) is not None, "KIND:NAME, such as slack:#incidents"
    ),
]
"""An internal channel."""
Reach = Annotated[
    str, _checked("reach", _is_reach, "a phone number such as +12025550110, an email address or a URL")
]
"""How somebody outside is reached."""
