"""How often a property is tried, and from which seeds: the same few by default, so that a run of the tests never fails
by chance; others, and more, with the options `--seed` and `--examples`, which the gate gives.

A test from a seed of its own takes `seeds(…)`, one by hypothesis `settings(max_examples=examples(…))`:

    @pytest.mark.property
    def test_a_walk_is_exact() -> None:
        for seed in seeds(20):
            assert walked(random.Random(seed)) == expected, seed

    @pytest.mark.property
    @settings(max_examples=examples(100))
    @given(…)
    def test_a_page_goes_to_json_and_back(…) -> None: …

`pytest -m property --seed fresh --examples 2000` then tries each 2,000 times from seeds that were never tried; and
`pytest TEST --seed 4711 --examples 1` tries the one that failed.
"""

import math
import random

import hypothesis

FRESH = "fresh"
_seed: int | None = None
_examples: int | None = None


def seeds(few: int, *, share: float = 1) -> range:
    """The seeds to try: so many by default, that share of `--examples` where it is given."""
    first = _seed or 0
    return range(first, first + examples(few, share=share))


def examples(few: int, *, share: float = 1) -> int:
    """How many examples to try: so many by default, that share of `--examples` where it is given."""
    return few if _examples is None else max(1, math.ceil(_examples * share))


def parse_seed(given: str) -> int:
    """The number that was given, or a fresh one."""
    return random.SystemRandom().randrange(10**9) if given == FRESH else int(given)


def use(seed: int | None, number: int | None) -> None:
    """Use what the options say from now on; tests read it when they are imported, and when they run."""
    global _seed, _examples
    _seed, _examples = seed, number
    is_fixed = seed is None
    hypothesis.settings.register_profile(
        "tfruns",
        max_examples=50 if number is None else number,
        derandomize=is_fixed,
        database=None,
        deadline=None,  # a machine that is busy breaks no promise
        print_blob=True,
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.data_too_large,
            hypothesis.HealthCheck.filter_too_much,
            hypothesis.HealthCheck.function_scoped_fixture,
        ],
    )
    hypothesis.settings.load_profile("tfruns")
