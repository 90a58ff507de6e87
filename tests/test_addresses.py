"""Fault 15: where the words of strangers may not lead."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from glancing.addresses import AddressRules, literal, parse_network

PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"]
INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "0.0.0.0",
    "255.255.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.1.1",
    "240.0.0.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2002:0a00:0001::",
    "2002:7f00:0001::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",  # Teredo, the client is 10.0.0.1
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "100::1",
    "2001:db8::1",
]
LINK_LOCAL = [
    "169.254.169.254",
    "fe80::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "::169.254.169.254",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_may_be_named_by_anybody(text: str) -> None:
    assert AddressRules().refusal(ip_address(text), vouched=False) is None


@pytest.mark.parametrize("text", INSIDE)
def test_the_inside_of_a_network_is_the_operators_to_name(text: str) -> None:
    assert AddressRules().refusal(ip_address(text), vouched=False)
    assert AddressRules().refusal(ip_address(text), vouched=True) is None


@pytest.mark.parametrize("text", LINK_LOCAL)
def test_link_local_addresses_are_nobodys_to_name(text: str) -> None:
    everything = AddressRules((parse_network("0.0.0.0/0"), parse_network("::/0")))
    for rules in (AddressRules(), everything):
        assert rules.refusal(ip_address(text), vouched=True) == "a link-local address"


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("64:ff9b::10.1.2.3", True),
        ("10.2.0.1", False),
        ("127.0.0.1", False),
    ],
)
def test_an_allowed_network_is_allowed_in_every_disguise(text: str, allowed: bool) -> None:
    rules = AddressRules((parse_network("10.1.0.0/16"),))
    assert (rules.refusal(ip_address(text), vouched=False) is None) == allowed


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("example.org", None),
        ("127.0.0.1.example.org", None),
        ("", None),
    ],
)
def test_addresses_are_known_in_every_spelling(host: str, address: str | None) -> None:
    assert literal(host) == (ip_address(address) if address else None)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "fd00::/8", "192.168.1.7", " 10.0.0.0/8 "])
def test_a_network_is_in_cidr_form(text: str) -> None:
    assert parse_network(text)


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "example.org", "10.0.0.0/33"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|address|host bits"):
        parse_network(text)
