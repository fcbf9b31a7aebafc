"""Waiting until the machine has its cores to itself, which a shared one has by turns."""

from __future__ import annotations

import time

from .roofline import cores_at_hand

QUIET = 0.9
"""Share of the cores whose multiply-adds must be there."""
_BETWEEN_LOOKS = 1.0


class Quiet:
    """Called before a round, waits as long as less than all cores are there, in all ``patience``.

    A neighbour on the same machine takes a core's arithmetic or half of it for minutes. What needs
    all cores is then measured against what needs one, whichever library it is.

    Parameters
    ----------
    threads : int
        Cores that there should be.
    patience : float
        Seconds to wait in all; then rounds go on, and are counted.

    Attributes
    ----------
    waited : float
        Seconds.
    disturbed : int
        Rounds that began with less than all cores.
    """

    def __init__(self, threads: int, patience: float) -> None:
        self.threads, self.patience = threads, patience
        self.waited, self.disturbed = 0.0, 0

    def __call__(self) -> None:
        begun = time.monotonic()
        while not (quiet := cores_at_hand(self.threads) >= QUIET * self.threads):
            if self.waited + time.monotonic() - begun >= self.patience:
                break
            time.sleep(_BETWEEN_LOOKS)
        self.waited += time.monotonic() - begun
        self.disturbed += not quiet

    def report(self) -> dict[str, float]:
        """What there was to wait for."""
        return {"seconds waited for cores": round(self.waited), "disturbed rounds": self.disturbed}
