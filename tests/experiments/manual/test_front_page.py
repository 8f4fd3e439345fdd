from pathlib import Path

from PIL import Image

from metarl.experiments.manual.front_page import SHOWN, main


def test_a_picture_of_each_comparison_is_drawn_from_the_committed_results(tmp_path: Path) -> None:
    main(tmp_path)
    for name in SHOWN:
        with Image.open(tmp_path / f"adaptation-{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 50
