"""A shell for the launchers of studies: a stand-in for trainer.compare notes its flags by part.

Then it does what $BEHAVIOUR says: a piece of shell that sees $part, such as 2-of-3 or gather, and
$attempt, from 1.
"""

from __future__ import annotations

from tests.launch.train_shell import TrainShell, replace

COMPARE = """#!/usr/bin/env bash
part=gather
for word; do [[ "$word" != --cells=* ]] || part="${word#--cells=}"; done
part="${part//\\//-of-}"
echo >>"$NOTES/attempts-$part"
attempt=$(($(wc -l <"$NOTES/attempts-$part")))
printf '%s\\n' "$@" >"$NOTES/part-$part"
eval "$BEHAVIOUR"
"""


class StudyShell(TrainShell):
    """Runs launchers that start studies; `parts` has the flags of each part."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        replace(self.bin / "python3", COMPARE)

    def parts(self) -> dict[str, list[str]]:
        return {
            path.name.removeprefix("part-"): path.read_text().splitlines()
            for path in sorted(self.notes.glob("part-*"))
        }

    def tries(self, part: str) -> int:
        return len((self.notes / f"attempts-{part}").read_text())
