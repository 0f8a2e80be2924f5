"""The hour's history as columns."""

from __future__ import annotations

from monitoring.history import History, Sample


def sample(at: int, used: int = 50, **models: tuple[int, int, float]) -> Sample:
    return Sample(at, 100, used, 40, 90, 75, dict(models))


def test_it_works() -> None:
    history = History()
    history.add(sample(1, one=(5, 2, 1.5)))
    history.add(sample(2))
    assert history.columns(300, 300) == {
        "step": 1,
        "total": 100,
        "limit": 90,
        "gpu_limit": 75,
        "at": [1, 2],
        "used": [50, 50],
        "other": [40, 40],
        "models": {"one": {"weights": [5, 0], "kv": [2, 0], "rate": [1.5, 0.0]}},
    }


def test_an_empty_history_has_no_columns() -> None:
    assert History().columns(300, 300)["at"] == []


def test_it_keeps_an_hour() -> None:
    history = History(seconds=10)
    for at in range(30):
        history.add(sample(at))
    assert history.columns(300, 300)["at"] == list(range(20, 30))


def test_a_short_peak_is_not_lost() -> None:
    history = History()
    for at in range(100, 200):
        history.add(sample(at, used=99 if at == 133 else 50))
    columns = history.columns(100, 10)
    assert (columns["step"], len(columns["at"])) == (10, 10)
    assert 99 in columns["used"]


def test_one_sample_a_second_whatever_the_clock_does() -> None:
    history = History()
    for at in (100, 100, 99, 101):
        history.add(sample(at))
    assert history.columns(300, 300)["at"] == [100, 101]
    history.add(sample(10))  # set back by more than a minute: what came before would hide the present
    assert history.columns(300, 300)["at"] == [10]


def test_restored_samples_go_in_front() -> None:
    history = History()
    history.add(sample(50))
    history.prepend([sample(10), sample(50, used=1), sample(60)])
    assert history.columns(300, 300)["at"] == [10, 50]
    assert history.columns(300, 300)["used"] == [50, 50]
