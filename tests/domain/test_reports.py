from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.reports import MOST_AHEAD, MOST_EPOCHS, ReportProgress


def after(progress: ReportProgress, *seqs: int, epoch: str = "e1") -> ReportProgress:
    for seq in seqs:
        progress = progress.seen(epoch, seq)
    return progress


def test_the_watermark_moves_over_contiguous_numbers_only() -> None:
    progress = after(ReportProgress("e1"), 1, 2, 4)
    assert (progress.watermark, progress.has_gap) == (2, True)
    progress = after(progress, 5, 3)
    assert (progress.watermark, progress.has_gap) == (5, False)


def test_what_comes_again_changes_nothing() -> None:
    progress = after(ReportProgress("e1"), 1, 2)
    assert after(progress, 1, 2) == progress


def test_a_new_journal_begins_at_one_and_the_last_one_is_over() -> None:
    progress = after(after(ReportProgress("e1"), 1, 2), 1, epoch="e2")
    assert (progress.epoch, progress.watermark, progress.earlier) == ("e2", 1, ("e1",))
    assert after(progress, 3, epoch="e1") == progress
    assert after(progress, 3, epoch="e3").has_gap


def test_neither_journals_nor_numbers_are_remembered_without_end() -> None:
    progress = ReportProgress("e0")
    for number in range(1, MOST_EPOCHS + 9):
        progress = progress.seen(f"e{number}", 1)
    assert len(progress.earlier) == MOST_EPOCHS
    many = ReportProgress("e", ahead=frozenset(range(10, 10 + MOST_AHEAD)))
    assert many.seen("e", 10**6) == many


_arrivals = st.lists(st.tuples(st.sampled_from(["e1", "e2", "e3"]), st.integers(1, 9)), max_size=60)


@given(_arrivals)
def test_the_watermark_is_the_longest_prefix_that_came_of_the_newest_journal(arrivals: list[tuple[str, int]]) -> None:
    progress, journals = ReportProgress("e1"), {"e1": {0}}  # in the order in which they were met
    for epoch, seq in arrivals:
        journals.setdefault(epoch, {0})
        newest = list(journals)[-1]
        came = journals[newest]
        if epoch == newest:
            came.add(seq)
        before, progress = progress, progress.seen(epoch, seq)
        assert progress.epoch == newest
        assert progress.watermark == next(number for number in range(10) if number + 1 not in came)
        assert progress.has_gap == (max(came) > progress.watermark)
        assert progress.epoch != before.epoch or progress.watermark >= before.watermark
        assert progress.seen(epoch, seq) == progress


@given(st.permutations(range(1, 30)))
def test_any_order_of_arrival_ends_at_the_last(order: list[int]) -> None:
    assert after(ReportProgress("e1"), *order) == ReportProgress("e1", 29)


def test_what_a_journal_has_forgotten_is_waited_for_no_longer() -> None:
    progress = after(ReportProgress("e1"), 1, 5, 6, 8).released("e1", 4)
    assert (progress.watermark, progress.ahead) == (6, frozenset({8}))
    assert progress.released("e1", 3) == progress
    followed = progress.released("e2", 3)
    assert (followed.epoch, followed.watermark, followed.earlier) == ("e2", 3, ("e1",))
    assert followed.released("e1", 99) == followed


def test_what_is_durable_is_known_of_this_journal_alone() -> None:
    progress = after(ReportProgress("e1"), 1, 2, 4)
    assert [progress.has("e1", seq) for seq in range(1, 6)] == [True, True, False, True, False]
    assert not progress.has("e0", 1)
