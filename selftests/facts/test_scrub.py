"""No secret gets into facts, in whatever form it comes back from a system."""

import base64
import json
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from labproof.facts.reading import value
from labproof.facts.scrub import Scrubber
from labproof.facts.store import FactsStore

SECRET = 'c4nary"with/quote+é'


@pytest.mark.parametrize(
    "said",
    [
        f"password {SECRET} refused",
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_known_secret_is_replaced_by_its_place(said):
    scrubbed = Scrubber({"hosts.pve5.pve.password": SECRET}).text(said)
    assert "<secret hosts.pve5.pve.password>" in scrubbed
    assert SECRET not in scrubbed


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Authorization: PVEAPIToken=a@pve!b=01234567-89ab-cdef-0123-456789abcdef", "PVEAPIToken=<token>"),
        ("Authorization: Bearer abcdef0123456789", "Bearer <token>"),
        ("-----BEGIN ED25519 PRIVATE KEY-----\nMC4CAQ\n-----END ED25519 PRIVATE KEY-----", "<key>"),
        ("PVEAuthCookie=PVE:root@pam:68D4A1B2::bm90YXRpY2tldA==", "<ticket>"),
        ("PVEAuthCookie=PVE:root@pam:68D4A1B2::bm90_YXRp-Y2tl/dA==; path", "PVEAuthCookie=<ticket>; path"),
        ("PVEAuthCookie=PVE%3Aroot%40pam%3A68D4A1B2%3A%3Abm90%2FYXRp%3D; path", "PVEAuthCookie=<ticket>; path"),
        ("made a@pve!b=01234567-89ab-cdef-0123-456789abcdef today", "made <token> today"),
        ("authorization: Basic cm9vdDpodW50ZXI=", "authorization: Basic <password>"),
        ("mount -o user=me,password=hunter22,ro", "user=me,password=<password>,ro"),
        ("CSRFPreventionToken: 68D4A1B2:abc/def+x", "CSRFPreventionToken: <token>"),
        ("https://user:hunter22@registry.lan/v2", "https://<password>@registry.lan"),
    ],
)
def test_what_looks_like_a_secret_goes_too(said, left):
    assert left in Scrubber().text(said)


def test_the_beginning_of_a_known_secret_goes_where_a_text_was_cut():
    scrub = Scrubber({"token": "abcdefghijklmnop"}).text
    assert scrub("said abcdefghij") == "said <secret token>"
    assert scrub("said abcdefg") == "said abcdefg"
    assert scrub("abcdefghij and more") == "abcdefghij and more"


@pytest.mark.parametrize(
    "said", ["password: see the manual", "password=", "labproof@pve!suite", "intel_iommu=on", "--token-file=/etc/x"]
)
def test_what_is_no_secret_stays(said):
    assert Scrubber().text(said) == said


def test_two_readings_of_one_secret_still_match():
    scrub = Scrubber({"a": "token-one", "b": "token-two"}).text
    assert scrub("x token-one") == scrub("x token-one") != scrub("x token-two")


@dataclass(frozen=True)
class Said:
    lines: tuple[str, ...]
    by_name: dict[str, str]


def test_facts_on_disk_and_in_memory_hold_no_secret(tmp_path):
    store = FactsStore(tmp_path, scrubber=Scrubber({"token": SECRET}))
    store.add_probe("host", "pve5", lambda: value(Said((f"a {SECRET} b",), {SECRET: SECRET}), f"curl {SECRET}"))
    reading = store.section("host", "pve5", Said)
    assert SECRET not in repr(reading)
    text = (tmp_path / "host-pve5.json").read_text()
    assert SECRET not in text
    assert json.dumps(SECRET)[1:-1] not in text
