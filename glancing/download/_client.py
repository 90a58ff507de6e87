"""Sends single requests, follows their redirects, and carries logins to their own origins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import unquote

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_netrc_auth

from glancing import __version__
from glancing.addresses import AddressRules
from glancing.download._answers import (
    REDIRECTS,
    is_http,
    redirect_target,
    require_status,
    without_user_info,
)
from glancing.download._connections import (
    CarefulAdapter,
    ForbiddenAddressError,
    Gatekeeper,
    Resolver,
    Watch,
    resolve,
)
from glancing.download._failures import LIBRARY_ERRORS, failed_request, failure
from glancing.download._registry import MAX_TOKEN_BYTES, Challenge, Tokens, token_in
from glancing.errors import DownloadError, ErrorKind, InterruptedRunError
from glancing.model import MIB, Clock, Events, RetryPolicy, Url
from glancing.source_auth import NO_LOGINS, Basic, Certificate, Header, Login, Logins, WebOrigin


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Limits of a download; times in seconds, sizes in bytes.

    A source is stalled when it sent nothing for ``stall_s``, or less than ``floor_bytes`` in
    ``stall_s`` of waiting for it. After ``progress_bytes`` of progress the failures so far are
    forgotten, but ``most_resumes`` bounds them in all. ``logins`` are those of ``--source-auth``;
    ``netrc`` allows the user's own ``.netrc`` for all other hosts.
    """

    connect_timeout_s: float = 15.0
    stall_s: float = 60.0
    floor_bytes: int = 64 * 1024
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    progress_bytes: int = MIB
    most_resumes: int = 50
    most_redirects: int = 5
    pool_size: int = 10
    user_agent: str = f"glancing/{__version__}"
    addresses: AddressRules = field(default_factory=AddressRules)
    resolver: Resolver = resolve
    logins: Logins = field(default_factory=lambda: NO_LOGINS)
    netrc: bool = False


class Client:
    """Sends requests and names what went wrong.

    One session serves all threads: its connection pools are made for that, and nothing in it is
    changed by a request, as cookies are refused.
    """

    def __init__(self, settings: HttpSettings, clock: Clock, events: Events) -> None:
        self.settings = settings
        self.clock = clock
        self.events = events
        self._gatekeeper = Gatekeeper(settings.addresses, settings.resolver)
        self._watch = Watch()
        self._tokens = Tokens()
        self._session = _session(settings, self._gatekeeper, self._watch)

    def vouch(self, urls: Iterable[Url]) -> None:
        """The operator's own words named these addresses."""
        self._gatekeeper.vouch(url.parts.hostname or "" for url in urls if is_http(url))

    def close(self) -> None:
        """Give the idle connections back."""
        self._session.close()

    def request(
        self, method: str, url: Url, headers: Mapping[str, str], ended: Callable[[], bool]
    ) -> requests.Response:
        """The answer after redirects, whatever its status, its body unread.

        Raises DownloadError, and InterruptedRunError as soon as ``ended`` says so.
        """
        if not is_http(url):
            raise failure(url, "not an http or https address", ErrorKind.UNREACHABLE)
        auth = _Auth(url, self.settings, self._tokens)
        chain, asked = [url], False
        while True:
            with self._watch.heeding(ended):
                response = self._send(method, chain[-1], headers, auth, ended)
            challenge = None if asked else _challenge(response, chain[-1])
            if challenge is not None:
                asked = True
                response.close()
                self._fetch_token(chain[-1], challenge, ended)
            elif response.status_code in REDIRECTS:
                with response:
                    chain.append(redirect_target(response, chain, self.settings.most_redirects))
            else:
                return response

    def _fetch_token(self, url: Url, challenge: Challenge, ended: Callable[[], bool]) -> None:
        """Get what a registry asks for, with the login for the place that gives it."""
        realm = challenge.realm
        auth = _Auth(realm, self.settings, self._tokens)
        with self._watch.heeding(ended), self._send("GET", realm, {}, auth, ended) as response:
            require_status(response, realm, self.clock, {HTTPStatus.OK})
            try:
                document = response.raw.read(MAX_TOKEN_BYTES)
            except LIBRARY_ERRORS as exc:
                raise failed_request(exc, realm) from None
        self._tokens.keep(url, challenge.repository, token_in(document, realm))

    def _send(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        auth: _Auth,
        ended: Callable[[], bool],
    ) -> requests.Response:
        try:
            self._gatekeeper.check_literal(url.parts.hostname or "")
            return self._session.request(
                method,
                without_user_info(url),
                headers=dict(headers),
                auth=auth,
                cert=auth.certificate_for(url),
                stream=True,
                allow_redirects=False,
                timeout=(self.settings.connect_timeout_s, self.settings.stall_s),
            )
        except ForbiddenAddressError as exc:
            raise _forbidden(url, str(exc)) from None
        except LIBRARY_ERRORS as exc:
            if ended():
                raise InterruptedRunError(f"{url}: the request was broken off") from None
            raise failed_request(exc, url) from None


def _forbidden(url: Url, what: str) -> DownloadError:
    return DownloadError(
        f"{url}: leads to {what}, and only remote words name it",
        kind=ErrorKind.FORBIDDEN_ADDRESS,
        hint="--allow-network allows private networks; link-local addresses never are",
    )


def _challenge(response: requests.Response, url: Url) -> Challenge | None:
    if response.status_code != HTTPStatus.UNAUTHORIZED:
        return None
    return Challenge.of(response, url)


class _Session(requests.Session):
    """A session that never looks at redirects: requests would read their bodies to the end."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


class _Auth(AuthBase):
    """Sends each login to the origin that it was given for, and nothing to any other.

    A registry's token comes first, then a URL's own user info, then the file of logins, then
    ``.netrc`` where that is allowed. Passing it keeps requests from looking there by itself.
    """

    def __init__(self, url: Url, settings: HttpSettings, tokens: Tokens) -> None:
        parts = url.parts
        self._tokens = tokens
        self._netrc = settings.netrc
        own: dict[WebOrigin, Login] = {}
        if parts.username is not None:
            login = Basic(unquote(parts.username), unquote(parts.password or ""))
            own[WebOrigin.of(url.full)] = login
        self._logins: Logins = {**settings.logins, **own}

    def certificate_for(self, url: Url) -> str | tuple[str, str] | None:
        """The client certificate for an origin, as requests takes it."""
        login = self._logins.get(WebOrigin.of(url.full))
        if not isinstance(login, Certificate):
            return None
        return (login.file, login.key) if login.key else login.file

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        url = request.url or ""
        if token := self._tokens.of(url):
            request.headers["Authorization"] = f"Bearer {token}"
            return request
        match self._logins.get(WebOrigin.of(url)):
            case Basic(username, password):
                HTTPBasicAuth(username.encode(), password.encode())(request)
            case Header(name, value):
                request.headers[name] = value
            case None if self._netrc and (found := get_netrc_auth(url)):
                HTTPBasicAuth(*found)(request)
            case _:
                pass
        return request


def _session(settings: HttpSettings, gatekeeper: Gatekeeper, watch: Watch) -> requests.Session:
    session = _Session()
    adapter = CarefulAdapter(gatekeeper, watch, settings.stall_s, settings.pool_size)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": settings.user_agent, "Accept-Encoding": "identity"})
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # OpenSSL's own variable; requests puts REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE before it.
    session.verify = os.environ.get("SSL_CERT_FILE") or True
    return session
