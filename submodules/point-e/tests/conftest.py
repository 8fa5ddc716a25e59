"""Settings that all tests of this package share, for it is tested alone too."""

from hypothesis import settings

# How long an example takes does not show whether it is right.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
