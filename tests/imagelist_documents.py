"""Documents of the formats that the list tests read, built here and small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ID = "Abcdefghijklmnopqrstuv-_012"
MD5 = "79b4436412283bb63c2cba4ac796bcd9"
SHA512 = "a5" * 64

XML_NAMESPACES = (
    'xmlns:dcterms="http://purl.org/dc/terms/" '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:slreq="http://mp.stratuslab.eu/slreq#" '
    'xmlns:slterms="http://mp.stratuslab.eu/slterms#"'
)

FIELDS: Mapping[str, str] = {
    "dcterms:identifier": ID,
    "dcterms:title": "Tiny image",
    "dcterms:format": "qcow2",
    "dcterms:compression": "gz",
    "slreq:bytes": "12506112",
    "slterms:os": "Tiny",
    "slterms:os-version": "1.0",
    "slterms:os-arch": "x86_64",
    "slterms:version": "20160411",
    "slterms:location": "http://images.example.org/tiny.qcow2.gz",
}
CHECKSUMS = (("MD5", MD5), ("SHA-512", SHA512))

_PREFIXES = {
    "dcterms": "http://purl.org/dc/terms/",
    "slreq": "http://mp.stratuslab.eu/slreq#",
    "slterms": "http://mp.stratuslab.eu/slterms#",
}


def xml_description(
    fields: Mapping[str, str], checksums: tuple[tuple[str, str], ...] = CHECKSUMS
) -> str:
    """One rdf:Description."""
    literals = "".join(f"<{name}>{value}</{name}>\n" for name, value in fields.items())
    resources = "".join(
        f'<slreq:checksum rdf:parseType="Resource"><slreq:algorithm>{algorithm}</slreq:algorithm>'
        f"<slreq:value>{value}</slreq:value></slreq:checksum>\n"
        for algorithm, value in checksums
    )
    return f'<rdf:Description rdf:about="#x">{literals}{resources}</rdf:Description>'


def xml_document(*descriptions: str, around: str = "", doctype: str = "") -> bytes:
    """An rdf:RDF document, within an element of the name ``around`` where one is given."""
    rdf = f"<rdf:RDF {XML_NAMESPACES}>{''.join(descriptions)}</rdf:RDF>"
    body = f"<{around}>{rdf}</{around}>" if around else rdf
    return f'<?xml version="1.0" encoding="UTF-8"?>{doctype}{body}'.encode()


def xml(
    changes: Mapping[str, str] | None = None,
    checksums: tuple[tuple[str, str], ...] = CHECKSUMS,
    around: str = "",
) -> bytes:
    """The XML form of the standard image with some fields changed."""
    return xml_document(xml_description({**FIELDS, **(changes or {})}, checksums), around=around)


def rdf_json_document(
    changes: Mapping[str, str] | None = None,
    checksums: tuple[tuple[str, str], ...] = CHECKSUMS,
) -> dict[str, Any]:
    """The RDF-JSON form of the standard image, as Python values."""
    fields = {**FIELDS, **(changes or {})}
    main: dict[str, Any] = {_url(name): _literal(value) for name, value in fields.items()}
    main[_url("slreq:checksum")] = [
        {"type": "bnode", "value": f"_:{number}"} for number in range(len(checksums))
    ]
    nodes = {
        f"_:{number}": {
            _url("slreq:algorithm"): _literal(algorithm),
            _url("slreq:value"): _literal(value),
        }
        for number, (algorithm, value) in enumerate(checksums)
    }
    return {**nodes, "http://mp.stratuslab.eu/#x": main}


def rdf_json(
    changes: Mapping[str, str] | None = None,
    checksums: tuple[tuple[str, str], ...] = CHECKSUMS,
    around: str = "",
) -> bytes:
    """The RDF-JSON form of the standard image; it has but one root form."""
    assert not around
    return json.dumps(rdf_json_document(changes, checksums)).encode()


def _url(name: str) -> str:
    prefix, _, rest = name.partition(":")
    return _PREFIXES[prefix] + rest


def _literal(value: str) -> list[dict[str, str]]:
    return [{"type": "literal", "value": value}]


HEPIX_IMAGE: Mapping[str, Any] = {
    "dc:identifier": "deadbabe-0000-0000-0000-000000000001",
    "dc:title": "Small image",
    "hv:size": 12506112,
    "hv:uri": "https://images.example.org/small.img",
    "hv:version": "6.6.6",
    "sl:arch": "i386",
    "sl:os": "Linux",
    "sl:osversion": "0.3.4",
    "sl:checksum:sha512": SHA512,
    "sl:checksum:md5": MD5,
    "sl:comments": "",
}
HEPIX_LIST: Mapping[str, Any] = {
    "dc:date:created": "2015-08-27T22:09:27Z",
    "dc:date:expires": "2016-08-28T00:00:00+02:00",
    "dc:identifier": "00000000-0000-0000-0000-00000000cafe",
    "dc:title": "Endorsed images",
    "hv:version": "12",
}


def hepix(*changes: Mapping[str, Any], **list_fields: Any) -> bytes:
    """A list with one image per argument, each the standard one with some fields changed."""
    images = [{"hv:image": {**HEPIX_IMAGE, **change}} for change in changes or ({},)]
    fields = {**HEPIX_LIST, "hv:images": images, **list_fields}
    return json.dumps({"hv:imagelist": fields}).encode()


def signed(content: bytes, part_headers: bytes = b"") -> bytes:
    """The S/MIME envelope around a list, as openssl writes it."""
    return (
        b'MIME-Version: 1.0\nContent-Type: multipart/signed; micalg="sha-256"; boundary="--B7"; '
        b'protocol="application/x-pkcs7-signature"\n\nThis is an S/MIME signed message\n\n----B7\n'
        + part_headers
        + content
        + b"\n----B7\nContent-Type: application/x-pkcs7-signature\n\nMIIG\n\n----B7--\n"
    )
