"""The colours of a report by role, for light and dark screens; figures are drawn in the light ones.

The series are told apart by people who see no red or green too (Okabe and Ito, "Color Universal Design", 2008), and
text has a contrast of 4.5 or more on its ground.
"""

from typing import Final

COLOURS: Final = {
    "ground": ("#fbfbf9", "#14171a"),
    "sheet": ("#ffffff", "#1c2024"),
    "ink": ("#1b1f23", "#e8eaed"),
    "soft": ("#59626c", "#a4adb8"),
    "line": ("#e2e5e8", "#32383f"),
    "accent": ("#0b63a5", "#6cb6f0"),
    "weights": ("#2f6fb0", "#4f92d6"),
    "kv-cache": ("#e69f00", "#e9ab2e"),
    "compute": ("#00805d", "#22b48b"),
    "overhead": ("#75639a", "#a595c4"),
    "on-part": ("#fefefe", "#101214"),
    "on-kv-cache": ("#1a1a1a", "#101215"),
    "limit": ("#b3361b", "#f08a6c"),
    "too-much": ("rgba(179, 54, 27, 0.07)", "rgba(240, 138, 108, 0.10)"),
    "band": ("rgba(47, 111, 176, 0.16)", "rgba(79, 146, 214, 0.24)"),
    "measured": ("#c2410c", "#fb923c"),
    "warn": ("#8a5a00", "#f2c14e"),
    "warn-ground": ("#fff7e0", "#2e2613"),
}


def light(role: str) -> str:
    """The colour of a role on a light screen."""
    return COLOURS[role][0]


def variables() -> str:
    """The colours as CSS custom properties: light ones, and dark ones where the reader's system prefers them."""

    def block(which: int) -> str:
        return "".join(f"--{role}:{pair[which]};" for role, pair in COLOURS.items())

    return f":root{{{block(0)}}}@media (prefers-color-scheme: dark){{:root{{{block(1)}}}}}"
