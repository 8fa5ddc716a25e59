"""Files that accidents and attackers make of sound ones."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable, Sequence

GIB = 1 << 30


def mangled(content: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    """Return `content` with one to five accidents: bytes changed, cut out, doubled, or replaced by one of `words`."""
    mixed = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        a = chance.randrange(len(mixed) + 1)
        b = min(len(mixed), a + chance.choice((1, 1, 2, 4, 30, 1000)))
        kind = chance.randrange(6)
        if kind == 0 and a < len(mixed):
            mixed[a] = chance.randrange(256)
        elif kind == 1:
            del mixed[a:b]
        elif kind == 2:
            mixed[a:a] = mixed[a:b] * chance.choice((1, 2, 50))
        elif kind == 3:
            mixed[a:b] = chance.choice(words)
        elif kind == 4:
            mixed[a:a] = chance.choice(words)
        else:
            del mixed[a:]
    return bytes(mixed)


class Watched:
    """Runner of functions, which together may take no more than a GiB of memory above that at the start."""

    def __init__(self) -> None:
        self._before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __call__(self, act: Callable[[], object], allowed: tuple[type[Exception], ...]) -> str | None:
        """Return the message of `act`'s error if it is one of `allowed`, None if there is none."""
        try:
            act()
            return None
        except allowed as error:
            return str(error)

    def check(self) -> None:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._before) * 1024
        assert grown < GIB
