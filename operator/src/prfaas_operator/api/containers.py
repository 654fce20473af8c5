"""Pod templates and containers: foreign types, typed where PrfaaS reads them and otherwise kept as they are.

The member's API server has the last word on the rest when the template is applied there.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from prfaas_operator.api.model import OpenModel
from prfaas_operator.api.scalars import Argument, Image, Name
from prfaas_operator.api.uniqueness import KeyedBy

Arguments = Annotated[tuple[Argument, ...], Field(max_length=256)]


class Container(OpenModel):
    """A container of a pod template; any field of a Kubernetes container may be given."""

    name: Name
    """Name of the container, once in the pod."""
    image: Image
    """Image to run."""


class PodSpec(OpenModel):
    """The pods' spec; any field of a Kubernetes PodSpec may be given."""

    containers: Annotated[tuple[Container, ...], Field(min_length=1, max_length=32), KeyedBy("name")]
    """The containers. The first one is the worker: the operator adds ports, probes, environment and the profile to it
    where they are not given."""


class PodMetadata(OpenModel):
    """The pods' metadata."""

    labels: dict[str, str] | None = None
    """Labels of the pods, beside those that the operator sets."""
    annotations: dict[str, str] | None = None
    """Annotations of the pods, beside those that the operator sets."""


class PodTemplate(OpenModel):
    """A Kubernetes PodTemplateSpec."""

    metadata: PodMetadata | None = None
    """Labels and annotations of the pods."""
    spec: PodSpec
    """The pods' spec."""


class RouterContainer(OpenModel):
    """The router's container; any field of a Kubernetes container may be given but its name."""

    image: Image
    """Image to run."""
    command: Arguments | None = None
    """Command, in place of the image's entry point."""
    args: Arguments | None = None
    """Arguments in front of those that the operator gives."""
