"""A config is right, or every mistake in it is told at once with a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance import config
from appliance.errors import ConfigError


def test_the_commented_example_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "unit.toml"
    path.write_text(config.example(), encoding="utf-8")
    loaded = config.load(path)
    assert loaded.unit.keys == tmp_path / "keys", "relative paths start at the config's folder"
    assert loaded.camera[0].source == "/dev/video0"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "unit.toml"
    path.write_text(config.example(), encoding="utf-8-sig")
    assert config.load(path).camera[0].source == "/dev/video0"


@pytest.mark.parametrize("name", ["2026", "van-07 gate!.mp4"])
def test_a_path_beside_the_config_is_a_path_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    path = tmp_path / "unit.toml"
    path.write_text(config.example(camera=name), encoding="utf-8")
    assert config.load(path).camera[0].source == str(tmp_path / name)


def test_an_address_is_not_made_a_path(tmp_path: Path) -> None:
    path = tmp_path / "unit.toml"
    path.write_text(config.example(camera="http://host/video"), encoding="utf-8")
    assert config.load(path).camera[0].source == "http://host/video"


def test_misspelt_keys_are_errors_with_a_suggestion_on_every_level(tmp_path: Path) -> None:
    path = tmp_path / "unit.toml"
    text = config.example().replace("smallest_face", "smalest_face").replace("port = 8883", "prot = 8883")
    path.write_text(text.replace("watchlist =", "watchlst ="), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    message = str(caught.value)
    for hint in ("did you mean 'smallest_face'?", "did you mean 'port'?", "did you mean 'watchlist'?"):
        assert hint in message


def test_a_threshold_cannot_be_set_here(tmp_path: Path) -> None:
    path = tmp_path / "unit.toml"
    path.write_text(config.example().replace("agreement = 0.6", "threshold = 0.1"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"decide\.threshold: unknown key"):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "words"), [("[unit", "not TOML"), ("[unit]\nkeys='k'\n", "Field required"), ("\xff\xfe", "not TOML")]
)
def test_broken_files_are_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "unit.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=words):
        config.load(path)


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bluelamp-unit config >"):
        config.load(tmp_path / "none.toml")


def test_two_cameras_need_two_names(tmp_path: Path) -> None:
    path = tmp_path / "unit.toml"
    path.write_text(config.example() + '\n[[camera]]\nname = "gate"\nsource = "1"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="same name"):
        config.load(path)
