"""The hand-made codec against Google's: the same bytes, both ways, for every kind of field Talos uses."""

import dataclasses

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from labproof.clients import talos_messages as m
from labproof.clients import wire

# As Talos and COSI declare them (facts/talos.md 3.4, 3.5), written here a second time: number, name, type.
STRING, BYTES, BOOL, INT32, INT64, UINT32, UINT64, MESSAGE = 9, 12, 8, 5, 3, 13, 4, 11
FOREIGN = {
    "Timestamp": [(1, "seconds", INT64), (2, "nanos", INT32)],
    "Metadata": [(1, "hostname", STRING), (2, "error", STRING), (3, "later", INT32)],
    "Data": [(1, "metadata", "Metadata"), (2, "content", BYTES)],
    "FileInfo": [
        (1, "metadata", "Metadata"),
        (2, "name", STRING),
        (3, "size", INT64),
        (4, "mode", UINT32),
        (5, "modified", INT64),
        (6, "is_dir", BOOL),
        (7, "error", STRING),
        (8, "link", STRING),
        (9, "relative_name", STRING),
        (10, "uid", UINT32),
        (11, "gid", UINT32),
    ],
    "SystemStat": [(1, "metadata", "Metadata"), (2, "boot_time", UINT64)],
    "ListRequest": [(1, "root", STRING), (2, "recurse", BOOL), (3, "recursion_depth", INT32)],
    "Pair": [(1, "key", STRING), (2, "value", STRING)],
    "CosiMetadata": [
        (1, "namespace", STRING),
        (2, "type", STRING),
        (3, "id", STRING),
        (4, "version", STRING),
        (5, "owner", STRING),
        (6, "phase", STRING),
        (7, "created", "Timestamp"),
        (8, "updated", "Timestamp"),
        (9, "finalizers", [STRING]),
        (10, "labels", ["Pair"]),
        (11, "annotations", ["Pair"]),
    ],
}


@pytest.fixture(scope="module")
def google():
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    for name, fields in FOREIGN.items():
        message = file.message_type.add(name=name)
        for number, word, kind in fields:
            repeated = isinstance(kind, list)
            one = kind[0] if repeated else kind
            field = message.field.add(name=word, number=number, label=3 if repeated else 1)
            field.type = MESSAGE if isinstance(one, str) else one
            if isinstance(one, str):
                field.type_name = f".t.{one}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}")) for name in FOREIGN}


def theirs(google, value, name=None):
    """The same message built by Google's library."""
    built = google[name or type(value).__name__]()
    for entry in dataclasses.fields(value):
        ours = getattr(value, entry.name)
        if isinstance(ours, dict):
            for key, word in ours.items():
                getattr(built, entry.name).add(key=key, value=word)
        elif isinstance(ours, tuple):
            getattr(built, entry.name).extend(ours)
        elif dataclasses.is_dataclass(ours):
            getattr(built, entry.name).CopyFrom(theirs(google, ours))
        elif ours is not None:
            setattr(built, entry.name, ours)
    return built


MESSAGES = [
    m.Timestamp(1_760_000_000, 999_999_999),
    m.Timestamp(-1, -5),
    m.Metadata("moody", "rpc error: ü"),
    m.Data(m.Metadata(), b"\x00\xff" * 300),
    m.FileInfo(m.Metadata("n"), "/dev/nvidia0", -1, 69206454, 2**40, True, "", "x", "nvidia0", 2**32 - 1, 44),
    m.SystemStat(None, 2**64 - 1),
    m.ListRequest("/sys", True, -1),
    m.CosiMetadata(
        "k8s", "T", "0000:3b:00.0", "1", "c", "running", m.Timestamp(1), None, ("a", ""), {"k": "", "": "v"}
    ),
    m.CosiMetadata(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=[f"{n}-{type(x).__name__}" for n, x in enumerate(MESSAGES)])
def test_both_codecs_agree(google, message):
    built = theirs(google, message)
    assert type(built).FromString(wire.encode(message)) == built
    assert wire.decode(type(message), built.SerializeToString(deterministic=True)) == message


def test_fields_of_a_newer_talos_are_skipped(google):
    sent = google["Metadata"](hostname="moody", later=7).SerializeToString()
    assert wire.decode(m.Metadata, sent) == m.Metadata("moody")
    fixed = b"\x51" + b"8 bytes!" + b"\x55" + b"4byt"  # field 10 as fixed64 and as fixed32
    assert wire.decode(m.Metadata, fixed + sent) == m.Metadata("moody")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x0a",  # a length is missing
        b"\x0a\x05abc",  # a field ends early
        b"\x08\x01",  # a number where a string belongs
        b"\xff" * 12,  # a number without end
        b"\x0b",  # a group, which proto3 has not
        b"<html>",
    ],
)
def test_garbage_is_refused(garbage):
    with pytest.raises(wire.WireError):
        wire.decode(m.Metadata, garbage)


def test_bytes_that_are_no_utf8_do_not_lose_the_reading():
    assert wire.decode(m.Metadata, b"\x0a\x02a\xff").hostname == "a\ufffd"
