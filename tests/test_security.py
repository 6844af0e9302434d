"""Test the promises about hostile input: no code from data, no shell, no network access."""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from repsr_cli.cli import app
from repsr_cli.engine.backends.registry import ENGINES
from repsr_cli.model.checkpoint import save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec
from tests.conftest import textured
from tests.sample_videos import make_video, other_packets

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sorted([*(ROOT / "repsr_cli").rglob("*.py"), *(ROOT / "train").rglob("*.py")])

RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv"}
READS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "ctypes", "code"}
TALKS = {"socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "xmlrpc"}

# Python has no renameat2 and no mallopt; libc, which every process has loaded, is asked for them by name.
EXCEPTIONS = {"repsr_cli/files.py": ["import ctypes"], "repsr_cli/engine/memory.py": ["import ctypes"]}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a call's target; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(text: str) -> Iterator[str]:
    """What in a module would run code from data, pass text to a shell, or open a connection."""
    for node in ast.walk(ast.parse(text)):
        for module in imported(node):
            # Of pickle, the name of its error is needed to translate it.
            if module.split(".")[0] in READS_CODE | TALKS and module not in ("pickle", "pickle.UnpicklingError"):
                yield f"import {module}"
        if isinstance(node, ast.Attribute) and dotted(node).startswith("pickle.") and node.attr != "UnpicklingError":
            yield dotted(node)
        if isinstance(node, ast.Call):
            yield from dangerous_calls(node)


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports; of pickle, the names."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"pickle.{name.name}" for name in node.names] if node.module == "pickle" else [node.module or ""]
    return []


def dangerous_calls(node: ast.Call) -> Iterator[str]:
    """What in a call would run code from data or pass text to a shell."""
    name, arguments = dotted(node.func), {word.arg: word.value for word in node.keywords}
    if name in RUNS_CODE or name.startswith(("torch.hub.", "runpy.")):
        yield name
    if name == "torch.load" and not _is(arguments.get("weights_only"), True):
        yield "torch.load without weights_only=True"
    if name.endswith(".load") and "allow_pickle" in arguments and not _is(arguments["allow_pickle"], False):
        yield f"{name} with allow_pickle"
    if "shell" in arguments and not _is(arguments["shell"], False):
        yield f"{name} with a shell"
    if name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
        yield f"{name} of a line of text"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_no_module_runs_data() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(dangers(path.read_text(encoding="utf-8"))) for path in PYTHON}
    assert {name: what for name, what in found.items() if what} == EXCEPTIONS


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "import pickle; pickle.loads(data)",
        "from pickle import loads",
        "import urllib.request",
        "from socket import socket",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "subprocess.run('ls')",
        "os.system(f'rm {path}')",
        "torch.hub.load('a', 'b')",
    ],
)
def test_what_would_run_data_is_noticed(line: str) -> None:
    assert list(dangers(line))


# The kernel ends a process at its first socket, whichever library asks for one, but for those within the machine, by
# which the C library looks up user names. (Linux, seccomp: a filter that compares the number of the system call, and
# its first argument with AF_UNIX.)
NO_SOCKETS = """
import ctypes, struct, sys
step = lambda code, yes, no, value: struct.pack("<HBBI", code, yes, no, value)
program = step(0x20, 0, 0, 0) + step(0x15, 0, 3, {number}) + step(0x20, 0, 0, 16) + step(0x15, 1, 0, 1)
program += step(0x06, 0, 0, 0x80000000) + step(0x06, 0, 0, 0x7FFF0000)
held = ctypes.create_string_buffer(program, len(program))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(6, ctypes.cast(held, ctypes.c_void_p))), 0, 0) == 0
"""
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in SOCKET_CALL, reason="needs Linux's seccomp"
)


def without_sockets(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    setup = NO_SOCKETS.format(number=SOCKET_CALL[platform.machine()])
    command = [sys.executable, "-c", setup + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)


CLI = "from repsr_cli.cli import app\napp()\n"


@linux
def test_a_socket_ends_a_process_else_the_rest_would_prove_nothing() -> None:
    assert without_sockets("import socket\nsocket.socket()").returncode < 0


RECIPE = """
[network]
scale = 2
blocks = 1
channels = 4
[data]
train = "images"
holdout = 2
[batch]
size = 2
patch = 16
[schedule]
steps = 4
warmup = 1
bn_freeze = 0.3
[validation]
every = 2
statistics_batches = 1
"""
OPENVINO = "-o a.xml" if importlib.util.find_spec("openvino") else ""  # an extra that tests do not need
# Every command, in an order in which the next finds what the last has written.
COMMANDS = {
    "using models": [
        "upscale images/0.png b.mkv -n fast -s 2 -o out/ --quiet",
        "upscale b.mkv -n fast -s 2 --estimate",
        "upscale images b.mkv -s 2 --dry-run --json",
        "compare images/0.png images/1.png --html",
        "compare b.mkv b.mkv -o c.mkv",
        "compare b.mkv b.mkv --at 0",
        "models --no-speed",
        "doctor",
        "bench b.mkv -n fast -s 2 --rounds 1 --size 16x16 --quiet",
        "preview b.mkv images/0.png -n fast -s 2 --frames 1 -o p.html --quiet",
        "--help",
        "upscale --help",
        "--version",
    ],
    "making models": [
        "bench train recipe.toml --window 1 --rounds 1 --quiet",
        "eval images -s 2 -n fast",
        f"prepare images -o pairs.pack -s 2 --mix {ROOT / 'train' / 'mixes' / 'video.toml'} --quiet",
        "prepare images -o learnt.pack -s 2 --teacher fast --quiet",
        "train recipe.toml -o run --quiet",
        "fuse run/best.pt -o a.safetensors --quiet",
        f"export a.safetensors -s 2 -o a.onnx {OPENVINO} -o b.param -o a.pth --quiet",
        "finetune images -n fast -s 2 -o f.safetensors --minutes 0.02 --quiet",
    ],
}
FINETUNE_MAY_LOSE = 8
EACH_LINE = f"""
from repsr_cli.cli import app
for line in sys.argv[1:]:
    print(line, file=sys.stderr, flush=True)
    try:
        app(line.split())
    except SystemExit as end:
        if end.code and not (line.startswith("finetune") and end.code == {FINETUNE_MAY_LOSE}):
            raise
"""


def work_without_sockets(folder: Path, *lines: str) -> None:
    done = without_sockets(f"import os\nos.chdir({str(folder)!r})\n{EACH_LINE}", *lines)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert not list((folder / "home").rglob("*onnxruntime*")), "a telemetry identity was stored"


@pytest.fixture
def material(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, a video and a recipe, in a home of their own."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.fromarray(textured(176, 176, number)).save(tmp_path / "images" / f"{number}.png")
    make_video(tmp_path / "b.mkv", range(12), attachments={"a.ttf": b"font"}, subtitles=["subrip"])
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    for name in ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL"):  # each of which silences a library
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@linux
@pytest.mark.slow
@pytest.mark.parametrize("commands", COMMANDS)
def test_no_command_opens_a_socket(material: Path, commands: str) -> None:
    work_without_sockets(material, *COMMANDS[commands])


@linux
@pytest.mark.slow
def test_no_engine_opens_a_socket(material: Path) -> None:
    """With a small model, since the compiler takes its time; ``auto`` is what the commands above use."""
    engines = ["torch", *(word for word, each in ENGINES.items() if "cpu" in each.devices and each.installed)]
    if not (shutil.which("g++") or shutil.which("c++")):
        engines.remove("compile")
    save_plain(material / "small.safetensors", PlainSR(Spec(scale=2, channels=4, blocks=1)), {})
    commands = [f"upscale b.mkv -n small.safetensors -o {engine}.mkv --engine {engine} --quiet" for engine in engines]
    work_without_sockets(material, *commands)
    assert all((material / f"{engine}.mkv").exists() for engine in engines)


@linux
def test_every_command_is_among_those_tried() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    tried = {line.split()[0] for lines in COMMANDS.values() for line in lines}
    # ``learn`` is finetune; ``watch`` runs until it is stopped, and does what upscale does.
    assert names - {"learn", "watch"} <= tried


@linux
def test_videos_that_point_elsewhere_open_no_socket(tmp_path: Path) -> None:
    """Playlists, session descriptions and references to other files are refused, not followed."""
    segment = make_video(tmp_path / "segment.ts", range(4))
    address = "http://127.0.0.1:9/a.ts"
    texts = {
        "remote.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        "local.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n#EXT-X-ENDLIST\n",
        "list.mkv": f"ffconcat version 1.0\nfile '{address}'\n",
        "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "manifest.mp4": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{address}'
        "</BaseURL></Period></MPD>",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    inputs = [str(tmp_path / name) for name in texts]
    done = without_sockets(CLI, "upscale", *inputs, "-s", "2", "-n", "fast")
    assert done.returncode in (2, 3), done.stderr
    assert not list(tmp_path.glob("*_x2*"))


def upscale(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """In a folder, by ``-n fast -s 2``."""
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["upscale", "-s", "2", "-n", "fast", "--quiet", *words])
    assert result.exit_code == 0, result.stderr


def test_names_of_attachments_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are copied as text; nothing is ever written under them."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    names = ["../../evil.ttf", "/evil-of-repsr.ttf", "..\\evil.ttf"]
    video = make_video(inside / "clip.mkv", range(4), attachments=dict.fromkeys(names, b"font"))
    before = set(tmp_path.rglob("*"))
    upscale(inside, monkeypatch, str(video))
    assert set(tmp_path.rglob("*")) - before == {inside / "clip_x2.mkv"}
    assert not Path("/evil-of-repsr.ttf").exists()
    assert other_packets(inside / "clip_x2.mkv") == other_packets(video)


def test_names_of_files_are_no_addresses_and_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg reads ``concat:a|b`` and ``http://`` as protocols; a shell would read ``$(touch x)``."""
    names = ["$(touch ran).mkv", "-y.mkv", "50%.mkv", "a;touch ran.mkv"]
    if os.name != "nt":
        names += ["concat:a|b.mkv", "http:127.0.0.1.mkv"]
    for name in names:
        make_video(tmp_path / "clip.mkv", range(2), audio=0).replace(tmp_path / name)
    upscale(tmp_path, monkeypatch, "--", *names)
    expected = {*names, *(f"{Path(name).stem}_x2.mkv" for name in names)}
    assert {path.name for path in tmp_path.iterdir()} == expected
