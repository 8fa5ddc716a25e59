"""Errors that a user reads when a point cloud cannot be made."""

from __future__ import annotations


class PointEError(Exception):
    """Error whose message is one sentence on one line: what is wrong, and what would be right."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def reason_of(error: BaseException) -> str:
    """Reason that another library's error gives, short enough to stand within a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    return (first if len(first) <= 200 else first[:200] + " ...").rstrip(".:; ")
