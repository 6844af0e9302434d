"""Write weights/shaders/ anew: the user shaders of every shipped x2 model that a player can run in real time.

python train/shaders.py
"""

from __future__ import annotations

from pathlib import Path

from repsr_cli.export.formats import export, write
from repsr_cli.export.glsl import glsl_network
from repsr_cli.model.checkpoint import load_plain
from repsr_cli.model.zoo import available

FOLDER = Path(__file__).resolve().parents[1] / "weights" / "shaders"
SIZES = ("light", "fast")


def shaders() -> dict[str, tuple[Path, dict[str, str], bool]]:
    """Return each file's name with its weights, the strings of its header, and whether it holds compute shaders."""
    files = {}
    for model in available():
        if model.scale == 2 and model.size in SIZES:
            name = f"{model.size}-{model.kind}-x2"
            for compute in (False, True):
                file = f"repsr-{name}{'.compute' if compute else ''}.glsl"
                files[file] = (model.path, {"name": name, "licence": "Apache-2.0"}, compute)
    return files


def text(file: str) -> str:
    """Return what a file should hold."""
    weights, metadata, compute = shaders()[file]
    return glsl_network(load_plain(weights), metadata, compute)


def main(folder: Path = FOLDER) -> None:
    """Write the files into a folder, and remove those of models that are gone."""
    folder.mkdir(exist_ok=True)
    wanted = shaders()
    for path in folder.glob("*.glsl"):
        if path.name not in wanted:
            path.unlink()
    write(
        [export(load_plain(path), folder / file, header) for file, (path, header, _) in wanted.items()], overwrite=True
    )


if __name__ == "__main__":
    main()
