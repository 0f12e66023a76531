"""The exporter of GPU metrics, looked at while our transcodes run.

It collects every 30 s unless told otherwise, so a short transcode may fall between two collections: where nothing was
seen, one more encode is made that lasts longer than an interval (facts kubernetes-gpu 6, K61).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from labproof.clients.errors import TransportFailure
from labproof.facts.metrics import EncoderLook, EncoderWatch, Exporter
from labproof.facts.pod_command import Ran
from labproof.facts.prometheus import Series
from labproof.facts.reading import Reading, failed, value
from labproof.facts.store import now
from labproof.probes.metrics import running_exporter, scrape
from labproof.probes.patience import Patience
from labproof.probes.pods import OwnPods

ENCODER = "DCGM_FI_DEV_ENC_UTIL"
#: How many encodes longer than an interval are made at most, where none is seen.
TRIES = 3
_SLOWER = 4  # a look at the exporter to so many at the card itself: it changes by the second at most


class ExporterWatch:
    """Looks at one exporter in a thread of its own until it is ended. Use as a context manager."""

    def __init__(self, pods: OwnPods, uuids: tuple[str, ...]) -> None:
        self._pods = pods
        self._uuids = uuids
        self._patience = Patience()
        self._done = threading.Event()
        self._looks: list[EncoderLook] = []
        self._began = now()
        self._thread: threading.Thread | None = None
        self._failure: Reading[EncoderWatch] | None = None
        self.exporter: Exporter | None = None

    def __enter__(self) -> ExporterWatch:
        try:
            self.exporter = running_exporter(self._pods.session, self._pods.node)
        except TransportFailure as failure:
            self._failure = failed("GET /api/v1/pods", failure.answer or failure.text, failure.kind.value, now())
        if self.exporter is None and self._failure is None:
            self._failure = failed("GET /api/v1/pods", f"no exporter runs on {self._pods.node}", "absent", now())
        if self.exporter is not None and self._look():
            every = max(0.05, self._pods.lab.timings.sample_poll_s * _SLOWER)
            self._thread = threading.Thread(target=self._watch, args=(every,), name="labproof exporter", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(self._pods.lab.timings.request_s)

    @property
    def risen(self) -> bool:
        """Whether the encoder of one of our cards was seen above what it was before."""
        looks = list(self._looks)
        return any(
            look.encoder.get(uuid, 0.0) > looks[0].encoder.get(uuid, 0.0) for look in looks[1:] for uuid in self._uuids
        )

    def insist(self, encode: Callable[[float], Ran]) -> None:
        """Where nothing was seen yet: encode for longer than a collection takes to come round, a few times at most.

        Args:
            encode: encodes for so many seconds, paced.
        """
        for _ in range(TRIES):
            if self.risen or self.exporter is None or self._failure is not None:
                return
            timings = self._pods.lab.timings
            if not encode(min(self.exporter.interval_s + timings.sample_s, timings.transcode_s)).ok:
                return
            self._look()

    def seen(self) -> Reading[EncoderWatch]:
        """What was seen; failed when the exporter could not be looked at."""
        if self._failure is not None or self.exporter is None:
            return self._failure or failed("GET /api/v1/pods", "no exporter was looked at")
        looks = list(self._looks)
        where = f"GET .../namespaces/{self.exporter.namespace}/pods/{self.exporter.pod}:9400/proxy/metrics"
        told = EncoderWatch(where, looks[0], tuple(looks[1:]), now() - self._began, self.exporter.interval_s)
        return value(told, where, self._began)

    def _watch(self, every_s: float) -> None:
        while not self._done.wait(every_s):
            if self.risen or not self._look():
                return

    def _look(self) -> bool:
        assert self.exporter is not None
        series = scrape(self._patience, self._pods.session, self.exporter)
        if series.value is None:
            if not self._looks:
                self._failure = failed(series.source, series.why, series.kind, series.at)
            return False
        look = EncoderLook(series.at, _encoders(series.value))
        if not self._looks or look.encoder != self._looks[-1].encoder:
            self._looks.append(look)
        return True


def _encoders(series: tuple[Series, ...]) -> dict[str, float]:
    """Encoder use by card; on a shared card every pod has the same number, that of the card."""
    found: dict[str, float] = {}
    for one in series:
        if one.name == ENCODER and not one.blank:
            uuid = one.labels.get("UUID", "")
            found[uuid] = max(one.value, found.get(uuid, 0.0))
    return found
