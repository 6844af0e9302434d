"""What is known to go wrong still: each line leaves with the change that mends it.

A pattern is searched for in ``kind | command | what | what was wrong``.
"""

from __future__ import annotations

import re
from typing import Any

KNOWN: tuple[str, ...] = (
    # Closed and full streams, and streams whose reader is gone.
    r"^streams \| .* \| (exit 1: |exit 1, though|exit 1 without|traceback)",
    # A file that appears while the command runs.
    r"^appears \| .* \| (exit 0 though|replaced what|wrote into|left behind: others/new|exit 0, but)",
    # A finished target that goes away with its folder while the rest is tidied up.
    r"^vanish \| .* \| exit 0, but out/.* is missing",
    # Errors of the system that are not translated.
    r"^(errno|short|vanish|appears|links|limits) \| .* \| traceback",
    # Leftovers between the final name and tidying up.
    r"\| rerun: (left behind: out/\.|exit 2: .* exists)",
    # Links and folders of other owners under temporary names.
    r"^links \| .* \| (changed|removed|left behind: others/new|exit 0)",
    # Names.
    r"^names \| .* \| (traceback|control characters)",
    # Damaged inputs.
    r"^files \| .* \| traceback",
    # Libraries that look for a network.
    r"\| network: ",
)


def unknown(record: dict[str, Any]) -> list[str]:
    """What was wrong in a trial, without what is known."""
    head = f"{record['kind']} | {record['command']} | {record['what']} | "
    return [each for each in record["found"] if not any(re.search(pattern, head + each) for pattern in KNOWN)]
