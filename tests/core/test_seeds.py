"""Streams of random numbers: the same when asked for again, different when anything differs."""

from itertools import product

import torch

from selfsup.core.seeds import generator, seed_for


def test_every_seed_step_and_stream_has_a_seed_of_its_own() -> None:
    asked = list(product(range(8), range(32), ["views", "order", ""]))
    assert len({seed_for(*key) for key in asked}) == len(asked)


def test_digits_do_not_run_into_each_other() -> None:
    assert seed_for(1, 11, "views") != seed_for(11, 1, "views")
    assert seed_for(0, 1, "views") != seed_for(1, 0, "views")
    assert seed_for(1, 2, "3views") != seed_for(1, 23, "views")


def test_a_seed_fits_63_bits_and_uses_them() -> None:
    seeds = [seed_for(0, step, "views") for step in range(200)]
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63


def test_a_stream_starts_at_its_beginning_each_time() -> None:
    first = torch.rand(5, generator=generator(3, 7, "views"))
    again = torch.rand(5, generator=generator(3, 7, "views"))
    assert torch.equal(first, again)


def test_streams_share_no_numbers() -> None:
    asked = list(product([0, 1], [0, 1], ["views", "order"]))
    drawn = torch.stack([torch.rand(50, generator=generator(*key)) for key in asked])
    assert len(set(drawn.flatten().tolist())) == drawn.numel()


def test_a_stream_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(0, 0, "views"))
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_are_on_the_cpu_whatever_the_default_device() -> None:
    assert generator(0, 0, "views").device.type == "cpu"
