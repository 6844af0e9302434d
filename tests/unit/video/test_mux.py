"""Muxing."""

from __future__ import annotations

import av


def test_av_is_new_enough_for_what_is_used_of_it() -> None:
    assert hasattr(av.video.stream.VideoStream, "set_display_matrix")
    assert hasattr(av.container.OutputContainer, "add_attachment")
