"""The environment is read once, by one room, and every fault in it is named at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowcore.errors import SettingsError
from flowcore.settings import Settings

COMPLETE = {
    "FLOWCORE_APP": "shop.flows:app",
    "FLOWCORE_TABLE": "runs",
    "FLOWCORE_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/work",
    "FLOWCORE_SCHEDULE_GROUP": "flowcore",
    "FLOWCORE_SCHEDULE_ROLE_ARN": "arn:aws:iam::123456789012:role/schedules",
    "AWS_REGION": "eu-central-1",
}


def test_complete_environment_is_read() -> None:
    """Every setting has its value; the clock is right unless a local stack moves it."""
    settings = Settings.read(COMPLETE)

    assert ("runs", "shop.flows:app") == (settings.table, settings.app)
    assert timedelta(0) == settings.clock_offset


def test_bucket_is_optional_and_named_as_s3_names_them() -> None:
    """Without one a value has to fit into an item, as it does in a deployment made before there was a bucket."""
    assert None is Settings.read(COMPLETE).bucket
    assert None is Settings.read({**COMPLETE, "FLOWCORE_BUCKET": ""}).bucket
    assert "my-values.eu" == Settings.read({**COMPLETE, "FLOWCORE_BUCKET": "my-values.eu"}).bucket
    with pytest.raises(SettingsError, match="FLOWCORE_BUCKET is 's3://values', which is not the name"):
        Settings.read({**COMPLETE, "FLOWCORE_BUCKET": "s3://values"})


def test_metrics_are_told_under_the_name_of_the_deployment() -> None:
    """Where it says none, under ours."""
    assert "flowcore" == Settings.read(COMPLETE).metrics_namespace
    assert "shop-test" == Settings.read({**COMPLETE, "POWERTOOLS_METRICS_NAMESPACE": "shop-test"}).metrics_namespace


def test_region_may_come_from_the_default_region() -> None:
    """Outside Lambda only AWS_DEFAULT_REGION is usual."""
    environ = {**COMPLETE, "AWS_DEFAULT_REGION": "eu-west-1"}
    del environ["AWS_REGION"]

    assert "eu-west-1" == Settings.read(environ).region


@pytest.mark.parametrize("auth", ["", "none", "IAM"])
@pytest.mark.parametrize("name", ["FLOWCORE_TENANT_CLAIM", "FLOWCORE_OWNER_CLAIM"])
def test_claim_without_tokens_is_a_fault(name: str, auth: str) -> None:
    """Nobody would be kept from anybody's runs by it."""
    with pytest.raises(SettingsError, match=f"{name} is set, but FLOWCORE_AUTH is not JWT"):
        Settings.read({**COMPLETE, "FLOWCORE_AUTH": auth, name: "sub"})
    Settings.read({**COMPLETE, "FLOWCORE_AUTH": "JWT", name: "sub"})


@pytest.mark.parametrize("name", COMPLETE)
def test_missing_setting_is_named(name: str) -> None:
    """With what it is for."""
    with pytest.raises(SettingsError, match=f"{name} is not set: "):
        Settings.read({**COMPLETE, name: ""})


def test_every_missing_setting_is_named_at_once() -> None:
    """Nobody deploys six times to learn of six settings."""
    with pytest.raises(SettingsError) as caught:
        Settings.read({})

    assert all(name in str(caught.value) for name in COMPLETE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLOWCORE_APP", "shop.flows"),
        ("FLOWCORE_APP", "shop/flows.py:app"),
        ("FLOWCORE_QUEUE_URL", "work"),
        ("FLOWCORE_SCHEDULE_ROLE_ARN", "schedules"),
        ("FLOWCORE_CLOCK_OFFSET", "an hour"),
        ("FLOWCORE_SWAGGER", "yes"),
        ("FLOWCORE_RETENTION_DAYS", "999999999999"),
        ("FLOWCORE_RESUMES_A_MINUTE", "many"),
    ],
)
def test_malformed_setting_is_named_with_what_was_found(name: str, value: str) -> None:
    """What was found, and what it should have been."""
    with pytest.raises(SettingsError, match=f"{name} is '{value}', which is not "):
        Settings.read({**COMPLETE, name: value})
