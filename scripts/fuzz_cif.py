"""Send mutated CIFs through the reader (or the score command): each is a record or one sentence, none hangs.

    python scripts/fuzz_cif.py --n 2000 --seed 1 --through read

Prints how many were good, refused and for which reasons, and the slowest; the exit code is 1 if an exception
escaped, a reason was no sentence, or a file took longer than the limit. Offenders are kept in --keep.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

SENTENCE = re.compile(r"[^;]+; [^;]+\.")
NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
ABSURD = [b"nan", b"inf", b"-inf", b"1e308", b"-1e308", b"1e400", b"0", b"-1", b"1e-300", b"1e15", b"?", b".",
          b"999999999999999999999", b"0.33333(12", b"1/0", b"0x10", b"1e7", b"5e3", b"0.0001"]  # fmt: skip


class Hang(BaseException):
    """A file took longer than the limit."""


def corpus() -> list[bytes]:
    """Return well-formed CIFs of many kinds to mutate."""
    import io

    from ase.build import bulk
    from ase.io import write
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.cif import CifWriter

    texts = []
    for atoms in (
        bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        bulk("Ti", "hcp", a=2.95, c=4.68),
        bulk("Si") * (2, 2, 2),
    ):
        buffer = io.BytesIO()
        write(buffer, atoms, format="cif")
        texts.append(buffer.getvalue())
    structures = [
        Structure.from_spacegroup(
            "Fd-3m", Lattice.cubic(8.08), ["Mg", "Al", "O"], [[0.0] * 3, [0.625] * 3, [0.387] * 3],
        ),
        Structure.from_spacegroup(
            "Pnma", Lattice.orthorhombic(10.3, 6.0, 4.7), ["Li", "Fe", "P", "O"],
            [[0, 0, 0], [0.28, 0.25, 0.97], [0.09, 0.25, 0.42], [0.17, 0.05, 0.28]],
        ),
        Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]),
        Structure(Lattice.hexagonal(3.2, 5.2), ["Zn2+", "O2-"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.38]]),
    ]  # fmt: skip
    for structure in structures:
        texts.append(str(CifWriter(structure)).encode())
        texts.append(str(CifWriter(structure, symprec=0.01)).encode())
        no_operations = re.sub(
            r"loop_\n _symmetry_equiv.*?(?=loop_\n _atom_site)", "", texts[-1].decode(), flags=re.S
        )
        texts.append(no_operations.encode())
    texts.append(texts[0] + b"\n" + texts[4])
    texts.append(
        b"data_t\n_publ_section_title\n;\n a 'title' with \"quotes\"\n;\n" + texts[3].split(b"\n", 1)[1]
    )
    magnetic = Structure(
        Lattice.cubic(2.9), ["Fe", "Fe"], [[0, 0, 0], [0.5] * 3], site_properties={"magmom": [2.2, -2.2]}
    )
    texts.append(str(CifWriter(magnetic, write_magmoms=True)).encode())
    return texts


def mutate(text: bytes, rng: np.random.Generator) -> bytes:
    """Return the text with one damage or a few."""
    for _ in range(int(rng.geometric(0.5))):
        text = MUTATIONS[int(rng.integers(len(MUTATIONS)))](text, rng)
    return text[:3_000_000]


def _flip_bytes(text: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(text)
    for _ in range(int(rng.integers(1, 12))):
        if data:
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return bytes(data)


def _drop_lines(text: bytes, rng: np.random.Generator) -> bytes:
    return b"\n".join(line for line in text.split(b"\n") if rng.random() > 0.05)


def _duplicate_lines(text: bytes, rng: np.random.Generator) -> bytes:
    return b"\n".join(line for line in text.split(b"\n") for _ in range(1 + (rng.random() < 0.08)))


def _shuffle_lines(text: bytes, rng: np.random.Generator) -> bytes:
    lines = text.split(b"\n")
    i, j = (int(k) for k in rng.integers(len(lines), size=2))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def _absurd_number(text: bytes, rng: np.random.Generator) -> bytes:
    found = list(NUMBER.finditer(text))
    if not found:
        return text
    match = found[int(rng.integers(len(found)))]
    return text[: match.start()] + ABSURD[int(rng.integers(len(ABSURD)))] + text[match.end() :]


def _scale_numbers(text: bytes, rng: np.random.Generator) -> bytes:
    factor = float(10.0 ** rng.uniform(-8, 8))
    chance = float(rng.uniform(0.02, 0.5))
    return NUMBER.sub(lambda m: b"%g" % (float(m[0]) * factor) if rng.random() < chance else m[0], text)


def _nudge_numbers(text: bytes, rng: np.random.Generator) -> bytes:
    return NUMBER.sub(lambda m: b"%.5f" % (float(m[0]) * rng.normal(1, 0.02)) if b"." in m[0] else m[0], text)


def _repeat_row(text: bytes, rng: np.random.Generator) -> bytes:
    lines = text.split(b"\n")
    i = int(rng.integers(len(lines)))
    row = lines[i]
    n = int(10 ** rng.uniform(1, 4.5))
    jittered = (
        [NUMBER.sub(lambda _: b"%.4f" % rng.random(), row) for _ in range(n)] if n < 3000 else [row] * n
    )
    return b"\n".join(lines[:i] + jittered + lines[i:])


def _cut(text: bytes, rng: np.random.Generator) -> bytes:
    return text[: int(rng.integers(len(text) + 1))]


def _insert_quote(text: bytes, rng: np.random.Generator) -> bytes:
    i = int(rng.integers(len(text) + 1))
    insert = (
        b"'",
        b'"',
        b"\n;\n",
        b"\nloop_\n",
        b"#",
        b"\ndata_x\n",
        b"\n_cell_length_a 1\n",
        b"\r",
        b"\xff\xfe",
    )
    return text[:i] + insert[int(rng.integers(len(insert)))] + text[i:]


def _swap_element(text: bytes, rng: np.random.Generator) -> bytes:
    symbols = (b"Po", b"D", b"X", b"Wat", b"Zz", b"Cm", b"OH", b"Fe3+", b"12")
    found = list(re.finditer(rb"\b[A-Z][a-z]?\b", text))
    if not found:
        return text
    match = found[int(rng.integers(len(found)))]
    return text[: match.start()] + symbols[int(rng.integers(len(symbols)))] + text[match.end() :]


MUTATIONS = (_flip_bytes, _drop_lines, _duplicate_lines, _shuffle_lines, _absurd_number, _absurd_number,
             _nudge_numbers, _nudge_numbers, _scale_numbers,
             _repeat_row, _cut, _insert_quote, _swap_element)  # fmt: skip


def through_read(path: Path) -> list[str | None]:
    """Return the reasons (None for good records) that the reader gives."""
    from mace_bounds.structures import read

    return [record.reason for record in read(path)]


def through_score(path: Path) -> list[str | None]:
    """Return what the score command says in-process, checking that its exit code agrees."""
    import json
    from functools import cache

    from typer.testing import CliRunner

    from mace_bounds import audit
    from mace_bounds.cli import app

    if not hasattr(audit.open_pair, "cache_info"):
        audit.open_pair = cache(audit.open_pair)  # the model is the same for every file
    result = CliRunner().invoke(app, ["score", str(path), "--model", "mini", "--format", "json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in (0, 1, 2):
        raise AssertionError(f"exit code {result.exit_code}")
    start = result.stdout.find("[")
    rows = json.loads(result.stdout[start:]) if start >= 0 else []
    reasons = [row["reason"] for row in rows]
    if (result.exit_code == 0) != any(reason is None for reason in reasons):
        raise AssertionError(f"exit code {result.exit_code} does not agree with the reasons {reasons[:3]}")
    return reasons


def _alarm(*_: object) -> None:
    raise Hang


def main() -> int:
    """Run the mutants and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--through", choices=("read", "score"), default="read")
    parser.add_argument("--limit-s", type=int, default=30)
    parser.add_argument("--keep", type=Path, default=None, help="folder for offending files")
    arguments = parser.parse_args()
    send = {"read": through_read, "score": through_score}[arguments.through]
    texts = corpus()
    rng = np.random.default_rng(arguments.seed)
    signal.signal(signal.SIGALRM, _alarm)
    warnings.simplefilter("error")  # a warning that escapes the reader is a fault
    good = refused = 0
    kinds: Counter[str] = Counter()
    faults: list[str] = []
    slowest = (0.0, -1)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first.cif"
        first.write_bytes(texts[0])
        send(first)  # imports, and loads the model where there is one: not part of any file's time
        for index in range(arguments.n):
            path = Path(folder) / "mutant.cif"
            data = mutate(texts[int(rng.integers(len(texts)))], rng)
            path.write_bytes(data)
            start = time.perf_counter()
            signal.alarm(arguments.limit_s)
            fault = ""
            try:
                reasons = send(path)
                bad = [r for r in reasons if r is not None]
                good += len(reasons) > len(bad)
                refused += len(reasons) == len(bad)
                kinds.update(re.sub(r"'[^']*'|-?\d[\d.e+-]*", "_", r)[:110] for r in bad)
                wrong = [r for r in bad if not (r.isprintable() and SENTENCE.fullmatch(r) and len(r) <= 400)]
                fault = f"not one sentence: {wrong[0]!r}" if wrong else "no record" if not reasons else ""
            except Hang:
                fault = f"longer than {arguments.limit_s} s"
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            finally:
                signal.alarm(0)
            slowest = max(slowest, (time.perf_counter() - start, index))
            if fault:
                faults.append(f"mutant {index}: {fault}")
                if arguments.keep is not None:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"mutant_{index}.cif").write_bytes(data)
    print(f"{arguments.n} mutants (seed {arguments.seed}) through {arguments.through}: {good} with a good record, "
          f"{refused} refused, {len(faults)} faults; slowest {slowest[0]:.1f} s (mutant {slowest[1]})")  # fmt: skip
    for kind, count in kinds.most_common(25):
        print(f"  {count:5d}  {kind}")
    for fault in faults[:20]:
        print("FAULT", fault[:300])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
