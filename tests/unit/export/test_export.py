"""export/: other programs compute what torch does, for any size of image, or nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.export import formats as module
from repsr_cli.export.agreement import largest_difference
from repsr_cli.export.formats import FORMATS, Format, check_targets, export, export_all, format_of, write
from repsr_cli.export.ncnn import ncnn_files
from repsr_cli.export.planes import parse_planes
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from repsr_cli.model.zoo import available, load_compact
from repsr_cli.yuv.formats import PlaneFormat

SPECS = [Spec(1, 4, 0), Spec(2, 8, 1), Spec(3, 8, 2, colors=1), Spec(4, 16, 4)]
PACKAGES = {
    "ONNX Runtime": ("onnx", "onnxruntime"),
    "OpenVINO": ("onnx", "openvino"),
    "ncnn": ("ncnn",),
    "PyTorch": (),
    "safetensors": (),
}


@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS if fmt.program in PACKAGES], ids=lambda fmt: fmt.program)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_other_programs_give_what_torch_gives(fmt: Format, spec: Spec, tmp_path: Path) -> None:
    for package in PACKAGES[fmt.program]:
        pytest.importorskip(package)
    net, target = PlainSR(spec).eval(), tmp_path / f"net{fmt.suffixes[0]}"
    exported = export(net, target, {"scale": str(spec.scale), "licence": "mine"})
    write([exported], overwrite=False)
    difference = exported.difference
    assert difference is not None
    assert difference <= 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"net{suffix}" for suffix in fmt.suffixes)
    # Read anew, by sizes other than those it was checked with.
    run = fmt.runner(tuple(file.read_bytes() for file in fmt.files(target)))
    lr = torch.rand(3, spec.colors, 7, 19)
    with torch.inference_mode():
        assert np.abs(run([lr.numpy()])[0] - net(lr).numpy()).max() <= 1e-5


PLANES = [
    PlaneFormat("bt709", False, 8, (2, 2), "left"),
    PlaneFormat("bt601", True, 8, (2, 2), "center"),
    PlaneFormat("bt2020", False, 10, (2, 2), "topleft"),
    PlaneFormat("bt709", False, 10, (1, 2), "left"),
    PlaneFormat("bt709", False, 8, (1, 1)),
    PlaneFormat("grey", True, 8),
]


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("fmt", PLANES, ids=str)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_planes_are_what_torch_gives(fmt: PlaneFormat, scale: int, suffix: str, tmp_path: Path) -> None:
    """Beside the explicit way by RGB, in sizes other than those that export checks."""
    kind = format_of(Path(f"net{suffix}"))
    for package in PACKAGES[kind.program]:
        pytest.importorskip(package)
    torch.manual_seed(scale)
    net, target = PlainSR(Spec(scale, 8, 2)).eval(), tmp_path / f"net{suffix}"
    exported = export(net, target, {}, fmt)
    write([exported], overwrite=False)
    difference = exported.difference
    assert difference is not None
    assert difference <= 1
    run = kind.runner(tuple(file.read_bytes() for file in kind.files(target)))
    random = np.random.default_rng(scale)
    sizes = [(14, 22)] + [fmt.chroma_size(14, 22)] * (0 if fmt.matrix == "grey" else 2)
    dtype = np.uint8 if fmt.depth == 8 else np.uint16
    planes = [random.integers(fmt.peak // 4, fmt.peak * 3 // 4, (2, 1, *size)).astype(dtype) for size in sizes]
    upscaler = PlaneUpscaler(Upscaler(net, device="cpu"), fmt, fmt)
    found = run(planes)
    for image in range(2):
        expected = upscaler.explicit([plane[image, 0] for plane in planes])
        for ours, theirs in zip(expected, found, strict=True):
            assert theirs.dtype == dtype
            assert np.abs(ours.astype(int) - theirs[image, 0]).max() <= 1


def test_planes_are_not_for_ncnn_nor_for_networks_of_luma(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(UsageError, match="RGB only"):
        export(PlainSR(Spec(2, 4, 0)), tmp_path / "net.param", {}, PLANES[0])
    with pytest.raises(UsageError, match="cannot read"):
        export(PlainSR(Spec(2, 4, 0, colors=1)), tmp_path / "net.onnx", {}, PLANES[0])
    assert not list(tmp_path.iterdir())


def test_planes_in_words() -> None:
    assert parse_planes("yuv420p") == PLANES[0]
    assert parse_planes("yuv420p:full:center:bt601") == PLANES[1]
    assert parse_planes("yuv420p10le:bt2020:topleft") == PLANES[2]
    assert parse_planes("yuv422p10") == PLANES[3]
    assert parse_planes("gray:pc") == PLANES[5]
    for wrong in ("", "yuv420", "yuv420p11", "nv12", "yuv420p:bt470", "gbrp"):
        with pytest.raises(UsageError, match="yuv420p10:bt2020:topleft"):
            parse_planes(wrong)


def test_onnx_carries_strings_and_says_its_opset(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    write([export(PlainSR(Spec(2, 4, 0)).eval(), tmp_path / "net.onnx", {"scale": "2", "licence": "mine"})], False)
    model = onnx.load(tmp_path / "net.onnx")
    assert {prop.key: prop.value for prop in model.metadata_props} == {"scale": "2", "licence": "mine"}
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]


def test_openvino_carries_strings(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    write([export(PlainSR(Spec(2, 4, 0)).eval(), tmp_path / "net.xml", {"licence": "mine"})], False)
    assert openvino.Core().read_model(tmp_path / "net.xml").get_rt_info("licence").astype(str) == "mine"


def test_ncnn_reads_the_names_that_its_tools_look_for(tmp_path: Path) -> None:
    """Without ncnn: the text and the length of the weights are what its documentation says."""
    net = PlainSR(Spec(2, 8, 1)).eval()
    write([export(net, tmp_path / "net.param", {})], overwrite=False)
    lines = (tmp_path / "net.param").read_text().splitlines()
    assert lines[0] == "7767517"
    layers, blobs = map(int, lines[1].split())
    assert layers == len(lines) - 2
    tops = [name for line in lines[2:] for name in line.split()[4 + int(line.split()[2]) :][: int(line.split()[3])]]
    assert blobs == len(tops) == len(set(tops))
    assert (tops[0], tops[-1]) == ("data", "output")
    convolutions = len(net.convolutions)
    weights = sum(parameter.numel() for parameter in net.parameters())
    assert (tmp_path / "net.bin").stat().st_size == 4 * (weights + convolutions)


def test_a_file_that_gives_other_numbers_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, other = PlainSR(Spec(2, 8, 1)).eval(), PlainSR(Spec(2, 8, 1)).eval()
    wrong = Format(
        "a program",
        (".param",),
        ncnn_files,
        lambda _files: lambda inputs: [np.asarray(other(torch.from_numpy(inputs[0])).detach())],
    )
    monkeypatch.setattr(module, "FORMATS", (wrong,))
    with pytest.raises(CheckpointError, match="differ by"):
        export(net, tmp_path / "net.param", {})
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write([export(PlainSR(Spec(2, 4, 0)).eval(), tmp_path / "none" / "net.param", {})], overwrite=False)


def test_files_of_two_formats_do_not_collide(tmp_path: Path) -> None:
    net, source = tmp_path / "net.onnx", tmp_path / "best.pt"
    with pytest.raises(UsageError, match=r"net\.ncnn\.bin: would be written twice"):
        check_targets(source, [tmp_path / f"net{suffix}" for suffix in (".xml", ".param", ".ncnn.xml")], False)
    with pytest.raises(UsageError, match="named twice"):
        check_targets(source, [net, net], False)
    with pytest.raises(UsageError, match="source itself"):
        check_targets(net, [net], True)
    (tmp_path / "net.bin").touch()
    with pytest.raises(UsageError, match=r"net\.bin: exists"):
        check_targets(source, [net, tmp_path / "net.param"], False)
    check_targets(source, [net, tmp_path / "net.param"], True)


def test_an_export_that_was_stopped_half_way_goes_on(tmp_path: Path) -> None:
    source, targets = tmp_path / "best.pt", [tmp_path / "net.param", tmp_path / "net.pth"]
    made = export_all(PlainSR(Spec(2, 4, 1)).eval(), targets, {})
    (tmp_path / "net.bin").write_bytes(made[0].contents[1])
    with pytest.raises(UsageError, match=r"net\.bin: exists"):
        check_targets(source, targets, False)
    check_targets(source, targets, False, resumable=True)
    before = (tmp_path / "net.bin").stat()
    write(made, overwrite=False)
    assert (tmp_path / "net.bin").stat().st_ino == before.st_ino
    for each in made:
        assert tuple(file.read_bytes() for file in each.files) == each.contents
    with pytest.raises(UsageError, match=r"net\.param: exists"):
        check_targets(source, targets, False, resumable=True)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "pipe"])
def test_what_is_not_this_export_is_kept_and_nothing_is_written_beside_it(tmp_path: Path, kind: str) -> None:
    made = export_all(PlainSR(Spec(2, 4, 1)).eval(), [tmp_path / "net.param", tmp_path / "net.pth"], {})
    there = tmp_path / "net.bin"
    if kind == "file":
        there.write_bytes(b"precious")
    elif kind == "folder":
        there.mkdir()
    elif kind == "pipe":
        os.mkfifo(there)
    else:
        (tmp_path / "else").write_bytes(made[0].contents[1])
        there.symlink_to(tmp_path / "else")
    before = there.lstat()
    with pytest.raises(UsageError, match=r"net\.bin: (exists|is a folder)"):
        write(made, overwrite=False)
    assert there.lstat() == before or kind == "file"
    assert {path.name for path in tmp_path.iterdir()} <= {"net.bin", "else"}


@pytest.mark.parametrize("suffixes", [(".param", ".xml"), (".xml", ".param", ".onnx")])
def test_ncnn_and_openvino_models_of_one_name_keep_their_weights_apart(
    tmp_path: Path, suffixes: tuple[str, ...]
) -> None:
    pytest.importorskip("openvino")
    net = PlainSR(Spec(2, 4, 1)).eval()
    targets = [tmp_path / f"net{suffix}" for suffix in suffixes]
    check_targets(tmp_path / "best.pt", targets, False)
    for each in export_all(net, targets, {}):
        write([each], overwrite=False)
        run = each.format.runner(tuple(file.read_bytes() for file in each.files))
        assert largest_difference(net, run) < each.format.tolerance
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"net.xml", "net.bin", "net.param", "net.ncnn.bin"} | ({"net.onnx"} & {t.name for t in targets})


def test_shipped_models_can_be_exported_for_ncnn(tmp_path: Path) -> None:
    """Those of many layers too, whose results ncnn rounds more coarsely."""
    pytest.importorskip("ncnn")
    for model in available():
        made = export(load_compact(model), tmp_path / f"{model.name}.param", {})
        assert made.difference is not None


def test_other_suffixes_are_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"\.onnx \(ONNX Runtime\), \.xml \(OpenVINO\), \.param \(ncnn\)"):
        format_of(Path("net.engine"))
