"""Edits of boot loader files: tokens come and go, everything else keeps its bytes."""

import pytest

from labproof.provision.kernel_arguments import CannotEdit, edit_cmdline, edit_grub

ON = ["intel_iommu=on"]
D = "GRUB_CMDLINE_LINUX_DEFAULT"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f'{D}="quiet"\n', f'{D}="quiet intel_iommu=on"\n'),
        (f"{D}='quiet splash'  # mine\n", f"{D}='quiet splash intel_iommu=on'  # mine\n"),
        (f"{D}=quiet\n", f'{D}="quiet intel_iommu=on"\n'),
        (f'{D}=""\n', f'{D}="intel_iommu=on"\n'),
        (f"{D}=\n", f'{D}="intel_iommu=on"\n'),
        (f'export {D}="${D} a=b"', f'export {D}="${D} a=b intel_iommu=on"'),
        (f'{D}+=" quiet"\n', f'{D}+=" quiet intel_iommu=on"\n'),
        (f'{D}="intel_iommu=on quiet"\n', f'{D}="intel_iommu=on quiet"\n'),
        (f'# {D}="no"\r\n{D}="a"\r\nX=1\r\n', f'# {D}="no"\r\n{D}="a intel_iommu=on"\r\nX=1\r\n'),
        (f'{D}="one"\n{D}="two"\n', f'{D}="one"\n{D}="two intel_iommu=on"\n'),
        ("GRUB_TIMEOUT=5", f'GRUB_TIMEOUT=5\n{D}="intel_iommu=on"\n'),
    ],
)
def test_a_token_is_added_to_the_last_assignment(before, after):
    assert edit_grub(before, ON, []) == after


def test_a_token_is_taken_out_wherever_it_stands():
    text = f'GRUB_CMDLINE_LINUX="a intel_iommu=off b"\n{D}="intel_iommu=off"\n{D}="x  y intel_iommu=off"\n'
    assert edit_grub(text, [], ["intel_iommu=off"]) == f'GRUB_CMDLINE_LINUX="a b"\n{D}=""\n{D}="x  y"\n'


def test_what_is_only_alike_stays():
    text = f'{D}="my_intel_iommu=off intel_iommu=off,sm_on"\n'
    assert edit_grub(text, [], ["intel_iommu=off"]) == text


@pytest.mark.parametrize("value", ["\"a\"'b'", '"a \\"b\\""', '"a', "`cat x`", '"$(x)" y'])
def test_what_is_no_plain_value_is_left_to_its_owner(value):
    with pytest.raises(CannotEdit, match="line 2"):
        edit_grub(f"X=1\n{D}={value}\n", ON, [])


def test_kernel_cmdline_keeps_its_one_line():
    text = "root=ZFS=rpool/ROOT/pve-1 boot=zfs intel_iommu=off\n"
    assert edit_cmdline(text, [], ["intel_iommu=off"]) == "root=ZFS=rpool/ROOT/pve-1 boot=zfs\n"
    assert edit_cmdline("root=/dev/sda1", ON, []) == "root=/dev/sda1 intel_iommu=on\n"


@pytest.mark.parametrize("text", ["root=a\nquiet\n", "quiet\n", ""])
def test_a_kernel_cmdline_that_would_not_boot_is_not_touched(text):
    with pytest.raises(CannotEdit):
        edit_cmdline(text, ON, [])
