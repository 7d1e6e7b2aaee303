"""Durable workflows that wait: for people, for other systems, for days. On AWS Lambda and DynamoDB, in Python."""

from flowcore.app import App
from flowcore.authoring.context import FunctionContext, StepContext
from flowcore.authoring.graph import Backoff
from flowcore.authoring.migrate import migrate
from flowcore.authoring.option import Option
from flowcore.authoring.step import Step, create_step, step
from flowcore.authoring.workflow import Workflow, otherwise, workflow
from flowcore.errors import DefinitionError, FlowcoreError
from flowcore.model import Wait
from flowcore.results import RunResult
from flowcore.run import Run
from flowcore.starting import Start

__all__ = [
    "App",
    "Backoff",
    "DefinitionError",
    "FlowcoreError",
    "FunctionContext",
    "Option",
    "Run",
    "RunResult",
    "Start",
    "Step",
    "StepContext",
    "Wait",
    "Workflow",
    "create_step",
    "migrate",
    "otherwise",
    "step",
    "workflow",
]
