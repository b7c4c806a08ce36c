"""Mappings that share what did not change: each version keeps its content, whatever is derived from it."""

from hypothesis import given
from hypothesis import strategies as st

from policy_engine.spread import Found, Spread

KEYS = st.text(max_size=2)
CHANGES = st.dictionaries(KEYS, st.none() | st.integers(), max_size=5)


@given(st.dictionaries(KEYS, st.integers()), st.lists(st.tuples(st.integers(0, 9), CHANGES), max_size=9))
def test_every_version_is_the_mapping_that_it_was(
    first: dict[str, int], steps: list[tuple[int, dict[str, int | None]]]
) -> None:
    versions = [(Spread(first), first)]
    for base, changes in steps:
        spread, content = versions[base % len(versions)]
        changed = {key: value for key, value in (content | changes).items() if value is not None}
        versions.append((spread.but(changes), changed))
    for spread, content in versions:
        assert dict(spread.items()) == content
        assert spread == Spread(content)
        assert all(spread.get(key) == value for key, value in content.items())


def test_what_was_changed_is_another_mapping() -> None:
    spread = Spread({"a": 1, "b": 2})
    assert spread.but({"a": 1, "gone": None}) == spread
    for changes in ({"a": 2}, {"a": None}, {"c": 3}):
        assert spread.but(changes) != spread
    assert spread.get("c") is None


def test_what_is_not_there_is_not_remembered() -> None:
    found = Found(Spread({"a": 1}))
    assert [found[key] for key in ("b", "a", "c", "a")] == [None, 1, None, 1]
    assert dict(found) == {"a": 1}
