"""What comes in a request: files and JSON within limits, and names that are only names."""

import gzip
import io
import json
import tarfile
import zipfile

import pytest

from mace_bounds.examples import example_files
from mace_bounds.service import Problem, ServiceConfig
from mace_bounds.service.intake import Reading
from mace_bounds.service.schemas import ASE_EXAMPLE, EXAMPLE
from mace_bounds.structures import Upload

CIF = example_files("NaCl")[0].read_bytes()


def zipped(members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def refusal(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["sentence"]
    assert error["remedy"]
    return f"{error['sentence']} {error['remedy']}"


@pytest.mark.parametrize(
    "name, data",
    [
        ("all.zip", zipped({"a.cif": CIF, "b.cif": CIF})),
        ("all.tar.gz", tarred({"a.cif": CIF, "b.cif": CIF})),
    ],
    ids=["zip", "tar"],
)
def test_archives_are_opened_in_memory(service, name, data):
    rows = service.post("/v1/score", files=[("files", (name, data))]).json()
    assert [row["id"] for row in rows] == [f"{name}/a.cif", f"{name}/b.cif"]
    assert rows[0]["energy_model_ev"] == rows[1]["energy_model_ev"]


@pytest.mark.parametrize(
    "name, data",
    [
        ("bomb.cif.gz", gzip.compress(bytes(3_000_000))),
        ("bomb.zip", zipped({"bomb.cif": bytes(3_000_000)})),
        ("bomb.zip", zipped({f"{k}.cif": bytes(300_000) for k in range(10)})),
        ("bomb.tar.gz", tarred({f"{k}.cif": bytes(300_000) for k in range(10)})),
        ("bomb.cif.gz.gz", gzip.compress(gzip.compress(b"# x\n" * 750_000))),
    ],
    ids=["gzip", "zip", "zip of many", "tar of many", "gzip twice"],
)
def test_bombs_are_refused_while_they_unpack(serve, name, data):
    client = serve(max_unpacked_bytes=1_000_000)
    assert len(data) < 20_000
    text = refusal(client.post("/v1/score", files=[("files", (name, data))]), 422)
    assert "more than 1,000,000 bytes" in text


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd", "/etc/passwd", "C:\\Windows\\win.ini", "..", ".", "a\0b.cif", "a\nb.cif", "\u202ecif.exe",
        "mp:Li-Fe-P-O", "*.cif", "-", "x" * 5000 + ".cif", "<script>alert(1)</script>.cif", "", "con", "~/.ssh/id_rsa",
        "file:///etc/passwd", "http://127.0.0.1/x.cif", "💎.cif",
    ],
)  # fmt: skip
def test_names_are_only_names(service, name):
    """Whatever a file is called, it is its content that is read, and its id is one printable line."""
    rows = list(Reading([Upload(name, CIF)], ServiceConfig()).run())
    assert [row.crystal.formula for row in rows] == ["NaCl"]
    (row,) = rows
    assert row.id.isprintable()
    assert len(row.id) <= 200
    assert not set(row.id) & {"\\", "\0", "\n"}
    assert "etc/" not in row.id
    answer = service.post("/v1/score", files=[("files", (name or "x", CIF))])
    assert answer.status_code in (200, 400)  # 400: no form can have such a name


def test_json_names_no_path(service, tmp_path):
    path = tmp_path / "NaCl.cif"
    path.write_bytes(CIF)
    for body in (
        [str(path)],
        str(path),
        {"path": str(path)},
        {"structure": str(path)},
        {"entries": [str(path)]},
    ):
        text = refusal(service.post("/v1/score", json=body), 422)
        assert "NaCl" not in text.replace("NaCl.cif", "")


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 100_000, b"[" * 1000 + b"]" * 1000, b"{", b"nul", b"[]", b"{}", b"\xff\xfe", b"[1, 2]",
     b'{"detail": "not found"}', b'{"sites": []}', b"[{}, {}]", b"1e400", b'{"lattice": {"matrix": [[1e999]]}}',
     b'{"@module": "os", "@class": "system", "cmd": "touch /tmp/x"}'],
    ids=lambda body: body[:24].decode("latin-1"),
)  # fmt: skip
def test_json_that_holds_no_structure(service, body):
    refusal(service.post("/v1/score", content=body, headers={"content-type": "application/json"}), 422)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "image/png", "", "multipart/x"]
)
def test_other_types_of_content(service, kind):
    refusal(service.post("/v1/score", content=CIF, headers={"content-type": kind}), 415)


@pytest.mark.parametrize(
    "content", [b"", b"--x--", b"--x\r\n\r\n", b"not a form", b"--x\r\nContent-Disposition: form-data\r\n"]
)
def test_forms_that_are_none(service, content):
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = service.post("/v1/score", content=content, headers=kind)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["sentence"]
    assert (
        service.post(
            "/v1/score", content=content, headers={"content-type": "multipart/form-data"}
        ).status_code
        == 400
    )


def test_too_many(serve):
    client = serve(max_structures=3, max_total_atoms=20)
    assert "3 structures" in refusal(client.post("/v1/score", json=[EXAMPLE] * 4), 413)
    nine = {**ASE_EXAMPLE, "numbers": [11] * 8, "positions": [[0.8 * k, 3.0 * k, 1.7 * k] for k in range(8)]}
    nine["cell"] = [[9.0, 0, 0], [0, 24.0, 0], [0, 0, 14.0]]
    assert "20 atoms" in refusal(client.post("/v1/score", json=[nine] * 3), 413)


def test_reading_ends_when_its_time_is_over_or_nobody_waits():
    upload = Upload("structures.json", json.dumps([EXAMPLE] * 50).encode())
    late = ServiceConfig(max_seconds=0.1)
    object.__setattr__(late, "max_seconds", 1e-9)
    with pytest.raises(Problem) as caught:
        Reading([upload], late).run()
    assert caught.value.status == 413
    reading = Reading([upload], ServiceConfig())
    reading.stop()
    assert reading.run() == []
