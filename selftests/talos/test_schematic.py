"""Offline schematic ids against the factory's own test vectors and ids seen in the wild (facts talos 1)."""

from __future__ import annotations

import pytest

from labproof.catalogue.schematic import (
    DEFAULT_ID,
    NotComputable,
    canonical,
    id_of_extensions,
    id_of_text,
    schematic_id,
)

FILES = [
    ({}, DEFAULT_ID),
    (
        {"customization": {"extraKernelArgs": ["noapic", "nolapic"]}},
        "9cba8e32753f91a16c1837ab8abf356af021706ef284aef07380780177d9a06c",
    ),
    (
        {"customization": {"meta": [{"key": 10, "value": "foo"}]}},
        "d308a2a5ee2277bed5fbaa104fcbc8d59122abfa737df987a95b4ca763459a7f",
    ),
    (
        {"overlay": {"image": "siderolabs/sbc-raspberrypi", "name": "rpi_generic"}},
        "ee21ef4a5ef808a9b7484cc0dda0f25075021691c8c09a276591eedb638ea1f9",
    ),
    (
        {"customization": {"secureboot": {"includeWellKnownCertificates": True}}},
        "fa8e05f142a851d3ee568eb0a8e5841eaf6b0ebc8df9a63df16ac5ed2c04f3e6",
    ),
    (
        {"customization": {"diskImage": {"sectorSize": 4096}}},
        "92833e9ddd9bb9e11b2464fa5525429f01866306d52ebd882ee08d7918f6d1ea",
    ),
]

KMOD, TOOLKIT, AGENT = "nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production", "qemu-guest-agent"
LISTS = [
    ([AGENT], "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515"),
    ([KMOD, TOOLKIT], "26124abcbd408be693df9fe852c80ef1e6cc178e34d7d7d8430a28d1130b4227"),
    ([KMOD, TOOLKIT, AGENT], "990731763242a6b3cf735e49d0f550ce4068b4d0e7f4dfbb49a31799b698877e"),
    (
        [TOOLKIT, "nvidia-open-gpu-kernel-modules-production"],
        "6698d6f136c5bb37ca8bb8482c9084305084da0a5ead1f4dcae760796f8ab3a2",
    ),
    (
        [TOOLKIT, "nvidia-open-gpu-kernel-modules-production", AGENT],
        "a31d81eceab05afdc2c59b0002701173e117a5fb81bdc1f64062d27655145848",
    ),
    (
        ["nvidia-container-toolkit-lts", "nvidia-open-gpu-kernel-modules-lts"],
        "86a5d7c9beb23b4aea2777e44ca06c8c2ceea8a874ccd2b9a6743c4f734329e0",
    ),
    (
        ["nonfree-kmod-nvidia-lts", "nvidia-container-toolkit-lts"],
        "af8eb82417d3deaa94d2ef19c3b590b0dac1b2549d0b9b35b3da2bc325de75f7",
    ),
    (["i915", "intel-ucode"], "4b3cd373a192c8469e859b7a0cfbed3ecc3577c4a2d346a37b0aeff9cd17cdb0"),
    (["i915", "intel-ucode", AGENT], "95d432d6bb450a67e801a6ae77c96a67e38820b62ba4159ae7e997e1695207f7"),
    (["iscsi-tools", AGENT], "dc7b152cb3ea99b821fcb7340ce7168313ce393d663740b791c36f6e95fc8586"),
]


@pytest.mark.parametrize(("schematic", "expected"), FILES)
def test_files_of_the_factorys_own_tests(schematic: dict[str, object], expected: str) -> None:
    assert schematic_id(schematic) == expected
    assert id_of_text(canonical(schematic)) == expected


@pytest.mark.parametrize(("names", "expected"), LISTS)
def test_extension_lists(names: list[str], expected: str) -> None:
    assert id_of_extensions(names) == expected
    assert id_of_extensions([f"siderolabs/{name}" for name in names]) == expected


def test_order_makes_another_id() -> None:
    assert id_of_extensions([TOOLKIT, KMOD]) != id_of_extensions([KMOD, TOOLKIT])


def test_what_cannot_be_told_offline_is_said() -> None:
    with pytest.raises(NotComputable, match="unknown field"):
        schematic_id({"customization": {"newThing": {"a": 1}}})
    with pytest.raises(NotComputable, match="quoting"):
        schematic_id({"customization": {"extraKernelArgs": ["-console"]}})
    with pytest.raises(NotComputable, match="quoting"):
        schematic_id({"customization": {"extraKernelArgs": ["yes"]}})
