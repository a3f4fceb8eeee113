"""What the API answers when it refuses: Kubernetes' Status object, as an exception. It decides nothing."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal of the Kubernetes API.

    Args:
        code: HTTP status.
        reason: Kubernetes' machine-readable reason, such as ``NotFound``.
        message: what people read.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason

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
        }


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


def invalid(message: str) -> ApiError:
    """The object or the patch makes no sense."""
    return ApiError(422, "Invalid", message)


def bad_request(message: str) -> ApiError:
    """The request cannot be read."""
    return ApiError(400, "BadRequest", message)


def unsupported(what: str) -> ApiError:
    """Real Kubernetes can do it; the lab's cannot."""
    return ApiError(501, "NotImplemented", f"{what}: not supported by the lab")
