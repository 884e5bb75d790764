"""Types with bounds for the fields of a Config. Options are checked against them before `tune` starts."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
"""An option of at least 1. Options are checked against the bounds of their types before `tune` starts."""

Several: TypeAlias = Annotated[int, msgspec.Meta(ge=2)]
"""An option of at least 2, such as the population of an evolution strategy."""

Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
"""An option above 0. Numbers are always finite."""

NonNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
"""An option of at least 0."""

Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""An option from 0 to 1."""
