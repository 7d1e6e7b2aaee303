"""What every test may rely on: no test can reach a real AWS account, whatever the machine is logged in to.

And what every test is held to: the runs of each ``LocalApp`` are audited when the test is over.
"""

import gc
import os

from hypothesis import HealthCheck, settings

from flowcore.testing.pytest_plugin import audited_runs

__all__ = ["audited_runs"]

# How long a machine takes says nothing about the code: a busy one must not fail a test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_SESSION_TOKEN="testing",
    AWS_SECURITY_TOKEN="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
)
os.environ.pop("AWS_PROFILE", None)

# Most of what stands in memory is tests and modules, which stay: the collector need not look at all of it so often.
gc.set_threshold(10_000, 20, 50)
