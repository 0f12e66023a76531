"""Protocol Buffers on the wire, as a server needs them: write replies field by field, read small requests.

Written from the encoding rules, not from the client's message classes: the two sides are each other's witness.
"""

from __future__ import annotations

from typing import Any

from grpclib.encoding.base import CodecBase

FieldValue = int | str | bytes

#: A field number no message of Talos has today: a newer server may send one, clients have to skip it.
FUTURE = (199, "added by a later release")


def message(*fields: tuple[int, FieldValue]) -> bytes:
    """One message; nested messages are passed as bytes, repeated fields by repeating the number.

    Fields at their default value are left out, as proto3 does; pass nested empty messages with `present`.
    """
    return b"".join(_field(number, what) for number, what in fields if what not in (0, "", b""))


def present(number: int, nested: bytes) -> bytes:
    """A nested message field that is written even when it is empty (its presence means something)."""
    return _varint(number << 3 | 2) + _varint(len(nested)) + nested


def timestamp(seconds: float) -> bytes:
    """google.protobuf.Timestamp."""
    whole = int(seconds)
    return message((1, whole), (2, int((seconds - whole) * 1e9)))


def text_map(number: int, entries: dict[str, str]) -> bytes:
    """A map<string, string> field."""
    return b"".join(present(number, message((1, key), (2, word))) for key, word in entries.items())


def parse(data: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a request by number, in the order sent; numbers as int, everything else as bytes.

    Raises:
        ValueError: the bytes are no message.
    """
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        what: int | bytes
        if key & 7 == 0:
            what, at = _read_varint(data, at)
        elif key & 7 == 2:
            size, at = _read_varint(data, at)
            what, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {key & 7}")
        found.setdefault(key >> 3, []).append(what)
    return found


def text_of(fields: dict[int, list[int | bytes]], number: int) -> str:
    """A string field of a parsed request, empty when it was not sent."""
    sent = fields.get(number, [b""])[-1]
    return sent.decode() if isinstance(sent, bytes) else str(sent)


def number_of(fields: dict[int, list[int | bytes]], number: int) -> int:
    """A number or bool field of a parsed request, 0 when it was not sent; negative int32 values come out negative."""
    sent = fields.get(number, [0])[-1]
    if not isinstance(sent, int):
        return 0
    return sent - (1 << 64) if sent >= 1 << 63 else sent


def _field(number: int, what: FieldValue) -> bytes:
    if isinstance(what, int):
        return _varint(number << 3) + _varint(what & 0xFFFFFFFFFFFFFFFF)
    return present(number, what.encode() if isinstance(what, str) else what)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("truncated number")
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


class RawCodec(CodecBase):
    """Passes message bytes through: the server writes and parses them itself."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The bytes as they are."""
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """The bytes as they are."""
        return data
