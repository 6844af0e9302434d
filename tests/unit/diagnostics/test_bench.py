"""diagnostics/bench.py: the network alone."""

from __future__ import annotations

from typing import Any

import torch

from repsr_cli.diagnostics import bench
from repsr_cli.diagnostics.bench import measure_model, measure_speed
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR, identity_network
from repsr_cli.model.spec import Spec
from tests.unit.engine.test_cuda_batches import on_a_gpu


def test_frames_under_way_together_are_counted_singly(monkeypatch: Any) -> None:
    torch.manual_seed(0)
    net, begun = PlainSR(Spec(2, 8, 1)).eval(), []

    def lent_a_gpu(_upscaler: Any, fmt: Any, _fmt_out: Any, reuse: bool) -> Any:
        planes = on_a_gpu(net, fmt, monkeypatch, batch=2, reuse=reuse)
        begin = planes.begin

        def counted(frame: Any, *rest: Any) -> Any:
            begun.append(frame)
            return begin(frame, *rest)

        monkeypatch.setattr(planes, "begin", counted)
        return planes

    upscaler = Upscaler(net, device="cpu", threads=1)
    monkeypatch.setattr(bench, "PlaneUpscaler", lent_a_gpu)
    peak, row = measure_model(net, upscaler, (16, 24), rounds=1)
    # One to begin with; then four timed runs of four batches each, of two frames, twice over for the two slots.
    assert len(begun) == 1 + 4 * 16
    assert row.frames == 1
    assert peak > 0
    assert row.facts["size"] == "24x16"
    assert row.facts["precision"] == "fp32"
    assert row.facts["cores_busy"] > 0


def test_speed_is_a_number() -> None:
    assert measure_speed(identity_network(2), "cpu", (16, 16)) > 0
