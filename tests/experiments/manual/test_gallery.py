from pathlib import Path

import pytest
from PIL import Image

from metarl.experiments.manual import gallery


@pytest.mark.parametrize(("name", "moves"), [("gridnavi", True), ("bandit", False)])
def test_a_family_is_drawn(name: str, moves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "FOLDER", tmp_path / "gallery")
    gallery.main([name])
    with Image.open(tmp_path / "gallery" / f"{name}.webp") as picture:
        assert picture.size == gallery.SIZE
        assert picture.is_animated == moves  # type: ignore[attr-defined]
    assert [path.name for path in (tmp_path / "gallery").iterdir()] == [f"{name}.webp"]
