"""Speaks to Glance through the OpenStack SDK, and turns its answers into values at the door.

Nobody else imports the SDK. The SDK's adapter is used for its login, its endpoint discovery and its
HTTP session; documents are read as JSON, because SDK objects cost fifty times as much per listed
image. What is sent never gets repeated behind our back: image data goes out with one request that
follows no redirect, logs in to nothing and retries nothing, for a body that is read a second time
becomes an active image with the wrong bytes.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import openstack.config
import openstack.connection
import openstack.exceptions
import requests
from keystoneauth1 import exceptions as ksa
from keystoneauth1.session import Session
from urllib3.exceptions import NewConnectionError

from glancing.errors import CloudError, ConfigError, ErrorKind, StoreError
from glancing.model import (
    MIB,
    ImageChange,
    NewImage,
    RetryPolicy,
    SourceStream,
    StoredImage,
    UploadBody,
    Validators,
)
from glancing.retry import call

_PAGE_IMAGES = 1000
_CONNECT_RETRIES = 4
_TIMEOUT_S = 60.0
# After the last byte Glance may still have to hand the data to its own store.
_UPLOAD_TIMEOUT_S = 900.0
_CHUNK_BYTES = 64 * 1024
_PATCH_TYPE = "application/openstack-images-v2.1-json-patch"
# Of the fields of an image's schema these are no additional properties (Image API v2).
_CORE_FIELDS = frozenset(
    {
        *("id", "name", "status", "visibility", "os_hidden", "protected", "owner", "tags"),
        *("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"),
        *("disk_format", "container_format", "min_disk", "min_ram", "created_at", "updated_at"),
        *("self", "file", "schema", "direct_url", "locations", "stores"),
    }
)
_STATUS_KINDS: Mapping[int, ErrorKind] = MappingProxyType(
    {
        401: ErrorKind.LOGIN_REFUSED,
        403: ErrorKind.FORBIDDEN,
        413: ErrorKind.QUOTA_EXCEEDED,
        415: ErrorKind.REJECTED_FORMAT,
    }
)
# 401: the token ran out; 404, 409 and 410: our record is gone or in another state. A new record
# and a fresh body may do.
_TRANSIENT_STATUS = frozenset({401, 404, 408, 409, 410, 429, 500, 502, 503, 504})


# What may be sent a second time, and what may not: the first one may have been carried out.
_AGAIN: Mapping[str, Any] = MappingProxyType(
    {
        "connect_retries": _CONNECT_RETRIES,
        "status_code_retries": 2,
        "retriable_status_codes": [429, 500, 502, 503, 504],
    }
)
_ONCE: Mapping[str, Any] = MappingProxyType({"connect_retries": 0, "status_code_retries": 0})
_CHANGING = RetryPolicy(attempts=3)


def connect(*, page_images: int = _PAGE_IMAGES) -> GlanceStore:
    """Log in with the ``OS_*`` variables or ``clouds.yaml`` and find the image service.

    ``page_images`` is how many images one page of a listing may have.

    Raises ConfigError when no cloud is configured, CloudError when it cannot be used.
    """
    with _cloud_errors():
        connection = openstack.connection.Connection(config=_cloud_region())
        project_id = connection.session.get_project_id()
        if not project_id:
            raise _no_project()
        images = connection.image
        images.get_endpoint_data()
        session = connection.session
        assert isinstance(session, _RetryingSession)  # noqa: S101 - the SDK was told to make one
        session.connected()
    return GlanceStore(images, project_id, page_images)


@contextmanager
def _cloud_errors() -> Iterator[None]:
    """Tell what the SDK says of a login as what it means for whoever configured it."""
    try:
        yield
    except (ksa.OptionError, ksa.MissingRequiredOptions, ksa.NoMatchingPlugin) as error:
        raise _incomplete(error) from error
    except openstack.exceptions.ServiceDisabledException as error:
        what = "the cloud's catalogue names no image service"
        raise CloudError(what, hint="check OS_REGION_NAME") from error
    except openstack.exceptions.ConfigException as error:
        raise ConfigError(f"no cloud is configured: {error}", hint=_HOW) from error
    except (ksa.Unauthorized, ksa.Forbidden) as error:
        raise _login_refused(error) from error
    except ksa.ConnectionError as error:
        what = f"the cloud cannot be reached: {_short(str(error))}"
        way_out = "check OS_AUTH_URL, OS_CACERT and the way from here to the cloud"
        raise CloudError(what, hint=way_out) from error
    except (ksa.ClientException, openstack.exceptions.SDKException) as error:
        raise CloudError(f"the cloud cannot be used: {_short(str(error))}") from error
    except (TypeError, OSError) as error:
        raise _unusable(error) from error


def _unusable(error: TypeError | OSError) -> ConfigError:
    if isinstance(error, TypeError):
        # What a way of logging in does not take, keystoneauth passes to it all the same.
        return ConfigError(
            f"the cloud's credentials do not go together: {error}",
            hint=f"set OS_AUTH_TYPE to the way of logging in; or {_HOW}",
        )
    return ConfigError(
        f"a file that the cloud's configuration names cannot be read: {_short(str(error))}",
        hint="check OS_CACERT, OS_CERT and OS_KEY",
    )


_HOW = "set OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_TENANT_NAME, or OS_CLOUD and clouds.yaml"


def _cloud_region() -> openstack.config.cloud_region.CloudRegion:
    config = openstack.config.OpenStackConfig(
        session_constructor=_RetryingSession, app_name="glancing"
    )
    cloud = os.environ.get("OS_CLOUD")
    if cloud and cloud != config.envvar_key and config.config_filename is None:
        # The SDK passes over a file that it cannot read without a word.
        raise ConfigError(
            f"OS_CLOUD is {cloud!r}, and there is no clouds.yaml that can be read", hint=_HOW
        )
    region = config.get_one()
    _require_login(region.config)
    return region


def _require_login(config: Mapping[str, Any]) -> None:
    """Fail on what the SDK would only trip over later, in words of its own."""
    auth, auth_type = config.get("auth", {}), config.get("auth_type")
    if auth_type in ("none", "http_basic"):
        return
    if not auth.get("auth_url"):
        raise ConfigError("no cloud is configured", hint=_HOW)
    if not _is_web_address(auth["auth_url"]):
        raise ConfigError(
            "OS_AUTH_URL is no http or https address",
            hint="it looks like https://cloud.example.org:5000/v3",
        )
    if auth_type not in ("password", "v3password"):
        return
    for what, keys in (("user name", ("username", "user_id")), ("password", ("password",))):
        if not any(auth.get(key) for key in keys):
            raise ConfigError(f"the cloud's credentials are incomplete: no {what}", hint=_HOW)


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # ValueError unless it is a number of a port
    except ValueError:
        return False
    has_space = any(letter.isspace() for letter in url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not has_space


class _RetryingSession(Session):
    """A session that connects again when a server closed a kept connection unannounced.

    Logins are mended by this only when the session itself has the retries; in the cloud's
    configuration they do not reach them. No request of it waits for ever.
    """

    def __init__(self, *args: Any, **arguments: Any) -> None:
        arguments["timeout"] = arguments.get("timeout") or _TIMEOUT_S
        super().__init__(*args, **{"connect_retries": _CONNECT_RETRIES, **arguments})
        self._guards = [_Guard(adapter) for adapter in self.session.adapters.values()]
        for prefix, guard in zip(list(self.session.adapters), self._guards, strict=True):
            self.session.mount(prefix, guard)

    def connected(self) -> None:
        """From now on the cloud is known to be there, and worth waiting for when it is not."""
        for guard in self._guards:
            guard.first_contact = False


class _Guard(requests.adapters.BaseAdapter):
    """Sends the SDK's requests, and ends those that must not or need not be sent again.

    At the first contact a server that refuses the connection or does not answer is most likely
    not there at all: nothing waits for it to come back. A login or its token goes to no other host
    than the one that it was meant for, and never from https to http.
    """

    def __init__(self, adapter: requests.adapters.BaseAdapter) -> None:
        super().__init__()
        self.first_contact = True
        self._adapter = adapter

    def send(
        self, request: requests.PreparedRequest, *args: Any, **arguments: Any
    ) -> requests.Response:
        try:
            response = self._adapter.send(request, *args, **arguments)
        except (requests.ConnectionError, requests.Timeout) as error:
            if self.first_contact and _is_nobody_there(error):
                # Not a ConnectionError: the session would try those again.
                raise requests.RequestException(str(error)) from error
            raise
        logging_in = self.first_contact or "X-Auth-Token" not in request.headers
        if logging_in and response.is_redirect and _leads_astray(response):
            response.close()
            raise requests.RequestException("it redirects the login to another host")
        return response

    def close(self) -> None:
        self._adapter.close()


def _is_nobody_there(error: requests.ConnectionError | requests.Timeout) -> bool:
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, requests.Timeout) or isinstance(reason, NewConnectionError)


def _leads_astray(response: requests.Response) -> bool:
    here = urlsplit(response.url)
    there = urlsplit(urljoin(response.url, response.headers["Location"]))
    return here.hostname != there.hostname or (here.scheme, there.scheme) == ("https", "http")


def _incomplete(error: Exception) -> ConfigError:
    if "auth_url" in str(error):
        return ConfigError("no cloud is configured", hint=_HOW)
    return ConfigError(f"the cloud's credentials are incomplete: {error}", hint=_HOW)


def _login_refused(error: Exception) -> CloudError:
    return CloudError(
        f"Keystone refused the login: {_short(str(error))}",
        kind=ErrorKind.LOGIN_REFUSED,
        hint="check the user name, the password or application credential, and the project",
    )


def _no_project() -> CloudError:
    return CloudError(
        "the login is not scoped to a project",
        kind=ErrorKind.LOGIN_REFUSED,
        hint="set OS_TENANT_NAME or OS_PROJECT_NAME",
    )


class GlanceStore:
    """``model.ImageStore`` over one logged-in cloud; safe to use from several threads."""

    def __init__(self, adapter: Any, project_id: str, page_images: int = _PAGE_IMAGES) -> None:
        self._adapter = adapter
        self._project_id = project_id
        self._page_images = page_images
        self._glance_now: datetime | None = None

    @property
    def project_id(self) -> str:
        """Our own project."""
        return self._project_id

    def now(self) -> datetime:
        """The time by Glance's own clock when it last answered; ours before it ever did."""
        return self._glance_now or datetime.now(UTC)

    # --- reading ---

    def inventory(self) -> tuple[StoredImage, ...]:
        """All images that our project owns: two listings, for hidden ones come separately.

        Raises CloudError unless every page of both was read: nobody may decide on a part.
        """
        found = [
            stored
            for hidden in ("false", "true")
            for stored in self._list({"owner": self._project_id, "os_hidden": hidden})
        ]
        return tuple(stored for stored in found if stored.owner == self._project_id)

    def get(self, image_id: str) -> StoredImage | None:
        """One image as it is now; None when there is none."""
        response = self._call("GET", f"/images/{image_id}")
        if response.status_code == requests.codes.not_found:
            return None
        _demand(response, {200}, "read the image's record")
        return _stored(response.json())

    def download(self, image: StoredImage) -> AbstractContextManager[SourceStream]:
        """The stored bytes; the caller verifies them against the record."""
        response = self._call("GET", f"/images/{image.id}/file", stream=True)
        if response.status_code != requests.codes.ok:
            with closing(response):
                _demand(response, {200}, "download the stored image")
        return closing(_StoredBytes(response))

    def members(self, image_id: str) -> tuple[str, ...]:
        """The projects that a shared image is shared with."""
        response = self._call("GET", f"/images/{image_id}/members")
        if response.status_code == requests.codes.forbidden and not self._is_shared(image_id):
            return ()
        _demand(response, {200}, "list the image's members")
        return tuple(member["member_id"] for member in response.json().get("members", ()))

    # --- writing ---

    def create(self, image: NewImage) -> StoredImage | None:
        """Create a private, hidden record without data; None when its id is taken or spent.

        When the answer is lost the record may be there all the same, and is looked for.
        """
        document = {
            **image.properties,
            **({"id": image.id} if image.id else {}),
            "name": image.name,
            "disk_format": image.disk_format,
            "container_format": image.container_format,
            "visibility": "private",
            "os_hidden": True,
            "tags": sorted(image.tags),
            "min_disk": image.min_disk_gib,
            "min_ram": image.min_ram_mib,
        }
        try:
            response = self._call("POST", "/images", json=document, **_ONCE)
            if image.id and response.status_code == requests.codes.conflict:
                return None
            _demand(response, {201}, "create the image's record")
        except StoreError as error:
            made = self._made_without_answer(image) if error.transient else None
            if made is None:
                raise
            return made
        return _stored(response.json())

    def upload(self, image_id: str, body: UploadBody) -> None:
        """Send the data with one request; an error of the body itself passes through."""
        headers = {"Content-Type": "application/octet-stream"}
        data: _SizedData | Iterator[bytes] = _small_chunks(body)
        if body.size_bytes is not None:
            # Without it some of Glance's stores hold the whole image in memory.
            headers["X-OpenStack-Image-Size"] = str(body.size_bytes)
        if body.size_bytes:  # what has the length 0 is false, and requests would not read it
            data = _SizedData(body, body.size_bytes)
        self._renew_token()
        response = self._call(
            "PUT",
            f"/images/{image_id}/file",
            data=data,
            headers=headers,
            allow_reauth=False,
            timeout=_UPLOAD_TIMEOUT_S,
            **_ONCE,
        )
        _demand(response, {204}, "take the image's data")

    def update(self, image: StoredImage, change: ImageChange) -> StoredImage:
        """Change the record with one PATCH: Glance does all of it or nothing.

        When the answer is lost or late, the record tells whether the change was made; a second
        PATCH would be refused for what the first one has removed.
        """
        return call(_CHANGING, lambda: self._change(image, change))

    def deactivate(self, image_id: str) -> None:
        """Let nobody download or boot an image; one that is deactivated already is no error."""
        response = self._call("POST", f"/images/{image_id}/actions/deactivate")
        _demand(response, {204}, "deactivate the image")

    def delete(self, image_id: str) -> None:
        """Delete an image; one that is gone already is no error."""
        response = self._call("DELETE", f"/images/{image_id}")
        if response.status_code != requests.codes.not_found:
            _demand(response, {204}, "delete the image")

    def add_member(self, image_id: str, project_id: str) -> None:
        """Share an image with a project; one that has it already is no error."""
        response = self._call("POST", f"/images/{image_id}/members", json={"member": project_id})
        if response.status_code != requests.codes.conflict:
            _demand(response, {200}, "share the image")

    # --- plumbing ---

    def _list(self, filters: Mapping[str, str]) -> Iterator[StoredImage]:
        query = {**filters, "visibility": "all", "limit": str(self._page_images)}
        while True:
            page = self._page(query)
            yield from (_stored(document) for document in page.get("images", ()))
            marker = parse_qs(urlsplit(page.get("next") or "").query).get("marker")
            if not marker:
                return
            query["marker"] = marker[0]

    def _change(self, image: StoredImage, change: ImageChange) -> StoredImage:
        try:
            response = self._call(
                "PATCH",
                f"/images/{image.id}",
                json=_operations(image, change),
                headers={"Content-Type": _PATCH_TYPE},
                **_ONCE,
            )
            _demand(response, {200}, "change the image's record")
        except StoreError as error:
            stored = self.get(image.id) if error.transient else None
            if stored is None or not _has(stored, change):
                raise
            return stored
        return _stored(response.json())

    def _page(self, query: Mapping[str, str]) -> dict[str, Any]:
        try:
            response = self._call("GET", "/images", params=query)
            _demand(response, {200}, "list the images")
        except StoreError as error:
            # It is no matter of one image: there is nothing to decide on.
            raise CloudError(
                error.message,
                kind=error.kind if error.kind is ErrorKind.LOGIN_REFUSED else None,
                hint=error.hint,
                transient=error.transient,
            ) from error
        page: dict[str, Any] = response.json()
        return page

    def _is_shared(self, image_id: str) -> bool:
        stored = self.get(image_id)
        return stored is not None and stored.visibility == "shared"

    def _made_without_answer(self, image: NewImage) -> StoredImage | None:
        made = self.get(image.id) if image.id else None
        run = image.properties.get("glancing_run")
        ours = made is not None and run and made.properties.get("glancing_run") == run
        return made if ours else None

    def _renew_token(self) -> None:
        """Get a token that is good for the whole upload: it is checked when the request starts."""
        try:
            self._adapter.get_token()
        except ksa.ClientException as error:
            raise _unreachable(error) from error

    def _call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        arguments.setdefault("timeout", _TIMEOUT_S)
        arguments = {**_AGAIN, **arguments}
        # A redirect would take the token to wherever it points.
        arguments.setdefault("redirect", False)
        try:
            response = self._adapter.request(path, method, raise_exc=False, **arguments)
        except (ksa.Unauthorized, ksa.Forbidden) as error:
            raise StoreError(
                f"Keystone refused to renew the login: {_short(str(error))}",
                kind=ErrorKind.LOGIN_REFUSED,
            ) from error
        except (ksa.ClientException, requests.RequestException) as error:
            raise _unreachable(error) from error
        self._glance_now = _date(response) or self._glance_now
        assert isinstance(response, requests.Response)  # noqa: S101 - the SDK is untyped here
        return response


class _SizedData:
    """A body of known size, which ``requests`` sends with a Content-Length because of ``len``."""

    def __init__(self, body: UploadBody, size_bytes: int) -> None:
        self._body = body
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        """The pieces; another sum of them than was announced would be taken for a next request."""
        left_bytes = self._size_bytes
        for piece in self._body:
            left_bytes -= len(piece)
            if left_bytes < 0:
                break
            yield piece
        if left_bytes != 0:
            raise StoreError(
                f"the data to send is not of the {self._size_bytes} bytes that were announced",
                kind=ErrorKind.WRONG_SIZE,
            )


def _small_chunks(body: UploadBody) -> Iterator[bytes]:
    """Pieces for a chunked request: uWSGI's router resets those with large chunks."""
    for piece in body:
        for start in range(0, len(piece), _CHUNK_BYTES):
            yield piece[start : start + _CHUNK_BYTES]


class _StoredBytes:
    """``model.SourceStream`` over the data of a stored image."""

    end_is_proven = True
    validators = Validators()

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        length = response.headers.get("Content-Length", "")
        self.size_bytes = int(length) if length.isdecimal() else None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_content(MIB // 4)
        except requests.RequestException as error:
            raise StoreError(
                "the download of the stored image broke off", transient=True
            ) from error

    def close(self) -> None:
        self._response.close()


def _unreachable(error: Exception) -> StoreError:
    return StoreError(
        f"Glance cannot be reached: {_short(str(error))}",
        kind=ErrorKind.CLOUD_UNREACHABLE,
        transient=True,
    )


def _demand(response: requests.Response, statuses: set[int], task: str) -> None:
    if response.status_code in statuses:
        return
    status = response.status_code
    raise StoreError(
        f"Glance did not {task}: HTTP {status} {_short(response.text)}".rstrip(),
        kind=_STATUS_KINDS.get(status),
        hint=_HINTS.get(status),
        transient=status in _TRANSIENT_STATUS,
        retry_after_s=_retry_after_s(response),
    )


_HINTS: Mapping[int, str] = MappingProxyType(
    {
        403: "the project's role does not allow this (a public image needs an administrator)",
        413: "raise the image quota or Glance's size limit, or remove images that nobody needs",
        415: "Glance itself refuses this disk format or what is inside it",
    }
)


def _date(response: requests.Response) -> datetime | None:
    """When the answer was made (RFC 9110, section 6.6.1)."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def _retry_after_s(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _short(text: str) -> str:
    """The words of an error page, without its mark-up, URLs' queries and line breaks."""
    body = re.sub(r"(?is)<(title|head|script|style)\b.*?</\1>|<[^>]*>", " ", text)
    without_queries = re.sub(r"\?\S*", "", html.unescape(body))
    return " ".join(without_queries.split())[:300]


def _operations(image: StoredImage, change: ImageChange) -> list[dict[str, Any]]:
    """A JSON patch (RFC 6902); ``add`` also overwrites a property in Glance's version 2.1."""
    fields = {
        "name": change.name,
        "visibility": change.visibility,
        "os_hidden": change.hidden,
        "protected": change.protected,
        "min_disk": change.min_disk_gib,
        "min_ram": change.min_ram_mib,
        "tags": None if change.tags is None else sorted(change.tags),
    }
    replaced = [
        {"op": "replace", "path": f"/{key}", "value": value}
        for key, value in fields.items()
        if value is not None
    ]
    added = [
        {"op": "add", "path": _pointer(key), "value": value}
        for key, value in change.properties.items()
    ]
    removed = [
        {"op": "remove", "path": _pointer(key)}
        for key in sorted(change.remove)
        if key in image.properties
    ]
    return [*replaced, *added, *removed]


def _has(stored: StoredImage, change: ImageChange) -> bool:
    """Whether an image is as a change was to make it."""
    wanted = (
        (change.name, stored.name),
        (change.visibility, stored.visibility),
        (change.hidden, stored.hidden),
        (change.protected, stored.protected),
        (change.min_disk_gib, stored.min_disk_gib),
        (change.min_ram_mib, stored.min_ram_mib),
        (change.tags, stored.tags),
    )
    return (
        all(value in (None, found) for value, found in wanted)
        and change.properties.items() <= stored.properties.items()
        and change.remove.isdisjoint(stored.properties)
    )


def _pointer(key: str) -> str:
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _stored(document: Mapping[str, Any]) -> StoredImage:
    properties = {
        key: value
        for key, value in document.items()
        if key not in _CORE_FIELDS and isinstance(value, str)
    }
    return StoredImage(
        id=document["id"],
        name=document.get("name") or "",
        status=document["status"],
        visibility=document.get("visibility") or "shared",
        hidden=bool(document.get("os_hidden")),
        protected=bool(document.get("protected")),
        owner=document.get("owner"),
        size_bytes=document.get("size"),
        virtual_size_bytes=document.get("virtual_size"),
        checksum=document.get("checksum"),
        hash_algorithm=document.get("os_hash_algo"),
        hash_value=document.get("os_hash_value"),
        disk_format=document.get("disk_format"),
        container_format=document.get("container_format"),
        min_disk_gib=document.get("min_disk") or 0,
        min_ram_mib=document.get("min_ram") or 0,
        tags=frozenset(document.get("tags", ())),
        properties=MappingProxyType(properties),
        created_at=_time(document.get("created_at")),
        updated_at=_time(document.get("updated_at")),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
