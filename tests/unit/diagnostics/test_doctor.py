"""diagnostics/doctor.py: every check can pass and fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repsr_cli.diagnostics import doctor
from repsr_cli.diagnostics.doctor import Finding, examine, self_test
from repsr_cli.model import zoo
from repsr_cli.upscale.choices import Choice, choices_file, keep_choice


def by_subject() -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine()}


def test_this_machine() -> None:
    findings = by_subject()
    assert {findings[name].state for name in ("repsr", "torch", "pillow", "av", "libx264", "cpu fp32")} == {"ok"}
    for finding in findings.values():
        assert bool(finding.remedy) == (finding.state != "ok"), finding
        assert bool(finding.exit_code) == (finding.state == "broken"), finding


def test_libraries_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "av.codec", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    findings = by_subject()
    assert (findings["pillow"].state, findings["pillow"].remedy) == ("broken", "pip install pillow")
    assert (findings["av"].state, findings["av"].exit_code) == ("broken", 3)
    assert (findings["cv2"].state, findings["cv2"].exit_code) == ("absent", 0)
    assert "opencv-python-headless" in findings["cv2"].remedy
    assert findings["cpu fp32"].state == "ok"


@pytest.mark.parametrize(
    ("absent", "subject"), [("torch", "torch"), ("safetensors", "safetensors"), ("h11", "libraries")]
)
def test_a_library_that_cannot_be_imported_is_broken(absent: str, subject: str) -> None:
    code = f"import sys; sys.modules[{absent!r}] = None; from repsr_cli.diagnostics import doctor\n"
    if subject == "libraries":  # one that doctor does not know, where a check needs it
        code += f"def check():\n    import {absent}\n    yield\ndoctor._extras = check\n"
    code += "print([finding.subject for finding in doctor.examine() if finding.state == 'broken'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{[subject]}\n", 0), done.stderr


def test_missing_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zoo, "weights_folder", lambda: tmp_path)
    assert (by_subject()["models"].state, by_subject()["models"].exit_code) == ("broken", 4)


def test_a_model_that_was_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = zoo.ModelFile("fast-x4", tmp_path / "a.safetensors", 4, sha256="0" * 64)
    model.path.write_bytes(b"not what was shipped")
    monkeypatch.setattr(zoo, "available", lambda: [model])
    assert by_subject()["fast-x4"].exit_code == 4


def test_a_device_that_is_absent_or_computes_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert self_test("cuda:77", "fp16").exit_code == 5
    monkeypatch.setitem(doctor.TOLERANCE, "fp32", -1.0)
    finding = self_test("cpu", "fp32")
    assert (finding.state, finding.exit_code) == ("broken", 5)
    assert "wrong numbers" in finding.text


def test_what_was_measured_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    memory = choices_file()
    keep_choice("M4C16 x4 somewhere", Choice("ncnn", "auto:20000"), pytest.fail)
    texts = [finding.text for finding in examine() if finding.subject == "calibration"]
    assert texts == [f"{memory}: 1 measured", "ncnn, tile auto:20000, for M4C16 x4 somewhere"]
    memory.write_text("{")
    (finding,) = [finding for finding in examine() if finding.subject == "calibration"]
    assert (finding.state, finding.exit_code) == ("absent", 0)
    assert "damaged" in finding.text
