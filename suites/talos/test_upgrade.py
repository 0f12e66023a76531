"""What the next boot and the next upgrade will run."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-IMAGE-001")
def test_installer_image_is_what_runs(judgement):
    """machine.install.image MUST name the schematic and version that run.

    Preconditions: lab.yaml declares the right os:admin (the machine configuration cannot be read with less)
    Expected: schematic id and tag of the image equal the running ones; no plain installer from 1.14 on
    """
    assert_holds(judgement)


@clause("TALOS-CMDLINE-001")
def test_schematic_arguments_are_live(judgement):
    """The kernel arguments of the schematic MUST be on the running command line.

    Preconditions: the running schematic sets extraKernelArgs
    Expected: each of them is among the running kernel's arguments
    """
    assert_holds(judgement)


@clause("TALOS-BOOT-001")
def test_boot_partition_holds_two_images(judgement):
    """The boot partition MUST have room for a second image with NVIDIA's driver.

    Preconditions: the NVIDIA extensions are installed
    Expected: EFI (systemd-boot) or BOOT (GRUB) is not smaller than two such images: an upgrade writes the new one
    beside the running one, and without the room the old one stays
    """
    assert_holds(judgement)
