"""Names, settings and counts as LaTeX: escaping, lists and small numbers in words."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}

# Latin-1 and these are in LaTeX's T1 fonts or set up in its kernel.
_KNOWN = frozenset(
    "ĂăĄąĆćČčĎďĐđĘęĚěĞğĹĺĽľŁłŃńŇňŊŋŐőŒœŔŕŘřŚśŞşŠšŢţŤťŰűŮůŸŹźŻżŽžİı"
    "\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2020\u2021\u2022\u2026\u20ac\u2122"
)

# These it does not set up in text.
_UNICODE = {
    "\u2212": "$-$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u2248": r"$\approx$",
    "\u2192": r"$\to$",
    "\u03c4": r"$\tau$",
    "\u00d7": r"$\times$",
    "\u00b1": r"$\pm$",
}

_WORDS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "twenty",
)


def tex(text: object) -> str:
    """Text of the user's as LaTeX that prints it; line breaks become spaces."""
    return "".join(map(_letter, " ".join(str(text).split())))


def _letter(letter: str) -> str:
    """One character; of those that no Latin font has, the letter without its marks, or the code point."""
    if found := _ESCAPES.get(letter) or _UNICODE.get(letter):
        return found
    if letter.isascii() or "\u00a0" <= letter <= "\u00ff" or letter in _KNOWN:
        return letter if letter.isprintable() or letter == "\u00ad" else ""
    bare = "".join(part for part in unicodedata.normalize("NFKD", letter) if part.isascii())
    return "".join(_ESCAPES.get(part, part) for part in bare) or f"[U+{ord(letter):04X}]"


def step(text: str) -> str:
    """What a row adds or removes; a leading sign is set as one."""
    sign, _, rest = text.strip().partition(" ")
    return f"${sign}$~{tex(rest)}" if sign in ("+", "-") and rest else tex(text)


def code(text: object) -> str:
    """A setting's name or value in typewriter."""
    return rf"\texttt{{{tex(text)}}}"


def words(count: int) -> str:
    """A small count in words."""
    return _WORDS[count] if count < len(_WORDS) else str(count)


def listing(items: Iterable[str]) -> str:
    """Items (LaTeX already) as `a, b and c`."""
    items = list(items)
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def value(given: Any) -> str:
    """The value of a setting as plain text."""
    if given is None:
        return "none"
    if isinstance(given, bool):
        return "on" if given else "off"
    if isinstance(given, Mapping):
        return ", ".join(f"{key} {value(inner)}" for key, inner in given.items())
    if isinstance(given, list | tuple):
        return ", ".join(value(item) for item in given)
    return f"{given:g}" if isinstance(given, float) else str(given)


def per_stage(ratios: Sequence[float]) -> str:
    """Keep ratios of stages; equal ones are said once."""
    if len(ratios) > 1 and len(set(ratios)) == 1:
        return f"{value(ratios[0])} at each of {len(ratios)} stages"
    return value(ratios)


def plain(latex: str) -> str:
    """A number or interval that `formatting` printed, without LaTeX."""
    for marked, text in (("$", ""), (r"\times", "\u00d7"), (r"\%", "%"), (r"\,", "\u2009"), ("{>}", ">")):
        latex = latex.replace(marked, text)
    return latex.replace("-", "\u2212") if latex != "---" else latex
