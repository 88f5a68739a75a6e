"""Reading structures: files in, records out."""

from mace_bounds.structures._record import Crystal, Record

__all__ = ["Crystal", "Record"]
