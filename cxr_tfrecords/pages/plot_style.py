"""How every picture of this project looks: matplotlib's settings that they share."""

from typing import Any

STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "text.parse_math": False,  # else a class name with two `$` would be drawn as a formula
}
