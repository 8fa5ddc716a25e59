"""OpenUSD's own validators."""

from __future__ import annotations

from pxr import Usd, UsdValidation


def remarks(stage: Usd.Stage) -> list[str]:
    """Complaints about a stage by all validators that usd-core brings."""
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 20
    return [error.GetMessage() for error in UsdValidation.ValidationContext(validators).Validate(stage)]
