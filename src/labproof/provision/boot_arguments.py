"""Which boot loader file is edited, and how: the smallest edit after which the checks find the arguments right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labproof.checks.host_boot_loader import (
    GRUB_FILE,
    SYSTEMD_BOOT_FILE,
    BootConfiguration,
    boot_configuration,
    grub_tokens,
    satisfied,
    switched_off,
)
from labproof.checks.host_cmdline import wanted_tokens
from labproof.checks.host_iommu import firmware_table
from labproof.checks.subject import Subject
from labproof.facts.host import HostFacts, TextFile
from labproof.facts.reading import need
from labproof.inventory.models import Host
from labproof.provision import scopes
from labproof.provision.bench import Bench
from labproof.provision.changes import FileChange, FileState
from labproof.provision.kernel_arguments import CannotEdit, assigns_default, edit_cmdline, edit_grub
from labproof.provision.plan import Refusal

GRUB_FOLDER = "/etc/default/grub.d/"


def vendor_of(host: HostFacts) -> str:
    """Whose switches count: by the table that firmware publishes."""
    return "AuthenticAMD" if firmware_table(host) == "IVRS" else "GenuineIntel"


def file_changes(bench: Bench, host: Host, subject: Subject, reason: str, refusals: list[Refusal]) -> list[FileChange]:
    """Changes of boot loader files, none when the configured arguments are right already.

    Args:
        reason: why the running arguments are wrong, empty when they are right (the next boot's may still not be).
        refusals: takes why nothing can be edited.
    """
    facts = subject.host_facts
    boot = boot_configuration(facts)
    vendor = vendor_of(facts)
    wanted = wanted_tokens(subject)
    if firmware_table(facts) is None or _right(boot.active, wanted, vendor):
        return []
    off = [t for t in boot.active if switched_off((t,), vendor) is not None]
    why = reason or f"the next boot's arguments: {' '.join(off) or 'wanted ones are missing'}"
    if boot.loader == "unknown":
        refusals.append(Refusal("P03", f"{host.name}: which boot loader it uses could not be told ({boot.why})"))
        return []
    shell = bench.shell(host)
    files = {path: shell.read(path) for path in _files(facts, boot)}
    try:
        after = _edit(files, boot, wanted, off, vendor)
    except CannotEdit as odd:
        refusals.append(Refusal("P05", f"{boot.active_file or SYSTEMD_BOOT_FILE}: {odd}"))
        return []
    if after is None:
        refusals.append(Refusal("P03", f"no edit of {', '.join(files)} gives the arguments {' '.join(wanted)}"))
        return []
    overrides = [scope for token in wanted if (scope := scopes.override_of(token)) is not None]
    return [
        FileChange(
            target=host.name, scope=overrides[0] if overrides else scopes.HOST_BOOT, reason=why,
            clause="HOST-CMDLINE-002", path=path, before=files[path],
            after=FileState(text.encode(), files[path].mode),
        )
        for path, text in after.items()
        if text.encode() != files[path].content
    ]  # fmt: skip


def _right(tokens: tuple[str, ...], wanted: tuple[str, ...], vendor: str) -> bool:
    return switched_off(tokens, vendor) is None and all(satisfied(token, tokens) for token in wanted)


def _files(facts: HostFacts, boot: BootConfiguration) -> list[str]:
    if boot.loader == "systemd-boot":
        return [SYSTEMD_BOOT_FILE]
    read = [file.path for file in need(facts.boot_files, "boot loader files")]
    return [GRUB_FILE, *sorted(path for path in read if path.startswith(GRUB_FOLDER))]


def _edit(
    files: Mapping[str, FileState], boot: BootConfiguration, wanted: tuple[str, ...], off: list[str], vendor: str
) -> dict[str, str] | None:
    """The first edit that makes the arguments right, None when none does."""
    missing = [token for token in wanted if not satisfied(token, boot.active)]
    texts = {path: state.text for path, state in files.items()}
    if boot.loader == "systemd-boot":
        return {SYSTEMD_BOOT_FILE: edit_cmdline(texts[SYSTEMD_BOOT_FILE], missing, off)}
    for edited in _candidates(texts, missing, off, vendor):
        tokens = grub_tokens([TextFile(path, tuple(text.splitlines())) for path, text in sorted(edited.items())])
        if _right(tokens, wanted, vendor) and all(satisfied(t, tokens) or t in off for t in boot.active):
            return edited
    return None


def _candidates(texts: dict[str, str], missing: list[str], off: list[str], vendor: str) -> Iterator[dict[str, str]]:
    """From the smallest edit on: the main file; there with a word against a snippet's switch; the snippets too."""
    setters = [path for path in texts if path != GRUB_FILE and assigns_default(texts[path])]
    targets = [GRUB_FILE, *reversed(setters)]
    against = ["intel_iommu=on"] if off and vendor == "GenuineIntel" else []
    for target in targets:
        yield {**texts, target: edit_grub(texts[target], missing, off)}
    for target in targets:
        if against:
            yield {**texts, target: edit_grub(texts[target], [*missing, *against], off)}
    for target in targets:
        yield {p: edit_grub(text, missing if p == target else (), off) for p, text in texts.items()}
