"""Names of models as people write them."""

import pytest

from mace_bounds.backbones import find_weights
from mace_bounds.bounds import find_head
from mace_bounds.errors import HeadError, ModelError


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("MACE-MPA-0", "medium-mpa-0"),
        ("mpa-0", "medium-mpa-0"),
        ("mace-mpa-0", "medium-mpa-0"),
        ("mace-mpa-0-medium", "medium-mpa-0"),
        ("Medium_MPA_0", "medium-mpa-0"),
        ("MACE-MP-0", "medium"),
        ("MACE-MP-0 small", "small"),
        ("mace-mp-0b3", "medium-0b3"),
        ("large-mp-0b2", "large-0b2"),
        ("MACE-OMAT-0", "medium-omat-0"),
        ("matpes-pbe-0", "mace-matpes-pbe-0"),
        ("MACE-MatPES-r2SCAN-0", "mace-matpes-r2scan-0"),
        ("Mini", "mini"),
        ("mini", "mini"),
        ("large", "large"),
    ],
)
def test_a_name_may_be_written_as_in_papers(given, name):
    assert find_weights(given).model == name


def test_a_typing_error_is_answered_with_the_nearest_name():
    with pytest.raises(ModelError, match="did you mean 'medium-mpa-0'"):
        find_weights("medium-mpq-0")
    with pytest.raises(ModelError, match="did you mean 'mini'"):
        find_head("minni")
    with pytest.raises(ModelError, match="mace-bounds models lists"):
        find_weights("zzzz")
    with pytest.raises(HeadError, match="did you mean 'mini'"):
        find_head(None, "minni")


def test_heads_are_found_by_every_name_of_their_model(tmp_path, monkeypatch):
    assert find_head("MINI").name == find_head("mini").name == "mini"
    assert find_head(None, "Mini").name == "mini"
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(tmp_path))
    for name in ("MACE-MPA-0", "mpa-0", "medium-mpa-0"):  # none of its own: that of its published energies
        assert find_head(name).name == "mace-mpa-0-published"
    assert find_head("MACE-MP-0").name == find_head("medium").name == "mace-mp-0-published"
    with pytest.raises(HeadError, match="no installed head fits the model medium-omat-0"):
        find_head("MACE-OMAT-0")


def test_names_and_places_are_those_of_mace_without_importing_it(tmp_path, monkeypatch):
    from mace_bounds.backbones.mace import checkpoint

    names = {name: checkpoint.cache_file(name) for name in checkpoint.names()}
    checkpoint.import_mace()
    from mace.calculators import foundations_models as known
    from mace.tools.utils import get_cache_dir

    assert {name: url for name, (_, url) in names.items()} == known.mace_mp_urls
    assert names["medium"][0].parent == get_cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path, url = checkpoint.cache_file("small")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"there")
    assert known.download_mace_mp_checkpoint("small") == str(
        path
    )  # mace takes the file where we say it keeps it
    assert url == known.mace_mp_urls["small"]
    monkeypatch.setattr(type(path), "is_file", lambda _: True)
    assert str(checkpoint.cache_file("medium-mpa-0")[0]) == known.local_model_path
