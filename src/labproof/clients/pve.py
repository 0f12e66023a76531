"""The Proxmox VE API: token or ticket, the CA that PVE makes accepted, every answer's shape checked.

proxmoxer does the paths, the encoding and the token header. Three things are done for it here
(facts/ecosystem.md section 6, facts/proxmox.md section 7): PVE's own CA has no keyUsage extension, which
Python 3.13 and newer refuse unless VERIFY_X509_STRICT is cleared, and proxmoxer asks for its ticket with a bare
`requests.post` that no adapter reaches; a 200 that is not JSON comes back from it as a value; and importing it
silences urllib3's warnings for the whole process and may exit it.
"""

import contextlib
import json
import ssl
import threading
import time
import warnings
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from labproof.clients.errors import Kind, Secret, TransportFailure, hide, without
from labproof.clients.http_faults import from_http_error
from labproof.clients.wait import ask_again

try:
    with warnings.catch_warnings():  # its import adds a filter that hides every TLS warning of urllib3
        from proxmoxer.backends.https import (
            JsonSerializer,
            ProxmoxHTTPApiTokenAuth,
            ProxmoxHTTPAuth,
            ProxmoxHttpSession,
        )
        from proxmoxer.core import ProxmoxResource, ResourceException
except SystemExit:
    # proxmoxer calls sys.exit(1) when it misses requests: a test run must not end on that.
    raise ImportError("proxmoxer could not be imported: requests is missing") from None

DEFAULT_PORT = 8006
SHORTEST_TIMEOUT_S = 30.0  # synchronous calls of a busy node take longer than proxmoxer's 5 s


@dataclass(frozen=True)
class PveTarget:
    """One PVE API and the account to use: an API token, or user and password (a ticket).

    Attributes:
        user: `name@realm`.
        token_name: the token's id without the user; with it `token_value` is needed.
        ca_file: PEM of the CA, for PVE's own `/etc/pve/pve-root-ca.pem`; None: the public CAs.
        timeout_s: to connect, and between two pieces of an answer; raised to 30 s unless `short_timeout`.
        retry_pause_s: before a read is asked again after a transient failure, doubling.
    """

    host: str
    user: str
    port: int = DEFAULT_PORT
    token_name: str | None = None
    token_value: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    timeout_s: float = SHORTEST_TIMEOUT_S
    short_timeout: bool = False
    retry_pause_s: float = 0.5

    def __post_init__(self) -> None:
        hide(self, "token_value", "password")

    @property
    def as_whom(self) -> str:
        """The authenticated id as PVE writes it: `root@pam`, or `user@pve!token`."""
        return f"{self.user}!{self.token_name}" if self.token_name else self.user

    @property
    def read_timeout_s(self) -> float:
        """The timeout in force, seconds."""
        return self.timeout_s if self.short_timeout else max(self.timeout_s, SHORTEST_TIMEOUT_S)


class PveTls(HTTPAdapter):
    """TLS as usual, but for the one flag that refuses a CA without keyUsage."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def send(  # type: ignore[override]  # requests hands everything but the request over by name
        self, request: requests.PreparedRequest, *, timeout: Any = None, **settings: Any
    ) -> requests.Response:
        """Send, and read the whole answer within the timeout, which otherwise bounds each of its pieces only.

        Raises:
            requests.RequestException: as always; a server that trickles ends in ReadTimeout.
        """
        limit_s = float(timeout[-1] if isinstance(timeout, tuple) else timeout or SHORTEST_TIMEOUT_S)
        deadline = time.monotonic() + limit_s
        response = super().send(request, timeout=timeout, **{**settings, "stream": True})
        content = bytearray()
        try:
            while piece := response.raw.read1(64 * 1024, decode_content=True):
                content += piece
                if time.monotonic() > deadline:
                    response.close()
                    raise requests.exceptions.ReadTimeout(request=request)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            if isinstance(error, requests.RequestException):
                raise
            raise requests.exceptions.ConnectionError(error, request=request) from None
        response.raw.release_conn()
        vars(response).update(_content=bytes(content), _content_consumed=True)  # where requests keeps what it has read
        return response


class _CheckedJson(JsonSerializer):  # type: ignore[misc]  # proxmoxer has no types
    """PVE's envelope `{"data": ...}` or nothing: an error page must not pass for a value."""

    def __init__(self, target: str) -> None:
        self._target = target

    def loads(self, response: requests.Response) -> Any:
        try:
            envelope = json.loads(response.content)
        except ValueError:
            kind = response.headers.get("content-type", "no content type")
            text = f"the answer is not JSON ({kind}, {len(response.content)} bytes); is this a PVE API?"
            raise TransportFailure(Kind.PROTOCOL, self._target, text, status=response.status_code) from None
        if not isinstance(envelope, dict) or "data" not in envelope:
            raise TransportFailure(
                Kind.PROTOCOL,
                self._target,
                'the answer has no "data"; is this a PVE API?',
                status=response.status_code,
            )
        return envelope["data"]

    def loads_errors(self, response: requests.Response) -> Any:
        try:
            body = json.loads(response.content)
        except ValueError:
            return None
        return body.get("errors") if isinstance(body, dict) else None


class _TicketAuth(ProxmoxHTTPAuth):  # type: ignore[misc]  # proxmoxer has no types
    """proxmoxer's ticket login and renewal, asked through our own adapter instead of a bare `requests.post`."""

    pve_auth_ticket: str

    def __init__(self, session: "PveSession", password: str, **settings: Any) -> None:
        self._session = session
        super().__init__(session.target.user, password, base_url=session.base_url, **settings)

    def _get_new_tokens(self, password: str | None = None, otp: str | None = None, otptype: str = "totp") -> None:
        # Without a password proxmoxer means: renew with the ticket still valid.
        ticket, csrf = self._session.ask_ticket(password if password is not None else self.pve_auth_ticket)
        self.birth_time = time.monotonic()
        self.pve_auth_ticket, self.csrf_prevention_token = ticket, csrf


class PveSession:
    """The API of one PVE host or cluster. Nothing is contacted before the first question.

    Attributes:
        requests: HTTP requests sent so far, repeated ones and the ticket's included.
    """

    def __init__(self, target: PveTarget) -> None:
        self.target = target
        self.requests = 0
        self._name = f"PVE API {target.host}:{target.port} as {target.as_whom}"
        host = f"[{target.host}]" if ":" in target.host else target.host
        self.base_url = f"https://{host}:{target.port}/api2/json"
        self._secrets: list[str | None] = [target.token_value, target.password]
        self._api: ProxmoxResource | None = None
        self._session: ProxmoxHttpSession | None = None
        self._lock = threading.Lock()
        self._counting = threading.Lock()  # apart: the ticket is asked, and counted, under the other one

    def __enter__(self) -> "PveSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PveSession({self._name!r})"

    @property
    def as_whom(self) -> str:
        """The authenticated id: `root@pam`, or `user@pve!token`."""
        return self.target.as_whom

    def get(self, path: str, **params: Any) -> Any:
        """Read `path` (`/nodes/pve5/status`), asked again up to three times after a transient failure.

        Args:
            path: below `/api2/json`.
            params: the query; names with a dash go in by `**{"check-node": "pve5"}`. None is left out.

        Returns:
            What the answer's `data` holds. An empty list may mean: no right to see any of it.

        Raises:
            TransportFailure: see `Kind`; PVE's own words are in `answer`.
        """
        return ask_again(lambda: self._ask("get", path, params), pause_s=self.target.retry_pause_s)

    def post(self, path: str, **params: Any) -> Any:
        """Create or start something; a UPID where PVE makes a task of it. Never asked again."""
        return self._ask("post", path, params)

    def put(self, path: str, **params: Any) -> Any:
        """Change something. Never asked again."""
        return self._ask("put", path, params)

    def delete(self, path: str, **params: Any) -> Any:
        """Delete something. Never asked again."""
        return self._ask("delete", path, params)

    def close(self) -> None:
        """Close the connections; a later question opens them anew."""
        with self._lock:
            session, self._session, self._api = self._session, None, None
        if session is not None:
            session.close()

    def ask_ticket(self, password: str) -> tuple[Secret, Secret]:
        """Log in by password, or renew by a valid ticket.

        Returns:
            The ticket, and the token that writes must carry against cross-site requests.

        Raises:
            TransportFailure: auth, unsupported (a second factor is wanted), or as for any question.
        """
        self._secrets.append(password)
        self._count()
        with requests.Session() as session:
            session.mount("https://", self._adapter())
            try:
                response = session.post(
                    f"{self.base_url}/access/ticket",
                    data={"username": self.target.user, "password": password},
                    verify=self.target.ca_file or True,
                    timeout=self.target.read_timeout_s,
                )
            except (requests.RequestException, OSError) as error:
                raise self._unreachable(error) from None
        if response.status_code != 200:
            raise self._refused(response.status_code, response.reason or "", None)
        granted = _CheckedJson(self._name).loads(response)
        if not isinstance(granted, dict) or "ticket" not in granted:
            raise TransportFailure(Kind.PROTOCOL, self._name, "the login was answered without a ticket")
        if granted.get("NeedTFA"):
            text = "the account wants a second factor; use an API token of it instead"
            raise TransportFailure(Kind.UNSUPPORTED, self._name, text)
        ticket, csrf = Secret(granted["ticket"]), Secret(granted.get("CSRFPreventionToken", ""))
        self._secrets += [ticket, csrf]
        return ticket, csrf

    def _ask(self, method: str, path: str, params: dict[str, Any]) -> Any:
        resource = self._resource()(path.strip("/"))
        self._count()
        try:
            return getattr(resource, method)(**params)
        except ResourceException as error:
            raise self._refused(error.status_code, str(error.content), error.errors) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None

    def _count(self) -> None:
        with self._counting:
            self.requests += 1

    def _resource(self) -> ProxmoxResource:
        with self._lock:
            if self._api is None:
                session = ProxmoxHttpSession()
                session.auth = self._auth()
                session.headers["accept"] = "application/json"
                session.mount("https://", self._adapter())
                serializer = _CheckedJson(self._name)
                self._session = session
                self._api = ProxmoxResource(base_url=self.base_url, session=session, serializer=serializer)
            return self._api

    def _auth(self) -> Any:
        target = self.target
        settings = {"verify_ssl": target.ca_file or True, "timeout": target.read_timeout_s}
        if target.token_name is not None and target.token_value is not None:
            return ProxmoxHTTPApiTokenAuth(target.user, target.token_name, target.token_value, **settings)
        if target.password is not None:
            return _TicketAuth(self, target.password, **settings)
        raise TransportFailure(Kind.UNSUPPORTED, self._name, "neither an API token's value nor a password given")

    def _adapter(self) -> PveTls:
        try:
            context = ssl.create_default_context(cafile=self.target.ca_file)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
            text = f"the CA file {self.target.ca_file} cannot be used ({why}); it must be PEM"
            raise TransportFailure(Kind.UNSUPPORTED, self._name, text) from None
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return PveTls(context)

    def _unreachable(self, error: BaseException) -> TransportFailure:
        return from_http_error(error, self._name, self.target.host, self.target.read_timeout_s)

    def _refused(self, status: int, said: str, errors: Any) -> TransportFailure:
        """Map an HTTP status; PVE puts its message into the reason phrase (facts/proxmox.md 2.6)."""
        with contextlib.suppress(UnicodeError):  # http.client takes the bytes of a reason phrase for Latin-1
            said = said.encode("latin-1").decode("utf-8")
        answer = without(said if not errors else f"{said} {errors}", self._secrets).strip()
        kind, advice = _kind_of(status, answer)
        text = f"{status} {answer}{advice}"
        return TransportFailure(kind, self._name, text, status=status, answer=answer)


def _kind_of(status: int, answer: str) -> tuple[Kind, str]:
    if status == 401:
        return Kind.AUTH, "; check the token or password, that it has not expired, and the clocks"
    if status == 403:
        return Kind.FORBIDDEN, "; give the account (and the token, if it has privilege separation) that right"
    if status == 404 or (status == 500 and "does not exist" in answer):
        return Kind.NOT_FOUND, ""
    if status == 429:
        return Kind.RATE_LIMITED, ""
    if status == 501:  # pveproxy: "Method 'GET /x' not implemented"
        return Kind.UNSUPPORTED, "; this PVE version does not have it"
    if status in (595, 596, 597, 598, 599):  # pveproxy's own codes when it cannot reach the other node
        return Kind.UNAVAILABLE, "; the proxy did not reach that node"
    if status >= 500:
        return Kind.UNAVAILABLE, ""
    return Kind.REJECTED, ""
