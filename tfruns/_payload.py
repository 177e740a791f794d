"""Makes a class of `models` a payload: an attrs class for users, which msgspec fills straight from bytes.

For type checkers, `payload` is `attrs.frozen`, because the class behaves like that for its users.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import attrs
import msgspec

__all__ = ["Interchange", "Payload", "payload", "wire_name"]


class Interchange:
    """What pydantic and Arrow find in models. It is made in rooms above the models, which these can't import:
    `tfruns._decode.schema` and `tfruns._table.lists` put their functions here when `import tfruns` imports them.
    """

    structure: Callable[[Any, Any], Any]
    core_schema: Callable[[Any, Any], Any]
    json_schema: Callable[[Any, Any, Any], Any]
    arrow_stream: Callable[[Any, object], object]


def wire_name(field_name: str) -> str:
    """The name a field has in the API's JSON: `created_at` is `createdAt`."""
    head, *rest = field_name.split("_")
    return head + "".join(word.capitalize() for word in rest)


if TYPE_CHECKING:
    from attrs import frozen as payload
else:
    # Names that Python made only for the class that is replaced.
    _NOT_COPIED = frozenset(
        {"__dict__", "__weakref__", "__annotations__", "__annotate_func__", "__annotations_cache__"}
    )

    def payload(cls: Any = None, *, kw_only: bool = False) -> Any:
        """Make the class a frozen msgspec Struct and an attrs class at once.

        It returns another class, like attrs does for a class with slots; but here methods can't use `super()`.
        """
        if cls is None:
            return functools.partial(payload, kw_only=kw_only)
        attrs.frozen(slots=False, init=False, eq=False, match_args=False, kw_only=kw_only)(cls)
        fields = attrs.fields(cls)
        left_out = {field.name for field in fields} | _NOT_COPIED
        has_more = hasattr(cls, "resume_token")  # which isn't on the wire: it says where a walk goes on after a page
        struct = msgspec.defstruct(
            cls.__name__,
            [
                (each.name, each.type) if each.default is attrs.NOTHING else (each.name, each.type, each.default)
                for each in fields
            ],
            bases=(*cls.__bases__, msgspec.Struct),
            module=cls.__module__,
            namespace={name: value for name, value in vars(cls).items() if name not in left_out},
            rename=wire_name,
            frozen=True,
            kw_only=kw_only,
            # A payload never changes, so it holds only what existed before it, and can't be part of a reference cycle:
            # the garbage collector needn't visit payloads, however many there are. (A page may hold more, and there are
            # few pages.)
            gc=has_more,
            dict=has_more,
        )
        # msgspec's own raise an AttributeError, not attrs' FrozenInstanceError.
        struct.__setattr__, struct.__delattr__ = cls.__setattr__, cls.__delattr__
        return struct


class Payload:
    __slots__ = ()

    @classmethod
    def from_dict(cls, wire: dict[str, Any]) -> Self:
        """The value that the API's JSON describes: what `to_dict` makes, or what older and newer servers send.

        Args:
            wire: the JSON, as `json.loads` makes it. Unknown keys are ignored.

        Returns:
            The value.

        Raises:
            DecodeError: it can't be understood; the error names every bad field.

        Example:
            >>> import json
            >>> run = await client.iter_runs("my-job-id").first()
            >>> tfruns.JobRun.from_dict(json.loads(json.dumps(run.to_dict()))) == run
            True
        """
        value: Self = Interchange.structure(wire, cls)
        return value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Any) -> Any:
        return Interchange.core_schema(cls, handler)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        return Interchange.json_schema(cls, schema, handler)

    def to_dict(self) -> dict[str, Any]:
        """This value in the form of the API's JSON: camelCase keys, plain strings for enums, None for absent values.

        `json.dumps(run.to_dict())` is its JSON text.
        """
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return {name: [*value] if isinstance(value, tuple) else value for name, value in wire.items()}

    def __rich_repr__(self) -> None:
        """Nothing: so rich shows the value as an attrs class. (Struct's own method would show every field.)"""
