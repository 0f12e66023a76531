"""run.json as the reports get it, made by hand: small, red in the middle, with one of everything a page shows."""

CHAIN = "pve5/0000:3b:00.0"
LAYERS = ("host", "vm", "talos", "kubernetes", "workload", "transcode")


def verdict(clause, layer, word="pass", **changes):
    made = {
        "clause": clause,
        "title": f"Title of {clause}",
        "statement": f"The statement of {clause} MUST hold.",
        "severity": "blocking",
        "layer": layer,
        "target": CHAIN,
        "chain": CHAIN,
        "chains": [CHAIN],
        "verdict": word,
        "qualifier": None,
        "blocked_by": None,
        "blocked_on": None,
        "busy": False,
        "reason": None,
        "exception": None,
        "seconds": 0.01,
        "evidence": [{"source": f"read {clause}", "text": "as wanted"}],
        "problems": [],
        "measurements": [],
    }
    return {**made, **changes}


def failing(clause, layer, cause="T10", **changes):
    problem = {
        "cause": cause,
        "title": f"Title of {cause}",
        "impact": f"Impact of {cause}.",
        "subject": "moody-good",
        "evidence": [{"source": "talosctl -n moody-good get kernelmodulespecs", "text": "machine.kernel.modules: nbd"}],
        "remedy": "Run `talosctl edit mc` and put in:\nmachine:\n  kernel:\n    modules: []\nThen look again.",
        "source": "facts talos 6 T10",
    }
    return verdict(clause, layer, "fail", problems=[problem], evidence=[], **changes)


def green():
    layers = [{"layer": layer, "name": f"name of {layer}", "versions": {}} for layer in LAYERS]
    layers[0]["versions"] = {"pve": "8.4.1", "host_kernel": "6.8.12-9-pve"}
    layers[2]["versions"] = {"talos": "v1.11.6", "driver": "570.172.08-v1.11.6", "extensions": "a 1, b 2"}
    layers[3]["versions"] = {"kubernetes": "v1.34.3", "kubelet": "v1.34.3", "slots": "4 x nvidia.com/gpu"}
    holder = {
        "namespace": "media",
        "pod": "jellyfin-hnjndlgjgn-xs9v9",
        "app": "media/jellyfin",
        "slots": 1,
        "since": "2026-11-20T19:32:00+00:00",
        "priority": 0,
    }
    return {
        "schema": 1,
        "labproof": "0.1.0",
        "run_id": "20261120T203215Z-1",
        "lab": "moody-good",
        "simulated": False,
        "started": "2026-11-20T20:32:15+00:00",
        "seconds": 9.6,
        "exit_status": 0,
        "chains": {CHAIN: {"gpu": "10de:1eb8", "address": "0000:3b:00.0", "card": "Tesla T4", "layers": layers}},
        "verdicts": [verdict(f"{layer.upper()}-A-001", layer) for layer in LAYERS],
        "first_broken": [],
        "expected": [],
        "missing": [],
        "deselected": [{"clause": "APP-A-001", "target": "", "reason": "not declared in lab.yaml"}],
        "versions": {"pve": "8.4.1"},
        "measurements": [
            {"chain": CHAIN, "clause": "C", "name": "decode_fps", "value": 606.1, "unit": "frame/s", "samples": []},
            {
                "chain": CHAIN,
                "clause": "C",
                "name": "h264_encoder_util",
                "value": 7.0,
                "unit": "%",
                "samples": [7.0, 8.0],
            },
        ],
        "holders": [
            {
                "cluster": "moody",
                "node": "moody-good",
                "resource": "nvidia.com/gpu",
                "allocatable": 4,
                "pods_read": True,
                "chains": [CHAIN],
                "holders": [holder],
            }
        ],
        "exceptions": [],
    }


def red():
    run = green()
    run["exit_status"] = 1
    blocked = {
        "blocked_by": "TALOS-A-001",
        "blocked_on": CHAIN,
        "reason": "blocked by TALOS-A-001 (T10)",
        "evidence": [],
    }
    run["verdicts"] = [
        verdict("HOST-A-001", "host"),
        verdict("VM-A-001", "vm", "excepted", exception="the board has no more lanes (until 2027-01-01)"),
        failing("TALOS-A-001", "talos"),
        *[verdict(f"{layer.upper()}-A-001", layer, "blocked", **blocked) for layer in LAYERS[3:]],
    ]
    run["verdicts"][1]["problems"] = failing("VM-A-001", "vm", "P53")["problems"]
    run["first_broken"] = [{"chain": CHAIN, "clause": "TALOS-A-001", "cause": "T10"}]
    run["exceptions"] = [
        {"clause": "VM-A-001", "reason": "the board has no more lanes", "cause": None, "chain": None, "subject": None}
        | {"until": "2027-01-01"},
        {"clause": "HOST-Z-001", "reason": "long gone", "cause": None, "chain": None, "subject": None}
        | {"until": "2026-01-01"},
    ]
    run["measurements"], run["holders"] = [], []
    return run


def busy():
    run = green()
    run["exit_status"] = 7
    why = "all 4 slots of nvidia.com/gpu on moody-good are held: ai/ollama (4)"
    for v in run["verdicts"][4:]:
        v.update(verdict="unchecked", busy=True, reason=f"{v['layer']} pod: {why}", evidence=[])
    return run


def past_of(run, values, name="decode_fps"):
    return [
        {
            "run_id": f"202611{day:02}T000000Z-1",
            "started": f"2026-11-{day:02}T00:00:00+00:00",
            "lab": run["lab"],
            "simulated": run["simulated"],
            "exit_status": 0,
            "first_broken": [],
            "measurements": [{"chain": CHAIN, "name": name, "value": value, "unit": "frame/s"}],
        }
        for day, value in enumerate(values, 1)
    ]
