"""Protocol Buffers on the wire, for dataclasses that say their field numbers.

The Talos API needs some thirty small messages out of some hundreds; declaring those few here costs no generated
code, no code generator and no runtime whose version must fit it. Only what those messages use is there:
varints, strings, bytes, messages, repeated fields and maps of strings (protobuf.dev, "Encoding").
Unknown fields are skipped: a newer Talos may send more.
"""

import dataclasses
from dataclasses import field
from typing import Any, TypeVar

from grpclib.encoding.base import CodecBase

M = TypeVar("M")

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_INT, _UINT, _BOOL, _STRING, _BYTES, _MESSAGE = "int", "uint", "bool", "string", "bytes", "message"


class WireError(ValueError):
    """The bytes are not the message that was expected."""


def integer(number: int) -> Any:
    """An int32, int64 or enum field."""
    return field(default=0, metadata={"number": number, "kind": _INT})


def unsigned(number: int) -> Any:
    """A uint32 or uint64 field."""
    return field(default=0, metadata={"number": number, "kind": _UINT})


def flag(number: int) -> Any:
    """A bool field."""
    return field(default=False, metadata={"number": number, "kind": _BOOL})


def text(number: int) -> Any:
    """A string field."""
    return field(default="", metadata={"number": number, "kind": _STRING})


def octets(number: int) -> Any:
    """A bytes field."""
    return field(default=b"", metadata={"number": number, "kind": _BYTES})


def one(number: int, of: type) -> Any:
    """A message field; None when not sent."""
    return field(default=None, metadata={"number": number, "kind": _MESSAGE, "of": of})


def many(number: int, of: type) -> Any:
    """A repeated message field: a tuple."""
    return field(default=(), metadata={"number": number, "kind": _MESSAGE, "of": of, "many": True})


def texts(number: int) -> Any:
    """A repeated string field: a tuple."""
    return field(default=(), metadata={"number": number, "kind": _STRING, "many": True})


def string_map(number: int) -> Any:
    """A map<string, string> field: a dict."""
    metadata = {"number": number, "kind": _MESSAGE, "of": _Pair, "many": True, "map": True}
    return field(default_factory=dict, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """How a map travels: repeated pairs."""

    key: str = text(1)
    value: str = text(2)


def encode(message: Any) -> bytes:
    """The message's bytes; fields at their default are left out, as proto3 does."""
    out = bytearray()
    for entry in dataclasses.fields(message):
        value = getattr(message, entry.name)
        if entry.metadata.get("map"):
            value = tuple(_Pair(key, word) for key, word in value.items())
        values = value if entry.metadata.get("many") else () if value in (None, 0, "", b"", False) else (value,)
        for item in values:
            out += _encode_field(entry.metadata["number"], entry.metadata["kind"], item)
    return bytes(out)


def decode(of: type[M], data: bytes) -> M:
    """Read a message of type `of`.

    Raises:
        WireError: the bytes end in the middle, or a field has another wire type.
    """
    known = {entry.metadata["number"]: entry for entry in dataclasses.fields(of)}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        raw, at = _raw(data, at, key & 7)
        entry = known.get(key >> 3)
        if entry is None:
            continue
        value = _value(entry.metadata, raw)
        if entry.metadata.get("map"):
            found.setdefault(entry.name, {})[value.key] = value.value
        elif entry.metadata.get("many"):
            found[entry.name] = (*found.get(entry.name, ()), value)
        else:
            found[entry.name] = value
    return of(**found)


def _encode_field(number: int, kind: str, value: Any) -> bytes:
    if kind in (_INT, _UINT, _BOOL):
        # A negative int32 travels as ten bytes, sign-extended to 64 bits.
        return _encode_varint(number << 3 | _VARINT) + _encode_varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF)
    body = encode(value) if kind == _MESSAGE else value.encode() if kind == _STRING else value
    return _encode_varint(number << 3 | _LENGTH) + _encode_varint(len(body)) + bytes(body)


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise WireError("the message ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("a number is longer than ten bytes")


def _raw(data: bytes, at: int, wire_type: int) -> tuple[int | bytes, int]:
    if wire_type == _VARINT:
        return _varint(data, at)
    if wire_type == _LENGTH:
        size, at = _varint(data, at)
    elif wire_type in (_FIXED64, _FIXED32):
        size = 8 if wire_type == _FIXED64 else 4
    else:
        raise WireError(f"wire type {wire_type} is not used by proto3")
    if at + size > len(data):
        raise WireError("the message ends within a field")
    return data[at : at + size], at + size


def _value(metadata: Any, raw: int | bytes) -> Any:
    kind = metadata["kind"]
    if isinstance(raw, int) != (kind in (_INT, _UINT, _BOOL)):
        raise WireError(f"field {metadata['number']} has another type than {kind}")
    if isinstance(raw, int):
        if kind == _BOOL:
            return bool(raw)
        return raw - (1 << 64) if kind == _INT and raw >= 1 << 63 else raw
    if kind == _MESSAGE:
        return decode(metadata["of"], raw)
    # A kernel message or a file name may hold bytes that are no UTF-8; they must not lose the whole reading.
    return raw.decode("utf-8", "replace") if kind == _STRING else raw


class WireCodec(CodecBase):
    """Lets grpclib send and receive these dataclasses."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return decode(message_type, data)
