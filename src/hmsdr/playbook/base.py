"""Types that every part of the playbook model is made of. Pure data: loads nothing, connects to nothing."""

from __future__ import annotations

import re
import types
from datetime import timedelta
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from hmsdr.playbook.names import is_blank

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
LONGEST = timedelta(days=3650)
"""Nothing here is waited for longer, and a date so far away can still be told."""
DURATION_PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"


class Model(BaseModel):
    """Base of all playbook models: frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML has types: ``true`` is no number, ``1`` does not mean yes, and a text is neither."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if wanted is bool and not isinstance(value, bool):
            raise PydanticCustomError("bool_as_written", "true or false")
        if wanted in (int, float) and isinstance(value, bool | str):
            raise PydanticCustomError("number_as_written", "a number, without quotes")
        if get_origin(wanted) is Literal and isinstance(value, bool):
            raise PydanticCustomError("literal_as_written", "a value that is not true or false")
        return value


def _is_text(annotation: Any) -> bool:
    """Whether this is `str`, optional or not, with or without marks."""
    if get_origin(annotation) is Annotated:
        return _is_text(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return all(_is_text(member) for member in get_args(annotation) if member is not type(None))
    return annotation is str


class MayBeBlank:
    """Marks a text that may say nothing; so does the default ``""``."""


class Section(Model):
    """Base of the models of a playbook: a text in it says something, unless it is marked with `MayBeBlank`."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_blank(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        may_be_blank = field.default == "" or any(isinstance(mark, MayBeBlank) for mark in field.metadata)
        if _is_text(field.annotation) and isinstance(value, str) and is_blank(value) and not may_be_blank:
            raise PydanticCustomError("blank", "a text that says something")
        return value


def parse_duration(value: Any) -> timedelta:
    """Read ``"5m"``, ``"1h30m"``, ``"500ms"`` or a timedelta.

    Raises:
        ValueError: the text is not a duration with a unit (pydantic's own subclass of it).
    """
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(DURATION_PATTERN, value.strip(), re.ASCII):
        raise PydanticCustomError("duration", "a duration such as 30s, 5m or 1h30m")
    seconds = sum(float(n) * _UNIT_SECONDS[u] for n, u in _DURATION.findall(value))
    if seconds > LONGEST.total_seconds():
        raise PydanticCustomError("duration", "a duration of at most ten years (3650d)")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back to `value` (millisecond precision)."""
    milliseconds = round(value.total_seconds() * 1000)
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["30s", "5m", "1h30m"]}),
]

REFERENCE_PATTERN = r"^\$\{(env:[A-Za-z_][A-Za-z0-9_]*|file:[^{}]+)\}$"
"""How a playbook refers to a value that is kept elsewhere."""

Secret = Annotated[
    SecretStr, WithJsonSchema({"type": "string", "pattern": REFERENCE_PATTERN, "examples": ["${env:NAME}"]})
]
"""A secret. A playbook file may only refer to it; the loader refuses one that stands there literally."""


class RelativePath:
    """Marks a text as a path: the loader makes it absolute, starting at the file in which it stands."""


PathText = Annotated[str, RelativePath()]
