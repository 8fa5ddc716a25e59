"""Numbers that are not finite, where a file or a picture needs ones that are."""


class NotFiniteError(ValueError):
    """Values that are not finite cannot be written or shown. The message is one sentence."""
