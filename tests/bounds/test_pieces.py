"""How a source is cut into what is computed together."""

from hypothesis import given
from hypothesis import strategies as st

from mace_bounds.bounds import MOST_ATOMS, MOST_STRUCTURES, pieces


@given(st.lists(st.integers(0, 2 * MOST_ATOMS), max_size=200))
def test_nothing_is_lost_and_no_piece_is_too_large(sizes):
    cut = list(pieces(sizes, int))
    assert [size for piece in cut for size in piece] == sizes
    assert all(piece for piece in cut)
    assert all(sum(piece) <= MOST_ATOMS or len(piece) == 1 for piece in cut)
    ends = set()
    for piece in cut:
        ends.add(max(ends, default=0) + len(piece))
    assert ends >= set(range(MOST_STRUCTURES, len(sizes) + 1, MOST_STRUCTURES))  # as shards are cut


def test_small_crystals_go_together_as_many_as_fit():
    assert [len(piece) for piece in pieces([8] * 150, int)] == [64, 64, 22]
    assert [len(piece) for piece in pieces([300] * 7, int)] == [3, 3, 1]


def test_a_stream_is_read_no_further_than_needed():
    taken = []

    def stream():
        for size in [8] * 200:
            taken.append(size)
            yield size

    cut = pieces(stream(), int)
    next(cut)
    assert len(taken) == MOST_STRUCTURES
