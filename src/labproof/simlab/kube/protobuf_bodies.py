"""Bodies that kubectl's typed clients send as protobuf: the few kinds they send to a simulated cluster.

Envelope (`k8s` and a zero byte, then runtime.Unknown) and field numbers: generated.proto of k8s.io/apimachinery
(meta/v1, runtime) and k8s.io/api (authorization/v1, authentication/v1, policy/v1), stable since Kubernetes 1.6.
Answers stay JSON: such clients accept both and go by the Content-Type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labproof.simlab.kube.kinds import Obj

MAGIC = b"k8s\x00"
#: Field number -> name and, for a message, its own fields; text and numbers otherwise.
Schema = Mapping[int, tuple[str, Any]]
_TEXT, _NUMBER, _TEXTS = str, int, list
_META: Schema = {
    1: ("name", _TEXT),
    2: ("generateName", _TEXT),
    3: ("namespace", _TEXT),
    5: ("uid", _TEXT),
    6: ("resourceVersion", _TEXT),
}
_DELETE: Schema = {
    1: ("gracePeriodSeconds", _NUMBER),
    2: ("preconditions", {1: ("uid", _TEXT), 2: ("resourceVersion", _TEXT)}),
    4: ("propagationPolicy", _TEXT),
    5: ("dryRun", _TEXTS),
}
_RESOURCE: Schema = {
    number: (name, _TEXT)
    for number, name in enumerate(("namespace", "verb", "group", "version", "resource", "subresource", "name"), 1)
}
_PATH: Schema = {1: ("path", _TEXT), 2: ("verb", _TEXT)}
_ACCESS: Schema = {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}
_TOKEN: Schema = {1: ("audiences", _TEXTS), 4: ("expirationSeconds", _NUMBER)}
SCHEMAS: Mapping[str, Schema] = {
    "SelfSubjectAccessReview": {1: ("metadata", _META), 2: ("spec", _ACCESS)},
    "SelfSubjectRulesReview": {1: ("metadata", _META), 2: ("spec", {1: ("namespace", _TEXT)})},
    "SelfSubjectReview": {1: ("metadata", _META)},
    "TokenRequest": {1: ("metadata", _META), 2: ("spec", _TOKEN)},
    "Eviction": {1: ("metadata", _META), 2: ("deleteOptions", _DELETE)},
    "DeleteOptions": _DELETE,
}


class Undecodable(ValueError):
    """No envelope of Kubernetes, or a kind that is not in the table."""


def decode(body: bytes) -> Obj:
    """The object in an enveloped body.

    Raises:
        Undecodable: see there.
    """
    if not body.startswith(MAGIC):
        raise Undecodable("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    envelope = _message(
        body[len(MAGIC) :], {1: ("type", {1: ("apiVersion", _TEXT), 2: ("kind", _TEXT)}), 2: ("raw", bytes)}
    )
    kind = str(envelope.get("type", {}).get("kind"))
    if kind not in SCHEMAS:
        raise Undecodable(f"kind {kind} is not decoded here")
    return {**_message(envelope.get("raw", b""), SCHEMAS[kind]), **envelope["type"]}


def _message(data: bytes, schema: Schema) -> Obj:
    found: Obj = {}
    for number, value in _fields(data):
        name, shape = schema.get(number, ("", None))
        if shape is None:
            continue
        if shape is _NUMBER:
            found[name] = value
        elif isinstance(value, int):
            raise Undecodable(f"field {name} is no text")
        elif shape is _TEXTS:
            found.setdefault(name, []).append(value.decode())
        elif shape is bytes:
            found[name] = value
        elif shape is _TEXT:
            if value:
                found[name] = value.decode()
        else:
            found[name] = _message(value, shape)
    return found


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their values: a number, or the bytes of a text or message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
        elif wire == 2:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise Undecodable("unexpected EOF")
            yield number, data[place : place + length]
            place += length
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise Undecodable(f"illegal wireType {wire}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data):
            raise Undecodable("unexpected EOF")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
