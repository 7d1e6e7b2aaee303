"""Links: good for one wait, at one door, for a time and while their key is; all else is as if it did not exist."""

import importlib
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowcore.errors import LinkExpired, LinkUnknown, SettingsError
from flowcore.links import Grant, Links, pairs_of
from flowcore.model import Wait

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = "o" * 32, "n" * 32
GRANT = Grant(
    tenant="default", run_id="r-1", wait="approve@0", door="a", actor="boss@example.com", until=NOON + timedelta(days=1)
)


def links(**secrets: str) -> Links:
    """The links of a deployment with these keys."""
    return Links("https://api.example.com/", secrets or {"k1": OLD})


def test_link_says_what_it_was_made_for() -> None:
    """Everything comes back as it went in, and the address is one that can be clicked."""
    made = links()
    url = made.url(GRANT)
    assert url.startswith("https://api.example.com/a/k1.")
    assert GRANT == made.read(url.rsplit("/", 1)[1], "a", NOON)


def test_link_with_any_character_changed_is_unknown() -> None:
    """Also the last one, of which base64 uses only a part."""
    made = links()
    token = made.token(GRANT)
    accepted = []
    for place, right in enumerate(token):
        for wrong in "AQgwBCDEFxyz0189-_.":
            if wrong != right:
                try:
                    made.read(token[:place] + wrong + token[place + 1 :], "a", NOON)
                except LinkUnknown:
                    continue
                accepted.append((place, wrong))
    assert [] == accepted


NONSENSE = ["", ".", "k1", "k1.", "k1..", "k2.x.y", "k1.x.y", "\0", "k1." + "A" * 10_000, "ü.ü.ü"]


@pytest.mark.parametrize("token", NONSENSE)
def test_nonsense_is_unknown(token: str) -> None:
    """Whatever stands behind /a/ is either ours or nothing."""
    with pytest.raises(LinkUnknown):
        links().read(token, "a", NOON)


def test_link_of_one_door_opens_no_other() -> None:
    """What a program was given shows no page, and a person's link is no callback."""
    made = links()
    with pytest.raises(LinkUnknown):
        made.read(made.token(GRANT), "cb", NOON)
    with pytest.raises(LinkUnknown):
        made.read(made.token(replace(GRANT, door="cb")), "a", NOON)


def test_link_is_good_until_its_time_and_no_longer() -> None:
    """The second it names is still good; the one behind it says since when it is over."""
    made = links()
    token = made.token(GRANT)
    assert GRANT == made.read(token, "a", GRANT.until)
    with pytest.raises(LinkExpired, match="2026-01-02 12:00 UTC"):
        made.read(token, "a", GRANT.until + timedelta(seconds=1))


def test_link_of_an_older_key_is_good_until_the_key_is_gone() -> None:
    """Rotation: the first key signs, all of them verify."""
    before, during, after = links(k1=OLD), links(k2=NEW, k1=OLD), links(k2=NEW)
    token = before.token(GRANT)
    assert GRANT == during.read(token, "a", NOON)
    assert during.token(GRANT).startswith("k2.")
    with pytest.raises(LinkUnknown):
        after.read(token, "a", NOON)


def test_link_is_read_while_its_key_is_withdrawn() -> None:
    """By another thread, between finding the key and using it."""

    class Found(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            return super().get(key, default) if key in self else default

        def __contains__(self, key: object) -> bool:
            found = super().__contains__(key)
            assert reader.token(GRANT).startswith("k2.")
            return found

    given = iter([Found(k1=OLD)])
    newer = {"k2": NEW}
    reader = Links("https://api.example.com", lambda: next(given, newer))
    assert GRANT == reader.read(links(k1=OLD).token(GRANT), "a", NOON)


def test_link_of_the_same_id_with_another_secret_is_unknown() -> None:
    """The id of a key is a name, not a proof."""
    with pytest.raises(LinkUnknown):
        links(k1=NEW).read(links(k1=OLD).token(GRANT), "a", NOON)


@pytest.mark.parametrize(
    ("secrets", "complaint"),
    [
        ("", "no secret"),
        ("k1", "not kid:secret"),
        ("k1:short", "fewer than 32"),
        (f"k 1:{OLD}", "no key id"),
        (f"k1:{OLD},k1:{NEW}", "two keys of the same id"),
    ],
)
def test_wrong_secrets_are_refused_without_being_told(secrets: str, complaint: str) -> None:
    """At start-up, with what is wrong, and never with the secret itself."""
    with pytest.raises(SettingsError, match=complaint) as refused:
        Links("https://api.example.com", pairs_of(secrets))
    assert not any(secret in str(refused.value) for secret in (OLD, NEW))


def test_address_that_is_none_is_refused() -> None:
    """A link with a wrong beginning would be mailed to everybody before somebody notices."""
    with pytest.raises(SettingsError, match="no http address"):
        Links("api.example.com", {"k1": OLD})


def test_keys_that_change_while_we_run_are_asked_for_each_time() -> None:
    """A new key signs at once; one that was withdrawn opens nothing from then on."""
    keys = {"k1": OLD}
    made = Links("https://api.example.com", lambda: dict(keys))
    token = made.token(GRANT)
    keys.clear()
    keys["k2"] = NEW
    assert made.token(GRANT).startswith("k2.")
    with pytest.raises(LinkUnknown):
        made.read(token, "a", NOON)


def test_links_without_what_signs_them_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """When they are made, and not when a run asks for the first one: its call of ``notify=`` would fail for ever."""
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'flowcore\[console\]'"):
        Links("https://api.example.com", {"k": "0" * 32})


def test_pages_without_what_draws_them_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """When they are loaded, and not when somebody opens his link."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "flowcore.console.pages", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'flowcore\[console\]'"):
        importlib.import_module("flowcore.console.pages")


def test_link_to_a_wait_without_end_is_good_until_the_calendar_ends() -> None:
    """There are no thirty days behind its deadline."""
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    made = links()
    wait: Wait[Any] = Wait(id="approve@0", run_id="r-1", path=["approve"], payload=None, since=NOON, deadline=never)
    url = made.for_tenant("default").url(wait, "a", actor=None, valid_for=None)
    assert made.read(url.rsplit("/", 1)[1], "a", NOON).until == never
