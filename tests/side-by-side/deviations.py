"""Where ours is meant to differ from libextism 1.41: every difference that the scripts may see."""

from typing import Any, NamedTuple


class Deviation(NamedTuple):
    """`script` and `path` may hold `*`. `ours` is the one value that ours must have."""

    script: str
    path: str
    ours: Any
    why: str
    # The reference's value depends on chance (freed memory, timing): it may happen to be equal.
    unstable: bool = False

    def allows(self, value):
        return self.ours == value


DEVIATIONS: list[Deviation] = []
