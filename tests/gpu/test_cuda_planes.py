"""NVDEC and NVENC on a GPU: the same planes as in software, every frame at its time, nothing by way of the host."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.dlpack import from_dlpack

from repsr_cli.yuv.device_planes import on_host

pytest.importorskip("av")

from av.codec.hwaccel import hwdevices_available

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.request import Request
from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.cuda_planes import frame_of, missing_device
from repsr_cli.video.decode import Decoder
from repsr_cli.video.encode import SegmentEncoder, nvenc_refusal, open_encoder
from repsr_cli.video.encoders import Encoding, encoder_options, gpu_format
from repsr_cli.video.nvdec import Nvdec, find_nvdec, nvdec_refusal
from repsr_cli.video.probe import probe
from repsr_cli.video.timeline import cut, scan
from repsr_cli.yuv.device_planes import DevicePlanes
from tests.sample_videos import damage, decoded, frame_times, image, make_video, other_packets
from tests.upscaling import upscale_video

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or "cuda" not in hwdevices_available(),
        reason="needs a CUDA device, and PyAV with support for it",
    ),
]
SIZE = (288, 352)
VFR = (0, 40, 90, 120, 200, 233, 267, 300, 420, 440, 480, 520)


def test_ffmpeg_uses_a_gpu_that_torch_has_opened() -> None:
    torch.zeros(1, device="cuda")
    assert missing_device(0) is None
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(missing_device, 0).result() is None
    assert float(torch.ones(3, device="cuda").sum()) == 3


@pytest.fixture
def nvdec() -> None:
    if (why := nvdec_refusal(0)) is not None:
        pytest.skip(f"needs NVDEC ({why})")


@pytest.fixture(params=["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def nvenc(request: pytest.FixtureRequest) -> str:
    codec: str = request.param
    if (why := nvenc_refusal(codec)) is not None:
        pytest.skip(f"needs {codec} ({why})")
    return codec


def on_gpu(planes: tuple[np.ndarray, ...], pix_fmt: str) -> DevicePlanes:
    """Planes in one allocation on the GPU, with lines that are padded, as an engine gives them."""
    height, width = planes[0].shape
    shift, dtype = (0, torch.uint8) if pix_fmt == "nv12" else (6, torch.uint16)
    memory = torch.zeros(height * 3 // 2, width + 64, dtype=dtype, device="cuda")
    luma, chroma = memory[:height, :width], memory[height:, :width].unflatten(1, (width // 2, 2))  # type: ignore[no-untyped-call]
    luma.copy_(torch.from_numpy(planes[0] << shift))
    chroma.copy_(torch.from_numpy(np.stack(planes[1:], axis=-1) << shift))
    torch.cuda.synchronize()
    return DevicePlanes((luma, chroma), pix_fmt, height, width, shift)


def encoding(codec: str, pix_fmt: str = "yuv420p") -> Encoding:
    options = encoder_options(codec, 12, None, {}, None)
    tags = ColourTags(1, 1, 1, 1, "left")
    return Encoding(codec, pix_fmt, *SIZE, Fraction(1, 1000), Fraction(25), None, tags, options)


@pytest.mark.usefixtures("nvdec")
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("libx265", "yuv420p", "mp4"),
        ("libx265", "yuv420p10le", "mkv"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("libsvtav1", "yuv420p", "mkv"),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
def test_nvdec_gives_the_planes_of_software(tmp_path: Path, codec: str, pix_fmt: str, suffix: str, keep: bool) -> None:
    options = {"bf": "3"} if codec == "libx264" else {}
    video = make_video(
        tmp_path / f"a.{suffix}", range(30), size=SIZE, codec=codec, pix_fmt=pix_fmt, options=options, gop=10
    )
    source = probe(video)
    found, timeline = find_nvdec(source, 0), scan(source)
    if isinstance(found, str):
        pytest.skip(found)
    for segment in cut(timeline, source.start, None, 8):
        first = segment.first if segment.index else None
        frames = list(Decoder(source, timeline, nvdec=found, keep_on_gpu=keep).frames(first, segment.end))
        expected = list(Decoder(source, timeline).frames(first, segment.end))
        assert [(f.pts, f.duration) for f in frames] == [(f.pts, f.duration) for f in expected]
        for ours, theirs in zip(frames, expected, strict=True):
            assert isinstance(ours.planes, DevicePlanes) == keep
            planes = ours.planes
            if isinstance(planes, DevicePlanes):
                luma, chroma = (from_dlpack(plane) for plane in planes.planes)
                assert luma.is_cuda
                read = [(plane.cpu().numpy() >> planes.shift) for plane in (luma, chroma[..., 0], chroma[..., 1])]
                assert all(np.array_equal(a, b) for a, b in zip(read, on_host(theirs.planes), strict=True))
            assert all(np.array_equal(a, b) for a, b in zip(on_host(planes), on_host(theirs.planes), strict=True))


@pytest.mark.usefixtures("nvdec")
def test_what_was_read_stays_while_the_decoder_goes_on(tmp_path: Path) -> None:
    source = probe(make_video(tmp_path / "a.mp4", range(40), size=SIZE))
    found = find_nvdec(source, 0)
    assert isinstance(found, Nvdec), found
    held = list(Decoder(source, scan(source), nvdec=found, keep_on_gpu=True).frames())
    for frame, expected in zip(held, decoded(source.path), strict=True):
        assert isinstance(frame.planes, DevicePlanes)
        assert all(np.array_equal(a, b) for a, b in zip(frame.planes.on_host(), expected, strict=True))


@pytest.mark.usefixtures("nvdec")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_whole_video_by_nvdec_is_the_one_by_software(tmp_path: Path, device: str) -> None:
    video = make_video(tmp_path / "in.mkv", VFR, Fraction(1, 1000), size=SIZE, audio=2)
    for name in ("none", "cuda"):
        options = Request.of(hwaccel=name, codec="ffv1")
        upscaler = Upscaler(identity_network(2), device=device)
        outcome = upscale_video(video, tmp_path / f"{name}.mkv", upscaler, options, Reporter())
        assert outcome.facts["decoder"] == {"none": "software", "cuda": "nvdec"}[name]
    assert frame_times(tmp_path / "cuda.mkv") == frame_times(tmp_path / "none.mkv")
    assert other_packets(tmp_path / "cuda.mkv") == other_packets(video)
    for ours, theirs in zip(decoded(tmp_path / "cuda.mkv"), decoded(tmp_path / "none.mkv"), strict=True):
        assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.usefixtures("nvdec")
def test_a_damaged_video_loses_no_frame_in_silence(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", range(40), size=SIZE, options={"bf": "0"})
    source = probe(damage(video, tmp_path / "b.mp4", 17))
    found, timeline = find_nvdec(source, 0), scan(source)
    assert isinstance(found, Nvdec), found
    frames = list(Decoder(source, timeline, "keep", nvdec=found).frames())
    assert [frame.pts for frame in frames] == list(timeline.pts)


def test_every_frame_of_nvenc_comes_at_its_time(tmp_path: Path, nvenc: str) -> None:
    video = make_video(tmp_path / "in.mkv", VFR, Fraction(1, 1000), size=SIZE)
    options = Request.of(codec=nvenc, crf=8)
    upscale_video(video, tmp_path / "out.mkv", Upscaler(identity_network(2), device="cuda"), options, Reporter())
    assert [time for time, _ in frame_times(tmp_path / "out.mkv")] == [time for time, _ in frame_times(video)]
    written, there = probe(tmp_path / "out.mkv").found, probe(video).found
    assert replace(written, siting=None) == replace(there, siting=None)
    for ours, theirs in zip(decoded(tmp_path / "out.mkv"), decoded(video), strict=True):
        assert np.abs(ours[0][::2, ::2].astype(int) - theirs[0]).mean() < 12


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_planes_on_the_gpu_are_encoded_as_those_in_memory(nvenc: str, pix_fmt: str) -> None:
    settings = encoding(nvenc, pix_fmt)
    gpu = gpu_format(settings)
    assert gpu is not None
    try:
        open_encoder(settings)
    except Exception as error:  # H.264 of 10 bits, on most GPUs
        pytest.skip(str(error))
    packets = []
    for way in (lambda planes: planes, lambda planes: on_gpu(planes, gpu)):
        encoder = SegmentEncoder(settings)
        made = [p for n in range(12) for p in encoder.encode(way(image(n, *SIZE, pix_fmt)), 40 * n, 40)]
        packets.append([*made, *encoder.finish()])
        assert all(packet.dts <= packet.pts for packet in packets[-1])
    assert packets[0] == packets[1]
    assert frame_of(on_gpu(image(0, *SIZE, pix_fmt), gpu)).format.name == "cuda"


def test_segments_of_nvenc_have_one_header(nvenc: str) -> None:
    headers = {bytes(open_encoder(encoding(nvenc)).extradata or b"") for _ in range(3)}
    assert len(headers) == 1
    assert headers != {b""}
