"""Make the pictures of the pages: every study's in each language, and a contact sheet.

``python -m docs.build_pictures [STUDY ...]``, from the checkout's root. Kept are those that a page
shows, with 256 colours, which is a third of the size and looks the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from fastnn import augment, data, studies

DOCS = Path(__file__).parent
PAGES = {"en": DOCS / "concepts.md", "ko": DOCS / "ko" / "concepts.md"}
SHEET = "augmentation"
_COLOURS = 256


def main(names: Sequence[str]) -> None:
    """Make the pictures of these studies, or of all, and remove those that no page shows."""
    for name in names or (*studies.STUDIES, SHEET):
        with TemporaryDirectory() as folder:
            made = Path(folder)
            for language in _draw(name, made):
                for picture in shown(PAGES[language]):
                    if (made / picture.name).exists():
                        picture.parent.mkdir(exist_ok=True)
                        _write(made / picture.name, picture)
    for page in PAGES.values():
        for picture in set((page.parent / "pictures").glob("*.png")) - set(shown(page)):
            picture.unlink()


def shown(page: Path) -> list[Path]:
    """The pictures that a page shows, in its order."""
    text = page.read_text(encoding="utf-8")
    return [page.parent / picture for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)]


def _draw(name: str, folder: Path) -> Iterator[str]:
    """Write a study's pictures into a folder in one language after the other; yields it."""
    results = None if name == SHEET else studies.run(name)
    for language in PAGES:
        if results:
            results.save(folder, language)
        else:
            X, _ = data.digits()
            sheet = folder / f"{SHEET}.png"
            augment.preview(X, shape=(8, 8), epochs=6, path=sheet, language=language)
        yield language


def _write(made: Path, picture: Path) -> None:
    image = Image.open(made).convert("RGB")
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
