"""Firmware that a GPU driver loaded, from the kernel log: GuC, HuC, GSC and DMC of Intel, GSP of NVIDIA.

An upgrade of the node's image brings other firmware, and low-power encoding comes or goes with HuC. Sources: i915
`uc/intel_uc.c` ("GuC firmware i915/tgl_guc_70.bin version 70.20.0"), xe `xe_uc_fw.c` ("Using HuC firmware from
i915/bmg_huc.bin version 8.2.10"), i915 `intel_dmc.c` ("Finished loading DMC firmware i915/tgl_dmc.bin (v2.12)").
"""

from __future__ import annotations

import re
from typing import Any

from labproof.report.compare_snapshot import Items, Where

_LOADED = re.compile(
    r"(?P<address>[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]).*?"
    r"\b(?P<kind>GuC|HuC|GSC|DMC|GSP)\b firmware (?:from )?(?:\S+/)?(?P<file>[\w.-]+\.bin)"
    r"[,:]?\s*(?:version\s+|\(v)(?P<version>\d+(?:\.\d+)+)",
    re.IGNORECASE,
)


def loaded_firmware(log: Any, where: Where) -> Items | None:
    """Kind and card to file and version; None when the log tells of none (its ring buffer may have turned over).

    Args:
        log: kernel log of a host or a node; its `lines` are the kernel's own.
    """
    found = {}
    for line in log.lines:
        said = _LOADED.search(line)
        if said is not None:
            found[f"{said['kind']} of {said['address']}"] = f"{said['version']} ({said['file']})"
    return found or None
