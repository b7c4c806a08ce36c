from __future__ import annotations

from collections.abc import Callable

import pytest

from qubesd.errors import BadValue, InvalidLabel, InvalidLabelValue, InvalidTag, InvalidUuid, ProtocolError
from qubesd.model import names

UUID = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("check", "text"),
    [
        pytest.param(names.check_qube_name, "a", id="qube-one-letter"),
        pytest.param(names.check_qube_name, "x-y_z.1", id="qube-all-characters"),
        pytest.param(names.check_qube_name, "n" * 31, id="qube-longest"),
        pytest.param(names.check_qube_name, "None", id="qube-none-is-reserved-in-lower-case-only"),
        pytest.param(names.check_qube_name, "dom0", id="qube-dom0-is-a-name-like-another"),
        pytest.param(names.check_uuid, UUID, id="uuid"),
        pytest.param(names.check_tag, "created-by-dom0", id="tag"),
        pytest.param(names.check_feature_name, "..", id="feature-of-dots"),
        pytest.param(names.check_label_name, "3", id="label-index"),
        pytest.param(names.check_new_label_name, "3rd", id="label-new"),
        pytest.param(names.check_color, "0xAbCdEf", id="color"),
    ],
)
def test_accepts(check: Callable[[str], str], text: str) -> None:
    assert check(text) == text


@pytest.mark.parametrize(
    ("check", "text", "error"),
    [
        *(
            pytest.param(names.check_qube_name, text, BadValue, id=f"qube-{text!a}")
            for text in (
                *("", "n" * 32, "1abc", "-a", "_a", ".a", "none", "default", "Domain-0", "x-dm"),
                *("a+b", "a:b", "a@b", "a/b", "lost+found", "a b", "a\n", "ä", "a\0"),
            )
        ),
        *(
            pytest.param(names.check_uuid, text, InvalidUuid, id=f"uuid-{text!a}")
            for text in (
                "",
                UUID[:-1],
                UUID + "\n",
                UUID.replace("-", ""),
                "{" + UUID + "}",
                UUID.replace("1", "G"),
            )
        ),
        *(
            pytest.param(names.check_tag, text, InvalidTag, id=f"tag-{text!a}")
            for text in ("", "a.b", "a b", "a\n", "ä")
        ),
        *(
            pytest.param(names.check_feature_name, text, ProtocolError, id=f"feature-{text!a}")
            for text in ("", "a+b", "a/b", "a:b", "@", "a\n")
        ),
        *(
            pytest.param(names.check_new_label_name, text, InvalidLabel, id=f"label-{text!a}")
            for text in ("", "12", "a b", "a/b", "a\n")
        ),
        *(
            pytest.param(names.check_color, text, InvalidLabelValue, id=f"color-{text!a}")
            for text in ("", "0XFFFFFF", "#ffffff", "0xfffff", "0xfffffff", "0xgggggg", "0xffffff\n")
        ),
    ],
)
def test_refuses(check: Callable[[str], str], text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check(text)


@pytest.mark.parametrize("value", [b"", b"~ !\"#$%&'()*+,-./:;<=>?@[]^_`{|}"])
def test_feature_value(value: bytes) -> None:
    assert names.check_feature_value(value).encode() == value


@pytest.mark.parametrize("value", [b"a\nb", b"a\tb", "é".encode(), b"x\0", b"\x7f"])
def test_feature_value_refused(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        names.check_feature_value(value)
