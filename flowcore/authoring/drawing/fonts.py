"""How wide a text will be, without a font at hand: an estimate on the wide side, so that text stays in its box."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

# In thousandths of the font's size, by the look of the letter; between Helvetica's and the wider DejaVu Sans'.
_CLASSES = (("iljI.,:;'|!`", 300), ('ft()[]{}r-/\\" ', 370), ("mwMW@%", 900), ("ABCDEGHKNOPQRSUVXYZ&_#<>=+~", 690))
_WIDTHS = {letter: size for letters, size in _CLASSES for letter in letters}
_OTHER, _SQUARE = 585, 1050


@dataclass(frozen=True, slots=True)
class Font:
    """A size in pixels, and a weight."""

    size: int
    bold: bool = False


def width(text: str, font: Font) -> int:
    """Pixels, rounded up."""
    thousandths = sum(_width(letter) for letter in text) * font.size
    return -(-thousandths * (107 if font.bold else 100) // 100_000)


def shortened(text: str, font: Font, room: int) -> str:
    """The text as far as there is room, on one line, with an ellipsis where something is missing."""
    line = " ".join(text.split())
    if width(line, font) <= room:
        return line
    left = room - width("…", font)
    kept = 0
    for letter in line:
        left -= width(letter, font)
        if left < 0:
            break
        kept += 1
    return line[:kept].rstrip() + "…"


def _width(letter: str) -> int:
    if letter in _WIDTHS:
        return _WIDTHS[letter]
    if letter.isascii():
        return _OTHER
    if unicodedata.combining(letter):
        return 0
    return _SQUARE if unicodedata.east_asian_width(letter) in "WF" else 690
