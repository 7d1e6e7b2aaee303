"""Boto3 clients for one endpoint: each made once, shared by threads."""

import threading
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config

_CONFIG = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 2})
"""Everything is on this machine: what takes longer is stuck, and a person should see it soon."""


class Clients:
    """Called with a service's name, gives its client."""

    def __init__(self, endpoint: str, region: str, credentials: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self._region = region
        self._credentials = credentials
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, service: str) -> Any:
        """The client; making one is not safe between threads, hence the lock."""
        with self._lock:
            if service not in self._made:
                session: Any = boto3.session.Session()
                self._made[service] = session.client(
                    service,
                    region_name=self._region,
                    endpoint_url=self.endpoint,
                    aws_access_key_id=self._credentials["AWS_ACCESS_KEY_ID"],
                    aws_secret_access_key=self._credentials["AWS_SECRET_ACCESS_KEY"],
                    config=_CONFIG,
                )
            return self._made[service]
