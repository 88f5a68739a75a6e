"""Energies of elements from a file."""

import json

import pytest

from mace_bounds.calibration import FitConfig
from mace_bounds.errors import LabelError
from mace_bounds.structures import read_element_energies


def test_energies_by_symbol(tmp_path):
    path = tmp_path / "elements.json"
    path.write_text(json.dumps({"O": -4.95, "Li": -2}))
    assert read_element_energies(path) == (("Li", -2.0), ("O", -4.95))
    path.write_text(json.dumps({"Ne": {"mp_id": "mp-111-GGA", "energy_eV": -0.05, "per_atom": -0.025}}))
    assert read_element_energies(path) == (("Ne", -0.025),)
    path.write_text(json.dumps({"O": -4.95, "Li": -2}))
    assert FitConfig(references=read_element_energies(path)).references[0] == ("Li", -2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("[1]", "holds no energies"),
        ("{}", "holds no energies"),
        ('{"Xx": -1}', "gives 'Xx' no energy"),
        ('{"X": -1}', "gives 'X' no energy"),
        ('{"Li": "-1"}', "gives 'Li' no energy"),
        ('{"Li": NaN}', "gives 'Li' no energy"),
        ('{"Li": true}', "gives 'Li' no energy"),
        ('{"Li": {"per_atom": null}}', "gives 'Li' no energy"),
        ('{"Li": {"energy": -1}}', "gives 'Li' no energy"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, text, said):
    path = tmp_path / "elements.json"
    path.write_text(text)
    with pytest.raises(LabelError, match=said):
        read_element_energies(path)
    with pytest.raises(LabelError, match="cannot be read"):
        read_element_energies(tmp_path / "none.json")
