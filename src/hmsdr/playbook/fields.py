"""What may stand at a place of a playbook, read off the models: keys, secrets, paths. Reads types, never values."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, Tag

from hmsdr.playbook.base import RelativePath
from hmsdr.playbook.findings import Keys


def alternatives(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The plain types of an annotation, each with the metadata it carries: unions and Annotated unpacked."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        for kind, more in alternatives(inner):
            yield kind, (*metadata, *more)
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    else:
        yield annotation, ()


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a mapping at this place must be, if any."""
    for kind, _ in alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def names_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys of a model as a playbook writes them."""
    return tuple(info.alias or name for name, info in model.model_fields.items())


def descend(annotation: Any, key: str | int) -> Any:
    """The type of what stands at `key` below a value of type `annotation`; None when nothing may.

    The tag of a union's member, which pydantic names as if it were a key, leads to that member.
    """
    for kind, metadata in alternatives(annotation):
        if any(isinstance(mark, Tag) and mark.tag == key for mark in metadata):
            return kind
    for kind, _ in alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, info in kind.model_fields.items():
                if (info.alias or name) == key:
                    return info.rebuild_annotation()
        elif get_origin(kind) is dict and isinstance(key, str):
            return get_args(kind)[1]
        elif get_origin(kind) is tuple and isinstance(key, int):
            return get_args(kind)[0]
    return None


def at(model: type[BaseModel], keys: Keys) -> Any:
    """The type of what may stand at `keys` below `model`; None when nothing may."""
    annotation: Any = model
    for key in keys:
        annotation = descend(annotation, key)
    return annotation


def is_secret(annotation: Any) -> bool:
    """Whether a secret stands here."""
    return any(kind is SecretStr for kind, _ in alternatives(annotation))


def is_path(annotation: Any) -> bool:
    """Whether a path stands here, relative to the file in which it is written."""
    return any(
        isinstance(mark, RelativePath) for _, metadata in alternatives(annotation) for mark in metadata
    )
