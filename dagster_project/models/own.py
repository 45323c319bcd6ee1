"""Agents that were trained elsewhere: models of any kind, with what they join in the experiment."""

from __future__ import annotations

import functools
from typing import Any, cast

from pydantic import Field, create_model

from dagster_project.experiment.agents import Recipe
from dagster_project.models.kind import ModelKind


class OwnAgent(ModelKind):
    """Fields that any kind of model has besides its own if it joins the experiment as an agent trained elsewhere."""

    of: str = Field(description="The source model that it is compared with.")
    recipe: Recipe = Field(
        description="What it was trained for. It is a point of its own, named by its key: safe of `mine` is safe@mine. "
        "Those that are one point are given a variant in common: safe@ours."
    )
    judge: str = Field(description="The judge that counts as its pairs' in `match`; any, if it had none.")
    beta: float | None = Field(None, gt=0, description="DPO's beta; null where there was none, or nobody knows.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the parts that pickle it. Its class is made here, so that no module has it."""
        return _blank, (type(self).__bases__[0],), self.__getstate__()


@functools.cache
def joining(kind: type[ModelKind]) -> type[OwnAgent]:
    """Return a kind of model whose fields include those of `OwnAgent`."""
    made = create_model(kind.__name__, __base__=(kind, OwnAgent), __module__=kind.__module__)
    return cast("type[OwnAgent]", made)


def _blank(kind: type[ModelKind]) -> OwnAgent:
    made = joining(kind)
    return made.__new__(made)
