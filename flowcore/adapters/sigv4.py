"""Requests of ``flowcore.client`` signed as IAM wants them: for deployments whose ``AuthMode`` is ``IAM``.

Source: IAM user guide, "AWS Signature Version 4 for API requests".
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx
from boto3.session import Session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from flowcore.errors import SettingsError

_SERVICE = "execute-api"
_NOT_SIGNED = frozenset({"accept-encoding", "connection", "user-agent"})
"""Headers that somebody on the way may change."""


class SigV4(httpx.Auth):
    """Signs each request with AWS credentials: ``Client(url, SigV4())``.

    Args:
        session: whose credentials and region; left out, those of the environment, as everywhere in boto3. They are
            asked for at each request, so credentials that expire are renewed.
        region: of the API, where it is not the session's.
        service: what IAM calls the API; an API of one's own behind another gateway may differ.
    Raises: SettingsError where there are no credentials or there is no region.
    """

    requires_request_body = True

    def __init__(self, session: Session | None = None, *, region: str | None = None, service: str = _SERVICE) -> None:
        session = session or Session()
        self._credentials = session.get_credentials()
        self._region = region or session.region_name
        self._service = service
        if self._credentials is None:
            raise SettingsError("There are no AWS credentials to sign requests with; set AWS_PROFILE, or log in.")
        if self._region is None:
            raise SettingsError("It is not known in which region the API is; give SigV4(region=), or set AWS_REGION.")

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign it and send it, once."""
        request.headers.update(self._signed(request))
        yield request

    def _signed(self, request: httpx.Request) -> dict[str, Any]:
        """The headers that make it signed."""
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_SIGNED}
        asked = AWSRequest(method=request.method, url=str(request.url), data=request.content, headers=headers)
        SigV4Auth(self._credentials.get_frozen_credentials(), self._service, self._region).add_auth(asked)
        return {
            name: value
            for name, value in asked.headers.items()
            if name.lower() in ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")
        }
