"""Planes on a GPU, NVDEC and NVENC, as far as they can be tried without a GPU: DLPack knows host memory as well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.codec.hwaccel import HWAccel
from av.video.format import VideoFormat
from av.video.frame import CudaContext, VideoFrame
from av.video.reformatter import VideoReformatter
from torch.utils.dlpack import from_dlpack

from repsr_cli.diagnostics import doctor
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import DeviceError, MediaError, UsageError
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.plan_video import plan_video
from repsr_cli.upscale.request import Request
from repsr_cli.video import cuda_planes as video_cuda
from repsr_cli.video import encode as video_encode
from repsr_cli.video import nvdec as video_nvdec
from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.cuda_planes import device_planes, downloaded, frame_of, missing_device
from repsr_cli.video.decode import Decoder
from repsr_cli.video.encode import SegmentEncoder, nvenc_refusal, open_encoder
from repsr_cli.video.encoders import NVENC, Encoding, choose_pix_fmt, encoder_options, gpu_format
from repsr_cli.video.frames import read_planes
from repsr_cli.video.nvdec import GIVEN, Nvdec, find_nvdec
from repsr_cli.video.open import new_decoder
from repsr_cli.video.planes import Planes, new_frame, planes_of
from repsr_cli.video.probe import VideoSource, probe
from repsr_cli.video.timeline import cut, scan
from repsr_cli.yuv.device_planes import DevicePlanes
from repsr_cli.yuv.formats import PlaneFormat
from tests.sample_videos import damage, frame_times, image, make_video, video_packets
from tests.upscaling import upscale_video, weight

WITHOUT_GPU = pytest.mark.skipif(missing_device(0) is None, reason="needs a machine without a GPU")


def encoding(**changes: object) -> Encoding:
    plain = Encoding("libx264", "yuv420p", 36, 66, Fraction(1, 25), Fraction(25), None, ColourTags(1, 1, 1, 1, "left"))
    return replace(plain, **changes)  # type: ignore[arg-type]


def given(planes: Planes, planar: str, pix_fmt: str) -> VideoFrame:
    """A frame in a format of NVDEC: values in the high bits, chroma interleaved where the format has it."""
    depth, whole = VideoFormat(planar).components[0].bits, VideoFormat(pix_fmt)
    height, width = planes[0].shape
    frame = VideoFrame(width, height, pix_fmt)
    shifted = [plane << (0 if depth == 8 else 16 - depth) for plane in planes]
    two = max(component.plane for component in whole.components) == 1
    for index, plane in enumerate([shifted[0], np.stack(shifted[1:], axis=-1)] if two else shifted):
        lines = np.frombuffer(memoryview(frame.planes[index]), np.uint8).reshape(plane.shape[0], -1)
        row = np.ascontiguousarray(plane.reshape(plane.shape[0], -1)).view(np.uint8)
        lines[:, : row.shape[1]] = row
    return frame


def same(a: Planes, b: Planes) -> bool:
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# Planes


@pytest.mark.parametrize(("planar", "pix_fmt"), GIVEN.items())
@pytest.mark.parametrize("full", [False, True])
def test_what_comes_down_from_a_gpu_are_the_same_codes(planar: str, pix_fmt: str, full: bool) -> None:
    planes = image(1, 36, 66, planar, full=True)
    frame = given(planes, planar, pix_fmt)
    frame.pts, frame.colorspace, frame.color_range = 7, 1, 2 if full else 1
    down = downloaded(frame, planar)
    assert same(planes_of(down, planar), planes)
    assert (down.pts, down.color_range) == (7, 2 if full else 1)


def test_no_thread_of_the_conversion_writes_into_the_lines_of_another() -> None:
    planes = image(1, 36, 1366, "yuv420p10le")
    frame = given(planes, "yuv420p10le", "p010le")
    reformatter = VideoReformatter()
    for _ in range(100):
        assert same(planes_of(downloaded(frame, "yuv420p10le"), "yuv420p10le"), planes)
        assert same(read_planes(frame, "yuv420p10le", reformatter)[0], planes)


@pytest.mark.parametrize(("planar", "pix_fmt"), [("yuv420p10le", "p010le"), ("yuv444p10le", "yuv444p10msble")])
@pytest.mark.parametrize("full", [False, True])
def test_what_goes_up_to_a_gpu_are_the_same_codes(planar: str, pix_fmt: str, full: bool) -> None:
    planes = image(1, 36, 66, planar, full=True)
    frame = new_frame(planes, planar)
    frame.colorspace, frame.color_range = 1, 2 if full else 1
    up, expected = downloaded(frame, pix_fmt), given(planes, planar, pix_fmt)
    for ours, theirs in zip(up.planes, expected.planes, strict=True):
        assert np.array_equal(np.from_dlpack(ours), np.from_dlpack(theirs))


@pytest.mark.parametrize(
    ("planar", "pix_fmt", "shift"), [("yuv420p", "nv12", 0), ("yuv420p10le", "p010le", 6), ("yuv420p12le", "p016le", 4)]
)
def test_planes_on_a_device_say_how_to_read_them(planar: str, pix_fmt: str, shift: int) -> None:
    expected = image(1, 36, 66, planar)
    planes = device_planes(given(expected, planar, pix_fmt), VideoFormat(planar).components[0].bits)
    assert (planes.pix_fmt, planes.shift) == (pix_fmt, shift)
    assert planes.nbytes == sum(plane.nbytes for plane in expected)
    luma, chroma = (from_dlpack(plane).numpy() >> shift for plane in planes.planes)
    assert (luma.shape, chroma.shape) == ((36, 66), (18, 33, 2))
    assert same((luma, chroma[..., 0], chroma[..., 1]), expected)
    assert same(planes.on_host(), expected)


def test_a_plane_is_handed_to_consumers_that_name_a_stream() -> None:
    plane = device_planes(given(image(0, 36, 66, "yuv420p"), "yuv420p", "nv12"), 8).planes[0]
    assert plane.__dlpack__(stream=1, max_version=(1, 0)) is not None
    assert plane.__dlpack_device__() == (1, 0)


def test_a_frame_for_the_encoder_is_the_memory_of_the_planes() -> None:
    memory = torch.zeros(36 * 3 // 2, 128, dtype=torch.uint8)
    luma, chroma = memory[:36, :66], memory[36:, :66].view(18, 33, 2)
    frame = frame_of(DevicePlanes((luma, chroma), "nv12", 36, 66))
    memory[0, 0] = 99
    assert (frame.format.name, frame.width, frame.height, frame.planes[0].line_size) == ("nv12", 66, 36, 128)
    assert bytes(frame.planes[0])[0] == 99
    with pytest.raises(ValueError, match="one allocation"):
        frame_of(DevicePlanes((luma, chroma.clone()), "nv12", 36, 66))


def test_the_engine_takes_planes_of_a_device() -> None:
    expected = image(0, 36, 66, "yuv420p")
    planes = device_planes(given(expected, "yuv420p", "nv12"), 8)
    fmt = PlaneFormat("bt709", full_range=False, depth=8, subsample=(2, 2), siting="left")
    assert same(PlaneUpscaler(Upscaler(identity_network(1), device="cpu"), fmt, fmt)(planes), expected)


# NVDEC, played by the decoder for processors


class Gpu:
    """Decodes as NVDEC does, but in memory: frames come in its formats."""

    def __init__(self, codec: str, settings: dict[str, Any], device: int) -> None:
        self.context = new_decoder(codec, settings)
        self.context.thread_count = 1

    def decode(self, packet: Any) -> list[VideoFrame]:
        frames = self.context.decode(packet)
        return [downloaded(f, GIVEN[f.format.name.replace("yuvj", "yuv")]) for f in frames]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_nvdec, "_decoder", Gpu)
    monkeypatch.setattr(video_nvdec, "need_device", lambda *_: None)


def nvdec(source: VideoSource) -> Nvdec:
    found = find_nvdec(source, 0)
    assert isinstance(found, Nvdec), found
    return found


def seen(frames: Iterator[Any]) -> list[tuple[int, int, list[bytes]]]:
    return [
        (
            f.pts,
            f.duration,
            [p.tobytes() for p in (f.planes.on_host() if isinstance(f.planes, DevicePlanes) else f.planes)],
        )
        for f in frames
    ]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("pix_fmt", "codec", "size"),
    [("yuv420p", "libx264", (36, 66)), ("yuv420p10le", "libx265", (66, 64)), ("yuv420p", "libvpx-vp9", (35, 63))],
)
def test_a_gpu_gives_the_frames_of_software(
    tmp_path: Path, keep: bool, pix_fmt: str, codec: str, size: tuple[int, int]
) -> None:
    source = probe(make_video(tmp_path / "a.mkv", range(30), codec=codec, pix_fmt=pix_fmt, size=size, gop=10))
    timeline = scan(source)
    on_gpu = Decoder(source, timeline, nvdec=nvdec(source), keep_on_gpu=keep)
    for segment in cut(timeline, source.start, None, 8):
        first = segment.first if segment.index else None
        frames = list(on_gpu.frames(first, segment.end))
        assert seen(iter(frames)) == seen(Decoder(source, timeline).frames(first, segment.end))
        stays = keep and size[0] % 2 == 0
        assert {isinstance(frame.planes, DevicePlanes) for frame in frames} == {stays}


@pytest.mark.usefixtures("gpu")
def test_full_range_of_old_names_keeps_its_codes(tmp_path: Path) -> None:
    source = probe(make_video(tmp_path / "a.mp4", range(3), pix_fmt="yuvj420p", tags=(1, 2, 1, 1)))
    assert source.pix_fmt == "yuvj420p"
    assert seen(Decoder(source, None, nvdec=nvdec(source)).frames()) == seen(Decoder(source, None).frames())


@pytest.mark.usefixtures("gpu")
def test_interlaced_frames_come_down_for_the_filter(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", range(8), options={"x264-params": "interlaced=1"}, interlaced=True)
    source = probe(path)
    assert source.flagged_interlaced
    filtered = Decoder(source, None, deinterlace=True, nvdec=nvdec(source), keep_on_gpu=True)
    expected = seen(Decoder(source, None, deinterlace=True).frames())
    assert seen(filtered.frames()) == expected
    assert expected != seen(Decoder(source, None).frames())


@pytest.mark.usefixtures("gpu")
def test_a_frame_that_is_missing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = probe(make_video(tmp_path / "a.mkv", range(20), options={"bf": "0"}))
    timeline, found = scan(source), nvdec(source)

    class Lossy(Gpu):
        def decode(self, packet: Any) -> list[VideoFrame]:
            return [frame for frame in super().decode(packet) if frame.pts != timeline.pts[7]]

    monkeypatch.setattr(video_nvdec, "_decoder", Lossy)
    with pytest.raises(MediaError, match=r"the frame at 0\.280 s is missing"):
        list(Decoder(source, timeline, nvdec=found, keep_on_gpu=True).frames())
    keeping = Decoder(source, timeline, "keep", nvdec=found, keep_on_gpu=True)
    frames = list(keeping.frames())
    assert [frame.pts for frame in frames] == list(timeline.pts)
    assert frames[7].planes is frames[6].planes
    assert keeping.repeated == [0.28]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("keep", [False, True])
def test_a_change_of_format_is_not_hidden_by_the_way_down(tmp_path: Path, keep: bool) -> None:
    source = probe(make_video(tmp_path / "a.mkv", range(3)))
    other = Decoder(source, None, nvdec=Nvdec(0, "p010le"), keep_on_gpu=keep)
    with pytest.raises(MediaError, match=r"changes from 64x36 (p010le|yuv420p) to 64x36 nv12"):
        list(other.frames())


@pytest.mark.usefixtures("gpu")
def test_a_damaged_video_ends_as_in_software(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", range(20), options={"bf": "0"})
    source = probe(damage(video, tmp_path / "b.mp4", 7))
    with pytest.raises(MediaError, match=r"0\.280 s"):
        list(Decoder(source, scan(source), nvdec=nvdec(source)).frames())


# Whether there is something to decode on, and to encode on


@pytest.mark.usefixtures("gpu")
def test_codecs_that_are_not_for_the_gpu_are_named(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", range(8), codec="mpeg4")
    plan = plan_video(video, tmp_path / "b.mp4", Request.of(hwaccel="cuda"), weight(2))
    assert plan.nvdec is None
    assert any("decoded in software: NVDEC is used for" in note and "mpeg4" in note for note in plan.notes)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_gives_something_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = probe(make_video(tmp_path / "a.mp4", range(8)))
    assert find_nvdec(replace(source, width=62), 0) == "this GPU gives 64x36 nv12 for it"
    assert find_nvdec(replace(source, planar="gray"), 0) == "NVDEC gives no gray"

    class Refusing(Gpu):
        def decode(self, packet: Any) -> list[VideoFrame]:
            raise av.ArgumentError(22, "no such profile")

    monkeypatch.setattr(video_nvdec, "_decoder", Refusing)
    assert find_nvdec(source, 0) == "this GPU does not decode it (no such profile)"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("plane", [0, 1])
def test_a_gpu_that_gives_other_frames_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plane: int) -> None:
    """The third frame of the first GOP is off by one code value in one sample."""
    video = make_video(tmp_path / "a.mp4", range(12), gop=6)
    assert isinstance(find_nvdec(probe(video), 0), Nvdec)

    class Wrong(Gpu):
        count = 0

        def decode(self, packet: Any) -> list[VideoFrame]:
            frames = super().decode(packet)
            for each in frames:
                self.count += 1
                if self.count == 3:
                    np.frombuffer(memoryview(each.planes[plane]), np.uint8)[5] ^= 1
            return frames

    monkeypatch.setattr(video_nvdec, "_decoder", Wrong)
    assert find_nvdec(probe(video), 0) == "this GPU gives other frames than software, from frame 3 on"
    plan = plan_video(video, tmp_path / "b.mp4", Request.of(hwaccel="cuda"), weight(2))
    assert plan.nvdec is None
    assert any("decoded in software: this GPU gives other frames" in note for note in plan.notes)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_what_an_encoder_gives_is_decoded_and_compared(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders for processors in NVENC's place, and one that is fed something else than what is compared."""
    assert nvenc_refusal(codec) is None
    monkeypatch.setattr(
        video_encode, "new_frame", lambda planes, planar: new_frame(tuple(255 - plane for plane in planes), planar)
    )
    why = nvenc_refusal(codec)
    assert why is not None
    assert "not what it was given: off by" in why


@pytest.mark.usefixtures("gpu")
def test_a_whole_video_is_the_same_by_either_decoder(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mkv", (0, 40, 90, 120, 200), Fraction(1, 1000))
    outcomes = {}
    for name in ("none", "cuda"):
        options = Request.of(hwaccel=name)
        upscaler = Upscaler(identity_network(2), device="cpu", threads=1)
        outcomes[name] = upscale_video(video, tmp_path / f"{name}.mkv", upscaler, options, Reporter())
    assert outcomes["cuda"].facts["decoder"] == "nvdec"
    assert "decoded by NVDEC" in " ".join(outcomes["cuda"].notes)
    assert video_packets(tmp_path / "cuda.mkv") == video_packets(tmp_path / "none.mkv")
    assert [time for time, _ in frame_times(tmp_path / "cuda.mkv")] == [time for time, _ in frame_times(video)]


def test_a_cluster_decodes_in_software(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", range(4))
    with pytest.raises(UsageError, match="--hwaccel cuda: stands beside --ray"):
        plan_video(video, tmp_path / "b.mp4", Request.of(hwaccel="cuda", ray="auto"), weight(2))


@WITHOUT_GPU
def test_without_a_gpu_decoding_on_it_is_an_error(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", range(4))
    with pytest.raises(
        DeviceError, match=r"--hwaccel cuda: needs an NVIDIA GPU, and cuda:1 .* driver, or leave it out"
    ):
        plan_video(video, tmp_path / "b.mp4", Request.of(hwaccel="cuda", device="cuda:1"), weight(2))
    # What the plan's trial would use is refused by FFmpeg, not replaced.
    with pytest.raises(OSError, match="not permitted"):
        new_decoder("h264", {}, HWAccel("cuda", is_hw_owned=True, allow_software_fallback=False))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """torch seems to find two GPUs; those whose contexts are current, the last one at the end."""
    current: list[int] = []

    @contextmanager
    def device(index: int) -> Iterator[None]:
        current.append(index)
        try:
            yield
        finally:
            current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: current.index(index))
    monkeypatch.setattr(video_cuda, "_own", threading.local())
    return current


@pytest.mark.parametrize(
    ("index", "options"), [(1, {"primary_ctx": "0", "current_ctx": "1"}), (2, {"primary_ctx": "1"})]
)
def test_decoders_are_opened_in_the_context_that_torch_uses(
    two_gpus: list[int], monkeypatch: pytest.MonkeyPatch, index: int, options: dict[str, str]
) -> None:
    opened: list[tuple[object, list[int]]] = []

    def opening(_codec: str, _settings: object, accel: HWAccel) -> Any:
        opened.append((accel.options, list(two_gpus)))
        return SimpleNamespace()

    monkeypatch.setattr(video_nvdec, "new_decoder", opening)
    video_nvdec._decoder("h264", {}, index)
    assert opened == [(options, [index] if index < 2 else [])]
    assert not two_gpus


def test_frames_are_given_to_nvenc_in_the_context_that_torch_uses(
    two_gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plane:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 1

    given: list[list[int]] = []

    def from_dlpack(*_: object, cuda_context: object) -> Any:
        assert isinstance(cuda_context, CudaContext)
        given.append(list(two_gpus))
        memory = SimpleNamespace(buffer_ptr=0, line_size=8)
        return SimpleNamespace(planes=(memory, SimpleNamespace(buffer_ptr=32, line_size=8)), height=4)

    monkeypatch.setattr(video_cuda, "VideoFrame", SimpleNamespace(from_dlpack=from_dlpack))
    for _ in range(2):
        frame_of(DevicePlanes((Plane(), Plane()), "nv12", 4, 8, 0))
    assert given == [[1], [1]]


def test_a_gpu_that_torch_cannot_use_is_named_as_missing(
    two_gpus: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(_index: int) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fails)
    monkeypatch.setattr(video_cuda, "hwdevices_available", lambda: ["cuda"])
    assert missing_device(0) == "CUDA error: out of memory"
    source = probe(make_video(tmp_path / "a.mp4", range(2)))
    with source.open() as container, pytest.raises(DeviceError, match=r"cuda:0 cannot be used .*out of memory"):
        Nvdec(0, "nv12").decoder(container.streams.video[0])
    assert not two_gpus


@WITHOUT_GPU
@pytest.mark.parametrize("codec", NVENC)
def test_without_a_gpu_encoding_on_it_is_an_error(codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceError, match=f"{codec}: needs an NVIDIA GPU, .* or choose another encoder with -c"):
        open_encoder(encoding(codec=codec))
    assert capfd.readouterr() == ("", "")


def test_a_gpu_that_lacks_the_encoder_is_told_from_wrong_options(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(video_encode, "need_device", lambda *_: None)
    monkeypatch.setattr(video_encode, "refusal", lambda _: "No capable devices found")
    with pytest.raises(DeviceError, match=r"h264_nvenc: this GPU, .* \(No capable devices found\)"):
        open_encoder(encoding(codec="h264_nvenc"))
    monkeypatch.setattr(video_encode, "nvenc_refusal", lambda _: None)
    with pytest.raises(UsageError, match=r"h264_nvenc: cannot encode 66x36 yuv420p .*\(No capable"):
        open_encoder(encoding(codec="h264_nvenc"))


# NVENC's settings


@pytest.mark.parametrize(("codec", "quality"), [("h264_nvenc", "19"), ("hevc_nvenc", "21"), ("av1_nvenc", "27")])
def test_a_quality_becomes_a_target_within_variable_rate(codec: str, quality: str) -> None:
    assert dict(encoder_options(codec, None, None, {}, None)) == {"rc": "vbr", "cq": quality, "preset": "p4"}
    assert dict(encoder_options(codec, None, "p7", {"tune": "uhq"}, None))["preset"] == "p7"


@pytest.mark.parametrize("extra", [{"tune": "lossless"}, {"rc": "constqp", "qp": "20"}, {"b": "8M"}, {"cq": "30.5"}])
def test_another_aim_of_the_user_stands_alone(extra: dict[str, str]) -> None:
    assert dict(encoder_options("hevc_nvenc", None, None, extra, None)) == {"preset": "p4", **extra}
    with pytest.raises(UsageError, match="--crf 20: cannot be combined with -e"):
        encoder_options("hevc_nvenc", 20, None, extra, None)


@pytest.mark.parametrize(
    ("wanted", "size", "chosen"),
    [
        ("yuv420p", (36, 66), "yuv420p"),
        ("yuv420p10le", (36, 66), "yuv420p10le"),
        ("yuv420p12le", (36, 66), "yuv420p10le"),
        ("yuv422p", (36, 66), "yuv444p"),
        ("yuv444p10le", (36, 66), "yuv444p10le"),
        ("yuv420p", (35, 66), "yuv444p"),
        ("gbrp", (36, 66), "gbrp"),
    ],
)
def test_formats_of_nvenc(wanted: str, size: tuple[int, int], chosen: str) -> None:
    found, why = choose_pix_fmt("hevc_nvenc", wanted, *size)
    assert found == chosen
    assert (why is None) == (wanted == chosen)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "height", "expected"),
    [
        ("h264_nvenc", "yuv420p", 36, "nv12"),
        ("hevc_nvenc", "yuv420p10le", 36, "p010le"),
        ("hevc_nvenc", "yuv444p", 36, None),
        ("hevc_nvenc", "yuv420p", 35, None),
        ("libx264", "yuv420p", 36, None),
    ],
)
def test_only_nvenc_takes_planes_on_its_gpu(codec: str, pix_fmt: str, height: int, expected: str | None) -> None:
    assert gpu_format(encoding(codec=codec, pix_fmt=pix_fmt, height=height)) == expected


def test_planes_on_a_gpu_reach_its_encoder_without_a_copy() -> None:
    memory = torch.zeros(36 * 3 // 2, 66, dtype=torch.uint8)
    planes = DevicePlanes((memory[:36], memory[36:].view(18, 33, 2)), "nv12", 36, 66)
    encoder = SegmentEncoder(encoding(codec="h264_nvenc"))
    assert encoder._frame(planes, None).planes[0].buffer_ptr == memory.data_ptr()
    # Captions can be put only on frames in memory.
    carried = encoder._frame(planes, new_frame(image(0, 18, 33, "yuv444p"), "yuv444p"))
    assert (carried.format.name, carried.planes[0].buffer_ptr == memory.data_ptr()) == ("yuv420p", False)


def test_planes_on_a_gpu_reach_any_other_encoder_too() -> None:
    packets = []
    for on_gpu in (False, True):
        encoder = SegmentEncoder(encoding())
        made = []
        for n in range(3):
            planes = image(n, 36, 66, "yuv420p")
            device = device_planes(given(planes, "yuv420p", "nv12"), 8)
            made += encoder.encode(device if on_gpu else planes, n, 1)
        packets.append([*made, *encoder.finish()])
    assert packets[0] == packets[1]


# What repsr doctor says


@WITHOUT_GPU
def test_doctor_without_a_gpu(capfd: pytest.CaptureFixture[str]) -> None:
    (finding,) = doctor._nvidia()
    assert (finding.subject, finding.state) == ("nvdec, nvenc", "absent")
    assert "no GPU" in finding.text
    assert capfd.readouterr() == ("", "")


def test_doctor_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(video_cuda, "missing_device", lambda _: None)
    monkeypatch.setattr(video_nvdec, "_decoder", Gpu)
    monkeypatch.setattr(video_encode, "nvenc_refusal", lambda name: "Codec not supported" if "av1" in name else None)
    states = {finding.subject: finding.state for finding in doctor._nvidia()}
    assert states == {"nvdec": "ok", "h264_nvenc": "ok", "hevc_nvenc": "ok", "av1_nvenc": "absent"}
