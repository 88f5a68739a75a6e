"""Formats that are not read: what a file is, and what to do with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mace_bounds.errors import StructureError
from mace_bounds.structures.text import clean

_CONVERT = "convert it (`ase convert {format}FILE structures.extxyz`)"
_RUN = "give the vasprun.xml or CONTCAR of the run"


@dataclass(frozen=True)
class Foreign:
    """A format that is not read.

    Attributes
    ----------
    name : str
        With an article: ``"a CASTEP cell file"``.
    remedy : str
        What to do, without the final stop.
    suffixes : tuple of str
        Ends of file names, lower case.
    file_names : str
        Regular expression of whole file names.
    content : bytes
        Regular expression that the content begins with.
    sure : bool
        The content says so beyond doubt; else the name of a format that is read goes before.
    """

    name: str
    remedy: str
    suffixes: tuple[str, ...] = ()
    file_names: str = ""
    content: bytes = b""
    sure: bool = True


def _by_ase(name: str, *suffixes: str, format: str = "", content: bytes = b"", names: str = "") -> Foreign:
    flag = f"-i {format} " if format else ""
    return Foreign(name, _CONVERT.format(format=flag), suffixes, names, content, sure=False)


FOREIGN: tuple[Foreign, ...] = (
    Foreign(
        "a pointer of Git LFS in place of a file",
        "fetch the file itself (`git lfs pull`)",
        content=rb"version https://git-lfs\.github\.com/spec",
    ),
    Foreign(
        "a web page (HTML)",
        "download the file itself, not the page about it",
        (".html", ".htm"),
        content=rb"(?i:\s*<(!doctype html|html)\b)",
    ),
    Foreign("a PDF", "give the structure file", (".pdf",), content=rb"%PDF-"),
    Foreign(
        "a Parquet table", "export its structures as JSON lines or extxyz", (".parquet",), content=b"PAR1"
    ),
    Foreign(
        "an HDF5 file (vaspout.h5, .h5md, NetCDF 4)",
        "give vasprun.xml of a VASP run; convert others to extxyz",
        (".h5", ".hdf5", ".h5md", ".nc"),
        content=rb"\x89HDF\r\n\x1a\n|CDF[\x01\x02\x05]",
    ),
    Foreign(
        "a pickle of Python (it could run code)",
        "save its structures as extxyz or JSON",
        (".pkl", ".pickle", ".p", ".pckl"),
        content=rb"\x80[\x02-\x05][\x80-\x9f\]\}cXq(K}]",
    ),
    Foreign(
        "an array file of NumPy", "save its structures as extxyz", (".npy", ".npz"), content=rb"\x93NUMPY"
    ),
    Foreign(
        "a PyTorch file or a checkpoint",
        "name it as --model, or save its structures as extxyz",
        (".pt", ".pth", ".model", ".ckpt"),
    ),
    Foreign(
        "an LMDB database",
        _CONVERT.format(format="") + " where fairchem is installed",
        (".lmdb", ".aselmdb", ".mdb"),
    ),
    Foreign(
        "a native file of VESTA",
        "export it as CIF (File, Export Data)",
        (".vesta",),
        content=rb"#VESTA_FORMAT_VERSION",
    ),
    Foreign(
        "a file of Materials Studio",
        _CONVERT.format(format="-i xsd "),
        (".xsd",),
        content=rb"\s*<\?xml(.|\s){0,80}<(!DOCTYPE )?XSD\b",
    ),
    Foreign("in CrystalMaker's own format", "export it as CIF", (".cmtx", ".cmdf", ".cmdx", ".crystal")),
    Foreign(
        "one of a refinement program (FullProf, GSAS, Jana)",
        "let that program write a CIF",
        (".pcr", ".exp", ".gpx", ".m40", ".m50", ".m90"),
    ),
    Foreign("a YAML file (phonopy.yaml and others)", "give the POSCAR or CIF", (".yaml", ".yml")),
    Foreign("a RAR or 7-Zip archive", "unpack it", (".rar", ".7z"), content=rb"Rar!|7z\xbc\xaf"),
    Foreign("a file packed by compress (.Z)", "unpack it (`uncompress`)", (".z",), content=rb"\x1f\x9d"),
    Foreign(
        "a picture",
        "give the structure file",
        (".png", ".jpg", ".jpeg", ".svg", ".gif"),
        content=rb"\x89PNG|\xff\xd8\xff",
    ),
    Foreign("a spreadsheet", "give the structure files", (".xlsx", ".xls", ".ods")),
    Foreign("text in UTF-16", "save it as UTF-8", content=rb"\xff\xfe|\xfe\xff"),
    Foreign(
        "VASP's charge density or potential",
        _RUN,
        (),
        r"(CHGCAR|CHG|LOCPOT|AECCAR\d|PARCHG|ELFCAR|SPIN)([._-].*)?",
    ),
    Foreign(
        "VASP's pseudopotentials (POTCAR)",
        _RUN,
        (),
        r"POTCAR([._-].*)?",
        rb"\s*PAW(_\w+)? \S+ \d\d\w{3}\d{4}",
        sure=False,
    ),
    Foreign(
        "an input or output file of VASP that holds no structure",
        _RUN,
        (),
        r"(INCAR|KPOINTS|WAVECAR|DOSCAR|EIGENVAL|PROCAR|OSZICAR|IBZKPT|PCDAT|REPORT|WAVEDER|CHGTOT)([._-].*)?",
    ),
    _by_ase("a SHELX file", ".res", ".ins", format="res"),
    _by_ase(
        "a CASTEP cell file",
        ".cell",
        format="castep-cell",
        content=rb"(?i:\s*(#.*\s+)*%BLOCK +(LATTICE|POSITIONS))",
    ),
    _by_ase("an output of CASTEP", ".castep", ".geom"),
    _by_ase("a DFTB+ gen file", ".gen", format="gen", content=rb"\s*\d+\s+[SFCsfc]\s*\r?\n\s*[A-Z][a-z]?\b"),
    _by_ase(
        "an input of Quantum ESPRESSO",
        ".pwi",
        format="espresso-in",
        content=rb"(?i:\s*(!.*\s+)*&(CONTROL|SYSTEM)\b)",
    ),
    _by_ase("an output of Quantum ESPRESSO", ".pwo", format="espresso-out", content=rb"\s*Program PWSCF"),
    _by_ase(
        "a PDB file",
        ".pdb",
        ".ent",
        format="proteindatabank",
        content=rb"(HEADER|CRYST1|REMARK|ATOM  |HETATM|MODEL ) ",
    ),
    _by_ase("a LAMMPS data file", ".lmp", ".lammps", ".data", format="lammps-data"),
    _by_ase(
        "a LAMMPS dump", ".dump", ".lammpstrj", format="lammps-dump-text", content=rb"ITEM: (TIMESTEP|UNITS)"
    ),
    _by_ase("a cube file", ".cube", ".cub", format="cube"),
    _by_ase("a geometry of FHI-aims", format="aims", names=r"geometry\.in(\.next_step)?"),
    _by_ase("an output of FHI-aims", format="aims-output", names=r"aims\.out"),
    _by_ase("a file of WIEN2k", ".struct", format="struct"),
    _by_ase("an input or output of ABINIT", ".abi", ".abo"),
    _by_ase("an input of SIESTA", ".fdf"),
    _by_ase("a structure of SIESTA", ".struct_out", format="struct_out"),
    _by_ase("a file of CRYSTAL", ".f34", ".d12"),
    _by_ase("a GROMACS file", ".gro", ".g96", format="gromacs"),
    _by_ase("a molecule without a cell", ".mol", ".sdf", ".mol2", ".gjf", ".smi"),
    _by_ase("an AtomEye configuration", ".cfg", format="cfg", content=rb"Number of particles ="),
    _by_ase("a file of Materials Studio", ".car", ".arc", ".xtd"),
    _by_ase("an .xtl file", ".xtl"),
    _by_ase("a Magres file", ".magres", format="magres", content=rb"#\$magres"),
    _by_ase("a GPAW file", ".gpw"),
    _by_ase("an input or output of CP2K", ".inp", ".restart", content=rb"(?i:\s*&(GLOBAL|FORCE_EVAL)\b)"),
    Foreign(
        "an XML file, but not a vasprun.xml",
        "give vasprun.xml, CIF or extxyz",
        (".xml",),
        content=rb"\s*<\?xml(?!(.|\s){0,200}<modeling)",
    ),
    Foreign(
        "a table", "give the structures themselves; energies by id belong to --predictions", (".csv", ".tsv")
    ),
)
"""All that is named; signatures of contents are looked at in this order."""

_CONTENTS = tuple((re.compile(foreign.content), foreign) for foreign in FOREIGN if foreign.content)


def foreign_name(name: str) -> Foreign | None:
    """Return the foreign format that a file's name (without suffixes of containers) says."""
    suffix = Path(name).suffix.lower()
    return next(
        (
            foreign
            for foreign in FOREIGN
            if suffix in foreign.suffixes or (foreign.file_names and re.fullmatch(foreign.file_names, name))
        ),
        None,
    )


def refuse_foreign_content(head: bytes, name: str, *, named: bool) -> None:
    """Refuse a content that begins like a format that is not read, by :class:`StructureError`.

    Parameters
    ----------
    head : bytes
        Its beginning.
    name : str
        Its file name.
    named : bool
        Its file name says a format that is read: only sure signatures count.
    """
    beginning = head[:4096].removeprefix(b"\xef\xbb\xbf")
    for pattern, foreign in _CONTENTS:
        if (foreign.sure or not named) and pattern.match(beginning):
            raise StructureError(_sentence(foreign, name))


def refuse_foreign_name(name: str) -> None:
    """Refuse a file whose name says a format that is not read, by :class:`StructureError`."""
    foreign = foreign_name(name)
    if foreign is not None:
        raise StructureError(_sentence(foreign, name))


def _sentence(foreign: Foreign, name: str) -> str:
    remedy = foreign.remedy.replace("FILE", clean(name, 60) or "FILE")
    return f"the file is {foreign.name}, which is not read; {remedy}."
