"""Reads template.yaml: short tags, the SAM transform and the intrinsic functions the template uses.

Pure but for the reading of the file. Refuses what it does not know, by name, so that a template can never be read half.
Nothing is created here; ``deploy.py`` does that, and asks back through ``Lookup`` for what a resource turned out to be.
"""

import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import yaml

ACCOUNT = "123456789012"
_PACKAGED = "s3://local/code.zip"  # The transform wants packaged code; the stack runs it from the task root instead.
_VARIABLE = re.compile(r"\$\{(!?)([^}]+)\}")


class TemplateError(Exception):
    """The template says something the local stack cannot follow."""


class Lookup(Protocol):
    """What a template's references stand for."""

    def ref(self, name: str) -> Any:
        """The value of ``Ref``: a parameter, a pseudo parameter or a resource's physical id."""
        ...

    def attribute(self, name: str, attribute: str) -> Any:
        """The value of ``Fn::GetAtt``."""
        ...


class _ShortTags(yaml.SafeLoader):
    """YAML with CloudFormation's ``!Ref``, ``!Sub`` and relatives."""


def _expand_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_ShortTags.add_multi_constructor("!", _expand_tag)


def load(path: Path) -> dict[str, Any]:
    """The template as written, short tags expanded to their long form."""
    document = yaml.load(path.read_text(encoding="utf-8"), Loader=_ShortTags)  # noqa: S506  # a SafeLoader that also knows CloudFormation's tags
    if not isinstance(document, dict):
        raise TemplateError(f"{path} is not a template.")
    return document


def translate(sam: Mapping[str, Any], *, region: str = "us-east-1") -> dict[str, Any]:
    """Plain CloudFormation from a SAM template, without asking AWS anything."""
    # Loaded here because it costs a second that readers of ``load`` alone should not pay.
    transform: Any = import_module("samtranslator.translator.transform").transform
    packaged = copy.deepcopy(dict(sam))
    for holder in _holders_of_code(packaged):
        holder["CodeUri"] = _PACKAGED
    with _default_region(region):
        translated: dict[str, Any] = transform(packaged, _defaults(packaged), _NoManagedPolicies())
    return translated


@contextmanager
def _default_region(region: str) -> Iterator[None]:
    """Give the transform the region it asks the environment for, and leave the environment as it was."""
    had_one = "AWS_DEFAULT_REGION" in os.environ
    os.environ.setdefault("AWS_DEFAULT_REGION", region)
    try:
        yield
    finally:
        if not had_one:
            del os.environ["AWS_DEFAULT_REGION"]


class _NoManagedPolicies:
    """Knows no AWS managed policy by name; roles of this template are written out."""

    def load(self) -> dict[str, str]:
        return {}


def _holders_of_code(sam: Mapping[str, Any]) -> list[dict[str, Any]]:
    functions = [r["Properties"] for r in sam["Resources"].values() if r["Type"] == "AWS::Serverless::Function"]
    shared = sam.get("Globals", {}).get("Function", {})
    return [holder for holder in (shared, *functions) if "CodeUri" in holder]


def _defaults(template: Mapping[str, Any]) -> dict[str, Any]:
    return {name: p["Default"] for name, p in template.get("Parameters", {}).items() if "Default" in p}


def parameters(template: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Values of all parameters: the defaults, and over them what was given.

    Raises:
        TemplateError: an unknown parameter was given or one without default was not.
    """
    declared = template.get("Parameters", {})
    if unknown := sorted(set(given) - set(declared)):
        raise TemplateError(f"The template has no parameter {unknown!r}; it has {sorted(declared)!r}.")
    values = _defaults(template) | dict(given)
    if missing := sorted(set(declared) - set(values)):
        raise TemplateError(f"Parameters without a value: {missing!r}.")
    lists = {name for name, p in declared.items() if p["Type"] == "CommaDelimitedList"}
    return {name: str(v).split(",") if name in lists else v for name, v in values.items()}


_ABSENT = object()


class Intrinsics:
    """Replaces intrinsic functions by values; ``AWS::NoValue`` removes the key or list entry that holds it."""

    def __init__(self, template: Mapping[str, Any], lookup: Lookup) -> None:
        self._template = template
        self._lookup = lookup
        self._functions: dict[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Fn::GetAtt": self._get_att,
            "Fn::Sub": self._sub,
            "Fn::If": self._if,
            "Fn::Join": self._join,
            "Fn::FindInMap": self._find_in_map,
            "Fn::Equals": self._equals,
            "Fn::Not": lambda of: not self._truth(of[0]),
            "Fn::And": lambda of: all(self._truth(one) for one in of),
            "Fn::Or": lambda of: any(self._truth(one) for one in of),
            "Condition": self.condition,
        }

    def resolve(self, value: Any) -> Any:
        """``value`` with every intrinsic in it replaced."""
        resolved = self._resolve(value)
        return None if resolved is _ABSENT else resolved

    def condition(self, name: str) -> bool:
        """Whether the named condition of the template holds."""
        return self._truth(self._template["Conditions"][name])

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [one for one in map(self._resolve, value) if one is not _ABSENT]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(name, argument)] = value.items()
            # "Condition" is also an ordinary key (of policy statements, there with a mapping behind it).
            if name in self._functions and not (name == "Condition" and not isinstance(argument, str)):
                return self._functions[name](argument)
            if name.startswith("Fn::"):
                raise TemplateError(f"The local stack does not know {name!r}.")
        resolved = {key: self._resolve(one) for key, one in value.items()}
        return {key: one for key, one in resolved.items() if one is not _ABSENT}

    def _ref(self, name: str) -> Any:
        return _ABSENT if name == "AWS::NoValue" else self._lookup.ref(name)

    def _get_att(self, path: list[str]) -> Any:
        return self._lookup.attribute(path[0], ".".join(path[1:]))

    def _sub(self, argument: Any) -> str:
        text, extra = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])

        def replacement(found: re.Match[str]) -> str:
            literal, name = found.groups()
            if literal:
                return "${" + name + "}"
            if name in extra:
                return str(self._resolve(extra[name]))
            first, _, rest = name.partition(".")
            return str(self._lookup.attribute(first, rest) if rest else self._lookup.ref(name))

        return _VARIABLE.sub(replacement, text)

    def _if(self, argument: list[Any]) -> Any:
        name, then, otherwise = argument
        return self._resolve(then if self.condition(name) else otherwise)

    def _join(self, argument: list[Any]) -> str:
        separator, parts = argument
        return str(separator).join(str(part) for part in self._resolve(parts))

    def _find_in_map(self, argument: list[Any]) -> Any:
        name, first, second = (self._resolve(part) for part in argument)
        return self._template["Mappings"][name][first][second]

    def _equals(self, argument: list[Any]) -> bool:
        left, right = (self._resolve(side) for side in argument)
        return str(left) == str(right)

    def _truth(self, expression: Any) -> bool:
        return bool(self._resolve(expression))
