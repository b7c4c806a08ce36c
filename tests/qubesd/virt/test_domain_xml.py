"""A domain's description holds what it was given, as text, whatever that looks like (QSB-066)."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from qubesd.errors import QubesError
from qubesd.virt.domain_xml import domain_xml
from qubesd.virt.hypervisor import Disk, DomainSpec, Interface

PLAIN = DomainSpec(
    name="work",
    uuid="6d2a1ef0-9b5d-4a5c-8b8e-0123456789ab",
    virt_mode="pvh",
    memory=400,
    maxmem=4000,
    vcpus=2,
    kernel="/var/lib/qubes/vm-kernels/6.1",
    kernelopts="swiotlb=2048",
    disks=(Disk("/dev/a/root", "xvda", rw=False), Disk("/dev/a/private", "xvdb", rw=True)),
    interfaces=(Interface("00:16:3e:5e:6c:00", "10.137.0.4", "sys-net"),),
)

ATTACKS = [
    pytest.param("</name><devices><hostdev mode='capabilities'/></devices><name>", id="close-and-open"),
    pytest.param("<cmdline>x</cmdline>", id="element"),
    pytest.param("a' type='kvm", id="single-quote"),
    pytest.param('a" type="kvm', id="double-quote"),
    pytest.param("]]><x/>", id="end-of-cdata"),
    pytest.param("<![CDATA[<x/>]]>", id="cdata"),
    pytest.param("<!-- -->", id="comment"),
    pytest.param("<?x y?>", id="instruction"),
    pytest.param('<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]>&e;', id="entity"),
    pytest.param("&lt;x&gt; &#x3c;", id="already-escaped"),
    pytest.param("a\tb\nc", id="white-space"),
]


def shape(element: etree._Element) -> list[tuple[str, tuple[str, ...]]]:
    """The tags and the attribute names, in order: all that is not text."""
    return [(str(one.tag), tuple(map(str, one.attrib))) for one in element.iter()]


def built(spec: DomainSpec) -> etree._Element:
    return etree.fromstring(domain_xml(spec, "test"))


def test_says_what_it_was_given() -> None:
    domain = built(PLAIN)
    assert domain.get("type") == "test"
    assert domain.findtext("memory") == "4000"
    assert domain.findtext("currentMemory") == "400"
    assert domain.findtext("vcpu") == "2"
    assert domain.findtext("os/kernel") == "/var/lib/qubes/vm-kernels/6.1/vmlinuz"
    assert [disk.find("readonly") is None for disk in domain.iter("disk")] == [False, True]
    assert [found.get("name") for found in domain.iter("backenddomain")] == ["sys-net"]


def test_no_kernel_means_the_boot_loader_of_the_disk() -> None:
    boot = built(replace(PLAIN, kernel=None)).find("os")
    assert boot is not None
    assert [child.tag for child in boot] == ["type"]


@pytest.mark.parametrize("text", ATTACKS)
def test_markup_in_a_text_stays_text(text: str) -> None:
    domain = built(replace(PLAIN, name=text, kernelopts=text, kernel=text))
    assert shape(domain) == shape(built(PLAIN))
    assert domain.findtext("name") == text
    assert domain.findtext("os/cmdline") == text
    assert domain.findtext("os/kernel") == f"{text}/vmlinuz"


@pytest.mark.parametrize("text", ATTACKS)
def test_markup_in_an_attribute_stays_text(text: str) -> None:
    attacked = replace(
        PLAIN,
        disks=(Disk(text, text, rw=False), Disk(text, text, rw=True)),
        interfaces=(Interface(text, text, text),),
    )
    domain = built(attacked)
    assert shape(domain) == shape(built(PLAIN))
    assert [found.get("name") for found in domain.iter("backenddomain")] == [text]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a\0b", id="nul"),
        pytest.param("a\x01b", id="control"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param("\ufffe", id="no-character"),
    ],
)
def test_what_xml_cannot_hold_is_refused(text: str) -> None:
    attacks = (
        replace(PLAIN, name=text),
        replace(PLAIN, kernelopts=text),
        replace(PLAIN, kernel=text),
        replace(PLAIN, interfaces=(Interface(text, "10.137.0.4", "sys-net"),)),
    )
    for attack in attacks:
        with pytest.raises(QubesError, match="cannot be described"):
            domain_xml(attack, "test")


@given(st.text(), st.text())
@example("a\r\nb\rc", "\r")
def test_any_text_comes_back_or_is_refused(name: str, options: str) -> None:
    try:
        document = domain_xml(replace(PLAIN, name=name, kernelopts=options), "test")
    except QubesError:
        return
    read = etree.fromstring(document)
    assert read.findtext("name") == name
    assert read.findtext("os/cmdline") == options
    assert shape(read) == shape(built(PLAIN))
