"""What the API answers when it refuses: Kubernetes' Status object, as an exception. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ApiError(Exception):
    """A refusal of the Kubernetes API.

    Args:
        code: HTTP status.
        reason: Kubernetes' machine-readable reason, such as ``NotFound``.
        message: what people read.
        details: the kind, the name and each field's trouble, which kubectl puts in words itself.
    """

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details

    def body(self) -> dict[str, Any]:
        """The Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        } | ({"details": self.details} if self.details else {})


def not_found(plural: str, name: str) -> ApiError:
    """There is no such object."""
    return ApiError(404, "NotFound", f'{plural} "{name}" not found')


def already_exists(plural: str, name: str) -> ApiError:
    """There is already one of that name."""
    return ApiError(409, "AlreadyExists", f'{plural} "{name}" already exists')


def conflict(plural: str, name: str) -> ApiError:
    """The object changed since it was read."""
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
    )


def expired(revision: int) -> ApiError:
    """A watch asks for changes that are no longer remembered."""
    return ApiError(410, "Expired", f"too old resource version: {revision}")


def invalid(
    message: str, kind: str = "", name: str = "", problems: Iterable[tuple[str, str]] = ()
) -> ApiError:
    """The object or the patch makes no sense; with a kind, these fields of that object."""
    causes = [{"reason": "FieldValueInvalid", "field": field, "message": told} for field, told in problems]
    return ApiError(422, "Invalid", message, {"kind": kind, "name": name, "causes": causes} if kind else None)


def forbidden(plural: str, name: str, why: str) -> ApiError:
    """It is there, but this may not be done with it."""
    return ApiError(403, "Forbidden", f'{plural} "{name}" is forbidden: {why}')


def internal(error: Exception) -> ApiError:
    """A fault of the lab itself."""
    return ApiError(500, "InternalError", f"Internal error occurred: {type(error).__name__}: {error}")


def bad_request(message: str) -> ApiError:
    """The request cannot be read."""
    return ApiError(400, "BadRequest", message)


def unsupported(what: str) -> ApiError:
    """Real Kubernetes can do it; the lab's cannot."""
    return ApiError(501, "NotImplemented", f"{what}: not supported by the lab")
