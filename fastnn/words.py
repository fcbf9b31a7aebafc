"""The words in figures, in the languages that they are drawn in."""

from __future__ import annotations

from . import checks
from .korean import KOREAN

LANGUAGES = {"en": {}, "ko": KOREAN}
"""The texts of each language by what they are in English; English needs none."""


class Words:
    """Says an English text in a language.

    Parameters
    ----------
    language : "en" or "ko", default "en"

    Raises
    ------
    ValueError
        For another language.

    Examples
    --------
    >>> say = Words("ko")
    >>> say("epoch")
    '에포크'
    >>> Words()("best epoch: {epoch}", epoch=7)
    'best epoch: 7'
    """

    def __init__(self, language: str = "en") -> None:
        self._catalogue: dict[str, str] = checks.lookup("language", language, LANGUAGES)
        self.language = language

    def __call__(self, text: str, **values: object) -> str:
        """The text in this language, with values in its braces.

        Raises
        ------
        KeyError
            For a text that has no translation.
        """
        said = self._catalogue[text] if self.language != "en" else text
        return said.format(**values) if values else said
