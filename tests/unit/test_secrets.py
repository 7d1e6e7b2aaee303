"""Secrets where a deployment keeps them: read when they are needed, kept for a while, never told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.parameters import base
from moto import mock_aws

from flowcore.errors import SettingsError
from handlers.secrets import SecretsUnavailable, link_secrets, secret_at, secrets_at

OLD, NEW = "o" * 32, "n" * 32
HIDDEN = "hunter2"


@pytest.fixture
def kept() -> Iterator[Any]:
    """A region in which things can be kept; its writer."""
    with mock_aws():
        base.DEFAULT_PROVIDERS.clear()  # type: ignore[attr-defined]  # nothing public forgets its client
        yield boto3.client
        vault, parameters = boto3.client("secretsmanager"), boto3.client("ssm")  # moto forgets nothing in another mock
        for secret in vault.list_secrets()["SecretList"]:
            vault.delete_secret(SecretId=secret["ARN"], ForceDeleteWithoutRecovery=True)
        if names := [one["Name"] for one in parameters.describe_parameters()["Parameters"]]:
            parameters.delete_parameters(Names=names)
        base.DEFAULT_PROVIDERS.clear()  # type: ignore[attr-defined]  # nothing public forgets its client


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one", ["one"]),
        ("new, old", ["new", "old"]),
        ('["new, with a comma", "old"]', ["new, with a comma", "old"]),
        (" one ,", ["one"]),
    ],
)
def test_secrets_of_a_webhook_are_one_or_several(
    text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With commas, or as a list where one has a comma in it."""
    monkeypatch.setenv("SHOP", text)
    assert expected == secrets_at("env:SHOP")


@pytest.mark.parametrize("text", [f"k2:{NEW},k1:{OLD}", f'{{"k2": "{NEW}", "k1": "{OLD}"}}'])
def test_keys_of_links_are_pairs_the_newest_first(text: str) -> None:
    """In the setting itself, in either form."""
    assert [("k2", NEW), ("k1", OLD)] == list(link_secrets(text).items())
    assert link_secrets(text) is link_secrets(text)


def test_secret_stands_where_its_place_says(kept: Any) -> None:
    """A parameter that is decrypted, a secret as text or as bytes."""
    kept("ssm").put_parameter(Name="/shop/hook", Value="one", Type="SecureString")
    vault = kept("secretsmanager")
    vault.create_secret(Name="shop/hook", SecretString="two")
    vault.create_secret(Name="shop/bytes", SecretBinary=b"three")
    vault.create_secret(Name="shop/links", SecretString=f'{{"k1": "{OLD}"}}')
    places = ("ssm:/shop/hook", "secretsmanager:shop/hook", "secretsmanager:shop/bytes")
    assert ["one", "two", "three"] == [secret_at(place) for place in places]
    assert {"k1": OLD} == link_secrets("secretsmanager:shop/links")


def test_secret_is_kept_for_a_while_and_then_asked_for_again(kept: Any) -> None:
    """So one that was changed is good without a deploy."""
    vault = kept("secretsmanager")
    vault.create_secret(Name="shop/links", SecretString=f'{{"k1": "{OLD}"}}')
    assert {"k1": OLD} == link_secrets("secretsmanager:shop/links")
    vault.put_secret_value(SecretId="shop/links", SecretString=f'{{"k2": "{NEW}", "k1": "{OLD}"}}')
    assert {"k1": OLD} == link_secrets("secretsmanager:shop/links")
    base.clear_caches()  # type: ignore[no-untyped-call]  # it leaves that untyped
    assert ["k2", "k1"] == list(link_secrets("secretsmanager:shop/links"))


def test_secret_that_cannot_be_read_is_asked_for_later(kept: Any) -> None:
    """The caller may try again; nothing is signed or believed meanwhile."""
    del kept
    for place in ("ssm:/shop/nothing", "secretsmanager:shop/nothing"):
        with pytest.raises(SecretsUnavailable) as refused:
            secret_at(place)
        assert refused.value.retryable


@pytest.mark.parametrize("place", ["env:NOWHERE", HIDDEN, f"vault:{HIDDEN}", ""])
def test_place_that_is_none_is_an_error_that_tells_no_secret(place: str) -> None:
    """Somebody may have put the secret itself there."""
    with pytest.raises(SettingsError) as refused:
        secret_at(place)
    assert HIDDEN not in str(refused.value)


@pytest.mark.parametrize("text", [f'["{HIDDEN}"', f'[["{HIDDEN}"]]', '["a", 5]'])
def test_secrets_that_are_no_list_of_texts_are_an_error_that_tells_none(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a fault of ours at each delivery."""
    monkeypatch.setenv("SHOP", text)
    with pytest.raises(SettingsError, match="env:SHOP") as refused:
        secrets_at("env:SHOP")
    assert HIDDEN not in str(refused.value)


@pytest.mark.parametrize(
    "text", [f'{{"k1": "{HIDDEN}"', '{"k1": 5}', '{"k1": ["a"]}', f'{{"k1": "{OLD}", "k1": "{NEW}"}}']
)
def test_keys_of_links_that_are_no_pairs_are_an_error_that_tells_none(text: str) -> None:
    """And not a fault of ours at each click."""
    with pytest.raises(SettingsError) as refused:
        link_secrets(text)
    assert HIDDEN not in str(refused.value)
