import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.head_rows import mace_like
from mace_bounds.errors import HeadError
from mace_bounds.head import (
    POSTERIORS,
    PopsConfig,
    PopsHead,
    array_chunks,
    fit_pops,
    is_head_folder,
    predict,
    read_head_folder,
    write_head,
)

CONFIG = {"model": "mini", "levels": [0.9, 0.95], "note": "µ"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def rows():
    return mace_like(300, 0)


@pytest.fixture(scope="module")
def head(rows):
    return fit_pops(array_chunks(*rows), PopsConfig(posterior="ellipsoid")).head


@pytest.fixture
def folder(tmp_path, head):
    config = {**CONFIG, "pops": head.config.to_dict()}
    return write_head(tmp_path / "sub" / "head", head.to_tensors(), config, "# A card\n")


def test_a_head_survives_the_folder(folder, head, rows):
    tensors, config = read_head_folder(folder)
    again = PopsHead.from_tensors(tensors, PopsConfig.from_dict(config["pops"]))
    assert again.config == head.config
    a, b = predict(head, rows[0]), predict(again, rows[0])
    assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    assert {k: config[k] for k in CONFIG} == CONFIG
    assert config["format"] == 1
    assert names(folder) == ["README.md", "config.json", "head.safetensors"]
    assert names(folder.parent) == ["head"]
    assert (folder / "README.md").read_text() == "# A card\n"


def test_same_head_same_bytes(tmp_path, head):
    a = write_head(tmp_path / "a", head.to_tensors(), {"b": 1, "a": 2}, "card")
    b = write_head(tmp_path / "b", dict(reversed(head.to_tensors().items())), {"a": 2, "b": 1}, "card")
    for name in names(a):
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_long_arrays_may_be_kept_in_half_the_room(tmp_path):
    long, short = np.random.default_rng(0).standard_normal((40, 40)), np.array([np.pi, 1e90])
    tensors = {"long": long, "short": short, "large": np.full(2000, 1e90), "whole": np.arange(2000)}
    folder = write_head(tmp_path / "h", tensors, {}, "", narrow=True)
    back, config = read_head_folder(folder)
    assert config["float32"] == ["long"]
    assert {name: array.dtype for name, array in back.items()} == {n: a.dtype for n, a in tensors.items()}
    assert (back["long"] == long.astype(np.float32)).all()
    assert all((back[name] == tensors[name]).all() for name in ("short", "large", "whole"))


def test_every_dtype_and_shape_comes_back(tmp_path):
    tensors = {
        "scalar": np.array(1.5),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": np.arange(6).reshape(2, 3).T,
        "big endian": np.arange(3.0).astype(">f8"),
        "infinite": np.array([np.inf]),
        "mask": np.array([True, False]),
        "bytes": np.arange(3, dtype=np.uint8),
    }
    back, _ = read_head_folder(write_head(tmp_path / "h", tensors, {}, ""))
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        assert np.array_equal(back[name], array)
        assert back[name].shape == array.shape


def test_only_heads_are_replaced_and_only_when_allowed(folder, tmp_path):
    with pytest.raises(HeadError, match="already holds a head"):
        write_head(folder, {}, {}, "")
    write_head(folder, {"a": np.ones(2)}, {}, "new", overwrite=True)
    assert list(read_head_folder(folder)[0]) == ["a"]
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(HeadError, match="not a head folder"):
        write_head(other, {}, {}, "", overwrite=True)
    assert (other / "thesis.tex").exists()
    (other / "thesis.tex").unlink()
    assert is_head_folder(write_head(other, {}, {}, ""))


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"a": np.array([np.nan])}, {}, "NaN"),
        ({"a": np.array(["x"])}, {}, "dtype"),
        ({"a": np.array([object()])}, {}, "dtype"),
        ({}, {"q": float("inf")}, "plain JSON"),
        ({}, {"q": np.zeros(2)}, "plain JSON"),
        ({}, {"digest": "x"}, "digest"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing_behind(tmp_path, tensors, config, message):
    with pytest.raises(HeadError, match=message):
        write_head(tmp_path / "h", tensors, config, "")
    assert not names(tmp_path)


def test_a_failed_write_keeps_the_old_head(folder, monkeypatch):
    before = {name: (folder / name).read_bytes() for name in names(folder)}

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr("mace_bounds.head.folder.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_head(folder, {"a": np.ones(2)}, {}, "new", overwrite=True)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert names(folder.parent) == ["head"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["head.safetensors", "config.json"]), st.floats(0.0, 0.999), st.integers(0, 255))
def test_changed_or_truncated_files_are_refused(folder, name, where, byte):
    path = folder / name
    good = path.read_bytes()
    at = int(where * len(good))
    try:
        for bad in (good[:at], good[:at] + bytes([byte]) + good[at + 1 :], good + b"x"):
            path.write_bytes(bad)
            try:
                _, config = read_head_folder(folder)
            except HeadError as error:
                message = str(error)
            else:  # only white space of the JSON may differ
                assert bad == good or (name == "config.json" and config == json.loads(good))
                message = ""
            assert "\n" not in message
    finally:
        path.write_bytes(good)


def rewrite(folder, change):
    """Edit the config and seal it again, as a hostile or newer writer would."""
    from mace_bounds.head import folder as _folder

    config = json.loads((folder / "config.json").read_text())
    change(config)
    config["digest"] = _folder._digest(config, (folder / "head.safetensors").read_bytes())
    (folder / "config.json").write_text(json.dumps(config))


def test_sealed_nonsense_is_refused(folder):
    (folder / "head.safetensors").write_bytes(b"\x80\x04\x95cos\nsystem\n")
    rewrite(folder, dict.copy)
    with pytest.raises(HeadError, match="not a safetensors file"):
        read_head_folder(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "has format 2, and this version reads format 1; fit it again"),
        ("format", "mace-bounds-head", "has format 'mace-bounds-head', and this version reads format 1"),
        ("format", "1", "has format '1'"),
        ("format", True, "has format True"),
    ],
)
def test_foreign_formats_are_refused(folder, key, value, message):
    rewrite(folder, lambda c: c.update({key: value}))
    with pytest.raises(HeadError, match=message):
        read_head_folder(folder)


def test_missing_and_oversized_are_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(HeadError, match="there is no head folder"):
        read_head_folder(tmp_path / "nowhere")
    with pytest.raises(HeadError, match="cannot be read"):
        read_head_folder(tmp_path)
    monkeypatch.setattr("mace_bounds.head.folder._MAX_TENSOR_BYTES", 10)
    with pytest.raises(HeadError, match="at most 10"):
        read_head_folder(folder)


def test_tensors_of_wrong_shape_type_or_value_are_refused(head):
    good = head.to_tensors()
    for name, bad in {
        "ridge.coefficients": good["ridge.coefficients"][:-1],
        "axes": good["axes"][:, :-1],
        "design.active": good["design.active"].astype(np.float64),
        "ridge.alpha": np.array(-1.0),
        "design.center": np.full_like(good["design.center"], np.inf),
        "design.scale": np.zeros_like(good["design.scale"]),
        "ridge.n_rows": np.array(1.5),
        "ellipsoid.axes": good["ellipsoid.axes"][:-1],
    }.items():
        with pytest.raises(HeadError, match="fit or download it again"):
            PopsHead.from_tensors({**good, name: bad}, head.config)
    for name in ("axes", "ellipsoid.axes"):
        with pytest.raises(HeadError, match="no tensor 'axes'"):
            PopsHead.from_tensors({k: v for k, v in good.items() if k != name}, head.config)
    again = PopsHead.from_tensors({**good, "calibration.q": np.ones(3)}, head.config)
    assert again.ridge.n_rows == head.ridge.n_rows


def test_every_posterior_survives_and_only_its_own_tensors_are_kept(rows):
    own = {"hypercube": {"lower", "upper"}, "ensemble": {"rms", "members"}, "ellipsoid": {"axes"}}
    assert own.keys() == POSTERIORS.keys()
    for posterior, names in own.items():
        head = fit_pops(array_chunks(*rows), PopsConfig(posterior=posterior)).head
        tensors = head.to_tensors()
        kept = {name for name in tensors if name.partition(".")[0] in POSTERIORS}
        assert kept == {f"{posterior}.{name}" for name in names}
        a, b = (predict(h, rows[0]) for h in (head, PopsHead.from_tensors(tensors, head.config)))
        for field in ("misspecification_std", "support_lower", "support_upper"):
            assert np.array_equal(getattr(a, field), getattr(b, field))


def test_an_empty_ensemble_is_refused(rows):
    head = fit_pops(array_chunks(*rows), PopsConfig(posterior="ensemble")).head
    tensors = head.to_tensors()
    for bad in (tensors["ensemble.members"][:0], tensors["ensemble.members"][0], np.array(1.0)):
        with pytest.raises(HeadError, match="members"):
            PopsHead.from_tensors({**tensors, "ensemble.members": bad}, head.config)


def test_unknown_or_ill_typed_settings_are_refused(head):
    values = head.config.to_dict()
    assert PopsConfig.from_dict(json.loads(json.dumps(values))) == head.config
    with pytest.raises(HeadError, match="'new'"):
        PopsConfig.from_dict({**values, "new": 1})
    with pytest.raises(HeadError, match="'clip_percent'"):
        PopsConfig.from_dict({**values, "clip_percent": "0.5"})
    with pytest.raises(HeadError, match="'max_iter'"):
        PopsConfig.from_dict({**values, "max_iter": True})


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "[]", '{"format": 1, "digest": ""}', "\xff", ""])
def test_configs_that_are_none_are_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(HeadError):
        read_head_folder(folder)
    assert is_head_folder(folder) == ('"format"' in text)


def test_half_characters_and_pipes_are_refused(folder):
    rewrite_text = (folder / "config.json").read_text().replace('"mini"', '"\\ud800"')
    (folder / "config.json").write_text(rewrite_text)
    with pytest.raises(HeadError, match="plain JSON"):
        read_head_folder(folder)
    (folder / "head.safetensors").unlink()
    os.mkfifo(folder / "head.safetensors")
    with pytest.raises(HeadError, match="as a file"):
        read_head_folder(folder)
