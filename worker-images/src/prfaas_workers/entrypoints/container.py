"""What the operator gives a worker container, checked; docs/architecture.md has the list."""

from __future__ import annotations

import argparse
import importlib.metadata
import ipaddress
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prfaas_core import errors
from prfaas_core.compatibility import kv_fingerprint
from prfaas_core.errors import CoreError, InvalidValueError, MissingFieldError, lookup

HTTP_PORT = 8000

_BY_OPERATOR = "the operator sets it; outside of a pool, set it by hand"


@dataclass(frozen=True, slots=True)
class Container:
    """The environment of one worker.

    Attributes:
        pod_name: also the engine's id, by which routers know it.
        pod_ip: the address to listen on.
        kv_host, kv_port: the side channel as decode workers reach it.
        spec: of the ModelProfile.
    """

    pod_name: str
    pod_ip: str
    kv_host: str
    kv_port: int
    spec: Mapping[str, Any]

    def text(self, path: str) -> str:
        """Return a text of the profile, by dotted path."""
        return errors.text(path, lookup(self.spec, path))

    def count(self, path: str) -> int:
        """Return a whole number of at least 1 of the profile, by dotted path."""
        return errors.count(path, lookup(self.spec, path), minimum=1)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: the arguments, the program first, and the environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


# Makes an engine's command from the parsed arguments, the container, its environment, and the engine's own arguments.
# `CoreError` names the variable, the argument, or the field of the profile that keeps it from being built.
Build = Callable[[argparse.Namespace, Container, Mapping[str, str], Sequence[str]], Command]


def read(environment: Mapping[str, str], engine: str, installed_version: Callable[[], str]) -> Container:
    """Return the container that `environment` describes.

    Args:
        engine: what the profile's engine.name has to be.
        installed_version: of the engine in the image, which the profile has to state, since it is part of the fingerprint.

    Raises:
        CoreError: a variable is missing or wrong, or the profile is that of something else; names it, its value, the way out.
    """
    path = Path(_variable(environment, "PRFAAS_PROFILE_PATH"))
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidValueError("PRFAAS_PROFILE_PATH", str(path), f"give a readable JSON file ({error})") from error
    if not isinstance(spec, dict):
        raise InvalidValueError("PRFAAS_PROFILE_PATH", str(path), "give the spec of a ModelProfile, a JSON object")
    fingerprint = kv_fingerprint(spec)
    given = _variable(environment, "PRFAAS_KV_FINGERPRINT")
    if given != fingerprint:
        raise InvalidValueError(
            "PRFAAS_KV_FINGERPRINT", given, f"the profile's is {fingerprint}; give the pod the profile of its pool"
        )
    if lookup(spec, "engine.name") != engine:
        raise InvalidValueError(
            "engine.name", lookup(spec, "engine.name"), f"this image runs {engine}; use its profile"
        )
    version = installed_version()
    if lookup(spec, "engine.version") != version:
        raise InvalidValueError(
            "engine.version", lookup(spec, "engine.version"), f"this image has {version}; use the image of the profile"
        )
    port = _variable(environment, "VLLM_NIXL_SIDE_CHANNEL_PORT")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidValueError("VLLM_NIXL_SIDE_CHANNEL_PORT", port, "give a port from 1 to 65535")
    return Container(
        pod_name=_variable(environment, "POD_NAME"),
        pod_ip=_address(environment, "POD_IP"),
        kv_host=_address(environment, "VLLM_NIXL_SIDE_CHANNEL_HOST"),
        kv_port=int(port),
        spec=spec,
    )


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Return the arguments that all entry points have."""
    p = argparse.ArgumentParser(
        prog=program, description=description, epilog="Arguments behind -- go to the engine as they are."
    )
    p.add_argument("--role", choices=["prefill", "decode", "both"], required=True, help="which pool the worker is in")
    p.add_argument("--model", help="path or name to load (default: model.name of the profile)")
    p.add_argument("--print", action="store_true", dest="print_only", help="print the command and exit")
    return p


def run(
    commands: argparse.ArgumentParser, engine: str, distribution: str, build: Build, argv: Sequence[str] | None = None
) -> None:
    """Become the engine: parse, check, build the command, and replace this process by it, so that signals reach it."""
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    options = commands.parse_args(given[:split])
    try:
        container = read(os.environ, engine, lambda: _installed(distribution))
        command = build(options, container, os.environ, given[split + 1 :])
    except CoreError as error:
        sys.exit(f"{commands.prog}: {error}")
    if options.print_only:
        json.dump(command.arguments, sys.stdout)
        return
    os.execvpe(command.arguments[0], command.arguments, dict(command.environment))  # noqa: S606 - that is its purpose


def own(extra: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Return the engine's own arguments, none of which may be one that the profile or the operator decides.

    Raises:
        InvalidValueError: names the argument.
    """
    for argument in extra:
        name = argument.split("=", 1)[0]
        if name in taken:
            raise InvalidValueError(name, argument, "the profile decides it; leave it out, or change the profile")
    return tuple(extra)


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingFieldError(distribution, f"run this in an image with {distribution} installed") from error


def _variable(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise MissingFieldError(name, _BY_OPERATOR)
    return value


def _address(environment: Mapping[str, str], name: str) -> str:
    value = _variable(environment, name)
    try:
        address = ipaddress.ip_address(value)
    except ValueError as error:
        raise InvalidValueError(name, value, "give the pod's IP address (status.podIP)") from error
    if address.is_unspecified:
        raise InvalidValueError(name, value, "give the pod's IP address: others connect to it as it is written")
    return value
